"""Write requirements.lock: resolve what pyproject.toml asks for in a fresh environment, and pin all of it.

    python .ci/lock.py [--prefer CONSTRAINTS]

Run it through ``make lock``. `--prefer` names a pip constraints file whose versions are kept where given.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("text", "minilm", "polars", "finetune", "onnx", "notebook")
GROUPS = ("dev",)
TORCH = "torch==2.13.0"  # later ones bring gigabytes of GPU packages
EDITABLE = "editables"  # what hatchling needs for `pip install --no-build-isolation -e .`
HEADER = """\
# Every package that `make demo` and `make test` install, pinned. Written by `make lock`; do not edit by hand.
# Covers: the core, the extras {extras}, the dependency group {groups}, and the build backend.
# Resolved on Python {python}.
"""


def wanted() -> list[str]:
    """What pyproject.toml asks for, and the pin of torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    return [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(r for extra in EXTRAS for r in extras[extra]),
        *(r for group in GROUPS for r in project["dependency-groups"][group]),
        TORCH,
        EDITABLE,
    ]


def resolve(prefer: Path | None) -> list[str]:
    """``name==version`` of all that a fresh environment holds after the installation."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip", "--disable-pip-version-check"]
        kept = ["-c", str(prefer)] if prefer else []
        subprocess.run([*pip, "install", "--quiet", *kept, *wanted()], check=True)
        frozen = subprocess.check_output([*pip, "list", "--format=freeze"], text=True)
    pins = [line.partition("+")[0] for line in frozen.splitlines()]  # "+cpu" is the build of one machine
    return sorted((p for p in pins if p.partition("==")[0] not in ("pip", "wheel")), key=str.lower)


def main() -> None:
    """Resolve, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefer", type=Path, default=None)
    options = parser.parse_args()
    head = HEADER.format(
        extras=", ".join(EXTRAS), groups=", ".join(GROUPS), python=".".join(map(str, sys.version_info[:2]))
    )
    lines = resolve(options.prefer)
    (ROOT / "requirements.lock").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    main()
