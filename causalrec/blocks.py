"""A representation block: a matrix of distinct rows and, for each impression, which of them it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from causalrec.errors import RepresentationError


@dataclass(frozen=True, eq=False)
class Block:
    """What one text column (or a pair of them) says, as numbers; one node of the causal graph.

    An impression log repeats few texts many times, so the block keeps each distinct vector once.
    Row i of the log has the vector ``values[codes[i]]``.

    Attributes
    ----------
    name : str
        ``"text:title"``, ``"history:clicked"``, ``"match:clicked~title"`` …; also the node's name.
    kind : str
        ``"text"``, ``"history"`` or ``"match"``.
    values : (u, d) float32
        Distinct vectors.
    codes : (n,) int64
        Index into ``values`` of each impression.
    columns : tuple of str
        The columns of the log that the block was read from.
    made_by : str
        Fingerprint of what made it (model, revision, pooling …).
    keys : (u,) uint64, optional
        Hash of what each distinct vector was made of (its text), so that folds do not depend on the last bits
        of a vector; a hash of the vectors where it is not given.
    texts : (u,) tuple of str, optional
        The distinct texts themselves, of a text block, for representations that are learnt inside the folds.
    """

    name: str
    kind: str
    values: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int64]
    columns: tuple[str, ...]
    made_by: str
    keys: npt.NDArray[np.uint64] | None = None
    texts: tuple[str, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.codes.ndim != 1:
            raise RepresentationError(
                f"block {self.name!r}: values has shape {self.values.shape}, codes {self.codes.shape}; must be (u, d) and (n,)."
            )
        if not np.isfinite(self.values).all():
            bad = int((~np.isfinite(self.values).all(axis=1)).sum())
            raise RepresentationError(
                f"block {self.name!r} ({self.made_by}) has NaN or infinity in {bad:,} of {len(self.values):,} distinct rows; "
                "the transformer that made it must return finite numbers."
            )

    @property
    def n_rows(self) -> int:
        """Impressions, n."""
        return len(self.codes)

    @property
    def width(self) -> int:
        """Columns, d."""
        return int(self.values.shape[1])

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Block:
        """The same block for some impressions only; the distinct vectors are shared, not copied."""
        return replace(self, codes=self.codes[rows])

    def dense(self) -> npt.NDArray[np.float32]:
        """The ``(n, d)`` matrix itself."""
        return self.values[self.codes]
