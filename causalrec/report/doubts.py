"""What would have shown a broken analysis: the checks, and how strong a hidden cause would have to be."""

from __future__ import annotations

from causalrec.check import Checks
from causalrec.report import parts, plots, words
from causalrec.report.parts import Part
from causalrec.report.results import Results


def checks(r: Results) -> list[Part]:
    """Section 5: what would have shown a broken analysis."""
    found = r.checks
    if found is None:
        return [parts.missing("No checks were run:", "cr.refute(fit)")]
    histogram, by_name = found.propensity_histogram, {c.name: c.message for c in found}
    bins = [
        {
            "propensity": f"{low:.2f} to {high:.2f}",
            "treated": words.percent(t, 2),
            "control": words.percent(c, 2),
        }
        for low, high, t, c in zip(
            histogram["edges"][:-1],
            histogram["edges"][1:],
            histogram["treated"],
            histogram["control"],
            strict=True,
        )
    ]
    overlap = parts.figure(
        plots.plot_overlap(found),
        "overlap",
        title="Could either arm have happened? (overlap)",
        description=f"Propensities of the treated upwards, of the control downwards. {by_name.get('overlap', '')}",
        data=parts.table("Share of each arm", bins, name="overlap"),
    )
    out = [parts.text(words.checks_sentence([c.passed for c in found])), parts.verdicts(found), overlap]
    if found.balance:
        out.append(_balance_figure(found, by_name.get("balance", "")))
    else:
        out.append(parts.text("Balance is not drawn: the log has no column that the fit does not use."))
    if found.placebo_effects:
        out.append(_placebo_figure(r, found))
    return out


def _balance_figure(found: Checks, message: str) -> Part:
    return parts.figure(
        plots.plot_balance(found),
        "balance",
        title="Are the arms alike in what the fit did not use? (balance)",
        description=f"Circles before weighting, diamonds after; near 0 is alike. {message}",
        data=parts.table("Standardised mean differences", list(found.balance), name="balance"),
    )


def _placebo_figure(r: Results, found: Checks) -> Part:
    q = r.question
    values = sorted(found.placebo_effects)
    d = q.decimals(values[0], values[-1])
    rows = [{"placebo effects": len(values), "smallest": q.number(values[0], d),
             "largest": q.number(values[-1], d), "the estimate": q.number(r.fit.effect, d)}]  # fmt: skip
    return parts.figure(
        plots.plot_placebo(found, r.fit),
        "placebo",
        title="What the same estimator finds where there is nothing (placebo)",
        description=f"{len(values)} effects of a shuffled exposure, which can have none, beside the estimate.",
        data=parts.table(f"In {q.label}", rows, name="placebo"),
    )


def sensitivity(r: Results) -> list[Part]:
    """Section 6: how strong a hidden cause would have to be."""
    if r.checks is None:
        return [parts.missing("No sensitivity analysis was run:", "cr.refute(fit)")]
    s, q = r.checks.sensitivity, r.question
    significant = not r.fit.ci_lower <= 0 <= r.fit.ci_upper
    said = [
        words.sensitivity_sentence(s.robustness_value, s.robustness_value_ci, significant=significant),
        words.e_value_sentence(s.e_value, s.e_value_ci),
    ]
    out = [parts.text(sentence) for sentence in said if sentence]
    if not s.benchmarks:
        return [*out, parts.text("There is no benchmark: nothing was adjusted for that could be left out.")]
    strongest = max(s.benchmarks, key=lambda b: abs(b["bias"]))
    d = q.decimals(r.fit.ci_lower, r.fit.ci_upper)
    rows = [
        {
            "left out": b["left_out"],
            "explains of the outcome": words.percent(b["gain_outcome"], 1),
            "explains of the exposure": words.percent(b["gain_treatment"], 1),
            "a hidden cause as strong could shift by": q.number(abs(b["bias"]), d),
            "effect without it": q.number(b["effect_without"], d),
        }
        for b in s.benchmarks
    ]
    return [
        *out,
        parts.text(words.benchmark_sentence(q, strongest["left_out"], strongest["bias"], r.fit.effect)),
        parts.table(
            f"Benchmarks: what was observed, as if it had been hidden; effects in {q.label}",
            rows,
            name="benchmarks",
            raw=list(s.benchmarks),
        ),
    ]
