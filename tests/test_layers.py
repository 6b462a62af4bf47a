"""The rooms of ARCHITECTURE.md: an import may only point upwards in the list below."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "causalrec"
ROOMS = (
    {"errors"},
    {"_checks", "_display", "_treatment", "_values", "blocks", "units", "table"},
    {"log", "reading"},
    {"scores", "kernels", "joint"},
    {"second_order"},
    {"datasets"},
    {"represent"},
    {"dag", "graph", "_plan_wording", "identify"},
    {"nuisance"},
    {"estimate"},
    {"check"},
    {"uplift"},
    {"offpolicy"},
    {"experiment"},
    {"finetune"},
    {"report"},
    {"_manifest", "_stored", "saved"},
    {"settings", "pipeline", "doctor", "cli", "__init__", "__main__"},
)
FLOOR = {name: floor for floor, room in enumerate(ROOMS) for name in room}
UNNAMED = {"utils", "base", "common", "config", "helpers", "misc"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The first part of a module's place in the package: 'nuisance' for causalrec/nuisance/ridge.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(source: str) -> list[tuple[int, str]]:
    """(line, room) of every import of causalrec in a module's source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                found.append((node.lineno, "a relative import"))
                continue
            module = node.module or ""
            names = [f"{module}.{a.name}" for a in node.names] if module == "causalrec" else [module]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "causalrec":
                found.append((node.lineno, parts[1] if len(parts) > 1 else "__init__"))
    return found


def offences(path: Path, source: str) -> list[str]:
    """What a module imports from its own floor's neighbours below, in words."""
    own = room_of(path)
    wrong = []
    for line, room in imported_rooms(source):
        if own == "__init__" or room in (own, "__version__"):
            continue
        if FLOOR.get(room, len(ROOMS)) > FLOOR[own]:
            wrong.append(f"{path.name}:{line}: {own} imports {room}")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_upwards(path: Path) -> None:
    assert room_of(path) in FLOOR, f"{room_of(path)} has no place in the list of rooms"
    assert offences(path, path.read_text(encoding="utf-8")) == []


def test_no_room_for_leftovers() -> None:
    assert len(FILES) > 20
    assert [p for p in FILES if p.stem in UNNAMED] == []


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("scores.py", "from causalrec.log import ImpressionLog", 0),
        ("log.py", "from causalrec.nuisance import Clip", 1),
        ("log.py", "def f():\n    import causalrec.report.html", 1),
        ("nuisance/ridge.py", "from causalrec.nuisance.options import Clip", 0),
        ("estimate/ate.py", "from causalrec import scores, uplift", 1),
        ("check/refute.py", "import causalrec as cr", 1),
        ("check/refute.py", "from . import balance", 1),
        ("cli.py", "from causalrec import estimate, __version__", 0),
    ],
)
def test_the_test_itself(module: str, source: str, count: int) -> None:
    assert len(offences(PACKAGE / module, source)) == count
