"""`verdict`: is the winner any good? On runs of a sweep, or on a file of anybody's losses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import Db, Json, SweepId, open_existing
from foresweep.errors import UsageError

if TYPE_CHECKING:
    from foresweep.records import Verdict

NAIVE_WINS, HOLD = 3, 4
"""Exit codes beside 0 for promote. Of several verdicts the highest counts."""


def verdict(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            help="A run's id; several, of different horizons, are judged together. Default: the "
            "best on val of the latest sweep."
        ),
    ] = None,
    sweep: SweepId = None,
    losses: Annotated[
        Path | None,
        typer.Option(
            "--losses",
            help="Judge a CSV or Parquet file instead: trial, origin, item, part, loss, scale.",
            metavar="FILE",
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark",
            help="With --losses: the trial to beat; of several the best on tune.",
            metavar="TRIAL",
        ),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(
            help="With --losses: the trial to judge. Default: the best on val.", metavar="TRIAL"
        ),
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(help="With --losses: bars forecast. Default: 1.", min=1)
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="With --losses: bars between origins. Default: 1.", min=1)
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(help="With --losses: trials in all, failed and pruned ones too.", min=1),
    ] = None,
    earlier_judged: Annotated[
        int | None,
        typer.Option(help="With --losses: times that this val was judged before.", min=0),
    ] = None,
    earlier_looks: Annotated[
        int | None, typer.Option(help="With --losses: looks at this test before.", min=0)
    ] = None,
    pretrain_cutoff: Annotated[
        str | None,
        typer.Option(
            help="With --losses: last day of the data of the candidate's weights.", metavar="DATE"
        ),
    ] = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Promote, hold or naive wins: every trial counted, the sealed test opened last.

    Exit code 0: promote, 3: naive wins, 4: hold. Opening the test is recorded.
    """
    from foresweep.cli.verdict_text import draw

    only_files = {
        "--benchmark": benchmark, "--candidate": candidate, "--horizon": horizon,
        "--stride": stride, "--trials": trials, "--earlier-judged": earlier_judged,
        "--earlier-looks": earlier_looks, "--pretrain-cutoff": pretrain_cutoff,
    }  # fmt: skip
    if losses is None:
        _refuse(only_files, "is for --losses FILE; a sweep knows it")
        found = _on_runs(run or [], sweep, db)
    else:
        _refuse({"RUN": run, "--sweep": sweep}, "and --losses FILE are two questions; give one")
        found = (
            _on_file(
                losses, benchmark or [], candidate, (horizon or 1, stride or 1), trials,
                (earlier_judged or 0, earlier_looks or 0), pretrain_cutoff,
            ),
        )  # fmt: skip
    if as_json:
        plain = [v.as_json() for v in found]
        typer.echo(json.dumps(plain[0] if len(plain) == 1 else plain, indent=2, allow_nan=False))
    else:
        for one in found:
            draw(one)
    raise typer.Exit(max(exit_code(v) for v in found))


def exit_code(verdict: Verdict) -> int:
    """0 promote, 3 naive wins, 4 hold."""
    from foresweep.records import Outcome

    return {Outcome.PROMOTE: 0, Outcome.NAIVE_WINS: NAIVE_WINS, Outcome.HOLD: HOLD}[verdict.outcome]


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Raises UsageError naming the first option that was given and has no effect here."""
    for name, value in given.items():
        if value not in (None, []):
            raise UsageError(f"{name} {why}")


def _on_runs(runs: Sequence[str], sweep: str | None, db: str | None) -> tuple[Verdict, ...]:
    from foresweep.selection.judged import verdict_on_runs

    with open_existing(db) as tracker:
        return verdict_on_runs(tracker, list(runs) or [None], sweep_id=sweep)


def _on_file(
    path: Path,
    benchmarks: Sequence[str],
    candidate: str | None,
    bars: tuple[int, int],
    trials: int | None,
    earlier: tuple[int, int],
    cutoff: str | None,
) -> Verdict:
    from foresweep.selection.foreign import Asked, verdict_on_file

    if not benchmarks:
        raise UsageError(
            "--losses needs --benchmark TRIAL: which trial of the file is the one to beat?"
        )
    asked = Asked(
        benchmarks=tuple(benchmarks),
        candidate=candidate,
        horizon=bars[0],
        stride=bars[1],
        num_trials=trials,
        earlier_judged=earlier[0],
        earlier_looks=earlier[1],
        cutoff=None if cutoff is None else _date(cutoff),
    )
    return verdict_on_file(path, asked)


def _date(text: str) -> str:
    from datetime import date

    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise UsageError(f"--pretrain-cutoff {text!r}: write a date as 2024-05-31") from error
