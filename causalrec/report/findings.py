"""What was found: the answer in a sentence, the effect beside the naive one, and for whom it holds."""

from __future__ import annotations

from typing import Any

from causalrec.estimate import Fit
from causalrec.estimate.fit import POPULATIONS
from causalrec.report import forest, parts, plots, uplift_plots, words
from causalrec.report.parts import Part
from causalrec.report.results import Results, records
from causalrec.report.segment_parts import groups
from causalrec.report.words import Question
from causalrec.scores import Estimate
from causalrec.uplift import UpliftCurve


def _clusters(fit: Fit, unit: str | None) -> str | None:
    """What the effect's errors are clustered by: the unit, and the item (or the text) where it repeats."""
    if fit.by_item is None:
        return unit
    item = (fit.log.roles.item or fit.log.roles.text)[0]
    return item if unit is None else f"{unit} and {item}"


def effect_headline(r: Results) -> str:
    """What the treatment changed, with its interval."""
    fit = r.fit
    clusters = _clusters(fit, r.unit)
    return words.effect_sentence(r.question, *r.effect, estimand=fit.estimand, clustered_by=clusters)


def answer(r: Results) -> dict[str, Any]:
    """Section 1: the decision sentence, the naive answer, the clicks that would have come anyway."""
    q, fit = r.question, r.fit
    main = effect_headline(r)
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
        description=f"Lines are 95 % intervals. {effect_headline(r)}",
        data=parts.table("In outcome per impression", records(fit.to_frame()), name="effect"),
    )
    rows = [_effect_row(q, name, e) for name, e in estimates]
    return [
        drawn,
        parts.table(f"In {q.label}, with 95 % intervals", rows, name="effect-in-words"),
        parts.facts(_precision(fit, q)),
    ]


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
    return [*out, *groups(r)]


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
        data=parts.table("Gain in outcome per impression", _points(curve), name="uplift", raw=_curve(curve)),
    )
    deciles = parts.figure(
        plots.plot_deciles(curve, question=q),
        "deciles",
        title="Effect by tenth of the ranking",
        description="Diamonds: measured on held-out users, with 95 % intervals. Circles: predicted.",
        data=parts.table(
            "Tenths of the ranking, effects in outcome per impression", records(curve.table), name="deciles"
        ),
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
        parts.table("How good the ranking is", measures, name="ranking", raw=curve._rows()),
        deciles,
        *_calibration(curve, q),
    ]


def _calibration(curve: UpliftCurve, q: Question) -> list[Part]:
    """Whether predicted effects are of the right size."""
    found = curve.calibration
    drawn = parts.figure(
        uplift_plots.plot_calibration(found, question=q),
        "calibration",
        title="Are predicted effects of the right size? (calibration)",
        description=f"Fifths of the ranking, measured on held-out users. {' '.join(found._notes())}",
        data=parts.table(
            "Fifths of the ranking, effects in outcome per impression",
            records(found.table),
            name="calibration",
        ),
    )
    lower, upper = found.slope_ci
    d = words.decimals(lower, upper)
    slope = (
        f"{words.number(found.slope, d)} (95 % interval {words.number(lower, d)} to {words.number(upper, d)})"
    )
    return [drawn, parts.facts([("calibration slope", f"{slope}; 1 is right, 0 says nothing")])]


def _curve(curve: UpliftCurve) -> list[dict[str, float]]:
    """All points of the Qini curve and of the TOC curve."""
    names = ("grid", "gain", "gain_lower", "gain_upper", "toc", "toc_lower", "toc_upper")
    columns = [getattr(curve, name).tolist() for name in names]
    return [dict(zip(("share_treated", *names[1:]), row, strict=True)) for row in zip(*columns, strict=True)]


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
