"""The command ``causalrec``: each of its commands is a few lines over the public verbs.

Exit status: 0 done; 1 the analysis is refused (the message says why); 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from causalrec.errors import ArgumentError, CausalRecError, ColumnError

app = typer.Typer(
    name="causalrec",
    help="What a recommendation caused: causal inference on click logs whose confounders are words.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
REFUSED, USAGE = 1, 2

MANY = "May be repeated, or joined by commas."
Output = Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")]
Seed = Annotated[int, typer.Option(min=0, help="Every draw follows from it.")]
Machine = Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else there.")]
Column = Annotated[str | None, typer.Option(metavar="COLUMN")]
Columns = Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="May be repeated.")]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; refusals become one line on stderr and an exit status."""
    try:
        app(args=None if argv is None else list(argv), prog_name="causalrec")
    except CausalRecError as error:
        typer.echo(f"causalrec: {error}", err=True)
        sys.exit(USAGE if isinstance(error, (ArgumentError, ColumnError)) else REFUSED)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from causalrec import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(output: Output = Path("report.html"), seed: Seed = 0, as_json: Machine = False) -> None:
    """Analyse the simulated log that comes with the package, whose truth is known."""
    log, truth = _demo_log()
    _analyse(log, output, "ate", True, seed, as_json=as_json, truth=truth)


def _demo_log() -> tuple[Any, float]:
    """The log that comes with the package, without its truth; and its true average effect."""
    import causalrec as cr
    from causalrec.datasets.simulate import ROLES

    frame = cr.datasets.load_demo()
    log = cr.read_log(frame.loc[:, ~frame.columns.str.startswith("true_")], **ROLES)
    return log, float(frame["true_tau"].mean())


@app.command()
def report(
    log: Annotated[Path | None, typer.Argument(help="The click log: .csv, .tsv or .parquet.")] = None,
    treatment: Column = None,
    outcome: Column = None,
    text: Columns = None,
    history: Column = None,
    unit: Column = None,
    item: Column = None,
    modifier: Columns = None,
    confounder: Columns = None,
    propensity: Column = None,
    score: Column = None,
    position: Column = None,
    time: Columns = None,
    weight: Column = None,
    instrument: Column = None,
    negative_control: Columns = None,
    treated: Annotated[str | None, typer.Option(metavar="LEVEL", help="Which level is treated.")] = None,
    estimand: Annotated[str | None, typer.Option(help="ate, att or ato.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Every draw follows from it.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The HTML file to write.")] = None,
    refute: Annotated[bool | None, typer.Option(help="Run the checks that refit.")] = None,
    as_json: Machine = False,
    config: Annotated[Path | None, typer.Option(help="A TOML file with these options; flags win.")] = None,
) -> None:
    """Analyse a click log and write the report."""
    from causalrec.settings import Settings, merge, read_settings

    flags = dict(
        log=log, treatment=treatment, outcome=outcome, text=text, history=history, unit=unit, item=item,
        modifier=modifier, confounder=confounder, propensity=propensity, score=score, position=position,
        time=time, weight=weight, instrument=instrument, negative_control=negative_control, treated=treated, estimand=estimand, seed=seed, output=output, refute=refute,
    )  # fmt: skip
    chosen = merge(read_settings(config) if config else {}, flags, Settings)
    _analyse(chosen.read(), chosen.output, chosen.estimand, chosen.refute, chosen.seed, as_json=as_json)


def _analyse(
    log: Any,
    output: Path,
    estimand: str,
    refute: bool,
    seed: int,
    *,
    as_json: bool,
    truth: float | None = None,
) -> None:
    """Run the pipeline with its progress on stderr; print the findings."""
    from causalrec.pipeline import analyse, findings, in_short

    with redirect_stdout(sys.stderr):  # whatever others print, stdout carries the findings only
        say = partial(typer.echo, err=True)
        analysis = analyse(log, output, estimand=estimand, refute=refute, seed=seed, say=say)
    found = findings(analysis, truth)
    typer.echo(json.dumps(found, ensure_ascii=False) if as_json else in_short(found))


