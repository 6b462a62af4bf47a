"""Fine-tuning in one function, from a log to a folder with a ranker and its page: what ``causalrec finetune`` runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalrec import __version__
from causalrec.errors import OutputError
from causalrec.finetune.adapters import Adapter
from causalrec.finetune.examination import position_curve
from causalrec.finetune.fitting import need_device
from causalrec.finetune.folder import MANIFEST, check_replaced
from causalrec.finetune.policy_value import first_of_each
from causalrec.finetune.processes import is_first
from causalrec.finetune.ranker import Ranker
from causalrec.finetune.run_folder import newest_whole, runs_in
from causalrec.finetune.verb import finetune
from causalrec.finetune.weighing import RandomData
from causalrec.pipeline.recipe import Recipe
from causalrec.pipeline.stages import Clock, Say, check_writable, in_lines, listening, plain
from causalrec.report import Report, report
from causalrec.report.training import warnings_of
from causalrec.represent import embed
from causalrec.represent.text import SEEN_UNITS

PAGE, RANKER, ENCODER = "report.html", "ranker", "encoder"
OF_ESTIMATE = ("value", "std_error", "ci_lower", "ci_upper")


@dataclass(frozen=True)
class TrainedRun:
    """What one run made.

    Attributes
    ----------
    ranker : Ranker
    page : Report
    output : Path
        The folder: ``report.html``, ``ranker/``, ``encoder/`` where one was tuned, and the checkpoints.
    resumed : tuple of str
        The checkpoints that it went on from, ``"run/checkpoint-12"``; empty where it began anew.
    encoder : Path or None
    warnings : tuple of str
    seconds : tuple of (stage, float)
    """

    ranker: Ranker
    page: Report
    output: Path
    resumed: tuple[str, ...]
    encoder: Path | None
    warnings: tuple[str, ...]
    seconds: tuple[tuple[str, float], ...]


def train_log(
    log: Any, output: Path, recipe: Recipe, *, random_data: RandomData | None = None, seed: int = 0, say: Say = lambda _: None
) -> TrainedRun:
    """Run log → representation → training → evaluation → report, into one folder.

    Parameters
    ----------
    log : ImpressionLog
    output : Path
        A folder; made if it is missing. A run that was cut off goes on there. Of several processes the first writes to it.
    recipe : Recipe
    random_data : RandomData, optional
    seed : int
        Every draw follows from it.
    say : callable
        Told, in a line each, what begins and how long it took.

    Raises
    ------
    OutputError
        The folder cannot be written to, or what the run would replace is not of a run; nothing was computed.
    CausalRecError
        The run is refused; the message says why.
    """
    need_device(recipe.training.device)
    page_at = _claimed(output, recipe.adapter) / PAGE
    clock = Clock(say)
    resumed = checkpoints(output)
    if resumed:
        say(f"found {', '.join(resumed)} in {output}: the same run goes on from there")
    with listening(say) as heard:
        with clock("reading the words (pretrained encoder)"):
            log = embed(log, recipe.encoder)
        weighing = recipe.weighing
        if recipe.examination is not None:
            with clock(f"P(examined | position), by {'a click model' if recipe.examination == 'em' else 'items at several positions'}"):
                weighing = replace(weighing, examination=position_curve(log, method=recipe.examination, random_state=seed))
        with clock(f"training and judging ({recipe.objective.__class__.__name__}, {recipe.adapter.name}; up to {recipe.epochs} epochs)"):
            ranker = finetune(
                log, objective=recipe.objective, adapter=recipe.adapter, head=recipe.head, epochs=recipe.epochs, training=recipe.training,
                weighing=weighing, random_data=random_data, encoder=recipe.encoder, output=output, random_state=seed,
            )  # fmt: skip
        with clock(f"the ranker ({output / RANKER})"):
            ranker.save(output / RANKER, overwrite=True)
            encoder = _encoder(ranker)
        left_out = [f"Seconds and rows a second are those of the call that went on from {', '.join(resumed)}."] if resumed else []
        with clock(f"the report ({page_at})"):
            page = report(ranker, skipped=left_out)
            if is_first():
                page.save(page_at)
    return TrainedRun(ranker, page, output, resumed, encoder, tuple(heard), tuple(clock.seconds))


def _claimed(output: Path, adapter: Adapter) -> Path:
    """The folder, made if it is missing, once all that a run writes can be written there and replaces nothing of another's."""
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"output is {str(output)!r}, which cannot be a folder ({error.strerror}); name another, in a folder that exists.") from error
    check_writable(output / PAGE)
    check_replaced(output / RANKER, MANIFEST, "no ranker was saved there")
    if _hands_over(adapter):
        check_replaced(output / ENCODER, SEEN_UNITS, "no ranker's encoder was written there")
    return output


