"""What is minimised: each objective turns a row of the log into a weight and a label, and little else differs.

The target of every objective but ``Naive`` is the risk of all impressions of the log had they all been shown,

    R(f) = E[ℓ(f(X), Y(1))],    ℓ(f, y) = log(1 + exp f) − y f    (nats; f is the score, a log odds),

estimated from the impressions that were shown. As ℓ is linear in the label, an estimate of E[Y(1) | X] may stand in its
place: a doubly robust pseudo-outcome is a label like any other. T is "shown", w = 1 / e its inverse propensity after
clipping, m₁ the out-of-fold outcome model, g the score of an imputation head trained beside f.

| objective | weight | label |
|---|---|---|
| naive | T / P(T) | Y |
| IPS, SNIPS | T w, T w / mean(T w) | Y |
| DR | 1 | m₁ + T w (Y − m₁) |
| DR-JL, MRDR | 1 | σ(g) + T w (Y − σ(g)) |
| uplift-weighted | 1 | (1 + ψ) / 2, ψ the doubly robust score of the effect |

Denominators are those of the whole training log: normalised within a batch, the weights of a batch with one large w
would be as large together as those of any other, which is biased.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from causalrec._checks import check_scalar
from causalrec.errors import ArgumentError
from causalrec.nuisance import Clip

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


LEAST_CHANCE = 1e-4
"""Bound of what an outcome model says, where it is divided by."""


@dataclass(frozen=True)
class Rows:
    """Rows of a batch, (b,) each, on one device.

    Attributes
    ----------
    t, y : shown 0/1, and the outcome (0 where it was not seen)
    w1, w0 : 1 / e and 1 / (1 − e), clipped
    m0, m1 : out-of-fold outcome models; NaN where the objective needs none
    e : the clipped propensity
    share, mean_w : P(T) and mean(T w) of the whole training log
    n : rows of the whole training log
    """

    t: Tensor
    y: Tensor
    w1: Tensor
    w0: Tensor
    m0: Tensor
    m1: Tensor
    e: Tensor
    share: float
    mean_w: float
    n: int

    @classmethod
    def of(cls, columns: dict[str, Tensor], totals: tuple[float, float, int]) -> Rows:
        """Rows from columns by name and (share, mean_w, n)."""
        return cls(**columns, share=totals[0], mean_w=totals[1], n=totals[2])


def log_loss(f: Tensor, label: Tensor) -> Tensor:
    """ℓ(f, y) = log(1 + exp f) − y f, (b,), nats; a label outside [0, 1] is allowed, as a pseudo-outcome may be."""
    import torch

    return torch.nn.functional.softplus(f) - label * f


def _check_clip(clip: Clip | None) -> None:
    if clip is not None and not isinstance(clip, Clip):
        raise ArgumentError(f"clip is {clip!r}; must be Clip(...) or None.")


@dataclass(frozen=True)
class Objective:
    """What objectives share. ``clip`` None is .01, or a tenth of the rarer arm's share where that is less."""

    name: ClassVar[str] = ""
    needs_propensity: ClassVar[bool] = True
    needs_control: ClassVar[bool] = False
    imputes: ClassVar[bool] = False
    pairs: ClassVar[bool] = True
    """Whether the objective has a pairwise form."""
    aims_at: ClassVar[str] = "clicks"
    """What its score is the log odds of: "clicks" if shown, half of one plus the "effect", or showing (a "policy")."""

    def target(self, r: Rows, imputed: Tensor | None) -> tuple[Tensor, Tensor]:
        """(weight, label) of each row, (b,) each."""
        raise NotImplementedError

    def foreseen(self, r: Rows) -> Tensor:
        """(b,) what the outcome models say of the label, in (0, 1)."""
        return r.m1.clamp(LEAST_CHANCE, 1 - LEAST_CHANCE)

    def loss(self, f: Tensor, r: Rows, imputed: Tensor | None, memory: Memory) -> Tensor:
        """(b,) loss of each row, nats."""
        weight, label = self.target(r, imputed)
        return weight * log_loss(f, label)

    def imputation_loss(self, f: Tensor, g: Tensor, r: Rows) -> Tensor:
        """(b,) loss of the imputation head; f counts as given."""
        raise NotImplementedError


