"""Colours of the figures: Okabe-Ito, and the custom property by which a page recolours each."""

from __future__ import annotations

INK = "#1f2328"
MUTED = "#59636e"
LINE = "#d1d9e0"
PAPER = "#ffffff"
WASH = "#eef4fa"
BLUE = "#0072b2"
VERMILLION = "#d55e00"
GREEN = "#009e73"

PROPERTIES = {
    INK: "--cr-ink",
    MUTED: "--cr-muted",
    LINE: "--cr-line",
    PAPER: "--cr-paper",
    WASH: "--cr-wash",
    BLUE: "--cr-blue",
    VERMILLION: "--cr-vermillion",
    GREEN: "--cr-green",
}
