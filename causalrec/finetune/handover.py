"""The tuned encoder as a folder of its own: ``config.json``, weights, tokenizer, and whose clicks it saw."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causalrec.errors import TrainingError
from causalrec.finetune.fitting import most_tokens
from causalrec.finetune.folder import check_replaced, copy_beside, written
from causalrec.represent.text import SEEN_UNITS, TextEmbedder

if TYPE_CHECKING:
    from causalrec.finetune.ranker import Ranker

TOKENIZER = "tokenizer_config.json"


def write_encoder(ranker: Ranker, folder: Path) -> TextEmbedder:
    """Fold what was learnt into the encoder's weights, write it, and return it as a ``TextEmbedder``.

    Raises
    ------
    TrainingError
        A prefix or a prompt is no part of an encoder's weights.
    OutputError
        The folder holds something else, or cannot be written.
    """
    if not ranker.adapter.mergeable:
        raise TrainingError(
            f"a {ranker.adapter.name} cannot be folded into an encoder's weights, so that there is no encoder to hand over; take LoRA(), IA3() or "
            "FullTuning(). The ranker itself scores as ever."
        )
    from causalrec.represent.encoder import _quiet_loading as quiet_loading

    check_replaced(folder, SEEN_UNITS, "no ranker's encoder was written there")
    with written(folder, "the encoder") as part:
        encoder = copy.deepcopy(ranker.trained.network.texts.encoder).cpu()
        if hasattr(encoder, "merge_and_unload"):
            encoder = encoder.merge_and_unload()
        copy_beside(ranker.base._files().folder, part)
        _read_at_most(part, most_tokens(ranker.trained.network, ranker.adapter, ranker.training.max_length))
        with quiet_loading():
            encoder.save_pretrained(part)
        np.save(part / SEEN_UNITS, ranker.seen_units)
    return TextEmbedder(
        str(folder), device=ranker.training.device, max_length=ranker.training.max_length, progress=ranker.training.progress
    )


def _read_at_most(folder: Path, tokens: int) -> None:
    """Let the tokenizer in a folder cut texts where training did, whoever loads it."""
    file = folder / TOKENIZER
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps(told | {"model_max_length": tokens}, indent=2, ensure_ascii=False), encoding="utf-8")
