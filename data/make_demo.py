"""Write data/demo.parquet and data/demo.json: the demo log is simulated, and this script is all there is to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from causalrec.datasets import simulate
from causalrec.datasets.simulate import ROLES

SEED = 2026  # the year; fixed before the first run, and not to be picked by its result
N = 20_000
FOLDER = Path(__file__).resolve().parent


def main(folder: Path = FOLDER) -> None:
    """Simulate with the default knobs and write the log, its roles and its truth; the shop has not logged its score."""
    simulation = simulate(N, random_state=SEED)
    path = folder / "demo.parquet"
    simulation.truth_frame().drop(columns="score").to_parquet(path, index=False)
    card = {
        "made_by": f"causalrec.simulate({N}, random_state={SEED})",
        "seed": SEED,
        "n": N,
        "licence": "CC0-1.0",
        "roles": ROLES,
        "truth": {name: getattr(simulation, name) for name in ("ate", "att", "ato", "naive")},
        "unit": "clicks per impression",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    (folder / "demo.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(simulation.summary())


if __name__ == "__main__":
    main()
