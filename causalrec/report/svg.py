"""A figure as inline SVG: the same bytes every time, described in words, recoloured by the page."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from causalrec.errors import ArgumentError
from causalrec.report.palette import PROPERTIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

SMALLEST = 0.65  # of its own size: below that a figure scrolls, so that its words stay legible
DOTS = 150  # an inch, in a PNG
FONTS = "'DejaVu Sans', Verdana, sans-serif"
NAME = re.compile(r"[a-z][a-z0-9-]*")
HASH = re.compile(r"(?<=\w)[0-9a-f]{10}$")
POINTER = re.compile(r"url\(#([^)]+)\)")


def to_svg(figure: Figure | SubFigure, name: str, *, title: str, description: str) -> str:
    """Write a figure as an ``<svg>`` element for an HTML page.

    Text stays text, colours of ``palette`` become custom properties with the colour as their fallback, and
    nothing points out of the page: no metadata, no date, no namespace address.

    Parameters
    ----------
    figure : matplotlib Figure
    name : str
        Prefix of every id in the element; give each figure of a page its own.
    title, description : str
        Read out by screen readers: what the figure is, and what it shows.

    Returns
    -------
    str
        The same bytes for the same figure.

    Raises
    ------
    ArgumentError
        `name` cannot be an id, or `title` or `description` is empty.
    """
    if not NAME.fullmatch(name):
        raise ArgumentError(f"name is {name!r}; must be lower-case letters, digits and hyphens, to be an id.")
    for text, what in ((title, "title"), (description, "description")):
        if not text.strip():
            raise ArgumentError(f"{what} is empty; say what the figure shows, for readers who cannot see it.")
    root = ElementTree.fromstring(_written(figure))
    _strip(root)
    _rename(root, name)
    _recolour(root)
    _describe(root, name, title, description)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def picture_file(figure: Figure | SubFigure, path: Path) -> Path:
    """Write a drawn figure to a ``.png`` or ``.svg`` file, on white, without a date: the same bytes every time.

    Its layout stays as it was drawn: laying it out anew would move it by a rounding error.
    """
    import matplotlib

    figure.figure.set_layout_engine("none")
    kind = path.suffix.removeprefix(".")
    dated: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with (
        matplotlib.rc_context({"svg.hashsalt": "causalrec"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.figure.savefig(path, dpi=DOTS, facecolor="white", bbox_inches="tight", metadata=dated)
    return path


def _written(figure: Figure | SubFigure) -> str:
    """What matplotlib writes, without a date and with ids that depend on the content only."""
    import matplotlib

    buffer = io.StringIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "causalrec"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from"
        )  # the reader's browser has the glyph
        figure.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _strip(root: ElementTree.Element) -> None:
    """Drop namespaces, metadata, fixed sizes and style rules that would reach the page around the figure."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in list(element.attrib):
            plain = key.rpartition("}")[2]
            if plain != key:
                element.set(plain, element.attrib.pop(key))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    width = root.attrib.pop("width")
    root.attrib.pop("height")
    root.attrib.pop("version", None)
    pixels = float(width.removesuffix("pt")) * 4 / 3
    sizes = f"max-width:{pixels:.0f}px;min-width:{SMALLEST * pixels:.0f}px"
    root.set("style", f"{sizes};stroke-linejoin:round;stroke-linecap:butt")


def _rename(root: ElementTree.Element, name: str) -> None:
    """Put the figure's name before every id and every pointer to one, and count where matplotlib hashes.

    It hashes the places of clips and markers to the last digit; where models add numbers up in several threads, that
    digit differs from run to run, and nothing that can be seen does.
    """
    new: dict[str, str] = {}
    for element in root.iter():
        if (old := element.get("id")) is not None:
            new[old] = f"{name}-{HASH.sub(str(len(new)), old)}"
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, new[value])
            elif key == "href" and value.startswith("#"):
                element.set(key, f"#{new[value[1:]]}")
            elif "url(#" in value:
                element.set(key, POINTER.sub(lambda found: f"url(#{new[found[1]]})", value))


def _recolour(root: ElementTree.Element) -> None:
    """Replace the palette's colours by custom properties, and name fonts that look alike."""
    for element in root.iter():
        style = element.get("style", "")
        for colour, custom in PROPERTIES.items():
            style = style.replace(f": {colour}", f": var({custom}, {colour})")
        style = re.sub(r"(font(?:-family)?:[^;]*?)'DejaVu Sans'[^;]*", rf"\1{FONTS}", style)
        if style:
            element.set("style", style)
        if element.tag == "text" and "fill:" not in style:
            element.set("style", f"{style}; fill: currentColor".lstrip("; "))


def _describe(root: ElementTree.Element, name: str, title: str, description: str) -> None:
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(place, element)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
