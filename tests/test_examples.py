"""The research-style script runs, and its estimators are nearer to the truth than the naive comparison."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "examples" / "compare_estimators.py"


@pytest.mark.slow
def test_compare_estimators():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--n", "4000", "--seeds", "2"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {re.split(r"  +", line)[0]: float(line.split()[-1]) for line in done.stdout.splitlines()[2:]}
    assert len(rows) == 4
    naive = rows.pop("difference in means")
    assert naive > 0.02
    assert all(abs(error) < naive / 2 for error in rows.values())
