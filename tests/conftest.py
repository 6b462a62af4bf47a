"""Fixtures that the rooms share: small logs with a known truth, and one embedded by the real encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from small_logs import ROLES, World, make_world

import causalrec as cr


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture(scope="session")
def log(world: World) -> cr.ImpressionLog:
    return cr.read_log(world.frame, **ROLES)


@pytest.fixture(scope="session")
def plan(log: cr.ImpressionLog) -> cr.Plan:
    return cr.identify(log)


@pytest.fixture(scope="session")
def fit(log: cr.ImpressionLog, plan: cr.Plan) -> cr.Fit:
    return cr.estimate(log, plan, random_state=0)


@pytest.fixture
def analysed() -> Callable[..., cr.Fit]:
    """From a frame with the usual columns to its fit, with few folds for speed."""

    def run(frame: Any, **changed: Any) -> cr.Fit:
        log = cr.read_log(frame, **{**ROLES, **changed})
        return cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)

    return run


@pytest.fixture(scope="session")
def embedded() -> tuple[cr.datasets.Simulation, cr.ImpressionLog]:
    """A simulated log and the same log embedded by the real, pretrained encoder."""
    sim = cr.simulate(2000, n_users=400, n_items=80, random_state=3)
    encoder = cr.TextEmbedder(cache_dir=False, device="cpu", progress=False)
    return sim, cr.embed(sim.log(history=False), encoder)
