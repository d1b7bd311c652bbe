"""`reproduce`: train a run once more from its record and show what is different."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from foresweep.cli.options import Db, Json, RunId, Runs, open_existing, settings

if TYPE_CHECKING:
    from rich.progress import TaskID

    from foresweep.search.events import Event
    from foresweep.search.reproduce import Reproduction


def reproduce(run: RunId, as_json: Json = False, db: Db = None, runs: Runs = None) -> None:
    """Train a run again from its record and show the difference of every score.

    The same bars, config, seed and resources; versions that differ are named. On a CPU the same
    versions give the same scores bit for bit. Exit 0 whenever it could be trained: --json has the
    numbers. The second training is a further run of the same trial: the original stays in every
    ranking, and no count of trials grows.
    """
    from foresweep.search.reproduce import reproduce as train_again

    with open_existing(db) as tracker, Bar(quiet=as_json) as bar:
        try:
            found = train_again(
                tracker.get_run(run),
                tracker=tracker,
                runs_dir=settings(db, runs).runs_dir,
                listen=bar.on_event,
            )
        except KeyboardInterrupt:
            typer.echo("Stopped; the second training is on record as cancelled.", err=True)
            raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(_plain(found), indent=2))
    else:
        _draw(found)


class Bar:
    """Listens to one training: a bar in a terminal, one line elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.progress import Progress

        from foresweep.cli.tables import console

        self.console, self.quiet = console(), quiet
        self.bars = Progress(
            console=self.console, disable=quiet or not self.console.is_terminal, transient=True
        )
        self.running: TaskID | None = None

    def __enter__(self) -> Bar:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def on_event(self, event: Event) -> None:
        """What the training tells."""
        from foresweep.search.events import TrialProgressed, TrialStarted

        if isinstance(event, TrialStarted):
            run, steps = event.run, event.run.hyperparams.get("max_steps")
            if not self.quiet:
                self.console.print(
                    f"Training {run.reproduces} again: trial {run.trial_number} of sweep "
                    f"{run.sweep_id}, seed {run.seed}{f', {steps} steps' if steps else ''}.",
                    soft_wrap=True,
                )
            self.running = self.bars.add_task(run.model_name, total=steps or 1)
        elif isinstance(event, TrialProgressed) and self.running is not None:
            self.bars.update(self.running, completed=event.step)


def _plain(found: Reproduction) -> dict[str, Any]:
    return {
        "run_id": found.original.run_id,
        "again": found.again.run_id,
        "bit_for_bit": found.is_bit_for_bit,
        "test_is_equal": found.is_test_equal,
        "versions": [asdict(v) for v in found.versions],
        "scores": [asdict(s) | {"difference": s.difference} for s in found.scores],
    }


def _draw(found: Reproduction) -> None:
    from foresweep.cli.tables import console, plain_table

    out = console()
    table = plain_table("score", ">then", ">now", ">difference")
    for score in found.scores:
        changed = "0" if score.share == 0 else _number(score.difference)
        style = "" if score.share == 0 else "yellow"
        table.add_row(score.name, _number(score.then), _number(score.now), changed, style=style)
    out.print(table)
    for version in found.versions:
        said = f"{version.name}: {version.then} then, {version.now} now"
        out.print(said, style="yellow", soft_wrap=True)
    if not found.versions:
        out.print("Code, Python, packages and machine are those on record.")
    style = "green" if found.is_bit_for_bit else "yellow"
    words = found.in_words()
    out.print(f"{words[0].upper()}{words[1:]}.", style=style, soft_wrap=True)
    out.print(_about_test(found.is_test_equal), soft_wrap=True)
    out.print(f"The second training is run {found.again.run_id}.", soft_wrap=True)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.7g}"


def _about_test(is_equal: bool | None) -> str:
    if is_equal is None:
        return "There are no test scores on record to compare."
    word = "are the same to the last bit" if is_equal else "differ"
    return f"The test scores {word}; they stay sealed, and this was no look."
