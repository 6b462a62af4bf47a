"""What a row counts for where positions decide what is looked at, and how a prior counts beside noisy labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

import causalrec as cr
from causalrec.errors import EstimationError
from causalrec.finetune.labelling import labels_of
from causalrec.finetune.labels import Labels
from causalrec.finetune.objectives import Rows, dispersion
from causalrec.finetune.options import Head
from causalrec.finetune.towers import Scorer

THETA = {1: 1.0, 2: 0.6, 3: 0.35, 4: 0.2}


def world(hidden: float = 0.0) -> cr.ImpressionLog:
    """A log whose slots lean on x, and on a trait that no column has, which moves relevance r as well."""
    rng = np.random.default_rng(0)
    n = 30_000
    x = rng.standard_normal(n)
    u = hidden * rng.standard_normal(n)
    e, r = expit(0.5 * x), expit(x - 0.3 + u)
    shown = rng.random(n) < e
    slot = np.clip(np.round(2.5 - 0.6 * x - u + rng.standard_normal(n)), 1, 4)
    seen = rng.random(n) < np.where(shown, [THETA[int(s)] for s in slot], 0.02)
    frame = pd.DataFrame(
        {
            "shown": shown.astype(int), "clicked": (seen & (rng.random(n) < r)).astype(int), "user": np.arange(n) // 10, "x": x,
            "slot": np.where(shown, slot, np.nan), "e": e, "r": r,
        }
    )  # fmt: skip
    return cr.read_log(frame, treatment="shown", outcome="clicked", unit="user", confounders=["x"], position="slot", propensity="e")


def labels(log: cr.ImpressionLog, policy_aware: bool = True) -> tuple[Labels, Labels, np.ndarray]:
    train, valid = log.split(0.2, np.random.default_rng(1))
    first, second = labels_of(
        train, valid, plan=None, recipe=None, examination=cr.Examination.of(THETA), clip=None, policy_aware=policy_aware,
        rng=np.random.default_rng(2),
    )  # fmt: skip
    return first, second, train.frame["r"].to_numpy()


@pytest.fixture(scope="module")
def placed() -> tuple[Labels, np.ndarray]:
    first, second, r = labels(world())
    assert second.examined is None  # values are judged without it
    return first, r


def test_where_position_follows_relevance_the_factor_is_biased_and_can_be_left_out() -> None:
    """What stands high is relevant for a reason that no column holds: clicks over P(examined) bear it, the factor does not."""
    log = world(hidden=1.0)
    z = []
    for policy_aware in (False, True):
        first, _, r = labels(log, policy_aware)
        error = first.t * first.learnt * first.y - r
        z.append(error.mean() / (error.std() / len(r) ** 0.5))
    assert abs(z[0]) < 4
    assert z[1] > 5


def test_rows_that_were_likely_looked_at_count_more_and_the_population_stays(placed: tuple[Labels, np.ndarray]) -> None:
    labels, r = placed
    assert labels.examined is not None
    for kept in (r < 0.3, (r >= 0.3) & (r < 0.6), r >= 0.6):  # whatever the words: the mean weight and the mean label
        weight = (labels.t * labels.learnt)[kept]
        assert abs(weight.mean() - 1) < 0.06
        error = weight * (labels.y - r)[kept]
        assert abs(error.mean()) < 4 * error.std() / kept.sum() ** 0.5
    plain, wise = ((labels.t * w * (labels.y - r)).var() for w in (labels.w1, labels.learnt))
    assert wise < 0.8 * plain


def test_a_curve_by_which_fewer_looked_than_clicked_is_refused() -> None:
    log = world()
    squared = cr.Examination.of({k: v**2 / 2 for k, v in THETA.items() if k > 1} | {1: 1.0})
    with pytest.raises(EstimationError, match=r"P\(examined\) is 0.0612 at position 3, but .* % of its .* impressions were clicked: at least so many"):
        labels_of(log, log, plan=None, recipe=None, examination=squared, clip=None, policy_aware=True, rng=np.random.default_rng(0))


def test_rows_taken_and_joined_keep_it(placed: tuple[Labels, np.ndarray]) -> None:
    labels, _ = placed
    some = np.arange(50)
    assert labels.examined is not None
    joined = labels.take(some).joined(labels.take(some))
    np.testing.assert_array_equal(joined.learnt, np.tile(labels.learnt[:50], 2))


def test_a_user_keeps_his_imputation_head_from_log_to_log(placed: tuple[Labels, np.ndarray]) -> None:
    """Taken, joined and numbered anew, rows of a user are served by the head that has not learnt from him."""
    labels, _ = placed
    assert labels.users is not None
    assert 0.4 < labels.half.mean() < 0.6
    some = np.flatnonzero(labels.units > 3)
    later = labels.take(some[::-1]).joined(labels.take(some))
    half = dict(zip(labels.users.tolist(), labels.half.tolist(), strict=True))
    assert later.users is not None
    assert [half[u] for u in later.users.tolist()] == later.half.tolist()
    assert (later.half != later.units % 2).any()


def rows_of(t: np.ndarray, y: np.ndarray, w: np.ndarray, p: np.ndarray) -> Rows:
    given = [torch.from_numpy(v.astype(float)) for v in (t, y, w, w, 0 * p, p, 1 / w)]
    return Rows(*given, share=float(t.mean()), mean_w=float((t * w).mean()), n=len(t))


def test_dispersion_is_one_for_clicks_and_grows_with_weights() -> None:
    rng = np.random.default_rng(0)
    p, e = rng.uniform(0.2, 0.8, 100_000), rng.uniform(0.1, 1, 100_000)
    y, one = rng.random(100_000) < p, np.ones(100_000)
    assert dispersion(cr.Naive(), rows_of(one, y, one, p)) == pytest.approx(1, abs=0.02)
    shown = rng.random(100_000) < e
    weighted = rows_of(shown, y, 1 / e, p)
    assert dispersion(cr.IPS(), weighted) == pytest.approx((1 / e).mean(), rel=0.03)
    assert dispersion(cr.SNIPS(), weighted) == pytest.approx((1 / e).mean(), rel=0.03)
    assert dispersion(cr.DR(), weighted) == pytest.approx((1 / e).mean(), rel=0.03)
    assert dispersion(cr.BanditNet(), weighted) == 1


def test_dispersion_is_one_for_rare_clicks_too() -> None:
    rng = np.random.default_rng(0)
    p = np.full(2_000_000, 0.002)
    y, one = rng.random(len(p)) < p, np.ones(len(p))
    assert dispersion(cr.Naive(), rows_of(one, y, one, p)) == pytest.approx(1, abs=0.05)


def test_the_match_has_the_prior_variance_and_its_factors_no_scale() -> None:
    torch.manual_seed(0)
    d, v = 24, 0.2
    scorer = Scorer(d, Head(width=d, prior_variance=v), 0, True)
    with torch.no_grad():
        matrix = torch.randn(d, d) * (v / d) ** 0.5  # iid weights of the prior
        scorer.left.copy_(torch.eye(d))
        scorer.right.copy_(matrix)
    before = float(scorer.penalty().detach())
    assert before == pytest.approx(float((matrix**2).sum()) * d / v / 2, rel=1e-5)
    assert before == pytest.approx(d * d / 2, rel=0.2)  # ½ a weight, in expectation
    with torch.no_grad():
        scorer.left.mul_(7.0)
        scorer.right.div_(7.0)
    assert float(scorer.penalty().detach()) == pytest.approx(before, rel=1e-5)
    h, x = (torch.nn.functional.normalize(torch.randn(20_000, d), dim=1) * d**0.5 for _ in range(2))
    scorer.eval()
    assert float(scorer(x, h, torch.full((20_000,), -1)).detach().var()) == pytest.approx(v, rel=0.15)
