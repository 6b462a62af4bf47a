"""What was found: the answer in a sentence, the effect beside the naive one, and for whom it holds."""

from __future__ import annotations

from typing import Any

from causalrec.estimate import Fit
from causalrec.estimate.fit import POPULATIONS
from causalrec.report import forest, parts, plots, words
from causalrec.report.look import MOST_ROWS
from causalrec.report.parts import Part
from causalrec.report.results import Results, records
from causalrec.report.words import Question
from causalrec.scores import Estimate
from causalrec.uplift import UpliftCurve

MOST_MODIFIERS = 12


def _clusters(fit: Fit, unit: str | None) -> str | None:
    """What the effect's errors are clustered by: the unit, and the item (or the text) where it repeats."""
    if fit.by_item is None:
        return unit
    item = (fit.log.roles.item or fit.log.roles.text)[0]
    return item if unit is None else f"{unit} and {item}"


def answer(r: Results) -> dict[str, Any]:
    """Section 1: the decision sentence, the naive answer, the clicks that would have come anyway."""
    q, fit = r.question, r.fit
    main = words.effect_sentence(q, *r.effect, estimand=fit.estimand, clustered_by=_clusters(fit, r.unit))
    judged = sum(c.passed is not None for c in r.checks or ())
    caution = words.caution_sentence(r.failed, judged)
    naive = words.naive_sentence(q, (fit.naive.value, fit.naive.ci_lower, fit.naive.ci_upper), r.effect)
    tested = (
        "No checks were run, so nothing here has been tested."
        if r.checks is None
        else words.checks_sentence([c.passed for c in r.checks])
    )
    broken = [f"Failed: {c.name.replace('_', ' ')}. {c.message}" for c in r.checks or () if c.passed is False]
    level = "failed" if r.failed else "unclear" if fit.ci_lower <= 0 <= fit.ci_upper else "clear"
    return {
        "level": level,
        "headline": f"{caution} {main[:1].lower()}{main[1:]}" if caution else main,
        "sentences": [s for s in (naive, words.anyway_sentence(q, fit.share_anyway)) if s],
        "tested": tested,
        "caveats": [words.shown(c, parts.LONGEST_TEXT) for c in (*broken, *fit.analysis.caveats)],
    }


def effect(r: Results) -> list[Part]:
    """Section 3: the effect against the naive answer."""
    fit, q = r.fit, r.question
    estimates = [
        ("naive difference (not an effect)", fit.naive),
        (f"effect, {fit.estimand}", fit.analysis.effect),
    ]
    if fit.correction.order == 2:
        estimates.append((f"effect, {fit.estimand}, first order", fit.first_order))
    drawn = parts.figure(
        forest.plot_effect(fit),
        "effect",
        title="The effect beside the naive comparison",
        description=f"Lines are 95 % intervals. {answer(r)['headline']}",
        data=parts.table("In outcome per impression", records(fit.to_frame())),
    )
    rows = [_effect_row(q, name, e) for name, e in estimates]
    return [drawn, parts.table(f"In {q.label}, with 95 % intervals", rows), parts.facts(_precision(fit, q))]


def _precision(fit: Fit, q: Question) -> list[tuple[str, str]]:
    o = fit.overlap
    rows = [
        ("estimand", f"{fit.estimand}, over {POPULATIONS[fit.analysis.settings.estimand]}"),
        (
            "effective sample size",
            f"{o.ess_treated:,.0f} of {o.n_treated:,} treated, {o.ess_control:,.0f} of {o.n_control:,} control",
        ),
        (
            "clipped",
            f"{words.percent(o.share_clipped, 1)} of the propensities, at {fit.analysis.settings.clip.bound:g}",
        ),
        ("held-out AUC of the exposure", f"{o.auc:.3f} (0.5: as if randomised; 1: no overlap)"),
    ]
    if type(fit.model).__name__.endswith("DML"):
        average = q.number(fit.model_average, q.decimals(fit.ci_lower, fit.ci_upper))
        rows.append(
            (
                f"{type(fit.model).__name__}’s own average",
                f"{average} {q.per}, overlap-weighted: another estimand",
            )
        )
    return rows


