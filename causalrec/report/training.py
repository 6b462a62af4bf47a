"""The training report: what a ranker is worth, how good its scores are, how it learnt, and whether its weights could be trusted."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from causalrec.finetune.evaluation import OF_RISKS
from causalrec.finetune.examination import Examination
from causalrec.finetune.ranker import Ranker
from causalrec.report import parts, training_plots, words
from causalrec.report.design import PACKAGES, version
from causalrec.report.parts import Part
from causalrec.report.results import records
from causalrec.report.training_plots import S_BOUNDS, kept_epoch, of_risk, question_of_ranker
from causalrec.report.training_words import spread
from causalrec.scores import Estimate

OF_ESTIMATORS = {
    "naive": "of what the old recommender showed: says nothing of the rest",
    "IPS": "of all impressions, had they been shown; weights 1/e, noisy",
    "SNIPS": "the same, weights divided by their sum",
    "DR": "the same, from a model of the outcome and the weights; what the training is judged by",
}
WHO = {True: " whose clicks no weight has learnt from", False: ", some of whom earlier rounds have learnt from"}
OF_VALUES = {
    "value_today": "today’s choice, as it was shown",
    "value": "the ranker’s choice, off policy (DR)",
    "gain": "difference",
    "caused": "caused by the ranker’s choice (DR)",
}
OF_EPOCHS = ("epoch", "loss", "risk", "risk_dr", "risk_snips", "risk_ips", "risk_naive", "policy_share")
BOUND = re.compile(r"^(?:(≥|<) (\S+)|(\S+) to (\S+))$")
VERDICTS = {True: "✓ holds", False: "✗ out of bounds", None: "○ for information"}


def value(ranker: Ranker) -> list[Part]:
    """What showing the ranker's choice brings against today's."""
    e, q = ranker.evaluation, question_of_ranker(ranker)
    rows = [
        {"choice": OF_VALUES[key], q.label: spread(q, found), "standard error": q.number(found.std_error, q.decimals(found.ci_lower, found.ci_upper))}
        for key in OF_VALUES
        if (found := e.values.get(key)) is not None
    ]  # fmt: skip
    return [
        parts.text(
            f"On {e.judges}{WHO[e.unseen]}. The ranker may show as many of a user’s candidates as he is shown "
            "in expectation, and takes those with the largest scores; candidates that are not in the log are not judged."
        ),
        parts.figure(
            training_plots.plot_ranker_value(e, question=q),
            "ranker-value",
            title="The ranker’s choice beside today’s",
            description=f"Lines are 95 % intervals, clustered by {e.clusters}. The difference is paired: both choices are of the same users.",
            data=parts.table("With 95 % intervals", rows, name="ranker-value", raw=_raw("choice", e.values)),
        ),
        *([] if "caused" in e.values else [parts.text("What happens when an item is not shown was not seen, so that caused clicks are unknown.")]),
    ]


def risk(ranker: Ranker) -> list[Part]:
    """The held-out risk by four estimators, beside a constant that knows the mean."""
    e = ranker.evaluation
    q = of_risk(e.risk_of, thousand=False)
    rows = [
        {"estimator": name, "the ranker": spread(q, found), "a constant": spread(q, e.risks_before[name]),
         "it estimates the risk": OF_ESTIMATORS.get(name, "")}
        for name, found in e.risks.items()
    ]  # fmt: skip
    raw = [
        {"estimator": name, "scores": who, **_numbers(found)}
        for who, risks in (("ranker", e.risks), ("constant", e.risks_before))
        for name, found in risks.items()
    ]
    said = "A constant that knows the mean is what a ranker has to beat; where both naive risks differ and the others do not, what was learnt is the old recommender’s taste."
    if e.risk_of != "clicks":
        said = OF_RISKS[e.risk_of]
    return [
        parts.text(said),
        parts.figure(
            training_plots.plot_risks(e),
            "ranker-risk",
            title="Held-out risk, four estimators side by side" if len(e.risks) > 1 else "Held-out risk",
            description=f"{e.risk_name('each estimator').capitalize()}, on held-out users, less is better; lines are 95 % intervals, clustered by {e.clusters}.",
            data=parts.table(f"{q.label.capitalize()}, with 95 % intervals", rows, name="ranker-risk", raw=raw),
        ),
    ]


def random_data(ranker: Ranker) -> list[Part]:
    """Quality on impressions that were drawn at random."""
    m = ranker.evaluation.mar
    assert m is not None
    rows = [
        {"measure": r["quantity"], "estimate": r["estimate"], "95 % interval": f"{words.number(r['ci_lower'], 4)} to {words.number(r['ci_upper'], 4)}"}
        for r in records(m.to_frame())
    ]
    return [
        parts.text(
            f"{m.n:,} impressions of {m.n_users:,} users whose items were drawn at random: no weight is needed there, and no assumption about why "
            "something was shown. None of them was trained on."
        ),
        parts.table("Intervals from a bootstrap of users", rows, name="ranker-random", raw=records(m.to_frame())),
    ]


def choice(ranker: Ranker) -> list[Part]:
    """How the objectives did against the naive one."""
    c = ranker.choice
    assert c is not None
    q = of_risk(c.risk_of)
    rows = [{"objective": "naive", f"difference, {q.label}": "0", "kept": c.chosen == "naive"}]
    rows += [
        {"objective": name, f"difference, {q.label}": spread(q, e), "kept": name == c.chosen}
        for name, e in c.differences.items()
    ]
    return [
        parts.text(
            f"Judged on {c.where}. Debiased losses can lose to the naive one, where propensities are poor or the log is short; hence a candidate is kept "
            f"only if its risk is below that of the naive ranker by more than {c.standard_errors:g} standard error of the paired difference."
        ),
        parts.figure(
            training_plots.plot_objectives(c),
            "ranker-choice",
            title="Each objective against the naive one",
            description="Held-out risk less that of the ranker trained naively, on the same rows; filled: the one that was kept. Lines are 95 % intervals.",
            data=parts.table("With 95 % intervals, not corrected for the number of candidates", rows, name="ranker-choice", raw=records(c.to_frame())),
        ),
    ]


def examination(ranker: Ranker) -> list[Part]:
    """The curve that clicks were divided by."""
    curve = ranker.weighing.examination
    rows = [
        {"position": int(k), "P(examined)": words.number(theta, 3), "95 % interval": "given" if curve.method == "given" else f"{words.number(low, 3)} to {words.number(high, 3)}"}
        for k, theta, low, high in zip(curve.positions, curve.theta, curve.ci_lower, curve.ci_upper, strict=True)
    ]
    drawn = parts.figure(
        training_plots.plot_examination(curve),
        "ranker-examination",
        title="P(examined | position)",
        description="Relative to the first position; lines are 95 % intervals, clustered by user. The click rate falls for another reason as well: the old recommender puts first what would be clicked anyway.",
        data=parts.table("P(examined | position)", rows, name="ranker-examination", raw=records(curve.to_frame())),
    )
    said = parts.text("Clicks were divided by the chance that their position was looked at, so that values and risks are of rows that are shown and looked at, today’s as well.")
    return [said, drawn, *([parts.bullets(_sentence(a) for a in curve.alarms)] if curve.alarms else [])]


def training(ranker: Ranker) -> list[Part]:
    """What learnt, how long it took, and the risks by epoch."""
    learnt = [{k: r.get(k) for k in OF_EPOCHS if k in ranker.history[0]} for r in ranker.history]
    table = parts.table("By epoch: loss of the objective on training rows; the others are held out", learnt, name="ranker-epochs", raw=list(ranker.history))
    kept, e = kept_epoch(ranker), ranker.evaluation
    judge = "risk on randomly drawn impressions" if e.random_judged else "held-out risk"
    drawn = parts.figure(
        training_plots.plot_epochs(ranker),
        "ranker-epochs",
        title="Loss and held-out risks by epoch",
        description=f"The weights of epoch {kept['epoch']:g} were kept: the latest whose {judge} ({kept['risk']:.4f} {of_risk(e.risk_of, thousand=False).label}) is not shown to be above the lowest.",
        data=table,
    )
    return [parts.facts(_size(ranker)), drawn]


def _size(ranker: Ranker) -> list[tuple[str, str]]:
    t, rails, e = ranker.trained, ranker.guard_rails, ranker.evaluation
    network = "head; the encoder is frozen and read once" if not ranker.adapter.tunes else "encoder and head"
    return [
        ("encoder", words.shown(ranker.base.model, 80)),
        ("adapter", repr(ranker.adapter)),
        ("objective", repr(ranker.objective)),
        ("head", repr(ranker.head)),
        ("weights learnt", f"{t.n_trained:,} of {t.n_weights:,} ({words.percent(t.n_trained / t.n_weights, 1)}; {network})"),
        ("memory of weights, gradients and moments", f"{t.memory / 2**20:,.1f} MiB, counted; without activations"),
        ("rows", f"{rails.n:,} trained on, {rails.n_shown:,} of them shown; {e.n:,} held out ({e.n_users:,} users)"),
        ("epochs", f"{len(ranker.history)} of at most {ranker.epochs}"),
        ("time of the training call", f"{t.seconds:,.1f} s, {t.rows_per_second:,.0f} rows/s"),
    ]


def guard_rails(ranker: Ranker) -> list[Part]:
    """What the weights should be, what they are, and what is out of bounds."""
    raw = records(ranker.guard_rails.to_frame())
    rows = [{"guard rail": r["guard rail"], "value": r["value"], "should be": r["should be"], "verdict": VERDICTS[holds(r["value"], r["should be"])]} for r in raw]
    s = kept_epoch(ranker)["policy_share"] if ranker.history else None
    if s is not None:
        between = f"{S_BOUNDS[0]} to {S_BOUNDS[1]}"
        rows.append({"guard rail": "BanditNet’s S on held-out users, epoch that was kept", "value": s, "should be": between, "verdict": VERDICTS[holds(s, between)]})
        raw.append({"guard rail": "policy_share", "value": s, "should be": between})
    out = [
        parts.text("They find weights that are bad, not propensities that are wrong: a model of exposure that misses what decides gives weights that look well."),
        parts.table("Of the weights of the training rows", rows, name="ranker-guard-rails", raw=raw),
    ]
    warned = warnings_of(ranker)
    out.append(parts.bullets(_sentence(w) for w in warned) if warned else parts.text("Every guard rail that has a bound holds."))
    if s is None:
        return out
    shares = [{"epoch": r["epoch"], "S": r["policy_share"]} for r in ranker.history]
    drawn = parts.figure(
        training_plots.plot_policy_share(ranker),
        "ranker-policy-share",
        title="BanditNet’s S by epoch",
        description="Mean importance weight, on held-out users, of the policy that shows a row with probability σ(score): 1 in expectation where the "
        "propensities are true. One that drifts away says that the scores follow the errors of the propensities.",
        data=parts.table("S by epoch", shares, name="ranker-policy-share"),
    )
    return [*out, drawn]


def holds(value: float, bound: str) -> bool | None:
    """Whether a value is within ``≥ 0.1``, ``< 0.01`` or ``0.95 to 1.05``; None for a bound in words."""
    found = BOUND.match(bound)
    if found is None:
        return None
    sign, one, low, high = found.groups()
    if sign is None:
        return float(low) <= value <= float(high)
    return value >= float(one) if sign == "≥" else value < float(one)


def warnings_of(ranker: Ranker) -> list[str]:
    """What is out of its bounds, S included."""
    said = list(ranker.guard_rails.warnings)
    s = kept_epoch(ranker)["policy_share"] if ranker.history else 1.0
    if not S_BOUNDS[0] <= s <= S_BOUNDS[1]:
        said.append(f"BanditNet’s S is {s:.2f} on held-out users and should be 1: the propensities are not those of these rows, or the users are few.")
    return said


def rounds(ranker: Ranker) -> list[Part]:
    """What each new log brought."""
    q, risk = question_of_ranker(ranker), of_risk(ranker.evaluation.risk_of)
    rows = [
        {
            "round": r.number, "rows": f"{r.n:,} + {r.n_replayed:,}", "promoted": r.promoted,
            "risk": spread(risk, r.risk), "value": spread(q, r.value),
            "effect": "–" if r.effect is None else spread(training_plots.SHOWN, r.effect),
            "effect moved by": "–" if r.effect_moved is None else spread(training_plots.SHOWN, r.effect_moved),
        }
        for r in ranker.rounds
    ]  # fmt: skip
    raw = [{"round": r.number, "n": r.n, "n_held_out": r.n_held_out, "n_replayed": r.n_replayed, "promoted": r.promoted, **_numbers(r.risk)} for r in ranker.rounds]
    return [
        parts.text("Each new log is learnt from, and the new weights are promoted only if held-out users of that log are the better for it."),
        parts.table(
            f"Rows: new + replayed. Risk and value: of the new weights less those of the old ones, {risk.label}, {q.label}. Effect: of showing, adjusted with the encoder that was kept; moved: by the new encoder, on the same users. 95 % intervals",
            rows, name="ranker-rounds", raw=raw,
        ),
        parts.bullets(r.reason for r in ranker.rounds),
    ]


def assumptions(ranker: Ranker) -> list[Part]:
    """What none of these numbers can test."""
    logged = None if ranker.replay is None else ranker.replay.labels.logged
    plan = None if ranker.weighing is None else ranker.weighing.plan
    shown = "the logged propensities are those with which rows were shown"
    if not logged:
        shown = "whatever decides both what is shown and what is clicked is in the words, the history and the declared columns; P(shown) is estimated from them"
    said = [
        shown,
        "every row could have been shown, and not shown, with a probability above 0; the guard rails say how nearly",
        "what is shown to one user does not change what another clicks, nor does a candidate’s click depend on what stands beside it",
        "users of tomorrow and their candidates are like those of the log",
        *(() if plan is None else plan.assumptions),
    ]
    if ranker.weighing is None or ranker.weighing.examination is None:
        said.append("a candidate that was shown was looked at: clicks were not divided by P(examined | position)")
    overturn = [_sentence(w) for w in warnings_of(ranker)]
    if ranker.evaluation.random_judged:
        overturn.append("Randomly drawn impressions stopped the training (and chose the objective, where several competed): nothing was chosen on the held-out users.")
    else:
        overturn.append("The held-out users also stopped the training (and chose the objective, where several competed): new users may be served a little worse.")
    overturn.append("An experiment in which some users get the ranker, by lot: it outranks this page.")
    return [
        parts.text("The log cannot test the following; whoever doubts one of them doubts the result:"),
        parts.bullets(_sentence(s) for s in said),
        parts.heading("What would overturn the result"),
        parts.bullets(overturn),
    ]


def reproducibility(ranker: Ranker) -> list[Part]:
    """Data, encoder, options, versions."""
    labels = None if ranker.replay is None else ranker.replay.labels
    chosen = [
        ("data trained on (sha256, declared columns)", "not kept with the ranker" if ranker.train is None else ranker.train.fingerprint),
        ("encoder it started from", ranker.base.fingerprint),
        ("training", repr(ranker.training)),
        ("propensities", "–" if labels is None else "logged" if labels.logged else "estimated, cross-fitted by user"),
        ("clip of the evaluation", "–" if labels is None else f"{labels.clip.bound:g}"),
        ("users whose clicks it has seen", f"{len(ranker.seen_units):,}; a tuned encoder is refused on them"),
    ]
    packages = (*PACKAGES, "peft", "accelerate")
    return [parts.facts(chosen), parts.facts((name, version(name)) for name in packages)]


def _raw(name: str, found: dict[str, Estimate]) -> list[dict[str, Any]]:
    return [{name: key, **_numbers(e)} for key, e in found.items()]


def _numbers(e: Estimate) -> dict[str, float]:
    return {"estimate": e.value, "std_error": e.std_error, "ci_lower": e.ci_lower, "ci_upper": e.ci_upper}


def _sentence(clause: str) -> str:
    return clause[:1].upper() + clause[1:] + ("" if clause.endswith(".") else ".")


Section = tuple[str, str, Callable[[Ranker], list[Part]], Callable[[Ranker], bool]]
SECTIONS: tuple[Section, ...] = (
    ("ranker-value", "What is the ranker’s choice worth?", value, lambda r: True),
    ("ranker-random", "On impressions drawn at random", random_data, lambda r: r.evaluation.mar is not None),
    ("ranker-risk", "How good are its scores?", risk, lambda r: True),
    ("ranker-choice", "Does debiasing pay?", choice, lambda r: r.choice is not None),
    ("ranker-guard-rails", "Can the weights be trusted?", guard_rails, lambda r: True),
    ("ranker-examination", "Was it looked at?", examination, lambda r: isinstance(getattr(r.weighing, "examination", None), Examination)),
    ("ranker-training", "How it learnt", training, lambda r: bool(r.history)),
    ("ranker-rounds", "What new logs brought", rounds, lambda r: bool(r.rounds)),
    ("ranker-assumptions", "What the ranker assumes, and what would overturn it", assumptions, lambda r: True),
    ("ranker-reproducibility", "How to train it again", reproducibility, lambda r: True),
)
