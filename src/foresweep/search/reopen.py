"""The panel and the cut of a sweep on record, opened again: for what is made of its runs later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from foresweep.data.changes import changed_bars
from foresweep.data.panel import Panel
from foresweep.data.sources import load_panel
from foresweep.data.splits import Split
from foresweep.data.tables import read_panel
from foresweep.errors import ConfigError, DataError, PanelChanged, UsageError
from foresweep.records import Sweep
from foresweep.search.trial import Ground

MOST_WINDOWS = 100_000
"""Of a part, where a sweep's record does not say: its default."""


def reopen(sweep: Sweep, runs_dir: Path) -> tuple[Panel, Split]:
    """The very panel and cut that a sweep's runs were scored on: its copy in the runs folder, else
    the data it was read from.

    Raises UsageError for a sweep recorded by hand, PanelChanged where neither is what it was.
    """
    plan = sweep.plan
    if "parts" not in plan:
        raise UsageError(f"sweep {sweep.sweep_id} does not say how its parts were cut; sweep again")
    ground = ground_of(sweep, runs_dir)
    for panel in _panels(runs_dir, str(plan.get("data", "")), plan.get("actions")):
        try:
            split = ground.cut(panel)
        except (DataError, ConfigError):  # another panel, too short for this cut
            continue
        if split.cut_hash(panel) == sweep.panel_hash:
            return panel, split
    raise PanelChanged(
        f"the data of sweep {sweep.sweep_id} are not in {runs_dir / 'panels'}, and "
        f"{plan.get('data')!r} is not what it was; give the folder of its runs with --runs FOLDER"
    )


def ground_of(sweep: Sweep, panel_path: Path) -> Ground:
    """How a sweep on record cut a panel, which lies in a file."""
    plan = sweep.plan
    return Ground(
        panel_path=panel_path,
        horizon=sweep.horizon,
        stride=plan.get("stride"),
        max_context=int(plan["max_context"]),
        max_windows=int(plan.get("max_windows", MOST_WINDOWS)),
        seed=sweep.seed,
    )


def reopen_for_more(sweep: Sweep, runs_dir: Path) -> tuple[Panel, str]:
    """The panel of a sweep that is to go on, as `reopen` finds it, and what there is to say of its
    source: "" where the old bars are still there and the same; newer ones are left out.

    Raises as `reopen`; PanelChanged where the source says otherwise of old bars.
    """
    panel, _ = reopen(sweep, runs_dir)
    source = str(sweep.plan.get("data", ""))
    try:
        today = load_panel(source, actions=sweep.plan.get("actions")).panel
    except DataError as error:
        return panel, f"the data were not looked at again: {error}"
    changed = changed_bars(panel, today)
    if changed:
        raise PanelChanged(
            f"{source}: {changed} when sweep {sweep.sweep_id} began; its runs and new ones would "
            f"not have seen the same prices. Begin a new sweep, or give back the old data"
        )
    newer = len(today.timeline) - len(panel.timeline)
    return panel, f"{newer} newer bars are left out: the sweep's windows are fixed" if newer else ""


def _panels(runs_dir: Path, source: str, actions: str | None) -> Iterator[Panel]:
    """Those kept beside the runs, then the source as it is today; what cannot be read is none."""
    for path in sorted((runs_dir / "panels").glob("*.npz")):
        try:
            yield read_panel(path)
        except DataError:
            continue
    try:
        yield load_panel(source, actions=actions).panel
    except DataError:
        return
