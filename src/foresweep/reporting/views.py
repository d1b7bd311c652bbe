"""What pages are told of sweeps and runs: each thing is reckoned once, when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import numpy as np

from foresweep.data.panel import Panel
from foresweep.data.splits import PartName, Split
from foresweep.data.windows import Windows
from foresweep.errors import ForesweepError, UsageError
from foresweep.evaluation.breakdown import Group, overall
from foresweep.evaluation.yardstick import baseline_name, benchmark, last_value
from foresweep.metrics import PANEL_LOSSES, Outcome, ranking_score, split_score
from foresweep.records import Run, Sweep
from foresweep.reporting.blocks import Cell
from foresweep.reporting.report import latest_verdict
from foresweep.search.plan import family_of, plan_of
from foresweep.search.propose.modes import BUILT_IN
from foresweep.search.stage import reopen
from foresweep.selection.groups import reopened
from foresweep.selection.leaderboard import Leaderboard, Row, leaderboard
from foresweep.selection.sealed import has_losses, open_losses
from foresweep.selection.standing import with_standing
from foresweep.space import Spaces
from foresweep.tracker.queries import pages as queries
from foresweep.tracker.sealed import Lineage, lineage_of
from foresweep.tracker.tracker import Tracker

T = TypeVar("T")
FEW = 400
"""Ranked runs up to which a whole table is reckoned with; above it, a page of it at a time."""
MARKED = 120
"""Ranked runs up to which StepM and the confidence set are reckoned when a page is asked for."""
PAGE = 50
MOST_KEPT, MOST_OUTCOMES = 5000, 8
KEPT_FROM = 1000
"""Trials from which counts of a sweep that has ended are kept."""


@dataclass(frozen=True, slots=True)
class Links:
    """Addresses of pages: of the live ones, or anchors within one file."""

    is_live: bool
    sweep: str = ""  # in one file: whose it is
    runs: frozenset[str] = frozenset()  # in one file: those that have a section

    def to(self, kind: str, *ids: str, **asked: str) -> str | None:
        """The address of a page; None where one file does not hold it."""
        if self.is_live:
            path = "/" + "/".join([kind, *(quote(i, safe="") for i in ids)]) if kind else "/"
            return path + (f"?{urlencode(asked)}" if asked else "")
        if kind == "run" and ids[0] not in self.runs:
            return None
        if kind in ("sweep", "verdict", "data", "models") and ids[0] != self.sweep:
            return None
        return "#" + "-".join([kind or "overview", *(ids if kind == "run" else ())])


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reader chose on a page: order, filter, place; and item and origin of a picture."""

    sort: str = ""
    where: str = ""
    page: int = 1
    size: int = PAGE
    item: str = ""
    origin: str = ""
    runs: tuple[str, ...] = ()
    metric: str = ""  # models side by side: by which score of val

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.size

    def address(self, base: str, **changed: str | int) -> str:
        """`base` with these choices, some of them changed; what is not chosen is left out."""
        chosen = {"sort": self.sort, "where": self.where, "page": self.page, **changed}
        kept = {k: str(v) for k, v in chosen.items() if v and (k, str(v)) != ("page", "1")}
        return f"{base}?{urlencode(kept)}" if kept else base


@dataclass(slots=True)
class Site:
    """What every page needs. Not frozen: it keeps what was reckoned, by what it was reckoned of."""

    tracker: Tracker
    runs_dir: Path
    links: Links
    can_write: bool = False
    lock: RLock = field(default_factory=RLock)
    kept: dict[Any, Any] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], tuple[Windows, Outcome]] = field(default_factory=dict)

    def once(self, key: Any, reckon: Callable[[], T]) -> T:
        """The value under a key, reckoned the first time; the oldest of many are let go."""
        if key in self.kept:
            found: T = self.kept[key]
            return found
        made = reckon()
        with self.lock:  # reckoned outside it: twice now and then, and nobody waits
            while len(self.kept) > MOST_KEPT:
                self.kept.pop(next(iter(self.kept)))
            self.kept[key] = made
        return made

    def outcome(self, run: Run, part: PartName = "val") -> tuple[Windows, Outcome]:
        """A run's windows and what it forecast of them; the last few are kept. Raises as
        `reopened`."""
        require_open(run, part)
        key = (run.run_id, part)
        with self.lock:
            if key not in self.outcomes:
                while len(self.outcomes) >= MOST_OUTCOMES:
                    self.outcomes.pop(next(iter(self.outcomes)))
                self.outcomes[key] = reopened(self.tracker, run, part, self.runs_dir)
            return self.outcomes[key]

    def sweep(self, sweep_id: str, metric: str | None = None) -> SweepView:
        return SweepView(self, self.tracker.get_sweep(sweep_id), metric)


