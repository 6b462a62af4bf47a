"""A report in a real browser: it renders, in light, in dark and on paper."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from causalrec.report import report

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH (Debian: apt install chromium)")


@pytest.fixture(scope="module")
def saved(case, tmp_path_factory) -> Path:
    return report(*case).save(tmp_path_factory.mktemp("page") / "report.html")


def browse(saved: Path, folder: Path, *flags: str) -> str:
    """Open the page and return what the browser prints."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, saved.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_dom_has_every_heading_and_figure(saved, tmp_path) -> None:
    dom = browse(saved, tmp_path, "--dump-dom")
    assert re.findall(r"<h2>([^<]+)</h2>", dom) == [
        "The answer",
        "The data and the design",
        "The effect against the naive answer",
        "For whom?",
        "Would it survive a sceptic?",
        "How strong would a hidden cause have to be?",
        "What is assumed, and what would overturn it",
        "How to reproduce it",
    ]
    assert dom.count('<svg viewBox="') == dom.count("</svg>") == 10


def test_light_and_dark(saved, tmp_path) -> None:
    pictures = {}
    for theme, flags in (("light", ()), ("dark", ("--force-dark-mode",))):
        shot = tmp_path / f"{theme}.png"
        browse(saved, tmp_path, f"--screenshot={shot}", "--window-size=900,3000", *flags)
        pictures[theme] = imread(shot)[..., :3].mean(axis=2)
    assert pictures["light"].shape == pictures["dark"].shape == (3000, 900)
    assert np.median(pictures["light"]) > 0.95
    assert np.median(pictures["dark"]) < 0.15
    for picture in pictures.values():
        contrast = np.abs(picture - np.median(picture)) > 0.4
        assert 0.01 < contrast.mean() < 0.3


def test_no_sideways_scrolling_on_a_phone(saved, tmp_path) -> None:
    """The browser cannot be narrower than 500 px; in there the page must not be cut at the right."""
    shot = tmp_path / "phone.png"
    browse(saved, tmp_path, f"--screenshot={shot}", "--window-size=500,9000")
    picture = imread(shot)[..., :3].mean(axis=2)
    assert np.ptp(picture[:, -8:]) < 0.02


def test_on_paper(saved, tmp_path) -> None:
    paper = tmp_path / "report.pdf"
    browse(saved, tmp_path, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    data = paper.read_bytes()
    assert data.startswith(b"%PDF")
    assert 5 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 20
