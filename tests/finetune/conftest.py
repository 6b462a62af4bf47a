"""One small log with its blocks, for all tests of fine-tuning."""

from __future__ import annotations

import pytest

import causalrec as cr


@pytest.fixture(scope="session")
def small_log() -> cr.ImpressionLog:
    return cr.embed(cr.simulate(2_400, n_users=240, n_items=60, random_state=990_001).log(), cr.TextEmbedder(progress=False))


ONE = cr.RidgeLogistic(variances=(0.1,))


@pytest.fixture(scope="session")
def weighing() -> cr.Weighing:
    """Nuisances without a search, for speed."""
    return cr.Weighing(nuisances=cr.NuisanceRecipe(ONE, ONE))


@pytest.fixture(scope="session")
def quick() -> cr.Training:
    return cr.Training(progress=False, batch_size=256)


@pytest.fixture(scope="session")
def ranker(
    small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing, tmp_path_factory: pytest.TempPathFactory
) -> cr.Ranker:
    folder = tmp_path_factory.mktemp("ranker") / "out"
    return cr.finetune(small_log, objective=cr.SNIPS(), training=quick, weighing=weighing, epochs=2, output=folder, random_state=0)
