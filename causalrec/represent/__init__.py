"""What did the words say? Frozen encoders, their cache on disk, and the representation blocks of a log."""

from causalrec.represent.embed import embed
from causalrec.represent.lexical import LexicalStyle, lexical_blocks
from causalrec.represent.ngrams import WordNgrams, ngram_blocks
from causalrec.represent.text import TextEmbedder

__all__ = ["LexicalStyle", "TextEmbedder", "WordNgrams", "embed", "lexical_blocks", "ngram_blocks"]
