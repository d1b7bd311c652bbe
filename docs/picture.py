"""Draw the demo's leaderboard for the README, from its database: `python docs/picture.py`."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from foresweep.cli.tables import leaderboard_table, verdict_line
from foresweep.selection.leaderboard import leaderboard
from foresweep.tracker.tracker import Tracker

WIDTH = 108


def draw(database: Path, picture: Path) -> None:
    """Write the leaderboard of the database's latest sweep as an SVG."""
    with Tracker(database, create=False) as tracker:
        sweep = tracker.get_sweep("latest")
        runs = tracker.get_runs(fingerprint=sweep.fingerprints["val"])
    board = leaderboard(runs, metric=f"val_{sweep.objective}")
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    console.print("$ make demo", style="bold")
    console.print(leaderboard_table(board, width=WIDTH))
    console.print(verdict_line(board), style="bold")
    drawn = console.export_svg(title="foresweep")
    # fonts from elsewhere would be asked for by every reader of the page
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    picture.write_text(re.sub(r"<!--.*?-->", "", drawn), encoding="utf-8")


if __name__ == "__main__":
    draw(Path("hyperparams/sweeps.db"), Path(__file__).parent / "demo.svg")
