"""The options of ``causalrec report``, ``uplift`` and ``finetune``, from flags and from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from causalrec._checks import check_choice, check_scalar, did_you_mean
from causalrec.errors import ArgumentError
from causalrec.finetune.examination import Method
from causalrec.finetune.weighing import RandomData
from causalrec.pipeline.recipe import Recipe, recipe_of
from causalrec.pipeline.whom import Economics

ESTIMANDS = ("ate", "att", "ato")
NAMES = (
    "treatment", "outcome", "history", "unit", "item", "propensity", "score", "position", "weight", "instrument",
)  # fmt: skip
LISTS = ("text", "modifier", "confounder", "time", "negative_control", "protected", "report_to")
NUMBERS = (
    "value", "cost", "budget", "min_share", "max_gap", "rank", "epochs", "batch_size", "learning_rate", "head_rate", "clip", "max_length",
    "validation", "save_steps",
)  # fmt: skip
NO_ROLES = ("protected", "report_to")
PLURAL = {"modifier": "modifiers", "confounder": "confounders", "negative_control": "negative_controls"}


@dataclass(frozen=True)
class LogSettings:
    """Where the log is and what its columns are; what all commands that read one have in common."""

    log: Path
    treatment: str | None = None
    outcome: str | None = None
    text: tuple[str, ...] = ()
    history: str | None = None
    unit: str | None = None
    item: str | None = None
    modifier: tuple[str, ...] = ()
    confounder: tuple[str, ...] = ()
    propensity: str | None = None
    score: str | None = None
    position: str | None = None
    time: tuple[str, ...] = ()
    weight: str | None = None
    instrument: str | None = None
    negative_control: tuple[str, ...] = ()
    treated: Any = None
    seed: int = 0

    def read(self) -> Any:
        """The ``ImpressionLog`` that the settings name."""
        from causalrec.reading import read_log
        from causalrec.table import as_frame

        frame = as_frame(self.log)
        roles = {PLURAL.get(name, name): getattr(self, name) for name in NAMES}
        lists = [name for name in LISTS if name not in NO_ROLES]
        roles |= {PLURAL.get(name, name): apart(getattr(self, name), frame.columns) for name in lists}
        return read_log(frame, **roles, treated=self._level(frame))

    def _level(self, frame: Any) -> Any:
        """The level of the treatment that is written like `treated`: a shell knows no numbers."""
        if not isinstance(self.treated, str) or self.treatment not in frame:
            return self.treated
        levels = frame[self.treatment].dropna().unique().tolist()
        return next((level for level in levels if str(level) == self.treated), self.treated)


@dataclass(frozen=True)
class Settings(LogSettings):
    """One run of ``causalrec report``; the fields are the command's options."""

    estimand: str = "ate"
    output: Path = Path("report.html")
    refute: bool = True


@dataclass(frozen=True)
class UpliftSettings(Settings):
    """One run of ``causalrec uplift``; the fields are the command's options."""

    value: float = 1.0
    cost: float = 0.0
    budget: float | None = None
    protected: tuple[str, ...] = ()
    min_share: float | None = None
    max_gap: float | None = None
    figures: Path | None = None
    output: Path = Path("uplift.html")

    def economics(self, columns: Iterable[str]) -> Economics:
        """Prices, limits and protected groups, of a log with these columns."""
        return Economics(
            self.value, self.cost, self.budget, apart(self.protected, columns), self.min_share, self.max_gap
        )


