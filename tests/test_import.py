"""What `import causalrec` loads, and that a verb and its sub-package share a name in peace."""

from __future__ import annotations

import subprocess
import sys

import pytest

import causalrec as cr

HEAVY = ("torch", "transformers", "econml", "dowhy", "matplotlib", "numba")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "statement",
    [
        "import causalrec",
        "from causalrec import read_log, identify, CausalRecError",
        "import causalrec.cli",
    ],
)
def test_nothing_heavy_is_loaded(statement: str) -> None:
    loaded = run(f"import sys; {statement}; print(*(m for m in {HEAVY} if m in sys.modules))")
    assert loaded == ""


def test_the_package_alone_loads_no_pandas() -> None:
    loaded = run("import sys, causalrec; print(*(m for m in ('pandas', 'sklearn') if m in sys.modules))")
    assert loaded == ""


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"'causalrec' has no attribute 'estimat'; it has .*'estimate'"):
        cr.estimat  # noqa: B018


@pytest.mark.parametrize("name", cr.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(cr, name) is not None
    assert name in dir(cr)


@pytest.mark.parametrize("verb", ["identify", "estimate", "uplift", "report"])
def test_the_verb_wins_over_its_sub_package(verb: str) -> None:
    shown = run(
        "import importlib; import causalrec as cr; "
        f"room = importlib.import_module('causalrec.{verb}'); "
        f"print(type(cr.{verb}).__name__, type(room).__name__)"
    )
    assert shown == "function module"


def test_classes_of_a_sub_package_beside_its_verb() -> None:
    code = "from causalrec.estimate import DoublyRobust; import causalrec as cr; print(cr.estimate.__name__)"
    assert run(code) == "estimate"
