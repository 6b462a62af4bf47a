from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from causalrec.errors import ArgumentError
from causalrec.report.palette import BLUE, INK, PROPERTIES
from causalrec.report.svg import _written, to_svg


def draw(label: str = "label") -> Figure:
    figure = Figure(figsize=(3, 2), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1], [1, 0], marker="D", color=BLUE)
    ax.fill_between([0, 1], [0, 0], [1, 2], color=BLUE, alpha=0.2)
    ax.set_xlabel(label, color=INK)
    return figure


def svg(name: str = "one", label: str = "label") -> str:
    return to_svg(draw(label), name, title="A <title>", description="Two & more")


def test_same_figure_same_bytes() -> None:
    assert svg() == svg()


def test_described_for_screen_readers() -> None:
    root = ElementTree.fromstring(svg())
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "one-title one-desc"
    assert [(e.get("id"), e.text) for e in root[:2]] == [
        ("one-title", "A <title>"),
        ("one-desc", "Two & more"),
    ]


def test_nothing_points_out_of_the_page() -> None:
    text = svg()
    assert "http" not in text
    assert "<style" not in text
    assert "metadata" not in text
    assert not re.search(r"\d{4}-\d\d-\d\dT", text)


def test_ids_are_unique_on_a_page_and_every_pointer_has_its_target() -> None:
    root = ElementTree.fromstring(f"<div>{svg('one')}{svg('two')}</div>")
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids)) > 20
    pointers = {e.get("href")[1:] for e in root.iter() if e.get("href")}
    pointers |= set(re.findall(r"url\(#([^)]+)\)", ElementTree.tostring(root, encoding="unicode")))
    assert pointers
    assert pointers <= set(ids)


def test_the_page_decides_the_colours() -> None:
    text = svg()
    for colour in (BLUE, INK):
        assert f"var({PROPERTIES[colour]}, {colour})" in text
        assert text.count(colour) == text.count(f"var({PROPERTIES[colour]}, {colour})")
    black_text = to_svg(draw_black_text(), "three", title="t", description="d")
    assert re.search(r"<text[^>]*fill: ?currentColor", black_text)


def draw_black_text() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.text(0.5, 0.5, "black", color="black")
    return figure


def test_words_stay_words() -> None:
    assert "a &lt;b&gt; — ключ 🎯" in svg(label="a <b> — ключ 🎯")
    assert "Verdana" in svg()


@pytest.mark.parametrize(
    ("name", "title", "description", "message"),
    [
        ("", "t", "d", "name is ''"),
        ("1a", "t", "d", "name is '1a'; must be lower-case"),
        ("a b", "t", "d", "name is 'a b'"),
        ("a", " ", "d", "title is empty"),
        ("a", "t", "", "description is empty"),
    ],
)
def test_bad_input(name: str, title: str, description: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        to_svg(draw(), name, title=title, description=description)


def test_the_last_digit_of_a_number_changes_nothing() -> None:
    """Models that add up in several threads differ there from run to run."""

    def drawn(shift: float) -> Figure:
        figure = Figure(figsize=(4, 3))
        figure.add_axes((0.1 + shift, 0.1, 0.8, 0.8)).plot([0.0, 1.0], [0.1, 0.7], "o-")
        return figure

    assert _written(drawn(0.0)) != _written(drawn(3e-14))
    first, second = (to_svg(drawn(shift), "f", title="a", description="b") for shift in (0.0, 3e-14))
    assert first == second
