"""How results show themselves: a subclass says its rows, the mixin makes text, HTML and a frame of them."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def fmt(value: Any, name: str = "") -> str:
    """One value as a person reads it; the field's name decides: ``share_*`` as %, ``p_value`` as such."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    try:
        x = float(value)
    except (TypeError, ValueError):
        return str(value)
    if x != x:
        return "–"
    if abs(x) == float("inf"):
        return "∞" if x > 0 else "−∞"
    if name.startswith("share_"):
        return f"{100 * x:.1f} %"
    if name in ("p_value", "p_holm"):
        return "< .001" if x < 0.001 else f"{x:.3f}"
    if x == int(x) and abs(x) < 1e15 and abs(x) >= 100:
        return f"{int(x):,}"
    return f"{x:.4g}" if abs(x) < 1000 else f"{x:,.0f}"


class Displayable:
    """Mixin: implement ``_title()`` and ``_rows()``; optionally ``_notes()`` (plain sentences below the table)."""

    def _title(self) -> str:
        return type(self).__name__

    def _rows(self) -> list[dict[str, Any]]:
        """The table: a list of records that share their keys."""
        raise NotImplementedError

    def _notes(self) -> list[str]:
        return []

    def to_frame(self) -> pd.DataFrame:
        """The result as a DataFrame, one record a row, numbers unrounded."""
        import pandas as pd

        return pd.DataFrame(self._rows())

    def summary(self) -> str:
        """The result as plain text for a terminal."""
        rows = self._rows()
        parts = [self._title()]
        if rows:
            keys = list(rows[0])
            cells = [[fmt(r[k], k) for k in keys] for r in rows]
            widths = [max(len(k), *(len(c[j]) for c in cells)) for j, k in enumerate(keys)]
            widths = [min(w, 100) for w in widths]
            parts.append("  ".join(k.ljust(w) for k, w in zip(keys, widths, strict=True)).rstrip())
            parts += ["  ".join(v.ljust(w) for v, w in zip(c, widths, strict=True)).rstrip() for c in cells]
        return "\n".join(parts + [f"  · {n}" for n in self._notes()])

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        """An HTML fragment for notebooks: no script, no style sheet from elsewhere, everything escaped."""
        rows = self._rows()
        out = [f"<div><p><strong>{html.escape(self._title())}</strong></p>"]
        if rows:
            head = "".join(f'<th scope="col" style="text-align:left">{html.escape(k)}</th>' for k in rows[0])
            body = "".join(
                "<tr>"
                + "".join(f'<td style="text-align:left">{html.escape(fmt(v, k))}</td>' for k, v in r.items())
                + "</tr>"
                for r in rows
            )
            out.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        if notes := self._notes():
            out.append("<ul>" + "".join(f"<li>{html.escape(n)}</li>" for n in notes) + "</ul>")
        return "".join(out) + "</div>"
