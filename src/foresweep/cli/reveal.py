"""`show RUN --reveal-test`: the sealed scores of a run, by the one door that records the look."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from foresweep.records import Run
    from foresweep.tracker.tracker import Tracker

WHY = "show --reveal-test"


def show_test(tracker: Tracker, run: Run, *, as_json: bool) -> None:
    """Record the look, then print a run's test scores and what the look costs."""
    from foresweep.cli.tables import console, number, plain_table

    scores = tracker.reveal_test(run.run_id, why=WHY)
    looks = tracker.get_test_looks(run.run_id)
    if as_json:
        plain = {k: v if math.isfinite(v) else None for k, v in sorted(scores.items())}
        said = {"run_id": run.run_id, "test_scores": plain, "looks": looks}
        typer.echo(json.dumps(said, indent=2, default=str, allow_nan=False))
        return
    out = console()
    out.print(f"{run.model_name}  run {run.run_id}  ({run.source})")
    if not scores:
        out.print("This run has no test scores on record.")
    else:
        table = plain_table("sealed score", ">value")
        for name, value in sorted(scores.items()):
            table.add_row(name, number(value, 4))
        out.print(table)
    out.print(
        f"This is look {len(looks)} at this run's test, and on record. Any other run of these "
        f"items and days that is judged from now on has to pass a stricter test.",
        soft_wrap=True,
    )