def over_processes(sums: Tensor) -> Tensor:
    """Sums over the rows of this process, added up over all processes that train together."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(sums)
    return sums


class Memory:
    """Running moments that an objective keeps across batches; buffers of the network, so that a checkpoint has them."""

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer  # (3,): batches seen, mean, mean square

    def moments(self, u: Tensor, momentum: float = 0.98) -> tuple[Tensor, Tensor]:
        """(mean, variance) of u over recent batches of all processes, this one included; exponential weights without start-up bias."""
        import torch

        with torch.no_grad():
            seen, mean, square = self.buffer
            keep = torch.minimum(seen / (seen + 1), torch.full_like(seen, momentum))
            n, total, squares = over_processes(torch.stack([torch.ones_like(u).sum(), u.sum(), (u**2).sum()]))
            now = torch.stack([seen + 1, keep * mean + (1 - keep) * total / n, keep * square + (1 - keep) * squares / n])
            self.buffer.copy_(now)
        return now[1], (now[2] - now[1] ** 2).clamp_min(1e-12)


@dataclass(frozen=True)
class Naive(Objective):
    """Mean loss of what was shown: ranks well what the old recommender showed, and says nothing of the rest."""

    name: ClassVar[str] = "naive"
    needs_propensity: ClassVar[bool] = False

    def target(self, r: Rows, imputed: Tensor | None) -> tuple[Tensor, Tensor]:
        """T / P(T) and Y."""
        return r.t / r.share, r.y


@dataclass(frozen=True)
class IPS(Objective):
    """Clipped inverse propensity scoring: mean T min(1/e, 1/bound) ℓ (Horvitz & Thompson 1952; Schnabel et al. 2016)."""

    clip: Clip | None = None
    name: ClassVar[str] = "IPS"

    def __post_init__(self) -> None:
        _check_clip(self.clip)

    def target(self, r: Rows, imputed: Tensor | None) -> tuple[Tensor, Tensor]:
        """T w and Y."""
        return r.t * r.w1, r.y


@dataclass(frozen=True)
class SNIPS(IPS):
    """Self-normalised IPS: Σ T w ℓ / Σ T w with the sum over the whole training log (Swaminathan & Joachims 2015b)."""

    name: ClassVar[str] = "SNIPS"

    def target(self, r: Rows, imputed: Tensor | None) -> tuple[Tensor, Tensor]:
        """T w / mean(T w) and Y."""
        return r.t * r.w1 / r.mean_w, r.y


@dataclass(frozen=True)
class DR(Objective):
    """Doubly robust: the loss at m₁ + T w (Y − m₁), m₁ cross-fitted by user (Wang et al. 2019, m₁ fixed)."""

    clip: Clip | None = None
    name: ClassVar[str] = "DR"

    def __post_init__(self) -> None:
        _check_clip(self.clip)

    def target(self, r: Rows, imputed: Tensor | None) -> tuple[Tensor, Tensor]:
        """1 and the pseudo-outcome of Y(1)."""
        import torch

        return torch.ones_like(r.y), r.m1 + r.t * r.w1 * (r.y - r.m1)


@dataclass(frozen=True)
class DRJL(Objective):
    """Doubly robust, joint learning (Wang et al. 2019, "Doubly robust joint learning").

    Two imputation heads are trained beside the score, each on the users that the other serves: minimising
    T w (ℓ(f, Y) − ℓ(f, σ(g)))² = T w f² (Y − σ(g))² over g at the present f. The encoder does not learn from it.
    """

    clip: Clip | None = None
    name: ClassVar[str] = "DR-JL"
    imputes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_clip(self.clip)

    def target(self, r: Rows, imputed: Tensor | None) -> tuple[Tensor, Tensor]:
        """1 and the pseudo-outcome of Y(1) at the imputed label."""
        import torch

        if imputed is None:
            raise ArgumentError(f"{self.name} needs an imputation head.")
        label = torch.sigmoid(imputed)
        return torch.ones_like(r.y), label + r.t * r.w1 * (r.y - label)

    def _error(self, f: Tensor, g: Tensor, r: Rows) -> Tensor:
        import torch

        return (r.y - torch.sigmoid(g)) ** 2 * (f**2).clamp(0.1, 25.0)

    def imputation_loss(self, f: Tensor, g: Tensor, r: Rows) -> Tensor:
        """T w f² (Y − σ(g))², with f² held within [.1, 25] so that the head learns where f is small as well."""
        return r.t * r.w1 * self._error(f, g, r)


@dataclass(frozen=True)
class MRDR(DRJL):
    """More robust doubly robust: the imputation minimises the variance, weights (1 − e) / e² (Guo et al. 2021)."""

    name: ClassVar[str] = "MRDR"

    def imputation_loss(self, f: Tensor, g: Tensor, r: Rows) -> Tensor:
        """T (1 − e) w² f² (Y − σ(g))²."""
        return r.t * (1 - r.e) * r.w1**2 * self._error(f, g, r)


@dataclass(frozen=True)
class POEM(Objective):
    """Variance-regularised IPS: mean u + λ √(Var(u) / n), u = T w ℓ (Swaminathan & Joachims 2015a).

    The root is replaced by its tangent at the running moments of u, so that it is a mean over rows:
    u + λ ((u − ū)² − s²) / (2 s √n), s² the running variance.

    Parameters
    ----------
    penalty : float
        λ ≥ 0.
    """

    penalty: float = 1.0
    clip: Clip | None = None
    name: ClassVar[str] = "POEM"
    pairs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_scalar(self.penalty, "penalty", ge=0)
        _check_clip(self.clip)

    def target(self, r: Rows, imputed: Tensor | None) -> tuple[Tensor, Tensor]:
        """T w and Y."""
        return r.t * r.w1, r.y

    def loss(self, f: Tensor, r: Rows, imputed: Tensor | None, memory: Memory) -> Tensor:
        """U and the tangent of its standard error."""
        u = r.t * r.w1 * log_loss(f, r.y)
        mean, variance = memory.moments(u)
        spread = variance.sqrt()
        return u + self.penalty / r.n**0.5 * ((u - mean) ** 2 - variance) / (2 * spread)


@dataclass(frozen=True)
class BanditNet(Objective):
    """A policy that shows a row with probability π = σ(f): minimise −mean (Y − λ)(T w π + (1 − T) w₀ (1 − π)).

    λ keeps the policy from overfitting the propensities (Joachims, Swaminathan & de Rijke 2018). The score says
    whether to recommend, from what either arm did, and not how likely a click is.

    Parameters
    ----------
    baseline : float or None
        λ, in units of the outcome; None is the mean outcome.
    """

    baseline: float | None = None
    clip: Clip | None = None
    name: ClassVar[str] = "BanditNet"
    needs_control: ClassVar[bool] = True
    pairs: ClassVar[bool] = False
    aims_at: ClassVar[str] = "policy"

    def __post_init__(self) -> None:
        if self.baseline is not None:
            check_scalar(self.baseline, "baseline")
        _check_clip(self.clip)

    def loss(self, f: Tensor, r: Rows, imputed: Tensor | None, memory: Memory) -> Tensor:
        """−(Y − λ) × the importance weight of the policy."""
        import torch

        p = torch.sigmoid(f)
        mean, _ = memory.moments(r.y)
        baseline = mean if self.baseline is None else self.baseline
        return -(r.y - baseline) * (r.t * r.w1 * p + (1 - r.t) * r.w0 * (1 - p))


@dataclass(frozen=True)
class UpliftWeighted(Objective):
    """Train for caused clicks: the loss at (1 + ψ) / 2, ψ the doubly robust score of Y(1) − Y(0).

    2 σ(f) − 1 then estimates the effect. With m₀ = m₁ = 0, ψ is the weighted outcome of Sato et al. (2019).
    """

    clip: Clip | None = None
    name: ClassVar[str] = "uplift-weighted"
    needs_control: ClassVar[bool] = True
    aims_at: ClassVar[str] = "effect"

    def __post_init__(self) -> None:
        _check_clip(self.clip)

    def target(self, r: Rows, imputed: Tensor | None) -> tuple[Tensor, Tensor]:
        """1 and (1 + ψ) / 2."""
        import torch

        psi = r.m1 - r.m0 + r.t * r.w1 * (r.y - r.m1) - (1 - r.t) * r.w0 * (r.y - r.m0)
        return torch.ones_like(r.y), (1 + psi) / 2

    def foreseen(self, r: Rows) -> Tensor:
        """(1 + m₁ − m₀) / 2."""
        return ((1 + r.m1 - r.m0) / 2).clamp(LEAST_CHANCE, 1 - LEAST_CHANCE)


def dispersion(objective: Objective, r: Rows) -> float:
    """φ = mean(v² (y − p)²) / mean(v p (1 − p)) of weights v and labels y, p what outcome models say of the label; 1 for a policy.

    How many times noisier the gradient of a weighted loss is than that of a likelihood with as much curvature. A prior on the weights
    of a network counts φ times (those of imputation heads and of a pairwise loss too, for which it is a stand-in), so that one of the same width shrinks rightly under every objective (quasi-likelihood: McCullagh 1983).
    """
    import torch

    if objective.aims_at == "policy":
        return 1.0
    p = objective.foreseen(r)
    weight, label = objective.target(r, torch.logit(p) if objective.imputes else None)
    return float((weight**2 * (label - p) ** 2).double().mean() / (weight * p * (1 - p)).double().mean())


def pairwise_loss(f: Tensor, weight: Tensor, label: Tensor, unit: Tensor) -> Tensor:
    """Σ_j over rows j of the same user of w_i y_i · w_j (1 − y_j) · log(1 + exp(f_j − f_i)), (b,), nats.

    The unbiased pairwise loss of Saito (2020, "Unbiased pairwise learning from biased implicit feedback") at the weights and labels of an objective.
    Rows i ≠ j of one user that are in the batch together.
    """
    import torch

    same = (unit[:, None] == unit[None, :]) & ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    mass = (weight * label)[:, None] * (weight * (1 - label))[None, :] * same
    return (mass * torch.nn.functional.softplus(f[None, :] - f[:, None])).sum(dim=1)
