"""Options that several commands share, named once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foresweep.errors import NotFound, UsageError

if TYPE_CHECKING:
    from foresweep.records import Sweep
    from foresweep.settings import Settings
    from foresweep.tracker.tracker import Tracker

Db = Annotated[
    str | None, typer.Option("--db", "--tracker-db", help="Database: a path or URL.", metavar="URL")
]
Refits = Annotated[
    int,
    typer.Option(
        help="Cut val and test into this many stretches and train each config anew before each on "
        "all bars before it, as a model that is kept in service is.",
        metavar="K",
        min=1,
    ),
]
Runs = Annotated[
    Path | None, typer.Option("--runs", help="Folder of checkpoints, forecasts and logs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="A folder of files of prices, one long file, or 'demo'. "
        "Default: what the settings name, else trainingdata/train, else the demo panel.",
    ),
]
Actions = Annotated[
    str | None, typer.Option(help="Splits file: item, date, ratio (ratio 1: a real move).")
]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Only this model. Default: all.")]
Metric = Annotated[
    str | None,
    typer.Option(
        help="Score to rank by: val_... or tune_...; never test_.... "
        "Default: val_ and the sweep's objective; val_pct_mae without a sweep."
    ),
]
SweepId = Annotated[str | None, typer.Option("--sweep", help="A sweep's id. Default: the latest.")]
RunId = Annotated[str, typer.Argument(help="A run's id, or a unique beginning of it.")]
Horizon = Annotated[int, typer.Option("--horizon", help="Bars forecast and scored.", min=1)]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[int, typer.Option(help="Torch threads of a trial.", min=1)]
MicroBatch = Annotated[
    int | None,
    typer.Option(help="Windows per backward pass; less memory, same batch size.", min=1),
]
GradientCheckpointing = Annotated[
    bool,
    typer.Option(
        "--gradient-checkpointing",
        help="Compute activations once more in the backward pass; less memory, same gradients.",
    ),
]


class Size(StrEnum):
    """Architecture when training from scratch."""

    tiny = "tiny"
    small = "small"
    base = "base"


@dataclass(frozen=True, slots=True)
class HowRead:
    """How files of prices are read, where it is said and not guessed."""

    columns: Annotated[
        str | None,
        typer.Option(
            help="Which column is what: date=D,close=Last (names, or numbers from 1).",
            metavar="OURS=THEIRS[,...]",
        ),
    ] = None
    day_first: Annotated[
        bool | None,
        typer.Option("--day-first/--no-day-first", help="03/04/2020 is 3 April, or 4 March."),
    ] = None
    tz: Annotated[
        str | None,
        typer.Option(help="The clock of stamps that name none: America/New_York, UTC."),
    ] = None
    sep: Annotated[
        str | None, typer.Option(help="What stands between fields: a character, or tab.")
    ] = None
    decimal: Annotated[str | None, typer.Option(help="The decimal sign: . or ,")] = None

    @property
    def said(self) -> dict[str, Any]:
        """For `load_panel`: what was said, and nothing else. Raises ConfigError."""
        from foresweep.data.reading.overrules import columns_said

        columns = columns_said(self.columns) if self.columns else None
        found = {"columns": columns, "day_first": self.day_first, "tz": self.tz, "sep": self.sep}
        found["decimal"] = self.decimal
        return {name: value for name, value in found.items() if value is not None}


def sharing(*shared: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of dataclasses as options, after its own parameters; the command
    takes an instance of each first. Options that belong together are thus written once."""
    fields = [inspect.signature(s, eval_str=True).parameters for s in shared]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[len(shared) :]

        @wraps(command)
        def call(**given: Any) -> None:
            groups = zip(shared, fields, strict=True)
            asked = [s(**{name: given.pop(name) for name in names}) for s, names in groups]
            command(*asked, **given)

        options = [p for names in fields for p in names.values()]
        every = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *options)]
        call.__annotations__ = {p.name: p.annotation for p in every} | {"return": None}
        call.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        return call

    return decorate


def settings(db: str | None, runs: Path | None = None) -> Settings:
    from foresweep.settings import load_settings

    return load_settings(database=db, runs_dir=runs)


def open_tracker(db: str | None) -> Tracker:
    from foresweep.tracker.jsonfile import JsonTracker

    return JsonTracker(settings(db).database)


def open_existing(db: str | None) -> Tracker:
    """The tracker of a command that asks: a mistyped place must not become an empty database.

    Raises NotFound.
    """
    from foresweep.settings import is_url
    from foresweep.tracker.tracker import Tracker

    place = settings(db).database
    if is_url(place):
        return Tracker(place, create=False)
    path = Path(place).expanduser()
    is_json = path.suffix.lower() == ".json"  # stands for the database beside it
    if path.exists() or (is_json and path.with_suffix(".db").exists()):
        return open_tracker(db) if is_json else Tracker(place, create=False)
    if db is None:
        raise NotFound(
            f"no database yet at {place}; start with: foresweep sweep --model all --mode demo"
        )
    raise NotFound(f"no database at {place}; is --db right?")


def asked_sweep(tracker: Tracker, sweep_id: str | None) -> Sweep | None:
    """The sweep of this id, else the latest; None where there is none yet. Raises NotFound."""
    if sweep_id is None and not tracker.list_sweeps():
        return None
    return tracker.get_sweep(sweep_id or "latest")


def metric_of(sweep: Sweep | None) -> str:
    """The full name of the score that a sweep is judged by."""
    from foresweep.metrics import ranking_score

    return ranking_score(None if sweep is None else sweep.objective)


_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """A text as a terminal may be given it: what would move its cursor, clear it or turn its
    writing round (a name, a note and a plug-in's error can hold anything) is written out, as \\x1b.
    """
    return _STEERS.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def parse_values(pairs: list[str]) -> dict[str, Any]:
    """`key=value` pairs, values as TOML where they read as such, else as text.

    Raises UsageError for a pair without '='.
    """
    import tomllib

    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {pair!r}: write it as key=value, e.g. --set lr=1e-4")
        try:
            values[key.strip()] = tomllib.loads(f"x = {text}")["x"]
        except (tomllib.TOMLDecodeError, RecursionError):
            values[key.strip()] = text.strip()
    return values