def spaces_of(sweep: Sweep) -> Spaces:
    """The space files and changes that a sweep was opened with; the built-in ones where its record
    does not say."""
    try:
        return plan_of(sweep).spaces
    except (UsageError, KeyError):  # of an older or a newer foresweep
        return BUILT_IN


class SweepView:
    """A sweep with its runs on the same windows, those of other sweeps too."""

    def __init__(self, site: Site, sweep: Sweep, metric: str | None = None) -> None:
        self.site, self.sweep, self.tracker = site, sweep, site.tracker
        self.metric = metric or ranking_score(sweep.objective)
        self.part, self.bare = split_score(self.metric)
        self.cells = sweep.fingerprints.get("val", "")

    def _counted(self, name: str, count: Callable[[Any], T]) -> T:
        """What is counted over all runs of the sweep; of a large one that has ended it is kept, for
        nothing but a further trial changes it."""

        def ask() -> T:
            with self.tracker.store.read() as connection:
                return count(connection)

        sweep = self.sweep
        if sweep.state == "running" or sweep.num_trials < KEPT_FROM:
            return ask()
        key = (name, sweep.sweep_id, self.metric, sweep.num_trials, sweep.finished_at)
        return self.site.once(key, ask)

    @cached_property
    def states(self) -> Mapping[str, int]:
        return self._counted("states", lambda c: queries.states_of(c, self.sweep.sweep_id))

    @cached_property
    def num_ranked(self) -> int:
        """Trained runs with a score on these windows."""
        metric, cells = self.metric, self.cells
        return self._counted(
            "ranked", lambda c: queries.count_ranked(c, metric=metric, fingerprint=cells)
        )

    @property
    def is_small(self) -> bool:
        return self.num_ranked <= FEW

    @cached_property
    def baselines(self) -> list[Run]:
        with self.tracker.store.read() as connection:
            return queries.baselines(connection, metric=self.metric, fingerprint=self.cells)

    @cached_property
    def own_best(self) -> Row | None:
        """The best trained run of this sweep alone, beside the baselines: its skill, not its
        place; read without reading all of them."""
        metric, cells, sweep_id = self.metric, self.cells, self.sweep.sweep_id
        first = self.ranked_page(0, 1)
        found: Run | None
        if first and first[0].sweep_id == sweep_id:
            found = first[0]
        else:
            found = self._counted(
                "best",
                lambda c: queries.best_of_sweep(
                    c, metric=metric, fingerprint=cells, sweep_id=sweep_id
                ),
            )
        if found is None:
            return None
        return leaderboard([*self.baselines, found], metric=self.metric).best

    def ranked_page(self, offset: int, limit: int) -> list[Run]:
        with self.tracker.store.read() as connection:
            return queries.ranked_page(
                connection,
                metric=self.metric,
                fingerprint=self.cells,
                limit=limit,
                offset=offset,
            )

    @cached_property
    def runs(self) -> list[Run]:
        """Every run on these windows; of very many, the baselines and the best `FEW`."""
        if self.is_small:
            return self.tracker.get_runs(fingerprint=self.cells)
        return [*self.baselines, *self.ranked_page(0, FEW)]

    @cached_property
    def plain_board(self) -> Leaderboard:
        return leaderboard(self.runs, metric=self.metric)

    @cached_property
    def board(self) -> Leaderboard:
        """The leaderboard, with its marks where there are not too many runs to reckon them."""
        plain = self.plain_board
        if self.num_ranked > MARKED:
            return plain
        key = ("board", self.metric, tuple((r.run.run_id, r.score) for r in plain.rows))
        return self.site.once(key, lambda: with_standing(plain))

    @cached_property
    def verdict(self) -> Mapping[str, Any] | None:
        return latest_verdict(self.tracker.judgings.verdicts(), self.cells)

    @cached_property
    def best(self) -> Row | None:
        """The best trained run on these windows."""
        if self.is_small:
            return self.plain_board.best
        return leaderboard([*self.baselines, *self.ranked_page(0, 1)], metric=self.metric).best

    @cached_property
    def family(self) -> list[Sweep]:
        return family_of(self.sweep, self.tracker.list_sweeps())

    @cached_property
    def lineage(self) -> Lineage:
        """What a verdict would count."""
        return self._counted("lineage", lambda c: lineage_of(c, [self.sweep.sweep_id]))

    @cached_property
    def spaces(self) -> Spaces:
        """What it was opened with."""
        return self.site.once(("spaces", self.sweep.sweep_id), lambda: spaces_of(self.sweep))

    @cached_property
    def findings(self) -> Sequence[Mapping[str, Any]]:
        """What the data gate said of the panel."""
        dataset = self.sweep.dataset_id
        if dataset is None:
            return ()
        found: Any = self.tracker.get_dataset(dataset).get("findings")
        return found or ()

    @cached_property
    def progress(self) -> list[queries.Progress]:
        with self.tracker.store.read() as connection:
            return queries.progress(connection, self.sweep.sweep_id)

    @cached_property
    def last_value(self) -> Run | None:
        """What skill is measured against."""
        return last_value(self.baselines)

    @cached_property
    def benchmark(self) -> tuple[str, Run] | None:
        """The baseline to beat, with its name."""
        return benchmark(self.baselines, self.bare)

    def skill_bounds(self, run: Run) -> Group | None:
        """Skill against last-value with its 90 % bounds, from stored losses; None where there are
        none."""
        naive = self.last_value
        if naive is None or self.bare not in PANEL_LOSSES or run.run_id == naive.run_id:
            return None
        if not (has_losses(run, self.part) and has_losses(naive, self.part)):
            return None
        key = ("bounds", run.run_id, naive.run_id, self.metric)
        return self.site.once(key, lambda: _bounds(run, naive, self.part, self.bare))

    @cached_property
    def stage(self) -> tuple[Panel, Split] | str:
        """The panel and its cut, or why they cannot be had."""
        key = ("stage", self.sweep.sweep_id)

        def open_it() -> tuple[Panel, Split] | str:
            try:
                return reopen(self.sweep, self.site.runs_dir)
            except (ForesweepError, KeyError) as error:
                return f"{error}"

        return self.site.once(key, open_it)


