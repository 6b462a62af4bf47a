"""How much the models of exposure and clicks have learnt, each member of a mix, and what the other way of fitting them would cost."""

from __future__ import annotations

from collections.abc import Sequence

from causalrec.blocks import Block
from causalrec.nuisance import Nuisances
from causalrec.nuisance.stacked import StackedNuisances
from causalrec.nuisance.super_learner import SuperLearner

SAID = {"propensity": "exposure", "outcome_0": "clicks without it", "outcome_1": "clicks with it"}
QUICK = (15.0, 1.6e-3)
"""Seconds that ``SuperLearner.quick()`` takes, and more a row: 25 and 80 CPU s at 5,000 and 48,000 rows."""
TUNED = 0.011
"""Seconds a distinct text that tuning the encoder takes (two epochs, two cores): 249 CPU s for 11,188."""


def learnt(fitted: Nuisances) -> str:
    """``Held-out log-loss explained: exposure 3.4 % (AUC 0.62), …``; of a mix, what each member explains alone."""
    what = "log-loss" if fitted.problem.binary else "log-loss (exposure) and variance (outcome)"
    parts = []
    members: Sequence[dict[str, object]] = getattr(fitted, "member_gains", ())
    for gain in fitted.gains:
        name = str(gain["model"])
        alone = [
            f"{str(m['model']).split(': ', 1)[1]} {100 * float(m['share_explained']):.1f} %"  # type: ignore[arg-type]
            for m in members
            if str(m["model"]).startswith(f"{name}: ")
        ]
        tail = f", alone {', '.join(alone)}" if alone else ""
        known = gain.get("held_out_auc")
        area = (
            f" (AUC {known:.3f})"
            if known is not None and (name == "propensity" or fitted.problem.binary)
            else ""
        )
        parts.append(f"{SAID.get(name, name)} {100 * gain['share_explained']:.1f} %{area}{tail}")
    return f"Held-out {what} explained: {'; '.join(parts)}." if parts else ""


def other_path(fitted: Nuisances, blocks: Sequence[Block]) -> str:
    """What richer nuisances would cost, or, of a mix, what the default would give instead; empty where there is no other path."""
    if isinstance(fitted, StackedNuisances):
        return "The other path: the default, ridge regressions for pairs of folds (seconds), in which pairs of rows may come from different folds and items have effects."
    texts = [b for b in blocks if b.kind == "text" and b.texts is not None]
    if not texts or not fitted.problem.binary or fitted.logged:
        return ""
    seconds = QUICK[0] + QUICK[1] * len(fitted.fold)
    thorough = SuperLearner.thorough()
    runs = thorough.folds.n_splits * (thorough.rounds or thorough.parts)
    tuning = seconds + TUNED * runs * sum(len(b.values) for b in texts)
    return (
        f"The other path: nuisances=SuperLearner.quick() mixes in n-grams and a network (about {_time(seconds)}), .thorough() the encoder tuned inside the folds "
        f"(about {_time(tuning)} on two cores); their pairs of rows stay within folds."
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