def _hands_over(adapter: Adapter) -> bool:
    """Whether it leaves an encoder that learnt."""
    return adapter.tunes and adapter.mergeable


def checkpoints(output: Path) -> tuple[str, ...]:
    """The newest whole checkpoint of each run in a folder, ``"run/checkpoint-12"``: where the same run goes on."""
    found = map(newest_whole, runs_in(output))
    return tuple(str(one.relative_to(output)) for one in found if one is not None)


def _encoder(ranker: Ranker) -> Path | None:
    """Write the tuned encoder; None where there is none to hand over, or where another process writes it."""
    if not is_first() or not _hands_over(ranker.adapter):
        return None
    return Path(ranker.encoder.model)


def gain_in_truth(ranker: Ranker, frame: pd.DataFrame) -> float:
    """What the ranker's choice truly brings over today's, clicks per impression shown: mean P(click if shown) of either; `frame` is simulated."""
    held = ranker.held_out
    if held is None:
        raise OutputError("the ranker was loaded and no longer has its held-out users.")
    p1, t = frame.loc[held.frame.index, "true_p1"].to_numpy(), held.treatment
    slots = t if ranker.held_labels is None else ranker.held_labels.e
    pi = first_of_each(ranker.trained.valid_scores, slots, held.units)
    return float(np.average(p1, weights=pi) - np.average(p1, weights=t))


def trained_findings(run: TrainedRun, truth: float | None = None) -> dict[str, Any]:
    """What a run found, as plain values for a machine; numbers unrounded, NaN as None.

    `truth` is the true gain over today's choice, where the log is simulated.
    """
    r, answer = run.ranker, run.page.context["answer"]
    e, rails, choice = r.evaluation, r.guard_rails, r.choice
    return plain(
        {
            "causalrec": __version__,
            "decision": answer["headline"],
            "sentences": answer["sentences"],
            "objective": r.objective.name,
            "adapter": repr(r.adapter),
            "choice": choice and {"chosen": choice.chosen, "where": choice.where, "differences": _estimates(choice.differences)},
            "values": _estimates(e.values),
            "risk_of": e.risk_of,
            "risks": _estimates(e.risks),
            "risks_of_a_constant": _estimates(e.risks_before),
            "random": e.mar and {"k": e.mar.k, "n": e.mar.n, **_estimates({"auc": e.mar.auc, "ndcg": e.mar.ndcg, "log_loss": e.mar.log_loss})},
            "truth": truth,
            "n_held_out": e.n,
            "n_users_held_out": e.n_users,
            "guard_rails": {name: getattr(rails, name) for name in rails.__dataclass_fields__},
            "out_of_bounds": warnings_of(r),
            "history": r.history,
            "weights": {"learnt": r.trained.n_trained, "all": r.trained.n_weights},
            "rows_per_second": r.trained.rows_per_second,
            "resumed": run.resumed,
            "warnings": run.warnings,
            "seconds": dict(run.seconds),
            "report": str(run.output / PAGE),
            "ranker": str(run.output / RANKER),
            "encoder": run.encoder and str(run.encoder),
            "max_length": r.training.max_length,
        }
    )


def _estimates(found: dict[str, Any]) -> dict[str, Any]:
    return {name: {k: getattr(e, k) for k in OF_ESTIMATE} for name, e in found.items()}


def trained_in_short(found: dict[str, Any]) -> str:
    """``trained_findings`` as the few lines that a terminal shows."""
    lines = [("decision", found["decision"])]
    lines += [("" if i else "why", line) for i, line in enumerate(found["sentences"])]
    if found["truth"] is not None:
        gain = found["values"]["gain"]
        inside = "inside" if gain["ci_lower"] <= found["truth"] <= gain["ci_upper"] else "outside"
        lines.append(("the true gain (simulated log)", f"{1000 * found['truth']:+.1f} clicks per 1,000 impressions shown   {inside} the interval"))
    lines += [("" if i else "OUT OF BOUNDS", line) for i, line in enumerate(found["out_of_bounds"])]
    lines.append(("weights learnt", f"{found['weights']['learnt']:,} of {found['weights']['all']:,} in training, {found['rows_per_second']:,.0f} rows/s"))
    if found["resumed"]:
        lines.append(("went on from", ", ".join(found["resumed"])))
    lines += [("ranker", f"{found['ranker']}   cr.Ranker.load({found['ranker']!r})"), ("report", found["report"])]
    if found["encoder"]:
        call = f"cr.TextEmbedder({found['encoder']!r}, max_length={found['max_length']})"
        lines.insert(-1, ("encoder", f"{found['encoder']}   {call}, refused on users whose clicks it saw"))
    return in_lines(lines)
