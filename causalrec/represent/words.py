"""What counts as a word, for every reading of topics: letters only, at least two, no English stop word."""

from __future__ import annotations

from typing import Any

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

WORDS: dict[str, Any] = {
    "stop_words": sorted(ENGLISH_STOP_WORDS),
    "token_pattern": r"(?u)\b[^\W\d_]{2,}\b",
}
"""Options of scikit-learn's vectorizers."""