@app.command()
def uplift(
    log: Annotated[Path | None, typer.Argument(help="The click log: .csv, .tsv or .parquet.")] = None,
    treatment: Column = None,
    outcome: Column = None,
    text: Columns = None,
    history: Column = None,
    unit: Column = None,
    item: Column = None,
    modifiers: Annotated[
        list[str] | None, typer.Option("--modifier", "--modifiers", metavar="COLUMNS", help=MANY)
    ] = None,
    confounders: Annotated[
        list[str] | None, typer.Option("--confounder", "--confounders", metavar="COLUMNS", help=MANY)
    ] = None,
    propensity: Column = None,
    weight: Column = None,
    treated: Annotated[str | None, typer.Option(metavar="LEVEL", help="Which level is treated.")] = None,
    value: Annotated[float | None, typer.Option(help="What a click (a unit of outcome) is worth; 1.")] = None,
    cost: Annotated[
        float | None, typer.Option(help="What a recommendation costs, in the same money; 0.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Share of the impressions to recommend to, at most.")
    ] = None,
    protected: Annotated[list[str] | None, typer.Option(metavar="COLUMNS", help=MANY)] = None,
    min_share: Annotated[float | None, typer.Option(help="No protected group is served below it.")] = None,
    max_gap: Annotated[float | None, typer.Option(help="Between protected groups' effects, at most.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Every draw follows from it.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The HTML file to write.")] = None,
    figures: Annotated[Path | None, typer.Option(help="A folder for every figure as PNG and SVG.")] = None,
    refute: Annotated[bool | None, typer.Option(help="Run the checks that refit.")] = None,
    as_json: Machine = False,
    config: Annotated[Path | None, typer.Option(help="A TOML file with these options; flags win.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Take the simulated log of the package.")] = False,
) -> None:
    """Say whom to target and what it is worth, judged on held-out users, and write the uplift report."""
    from causalrec.settings import UpliftSettings, merge, read_settings

    flags = dict(
        log=log, treatment=treatment, outcome=outcome, text=text, history=history, unit=unit, item=item,
        modifier=modifiers, confounder=confounders, propensity=propensity, weight=weight, treated=treated, value=value,
        cost=cost, budget=budget, protected=protected, min_share=min_share, max_gap=max_gap, seed=seed, output=output,
        figures=figures, refute=refute,
    )  # fmt: skip
    if demo and (log or treatment or outcome):
        raise ArgumentError("--demo brings its own log and columns; leave them out, or leave out --demo.")
    given = flags | {"log": Path("demo")} if demo else flags
    chosen = merge(read_settings(config, UpliftSettings) if config else {}, given, UpliftSettings)
    read, truth = _demo_log() if demo else (chosen.read(), None)
    _target(read, chosen, as_json=as_json, truth=truth)


def _target(log: Any, chosen: Any, *, as_json: bool, truth: float | None) -> None:
    """Run the pipeline of whom to target with its progress on stderr; print the findings."""
    from causalrec.pipeline import target_log, targeted_findings, targeted_in_short

    with redirect_stdout(sys.stderr):  # whatever others print, stdout carries the findings only
        found = target_log(
            log, chosen.output, economics=chosen.economics(log.frame.columns), refute=chosen.refute, seed=chosen.seed,
            figures=chosen.figures, say=partial(typer.echo, err=True),
        )  # fmt: skip
    said = targeted_findings(found, truth)
    typer.echo(json.dumps(said, ensure_ascii=False) if as_json else targeted_in_short(said))


@app.command()
def finetune(
    log: Annotated[Path | None, typer.Argument(help="The click log, candidates that were not shown included: .csv, .tsv or .parquet.")] = None,
    treatment: Annotated[str | None, typer.Option(metavar="COLUMN", help="Shown or not.")] = None,
    outcome: Column = None,
    text: Columns = None,
    history: Column = None,
    unit: Column = None,
    item: Column = None,
    modifiers: Annotated[
        list[str] | None, typer.Option("--modifier", "--modifiers", metavar="COLUMNS", help=MANY)
    ] = None,
    confounders: Annotated[
        list[str] | None, typer.Option("--confounder", "--confounders", metavar="COLUMNS", help=MANY)
    ] = None,
    propensity: Annotated[str | None, typer.Option(metavar="COLUMN", help="P(shown) as it was logged; estimated if there is none.")] = None,
    position: Column = None,
    time: Columns = None,
    treated: Annotated[str | None, typer.Option(metavar="LEVEL", help="Which level is shown.")] = None,
    objective: Annotated[
        str | None, typer.Option(help="auto, naive, ips, snips, dr, dr-jl, mrdr, poem, banditnet or uplift; auto.")
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="frozen, lora, ia3, prefix, prompt, full or adalora; frozen.")] = None,
    head: Annotated[str | None, typer.Option(help="two-tower or cross; two-tower.")] = None,
    loss: Annotated[str | None, typer.Option(help="pointwise or pairwise; pointwise.")] = None,
    rank: Annotated[int | None, typer.Option(help="Of lora and adalora.")] = None,
    clip: Annotated[float | None, typer.Option(help="No propensity counts as less.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most; 3.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows in a step; 256.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Largest step of the encoder's weights; of the head's where the encoder is frozen.")
    ] = None,
    head_rate: Annotated[float | None, typer.Option(help="Largest step of the head's weights.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a text that are read.")] = None,
    validation: Annotated[float | None, typer.Option(help="Share of the users that are held out; 0.2.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …; the fastest there is.")] = None,
    encoder: Annotated[str | None, typer.Option(metavar="MODEL", help="To start from: a name or a folder.")] = None,
    random_test: Annotated[Path | None, typer.Option(metavar="FILE", help="Impressions drawn at random, to judge by.")] = None,
    random_validation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Impressions drawn at random, to stop and to choose by.")
    ] = None,
    examination: Annotated[
        str | None,
        typer.Option(metavar="harvest|em", help="Divide clicks by P(examined | position), estimated from items seen at several positions or by a click model; needs --position."),
    ] = None,
    save_steps: Annotated[int | None, typer.Option(help="Steps between two checkpoints; an epoch.")] = None,
    report_to: Annotated[list[str] | None, typer.Option(metavar="NAMES", help="tensorboard, mlflow, wandb: those that are installed.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Every draw follows from it.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder; the same command again goes on there.")
    ] = None,
    as_json: Machine = False,
    config: Annotated[Path | None, typer.Option(help="A TOML file with these options; flags win.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Take the simulated log of the package.")] = False,
) -> None:
    """Train a ranker on clicks without the old recommender's bias, judge it off policy, and write it with its report."""
    from causalrec.settings import FinetuneSettings, merge, read_settings

    flags = dict(
        log=log, treatment=treatment, outcome=outcome, text=text, history=history, unit=unit, item=item, modifier=modifiers,
        confounder=confounders, propensity=propensity, position=position, time=time, treated=treated, objective=objective,
        adapter=adapter, head=head, loss=loss, rank=rank, clip=clip, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        head_rate=head_rate, max_length=max_length, validation=validation, device=device, encoder=encoder, random_test=random_test,
        random_validation=random_validation, examination=examination, save_steps=save_steps, report_to=report_to, seed=seed, output=output,
    )  # fmt: skip
    if demo and (log or treatment or outcome):
        raise ArgumentError("--demo brings its own log and columns; leave them out, or leave out --demo.")
    given = flags | {"log": Path("demo")} if demo else flags
    chosen = merge(read_settings(config, FinetuneSettings) if config else {}, given, FinetuneSettings)
    _train(chosen, demo=demo, as_json=as_json)


