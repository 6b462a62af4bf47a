"""DoublyRobust and IPW on plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from small_logs import ROLES, World, make_world

import causalrec as cr
from causalrec.errors import ArgumentError, CausalRecError, EstimationError
from causalrec.estimate import IPW, DoublyRobust

NUMERIC = {**ROLES, "confounders": ["rate"]}


def columns(world: World) -> dict[str, Any]:
    f = world.frame
    return {
        "Y": f["clicked"].to_numpy(),
        "T": f["shown"].to_numpy(),
        "X": f[["age"]].to_numpy(),
        "W": f[["rate"]].to_numpy(),
        "groups": f["user"],
    }


@pytest.mark.parametrize("estimand", ["ate", "att", "ato"])
def test_arrays_give_the_numbers_of_the_log(world: World, estimand: str) -> None:
    log = cr.read_log(world.frame, **NUMERIC)
    fit = cr.estimate(log, cr.identify(log), estimand=estimand, random_state=4)
    made = DoublyRobust(estimand=estimand, random_state=4).fit(**columns(world))
    for mine, theirs in [
        (made.effect_, fit.effect),
        (made.std_error_, fit.std_error),
        (made.ci_lower_, fit.ci_lower),
        (made.ci_upper_, fit.ci_upper),
        (made.p_value_, fit.p_value),
        (made.naive_effect_, fit.naive_effect),
    ]:
        assert mine == pytest.approx(theirs, rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(made.scores_, fit.scores, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(made.nuisances_.fold, fit.nuisances.fold)
    x = world.frame[["age"]].to_numpy()
    np.testing.assert_allclose(made.cate(x), fit.cate(log), atol=1e-12)
    np.testing.assert_allclose(made.cate_interval(x), fit.cate_interval(log), atol=1e-12)


def test_arrays_and_a_block_give_the_numbers_of_the_embedded_log(
    embedded: tuple[cr.datasets.Simulation, cr.ImpressionLog],
) -> None:
    _, log = embedded
    roles = {
        "treatment": "recommended",
        "outcome": "clicked",
        "text": "title",
        "unit": "user_id",
        "item": "item_id",
        "modifiers": "tenure",
    }
    small = cr.read_log(log.frame, **roles).with_blocks([log.blocks["text:title"]])
    fit = cr.estimate(small, cr.identify(small), random_state=1)
    f = small.frame
    made = DoublyRobust(random_state=1).fit(
        f["clicked"],
        f["recommended"],
        X=f[["tenure"]],
        W=small.blocks["text:title"],
        groups=f["user_id"],
        items=f["item_id"],
    )
    assert made.effect_ == pytest.approx(fit.effect, abs=1e-12)
    assert made.std_error_ == pytest.approx(fit.std_error, abs=1e-12)
    assert fit.by_item is not None
    assert made.by_item_.std_error == pytest.approx(fit.by_item.std_error, abs=1e-12)


def test_a_dense_matrix_gives_the_numbers_of_its_block(world: World) -> None:
    from small_logs import noise_block

    block = noise_block(len(world.frame), 40, 0)
    given = columns(world)
    coded = DoublyRobust(random_state=0).fit(**{**given, "W": [given["W"], block]})
    dense = DoublyRobust(random_state=0).fit(**{**given, "W": np.hstack([given["W"], block.dense()])})
    assert coded.effect_ == pytest.approx(dense.effect_, abs=2 * coded.std_error_)
    assert coded.n_features_in_ == dense.n_features_in_ == 1


def test_scikit_learns_conventions(world: World) -> None:
    made = DoublyRobust(estimand="att", clip=cr.Clip(0.02), random_state=3)
    twin = clone(made)
    assert twin is not made
    assert twin.get_params() == made.get_params()
    assert set(made.get_params()) == {
        "estimand",
        "model",
        "nuisances",
        "folds",
        "correction",
        "clip",
        "random_state",
    }
    assert made.set_params(estimand="ate").estimand == "ate"
    given = columns(world)
    fitted = made.fit(**given)
    assert fitted is made
    assert clone(made).fit(**given).effect_ == made.effect_
    assert made.get_params()["model"] is None
    with pytest.raises(ValueError, match="Invalid parameter 'bogus'"):
        made.set_params(bogus=1)
    with pytest.raises(NotFittedError):
        DoublyRobust().cate(given["X"])
    assert set(IPW().get_params()) == {"nuisances", "folds", "clip", "random_state"}
    assert clone(IPW(clip=cr.Clip(0.1))).clip == cr.Clip(0.1)


def test_x_may_be_a_frame_a_vector_or_missing(world: World) -> None:
    given = columns(world)
    frame = DoublyRobust(random_state=0).fit(**{**given, "X": pd.DataFrame({"age": given["X"][:, 0]})})
    vector = DoublyRobust(random_state=0).fit(**{**given, "X": given["X"][:, 0]})
    assert frame.effect_ == pytest.approx(vector.effect_, abs=1e-12)
    none = DoublyRobust(random_state=0).fit(**{**given, "X": None, "W": [given["X"], given["W"]]})
    assert none.n_features_in_ == 0
    assert none.cate().shape == (1,)
    assert none.cate()[0] == pytest.approx(none.effect_, abs=1e-8)


def test_the_callers_arrays_stay_as_they_were(world: World) -> None:
    given = columns(world)
    before = {k: np.array(v, copy=True) for k, v in given.items()}
    DoublyRobust(random_state=0).fit(**given, sample_weight=np.full(len(before["Y"]), 2.0))
    for name, value in given.items():
        np.testing.assert_array_equal(value, before[name])


GOOD = columns(make_world(300, 80, seed=1))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"Y": GOOD["Y"][:-1]}, EstimationError, r"T has 300 rows, Y has 299"),
        ({"X": GOOD["X"][:5]}, EstimationError, r"X_0 has 5 rows, Y has 300"),
        ({"W": GOOD["W"][:5]}, EstimationError, r"W0_0 has 5 rows, Y has 300"),
        ({"groups": GOOD["groups"][:5]}, EstimationError, r"groups has 5 rows, Y has 300"),
        ({"items": np.zeros(7)}, EstimationError, r"items has 7 rows"),
        ({"items": np.zeros(300)}, EstimationError, r"items has one value; leave the item out"),
        ({"groups": [None, *GOOD["groups"][1:]]}, EstimationError, r"groups is missing in 1 of 300 rows"),
        ({"T": GOOD["T"] * 2}, EstimationError, r"T has the values \[0. 2.\]; must be 0/1 with both present"),
        ({"T": np.ones(300)}, EstimationError, r"must be 0/1 with both present"),
        ({"T": np.where(np.arange(300) == 3, np.nan, GOOD["T"])}, EstimationError, r"T has NaN or infinity in 1 of 300 rows"),
        ({"Y": np.full(300, np.inf)}, EstimationError, r"Y has NaN or infinity in 300 of 300 rows"),
        ({"Y": np.zeros(300)}, EstimationError, r"all .* rows have outcome 0: too few clicks"),
        ({"Y": np.zeros((300, 2))}, EstimationError, r"Y has shape \(300, 2\); must be \(n,\)"),
        ({"Y": ["a"] * 300}, EstimationError, r"Y holds values that are no numbers"),
        ({"X": np.full((300, 1), np.nan)}, EstimationError, r"X has NaN or infinity in 300"),
        ({"X": np.full((300, 1), "a")}, EstimationError, r"X holds values that are no numbers; encode labels first"),
        ({"X": np.zeros((300, 2, 2))}, EstimationError, r"X has shape \(300, 2, 2\); must be \(n, p\)"),
        ({"W": pd.DataFrame({"a": [np.nan] * 300})}, EstimationError, r"a has NaN or infinity in 300 of 300 rows"),
        ({"W": pd.DataFrame({"age": GOOD["W"][:, 0]}), "X": pd.DataFrame({"age": GOOD["X"][:, 0]})}, EstimationError, r"'age' is given twice"),
        ({"propensity": np.full(300, 1.0)}, EstimationError, r"propensity is outside \(0, 1\) in 300 rows"),
        ({"sample_weight": np.full(300, -1.0)}, EstimationError, r"sample_weight is negative in 300 of 300 rows"),
        ({"groups": np.arange(300) % 4}, EstimationError, r"4 units, fewer than the 5 folds"),
    ],
)  # fmt: skip
def test_wrong_arrays(change: dict[str, Any], error: type[CausalRecError], says: str) -> None:
    with pytest.raises(error, match=says):
        DoublyRobust(random_state=0).fit(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"estimand": "atee"}, r"estimand is 'atee', must be one of"),
        ({"clip": 0.01}, r"clip is 0.01; must be Clip"),
        ({"folds": 5}, r"folds is 5; must be Folds"),
        ({"nuisances": "ridge"}, r"nuisances is 'ridge'; must be a NuisanceRecipe"),
        ({"random_state": -1}, r"random_state is -1"),
    ],
)
def test_wrong_options_are_found_at_fit(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        DoublyRobust(**options).fit(**GOOD)


def test_cate_of_another_width() -> None:
    made = DoublyRobust(random_state=0).fit(**GOOD)
    with pytest.raises(ArgumentError, match=r"X has 2 columns, 1 when fitted"):
        made.cate(np.zeros((3, 2)))
    with pytest.raises(ArgumentError, match=r"X has 0 columns, 1 when fitted"):
        made.cate()


def test_weighting_with_known_propensities_is_hajeks(world: World) -> None:
    y, t = world.inputs.y, world.inputs.t
    made = IPW(clip=cr.Clip(0)).fit(y, t, groups=world.frame["user"], propensity=world.e)
    by_hand = np.average(y, weights=t / world.e) - np.average(y, weights=(1 - t) / (1 - world.e))
    assert made.effect_ == pytest.approx(by_hand, abs=1e-12)
    assert made.ci_lower_ < world.truth("ate") < made.ci_upper_
    assert 100 < made.ess_ < len(y)


def test_weighting_with_estimated_propensities_is_near_the_truth(world: World) -> None:
    made = IPW(random_state=0).fit(**columns(world))
    assert abs(made.effect_ - world.truth("ate")) < 4 * made.std_error_
    assert made.scores_.mean() == pytest.approx(made.effect_, abs=1e-12)