def _effect_row(q: Question, name: str, e: Estimate) -> dict[str, Any]:
    d = q.decimals(e.ci_lower, e.ci_upper)
    return {
        "quantity": name,
        "estimate": q.number(e.value, d),
        "95 % interval": words.interval(q, e.ci_lower, e.ci_upper),
        "standard error": q.number(e.std_error, d),
        "p_value": e.p_value,
    }


def for_whom(r: Results) -> list[Part]:
    """Section 4: the ranking on held-out users, and group effects of each declared modifier."""
    out = (
        [parts.missing("No ranking was judged:", "cr.uplift(fit_on_train, test)")]
        if r.curve is None
        else _ranking(r, r.curve)
    )
    modifiers = r.plan.modifiers
    if not modifiers:
        return [
            *out,
            parts.missing("No group effects: no modifier is declared.", "cr.read_log(…, modifiers=[…])"),
        ]
    out.append(parts.heading("Group effects"))
    out.append(
        parts.text(
            f"By each declared modifier ({words.listed(modifiers)}); intervals are pointwise, clustered like the "
            "effect. Of many groups some stand out by chance: one interval that excludes 0 among many is weak "
            "evidence."
        )
    )
    out += [_groups(r, m, i) for i, m in enumerate(modifiers[:MOST_MODIFIERS])]
    if len(modifiers) > MOST_MODIFIERS:
        out.append(
            parts.missing(
                f"{len(modifiers) - MOST_MODIFIERS} more modifiers are left out:", "fit.by(modifier)"
            )
        )
    return out


def _ranking(r: Results, curve: UpliftCurve) -> list[Part]:
    q = r.question
    held_out = (
        f"The ranking is judged on {curve.n:,} impressions of {curve.n_units:,} units that the ranking model has "
        f"not seen ({curve.estimand})."
    )
    if curve.constant:
        same = "The predicted effect is the same for everybody, so there is no ranking to judge."
        return [parts.text(same), parts.text(held_out)]
    verdict = words.ranking_sentence(q, curve.qini, *curve.qini_ci)
    qini = parts.figure(
        plots.plot_uplift(curve, question=q),
        "uplift",
        title="What treating the best-ranked share brings (Qini curve)",
        description=f"Solid: best-ranked first, with a joint 95 % band. Dashed: as many at random. {verdict}",
        data=parts.table("Gain in outcome per impression", _points(curve)),
    )
    deciles = parts.figure(
        plots.plot_deciles(curve, question=q),
        "deciles",
        title="Effect by tenth of the ranking",
        description="Diamonds: measured on held-out users, with 95 % intervals. Circles: predicted.",
        data=parts.table("Tenths of the ranking, effects in outcome per impression", records(curve.table)),
    )
    measures = [
        {
            "measure": name,
            f"value, {q.label}": q.number(value, q.decimals(*ci)),
            "95 % interval": words.interval(q, *ci),
        }
        for name, value, ci in r.ranking
    ]
    return [
        parts.text(verdict),
        parts.text(held_out),
        qini,
        parts.table("How good the ranking is", measures),
        deciles,
    ]


def _points(curve: UpliftCurve) -> list[dict[str, Any]]:
    """About twenty points of the Qini curve, the last one with all treated."""
    last = len(curve.grid) - 1
    steps = range(last, -1, -max(1, len(curve.grid) // 20))
    return [
        {
            "share treated": words.percent(float(curve.grid[i]), 1),
            "gain": float(curve.gain[i]),
            "lower": float(curve.gain_lower[i]),
            "upper": float(curve.gain_upper[i]),
        }
        for i in reversed(steps)
    ]


def _groups(r: Results, modifier: str, place: int) -> Part:
    effects, q = r.fit.by(modifier), r.question
    left_out = len(effects.records) - MOST_ROWS
    more = f" The {MOST_ROWS} largest of {len(effects.records):,} groups are drawn." if left_out > 0 else ""
    drawn = (
        f"{effects.estimand} in each group, in {q.label}, with 95 % intervals; dotted: all impressions.{more}"
    )
    return parts.figure(
        forest.plot_groups(effects, question=q, overall=r.fit.effect),
        f"groups-{place}",
        title=f"Effect by {words.shown(modifier)}",
        description=drawn,
        data=parts.table("In outcome per impression", list(effects.records)),
    )