def _bounds(run: Run, naive: Run, part: str, bare: str) -> Group | None:
    try:
        return overall(open_losses(run, part), bare, benchmark=open_losses(naive, part))
    except ForesweepError:  # files of other windows: the page says so where it shows the run
        return None


def require_open(run: Run, part: str) -> None:
    """Raises UsageError for test: no page shows it."""
    if part not in ("tune", "val"):
        raise UsageError(f"{part} of run {run.run_id} is on no page; ask for a verdict")


def varied(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Hyperparameters with two or more values among these runs, in the order of their configs."""
    names = dict.fromkeys(n for r in runs for n in r.hyperparams)
    found = {n: [r.hyperparams.get(n) for r in runs] for n in names}
    return {n: v for n, v in found.items() if len({str(x) for x in v}) > 1}


def day(moment: np.datetime64) -> str:
    """A bar's time as pages write it: the day, and the clock where it has one."""
    return str(moment.astype("datetime64[m]")).removesuffix("T00:00")


def curve(site: Site, run_id: str, name: str, most: int) -> tuple[str, list[int], list[float]]:
    """A curve for a figure: its name, steps and values, evenly thinned to about `most` points."""
    points = site.tracker.get_curve(run_id, name)
    kept = points[:: -(-len(points) // most) or 1]
    return name, [step for step, _ in kept], [value for _, value in kept]


# Cells that several pages show of a run.


STATE_MARKS = {"complete": "good", "failed": "bad", "lost": "bad", "pruned": "warn",
               "cancelled": "warn", "running": "live"}  # fmt: skip


def above(view: SweepView) -> tuple[tuple[str, str], ...]:
    """The pages above those beside a sweep."""
    links, sweep_id = view.site.links, view.sweep.sweep_id
    return (
        ("Overview", links.to("") or "#overview"),
        (f"Sweep {sweep_id}", links.to("sweep", sweep_id) or "#sweep"),
    )


def state_cell(state: str) -> Cell:
    return Cell(state, mark=f"state {STATE_MARKS.get(state, '')}".strip())


def run_link(view: SweepView, run: Run, text: str = "") -> Cell:
    return Cell(text or run.run_id, href=view.site.links.to("run", run.run_id), mark="code")


def config_cell(row: Row, href: str | None = None) -> Cell:
    """What a run of a leaderboard tried, and what is odd about it."""
    source = row.run.source
    return Cell(
        f"{source} ({row.note})" if row.note else source, source, href, "warn" * bool(row.note)
    )


def short_name(run: Run) -> str:
    """A name that is short and still its own: model, then trial or the end of the id."""
    if run.is_baseline:
        return baseline_name(run)
    return f"{run.model_name} #{run.trial_number}" if run.trial_number else run.run_id[-20:]
