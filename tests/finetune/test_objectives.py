"""Objectives against their definitions: unbiased where they should be, equal where algebra says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import causalrec as cr
from causalrec.errors import ArgumentError
from causalrec.finetune.objectives import DRJL, Memory, Objective, Rows, log_loss, pairwise_loss


def rows(seed: int = 0, n: int = 400_000) -> tuple[Rows, torch.Tensor, torch.Tensor]:
    """Rows with known e, P(Y(1)) and scores f; the true risk is mean(ℓ(f, p1))."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=g, dtype=torch.float64)
    p1, p0, e = torch.sigmoid(x), torch.sigmoid(x - 1), torch.sigmoid(1.5 * x).clamp(0.05, 0.95)
    t = (torch.rand(n, generator=g, dtype=torch.float64) < e).double()
    chance = torch.rand(n, generator=g, dtype=torch.float64)
    y = torch.where(t == 1, chance < p1, chance < p0).double()
    f = 0.7 * x - 0.2
    r = Rows(t, y, 1 / e, 1 / (1 - e), p0 * 0.8, p1 * 0.8, e, float(t.mean()), float((t / e).mean()), n)
    return r, f, p1


def memory() -> Memory:
    return Memory(torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("objective", [cr.IPS(), cr.SNIPS(), cr.DR(), cr.DRJL(), cr.MRDR()], ids=lambda o: o.name)
def test_debiased_losses_are_the_risk_of_all_rows(objective: Objective) -> None:
    r, f, p1 = rows()
    imputed = f * 0.5 if objective.imputes else None
    loss = objective.loss(f, r, imputed, memory())
    error = float(loss.mean() - log_loss(f, p1).mean())
    assert abs(error) < 4 * float(loss.std()) / r.n**0.5


def test_the_naive_loss_is_not() -> None:
    r, f, p1 = rows()
    f = torch.full_like(f, -1.0)
    loss = cr.Naive().loss(f, r, None, memory())
    assert abs(float(loss.mean() - log_loss(f, p1).mean())) > 20 * float(loss.std()) / r.n**0.5


def test_uplift_weighted_is_least_at_the_effect() -> None:
    r, _, _ = rows()
    x = torch.logit(r.m1 / 0.8)
    tau = r.m1 / 0.8 - r.m0 / 0.8
    best = torch.logit((1 + tau) / 2)
    at = {shift: float(cr.UpliftWeighted().loss(best + shift * torch.tanh(x), r, None, memory()).mean()) for shift in (-0.3, 0.0, 0.3)}
    assert at[0.0] < at[-0.3]
    assert at[0.0] < at[0.3]


def test_banditnet_prefers_the_policy_that_shows_where_it_helps() -> None:
    r, _, _ = rows()
    always = torch.full_like(r.y, 3.0)
    good, bad = (float(cr.BanditNet().loss(f, r, None, memory()).mean()) for f in (always, -always))
    assert good < bad  # showing raises clicks for everyone in this world


def test_dr_with_a_perfect_outcome_model_does_not_need_the_propensity() -> None:
    r, f, p1 = rows()
    wrong = replace(r, w1=torch.full_like(r.w1, 2.0), m1=p1)
    loss = cr.DR().loss(f, wrong, None, memory())
    assert abs(float(loss.mean() - log_loss(f, p1).mean())) < 4 * float(loss.std()) / r.n**0.5


def test_poem_adds_the_gradient_of_the_standard_error() -> None:
    r, f, _ = rows(n=4_000)
    f = f.clone().requires_grad_()
    kept = memory()
    cr.POEM(penalty=3.0).loss(f, r, None, kept).mean().backward()
    ours = f.grad.clone()
    f.grad = None
    u = r.t * r.w1 * log_loss(f, r.y)
    (u.mean() + 3.0 * (u.var(unbiased=False) / r.n).sqrt()).backward()
    assert torch.allclose(ours, f.grad, rtol=1e-6, atol=1e-12)


def test_memory_has_no_start_up_bias() -> None:
    kept = memory()
    values = torch.arange(10, dtype=torch.float64)
    for v in values:
        mean, _ = kept.moments(v[None])
    assert float(mean) == pytest.approx(float(values.mean()))


def test_mrdr_weighs_rare_rows_more_than_dr_jl() -> None:
    r, f, _ = rows(n=1_000)
    g = torch.zeros_like(f)
    jl, mr = cr.DRJL().imputation_loss(f, g, r), cr.MRDR().imputation_loss(f, g, r)
    shown = r.t == 1
    assert torch.allclose((mr / jl)[shown], ((1 - r.e) / r.e)[shown])
    assert (jl[~shown] == 0).all()


def test_pairwise_loss_is_its_definition() -> None:
    f = torch.tensor([0.5, -1.0, 2.0, 0.0])
    w, y, unit = torch.tensor([1.0, 2.0, 1.0, 3.0]), torch.tensor([1.0, 0.0, 0.3, 1.0]), torch.tensor([0, 0, 0, 1])
    expected = [
        sum(
            float(w[i] * y[i] * w[j] * (1 - y[j]) * torch.nn.functional.softplus(f[j] - f[i]))
            for j in range(4)
            if i != j and unit[i] == unit[j]
        )
        for i in range(4)
    ]
    assert torch.allclose(pairwise_loss(f, w, y, unit), torch.tensor(expected))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cr.IPS(clip=0.01), r"clip is 0.01; must be Clip"),
        (lambda: cr.POEM(penalty=-1), r"penalty is -1, must be >= 0"),
        (lambda: cr.BanditNet(baseline=float("nan")), r"baseline is nan, must be a finite number"),
        (lambda: cr.Auto(candidates=()), r"candidates is \(\); must be a tuple of objectives"),
        (lambda: cr.Auto(candidates=(cr.UpliftWeighted(),)), r"whose scores mean something else"),
        (lambda: DRJL().target(rows(n=10)[0], None), r"DR-JL needs an imputation head"),
        (lambda: cr.LoRA(rank=0), r"rank is 0, must be >= 1"),
        (lambda: cr.AdaLoRA(rank=8, start=4), r"start is 4, must be >= rank, 8"),
        (lambda: cr.Head(kind="cros"), r"kind is 'cros'.*Did you mean 'cross'"),
        (lambda: cr.Training(loss="listwise"), r"loss is 'listwise', must be one of"),
        (lambda: cr.Training(batch_size=1), r"batch_size is 1, must be >= 2"),
        (lambda: cr.Training(report_to="wandb"), r"report_to is 'wandb'; must be a tuple"),
        (lambda: cr.Training(report_to=None), r"report_to is None; must be a tuple"),
        (lambda: cr.Training(report_to=("tensorbord",)), r"report_to is 'tensorbord'.*Did you mean 'tensorboard'"),
        (lambda: cr.Training(device=0), r"device is 0; must be a name"),
        (lambda: cr.Training(progress="no"), r"progress is 'no', must be True or False"),
        (lambda: cr.Head(item_effects="no"), r"item_effects is 'no', must be True or False"),
        (lambda: cr.Weighing(clip=0.05), r"clip is 0.05; must be Clip"),
        (lambda: cr.Weighing(plan="x"), r"plan is 'x'; must be a Plan, as identify\(log\) makes it"),
        (lambda: cr.Weighing(nuisances="ridge"), r"nuisances is 'ridge'; must be a NuisanceRecipe"),
        (lambda: cr.Weighing(examination=[1.0, 0.5]), r"examination is .*such as \{1: 1.0, 2: 0.6\}"),
        (lambda: cr.Weighing(examination={0: 1.0}), r"a position of theta is 0, must be >= 1"),
        (lambda: cr.Weighing(policy_aware="x"), r"policy_aware is 'x', must be True or False"),
    ],
)
def test_bad_options(make: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()  # type: ignore[operator]


def test_positions_with_their_chances_are_a_curve() -> None:
    curve = cr.Weighing(examination={1: 1.0, 2: 0.5}).examination
    assert curve is not None
    np.testing.assert_allclose(curve.theta_at(np.array([2, 1])), [0.5, 1.0])


def test_denominators_are_those_of_the_log_and_not_of_a_batch() -> None:
    r, f, _ = rows(n=1_000)
    whole = cr.SNIPS().loss(f, r, None, memory())
    part = Rows(*(getattr(r, n)[:10] for n in ("t", "y", "w1", "w0", "m0", "m1", "e")), r.share, r.mean_w, r.n)
    assert torch.equal(cr.SNIPS().loss(f[:10], part, None, memory()), whole[:10])
    assert np.isclose(float(whole.sum()), float((r.t * r.w1 * log_loss(f, r.y)).sum() / r.mean_w))
