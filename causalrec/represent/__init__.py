"""What did the words say? Frozen encoders, their cache on disk, and the representation blocks of a log."""

from causalrec.represent.embed import embed
from causalrec.represent.text import TextEmbedder

__all__ = ["TextEmbedder", "embed"]
