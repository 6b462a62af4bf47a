"""Several processes that train together take the steps of one with batches as large as theirs together."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import causalrec as cr
from causalrec.errors import ArgumentError
from causalrec.finetune import processes
from causalrec.finetune.batches import RowNumbers, Shares, WholeUsers
from causalrec.finetune.objectives import Memory
from causalrec.finetune.processes import batches_of

RUN = """
import json, sys, numpy as np, causalrec as cr
from causalrec.finetune import processes
folder, size, objective, loss = sys.argv[1], int(sys.argv[2]), getattr(cr, sys.argv[3])(), sys.argv[4]
log = cr.embed(cr.simulate(1500, n_users=150, n_items=30, random_state=990001).log(), cr.TextEmbedder(progress=False))
def train():
    return cr.finetune(log, objective=objective, epochs=2, random_state=0, output=folder, head=cr.Head(dropout=0.0, item_effects=True),
                       weighing=cr.Weighing(nuisances=cr.NuisanceRecipe(*[cr.RidgeLogistic(variances=(0.1,))] * 2)),
                       training=cr.Training(progress=False, batch_size=size, loss=loss))
first, again = train(), train()
first.save(folder + "-ranker")
np.savez(f"{folder}-{processes.number()}.npz", first=first.score_log(log), again=again.score_log(log), units=log.units)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "loss"), [("MRDR", "pointwise"), ("POEM", "pointwise"), ("DR", "pairwise")])
def test_two_processes_end_where_one_does(objective: str, loss: str, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    own = os.environ | {"OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for line in ([sys.executable, str(script), str(tmp_path / "one"), "256"], [*launch, str(script), str(tmp_path / "two"), "128"]):
        done = subprocess.run([*line, objective, loss], env=own, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    one, first, second = (np.load(tmp_path / f"{n}.npz") for n in ("one-0", "two-0", "two-1"))
    alike = [f if loss == "pointwise" else f - (np.bincount(u, f) / np.bincount(u))[u] for f, u in ((r["first"], r["units"]) for r in (first, one))]
    np.testing.assert_allclose(*alike, atol=1e-5)  # pairs say nothing of what a user's rows share
    np.testing.assert_array_equal(first["first"], second["first"])
    np.testing.assert_array_equal(first["first"], first["again"])  # called again, a run that is over is read and not trained on
    np.testing.assert_array_equal(second["first"], second["again"])
    assert json.loads((tmp_path / "two" / "run" / "run.json").read_text())["processes"] == 2
    assert cr.Ranker.load(tmp_path / "two-ranker").objective.name == getattr(cr, objective)().name


def test_several_processes_need_a_folder_that_all_see(monkeypatch: pytest.MonkeyPatch, small_log: cr.ImpressionLog) -> None:
    for name, value in (("LOCAL_RANK", "1"), ("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match=r"2 processes train together.*output="):
        cr.finetune(small_log, objective=cr.Naive(), random_state=0)


@given(st.integers(2, 400), st.integers(2, 60), st.integers(1, 5), st.integers(0, 3))
def test_each_row_is_some_process_s_once_in_each_epoch(n: int, size: int, processes: int, epoch: int) -> None:
    order = WholeUsers(np.arange(n) // 7, seed=3)
    shares = [Shares(order, size, p, processes) for p in range(processes)]
    for one in shares:
        one.set_epoch(epoch)
    batches = [list(one) for one in shares]
    assert {len(b) for b in batches} == {len(shares[0])} == {batches_of(n, size, processes)}
    together = [i for step in zip(*batches, strict=True) for part in step for i in part]
    assert together == list(order)
    if n >= processes:
        assert all(part for b in batches for part in b)  # an empty share would be a step that others wait for
    assert all(len(part) < size + processes + 7 for b in batches for part in b)
    for step in zip(*batches, strict=True):
        users = [{i // 7 for i in part} for part in step]
        if len(set().union(*users)) >= processes:  # a user's rows of one step stay together
            assert sum(map(len, users)) == len(set().union(*users))


def test_others_meet_the_refusal_that_the_first_process_met(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(processes, "wait", lambda: waited.append(processes.number()))
    for number in ("0", "1"):
        for name, value in (("LOCAL_RANK", number), ("RANK", number), ("WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match="refused"), processes.first_goes_first():
            raise ValueError("refused")
    assert waited == [0, 1]  # the first lets the others go on, though it was refused


def test_moments_are_those_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process with two rows and another with three, whose sums are added."""
    u = torch.tensor([1.0, 2.0, 3.0, 5.0, 8.0])
    whole, part = Memory(torch.zeros(3)), Memory(torch.zeros(3))
    others = torch.stack([torch.tensor(3.0), u[2:].sum(), (u[2:] ** 2).sum()])
    expected = whole.moments(u)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: sums.add_(others))
    assert torch.allclose(torch.stack(part.moments(u[:2])), torch.stack(expected))


def test_the_speed_benchmark_takes_the_same_batches_on_either_side() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "training_speed.py"
    spec = importlib.util.spec_from_file_location("training_speed", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    units = np.random.default_rng(0).integers(0, 30, 400)
    args = SimpleNamespace(seed=7, per_device_train_batch_size=64, process_index=0, world_size=1)
    side = SimpleNamespace(units=units, args=args, train_dataset=RowNumbers(400), data_collator=list)
    plain, ours = (list(of.get_train_dataloader(side)) for of in (module.Plain, module.DebiasedTrainer))
    assert plain == ours