@dataclass(frozen=True)
class FinetuneSettings(LogSettings):
    """One run of ``causalrec finetune``; the fields are the command's options."""

    objective: str = "auto"
    adapter: str = "frozen"
    head: str = "two-tower"
    loss: str = "pointwise"
    rank: int | None = None
    clip: float | None = None
    epochs: int = 3
    batch_size: int | None = None
    learning_rate: float | None = None
    head_rate: float | None = None
    max_length: int | None = None
    validation: float | None = None
    device: str | None = None
    encoder: str | None = None
    random_test: Path | None = None
    random_validation: Path | None = None
    examination: Method | None = None
    save_steps: int | None = None
    report_to: tuple[str, ...] = ()
    output: Path = Path("model")

    def recipe(self) -> Recipe:
        """The objects that ``cr.finetune`` takes.

        Raises
        ------
        ArgumentError
            An option has a value that it cannot have, or belongs to another choice.
        """
        return recipe_of(
            objective=self.objective, adapter=self.adapter, head=self.head, loss=self.loss, rank=self.rank, clip=self.clip, epochs=self.epochs,
            batch_size=self.batch_size, learning_rate=self.learning_rate, head_rate=self.head_rate, max_length=self.max_length,
            validation=self.validation, device=self.device, encoder=self.encoder, examination=self._examination(), save_steps=self.save_steps,
            report_to=apart(self.report_to, ()),
        )  # fmt: skip

    def _examination(self) -> Method | None:
        if self.examination is not None and not self.position:
            raise ArgumentError(f"examination is {self.examination!r}, but no column is named that says at which position a row was shown: add --position COLUMN.")
        return self.examination

    def random_data(self) -> RandomData:
        """Impressions that were drawn at random, where files of them are named."""
        from causalrec.table import as_frame

        read = [None if path is None else as_frame(path) for path in (self.random_test, self.random_validation)]
        return RandomData(test=read[0], validation=read[1])


def apart(names: Iterable[str], columns: Iterable[str]) -> tuple[str, ...]:
    """Names as they were given, those joined by commas taken apart; a column with a comma in its name stays whole."""
    known = set(columns)
    return tuple(
        part.strip()
        for name in names
        for part in ([name] if name in known else name.split(","))
        if part.strip()
    )


Kind = TypeVar("Kind", bound=LogSettings)
COMMANDS: dict[type[LogSettings], str] = {Settings: "report", UpliftSettings: "uplift", FinetuneSettings: "finetune"}


def read_settings(path: Path, kind: type[LogSettings] = Settings) -> dict[str, Any]:
    """The options in a TOML file, of the command whose settings are of this kind.

    Raises
    ------
    ArgumentError
        The file cannot be read, or has a key that is no option, or a value of the wrong kind.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ArgumentError(f"config is {str(path)!r}, which cannot be read as TOML ({error}).") from error
    known = [f.name for f in fields(kind)]
    for key, value in found.items():
        if key not in known:
            near = did_you_mean(key, known)
            raise ArgumentError(f"config {str(path)!r} has the unknown key {key!r}.{near} Known are {known}.")
        _check(key, value)
    return found


def _check(key: str, value: Any) -> None:
    if key in LISTS:
        right = isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))
        kind = "a column name or a list of them"
    elif key == "refute":
        right, kind = isinstance(value, bool), "true or false"
    elif key in NUMBERS:
        right, kind = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    elif key in ("seed", "treated"):
        right, kind = not isinstance(value, (list, dict)), "one value"
    else:
        right, kind = isinstance(value, str), "text"
    if not right:
        raise ArgumentError(f"{key} is {value!r} in the config, must be {kind}.")


def merge(config: Mapping[str, Any], flags: Mapping[str, Any], kind: type[Kind]) -> Kind:
    """Settings of a kind from a config and from flags; a flag that was given wins.

    Raises
    ------
    ArgumentError
        No log is named; or an option has a value that it cannot have.
    """
    chosen = {**config, **{key: value for key, value in flags.items() if value not in (None, [])}}
    if "log" not in chosen:
        raise ArgumentError(f'no log is named; say causalrec {COMMANDS[kind]} LOG …, or log = "…" in the config.')
    for key in LISTS:
        if key not in {f.name for f in fields(kind)}:
            continue
        value = chosen.get(key, ())
        chosen[key] = (value,) if isinstance(value, str) else tuple(value)
    for key in ("log", "output", "figures", "random_test", "random_validation"):
        if key in chosen:
            chosen[key] = Path(chosen[key])
    settings = kind(**chosen)
    if isinstance(settings, Settings):
        check_choice(settings.estimand, "estimand", ESTIMANDS)
    check_scalar(settings.seed, "seed", ge=0, integer=True)
    return settings