def _train(chosen: Any, *, demo: bool, as_json: bool) -> None:
    """Run the pipeline of fine-tuning with its progress on stderr; print the findings."""
    from causalrec.finetune.processes import is_first
    from causalrec.pipeline import gain_in_truth, train_log, trained_findings, trained_in_short

    recipe = chosen.recipe()
    with redirect_stdout(sys.stderr):  # whatever others print, stdout carries the findings only
        log = _demo_log()[0] if demo else chosen.read()
        run = train_log(log, chosen.output, recipe, random_data=chosen.random_data(), seed=chosen.seed, say=partial(typer.echo, err=True))
        truth = None
        if demo:
            from causalrec.datasets import load_demo

            truth = gain_in_truth(run.ranker, load_demo())
    found = trained_findings(run, truth)
    if is_first():
        typer.echo(json.dumps(found, ensure_ascii=False) if as_json else trained_in_short(found))


@app.command()
def simulate(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("log.parquet"),
    n: Annotated[int, typer.Option(help="Impressions.")] = 20_000,
    users: Annotated[int, typer.Option(help="Users.")] = 2_000,
    items: Annotated[int, typer.Option(help="Items, each with a title.")] = 800,
    confounding: Annotated[float, typer.Option(help="How much the words decide about exposure.")] = 1.0,
    hidden: Annotated[float, typer.Option(help="A cause of both that no column shows.")] = 0.0,
    randomised: Annotated[bool, typer.Option("--randomised", help="Exposure by the toss of a coin.")] = False,
    seed: Seed = 0,
) -> None:
    """Write a simulated click log with its truth in the columns true_*."""
    import causalrec as cr
    from causalrec.pipeline import check_writable

    check_writable(output)
    simulation = cr.simulate(
        n,
        n_users=users,
        n_items=items,
        confounding=confounding,
        hidden=hidden,
        randomised=randomised,
        random_state=seed,
    )
    simulation.to_parquet(output)
    typer.echo(f"{simulation.summary()}\nwritten to {output}")


@app.command()
def data(name: Annotated[str | None, typer.Argument(help="One data set, with its files.")] = None) -> None:
    """List the public data sets that the loaders know: terms, and where they are."""
    from causalrec._checks import check_choice
    from causalrec.datasets.sources import sources
    from causalrec.doctor import whereabouts

    known = sources()
    if name is not None:
        source = known[check_choice(name, "name", list(known))]
        typer.echo(f"{source.summary()}\n  · found: {whereabouts(source)}")
        return
    for source in known.values():
        typer.echo(f"{source.name:<12} {source.page}\n{'':12} terms: {source.terms}")
        typer.echo(f"{'':12} found: {whereabouts(source)}")


@app.command()
def doctor(as_json: Machine = False) -> None:
    """Say which versions, device, encoder and data this machine has; status 1 if something is missing."""
    from causalrec.doctor import examine

    found = examine()
    typer.echo(json.dumps(found.to_frame().to_dict("records")) if as_json else found.summary())
    if not found.well:
        raise typer.Exit(REFUSED)


if __name__ == "__main__":
    main()
