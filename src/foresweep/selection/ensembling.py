"""An ensemble of a sweep's runs: which to mix, how much of each, recorded like any run.

Nothing is trained: members' stored forecasts are mixed. What is saved is a checkpoint that names
its members; before it is scored, each member is loaded and must still make its stored forecasts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import Panel
from foresweep.data.splits import PartName, Split
from foresweep.data.windows import Windows
from foresweep.errors import CheckpointError, ModelError, NotEnoughData, UnknownName, UsageError
from foresweep.evaluation.backtest import (
    FORECASTS,
    OPEN_PARTS,
    SCORED_PARTS,
    compare,
    evaluate,
    last_value,
)
from foresweep.evaluation.losses import LossPanel, as_stored, load_forecast
from foresweep.metrics import (
    METRICS,
    PANEL_LOSSES,
    Outcome,
    item_mean,
    judged_by,
    panel_mean,
    ranked_by,
)
from foresweep.models.base import DEFAULT_LEVELS, Array, Forecast, Levels, Resources
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import json_hash, read_checkpoint, update_card
from foresweep.models.ensemble import Member, Method, combine, members_of, write_ensemble
from foresweep.models.registry import ENSEMBLE, get_model
from foresweep.records import Run, RunState, Sweep
from foresweep.search.propose.modes import Proposal
from foresweep.search.running.head import complete_run, run_here
from foresweep.search.stage import cut_of, reopen
from foresweep.search.trial import CHECKPOINT, Ground, Prepared, RunSpec, TrialResult, card_of
from foresweep.selection.sealed import has_losses, open_losses
from foresweep.tracker.queries.runs import by_config, median_seed
from foresweep.tracker.tracker import Tracker

# Which forecasts to mix, and how much of each: fitted on tune alone.
#
# greedy   selection with replacement: at each of ROUNDS rounds the candidate is added whose
#          addition lowers the loss of the mean most; the round with the lowest loss counts
#          (Caruana, Niculescu-Mizil, Crew and Ksikes 2004, Ensemble selection from libraries)
# mean     equal weights
# median   the median of every quantile


Mask = NDArray[np.bool_]
ROUNDS = 50
PATIENCE = 15
"""Rounds without a lower loss after which no further one is waited for."""
LEAST_GAIN = 1e-9
"""Share of the loss by which a round must be better: less is rounding."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that may become a member."""

    name: str
    is_baseline: bool
    losses: Array  # [N] on tune, mean over leads; of the metric that is minimised


@dataclass(frozen=True, slots=True, eq=False)
class Mixer:
    """The windows of tune and every candidate's forecasts of them, which are read when wanted."""

    windows: Windows
    candidates: tuple[Candidate, ...]
    forecasts: Callable[[str], Array]  # name -> [N, H, Q] prices
    levels: Levels
    metric: str
    method: Method
    top_k: int

    def pool(self, rows: Mask) -> list[str]:
        """Who may take part, best on these windows first: the `top_k` trained ones, and the
        baselines; for mean and median, which weigh all alike, only the best baseline."""
        item = self.windows.column[rows]
        ranked = sorted(self.candidates, key=lambda c: item_mean(c.losses[rows], item))
        trained = [c for c in ranked if not c.is_baseline][: self.top_k]
        naive = [c for c in ranked if c.is_baseline]
        beside = naive if self.method == "greedy" else naive[:1]
        return [c.name for c in ranked if c in trained or c in beside]

    def fit(self, rows: Mask) -> dict[str, float]:
        """Weights by name, adding to 1, fitted on these windows.

        Raises NotEnoughData without a window."""
        if not rows.any():
            raise NotEnoughData(
                "nothing to fit weights on: tune has no window whose labels are clear of the other "
                "half's; use more history, or --method median or mean"
            )
        names = self.pool(rows)
        if self.method != "greedy":
            return {name: 1.0 / len(names) for name in names}
        counts = self._greedy(names, rows)
        return {n: int(c) / int(counts.sum()) for n, c in zip(names, counts, strict=True) if c}

    def mixed(self, weights: Mapping[str, float], rows: Mask) -> Array:
        """[n, H, Q] of these windows."""
        return self.combined([self.forecasts(name)[rows] for name in weights], weights)

    def combined(self, values: Sequence[Array], weights: Mapping[str, float]) -> Array:
        """[n, H, Q] of the members' forecasts, in the order of the weights."""
        return combine(values, tuple(weights.values()), self.method)

    def cross_fitted(self) -> Forecast:
        """The forecast of tune, each half mixed with what was chosen and fitted on the other.

        A window is not fitted on when its labels reach into those of the half that is scored.
        Raises NotEnoughData.
        """
        windows = self.windows
        late = windows.origin >= (len(windows.part.origins) + 1) // 2
        first, last = windows.label_span
        values = np.empty((len(windows), windows.horizon, len(self.levels)))
        for scored in (~late, late):
            if not scored.any():
                continue
            clear = (last < first[scored].min()) | (first > last[scored].max())
            values[scored] = self.mixed(self.fit(clear), scored)
        return Forecast(values, self.levels)

    def loss(self, values: Array, rows: Mask) -> float:
        """Mean loss of forecasts [n, H, Q] of these windows."""
        loss = METRICS[self.metric].loss
        assert loss is not None
        windows = self.windows
        outcome = Outcome(windows.labels[rows], values, self.levels, windows.last_close[rows])
        return float(loss(outcome).mean())

    def _greedy(self, names: Sequence[str], rows: Mask) -> NDArray[np.int64]:
        """[K] how often each was taken."""
        values = [self.forecasts(name)[rows] for name in names]
        counts = np.zeros(len(names), dtype=np.int64)
        total = np.zeros_like(values[0])
        best, lowest, waited = counts.copy(), np.inf, 0
        for k in range(1, ROUNDS + 1):
            losses = [self.loss((total + value) / k, rows) for value in values]
            pick = int(np.argmin(losses))
            counts[pick] += 1
            total = total + values[pick]
            waited += 1
            if losses[pick] < lowest - LEAST_GAIN * abs(losses[pick]):
                best, lowest, waited = counts.copy(), losses[pick], 0
            if waited == PATIENCE:
                break
        return best


# An ensemble of the runs of a sweep: chosen and weighed on tune, recorded like any other run.


PROVED = 16
"""Windows of val on which a member must still make its stored forecasts."""
LARGEST_DRIFT = 0.02
"""By how much of its widest band they may differ: rounding of another device, no other model."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make an ensemble."""

    top_k: int = 5
    method: Method = "greedy"
    metric: str | None = None  # whose losses are minimised; None: the objective's
    models: tuple[str, ...] = ()  # families whose runs may take part; (): every one
    baselines: bool = True


@dataclass(frozen=True, slots=True)
class Share:
    """A member beside the whole, by mean loss."""

    run: Run
    weight: float
    tune: float
    val: float
    pvalue: float  # one-sided, on val: the ensemble has lower losses than this member alone


@dataclass(frozen=True, slots=True)
class Made:
    """An ensemble on record and what it is made of."""

    run: Run
    metric: str
    parts: tuple[Share, ...]  # largest weight first
    tune: float  # its own, each half of tune mixed by what was fitted on the other
    val: float
    is_new: bool  # False: the same members and weights were on record
    left_out: tuple[str, ...]  # said aloud


@dataclass(frozen=True, eq=False)
class Pool:
    """Runs that may take part, on the windows that all of them were scored on."""

    sweep: Sweep
    panel: Panel
    split: Split
    runs: dict[str, Run]  # by id
    metric: str
    left_out: tuple[str, ...]

    @cached_property
    def tune(self) -> Windows:
        return self.windows("tune")

    def windows(self, part: PartName) -> Windows:
        return Windows(self.panel, self.split, self.split.part(part))

    def forecast(self, run_id: str, windows: Windows) -> Array:
        """A run's stored forecasts [N, H, Q]. A price that is stored as the last close is the
        close: prices are stored in single precision. Raises DataError."""
        folder = Path(str(self.runs[run_id].forecasts_path))
        stored = load_forecast(folder / windows.part.name / FORECASTS, windows)
        if stored.levels != DEFAULT_LEVELS:
            raise CheckpointError(
                f"run {run_id} has forecasts at levels {stored.levels}, not {DEFAULT_LEVELS}; "
                f"train it again with --again"
            )
        return as_stored(stored.values, windows)

    def mixer(self, recipe: Recipe) -> Mixer:
        """What weights are fitted on."""
        kept: dict[str, Array] = {}

        def forecasts(run_id: str) -> Array:
            if run_id not in kept:
                kept[run_id] = self.forecast(run_id, self.tune)
            return kept[run_id]

        at = self.tune.origin, self.tune.column
        candidates = tuple(
            Candidate(name, run.is_baseline, open_losses(run, "tune").losses[self.metric][at])
            for name, run in self.runs.items()
        )
        return Mixer(
            self.tune,
            candidates,
            forecasts,
            DEFAULT_LEVELS,
            self.metric,
            recipe.method,
            recipe.top_k,
        )


def make_ensemble(
    tracker: Tracker,
    recipe: Recipe,
    *,
    runs_dir: Path,
    sweep_id: str | None = None,
    resources: Resources | None = None,
) -> Made:
    """Choose members and weights on tune, save the ensemble and put it on record as a run of the
    sweep (default: the latest), scored on tune and val; test is forecast when it is opened.

    Raises UsageError for fewer than two candidates, ModelError where no mix is better on tune than
    one of them alone, NotFound, PanelChanged, NotEnoughData, CheckpointError naming the member that
    is gone or no longer makes its forecasts.
    """
    sweep = tracker.get_sweep(sweep_id or "latest")
    pool = gather(tracker, sweep, recipe, runs_dir)
    started = time.perf_counter()
    mixer = pool.mixer(recipe)
    weights = mixer.fit(np.ones(len(pool.tune), dtype=bool))
    _require_two(pool, weights)
    members = [_member(pool.runs[name], weight) for name, weight in weights.items()]
    digest = json_hash(members_of(members, recipe.method))
    earlier = next(
        (
            run
            for run in tracker.get_runs(ENSEMBLE, fingerprint=sweep.fingerprints["val"])
            if run.config_hash == digest and run.state == RunState.COMPLETE and has_losses(run)
        ),
        None,
    )
    run = earlier or _record(
        tracker, pool, recipe, mixer, members, digest, runs_dir, resources or Resources(), started
    )
    return _beside_its_parts(pool, run, weights, is_new=earlier is None)


def gather(tracker: Tracker, sweep: Sweep, recipe: Recipe, runs_dir: Path) -> Pool:
    """The runs that may take part: complete, scored on exactly the sweep's windows, with forecasts
    and checkpoint on this disk; one a config. Raises as `make_ensemble`."""
    metric = recipe.metric or judged_by(sweep.objective)
    if metric not in PANEL_LOSSES:
        raise UnknownName("loss", metric, PANEL_LOSSES, where="with losses per window")
    every = [
        run
        for run in tracker.get_runs(fingerprint=sweep.fingerprints["val"])
        if run.state == RunState.COMPLETE and run.model_name != ENSEMBLE
        and (recipe.baselines if run.is_baseline else _wanted(run, recipe.models))
    ]  # fmt: skip
    same = [r for r in every if all(r.fingerprints.get(p) == h for p, h in _cells(sweep))]
    there = [r for r in same if _is_there(r)]
    notes = []
    if other := len(every) - len(same):
        notes.append(f"{other} runs were scored on other windows of tune or test")
    if gone := len(same) - len(there):
        notes.append(f"{gone} runs have no forecasts or no checkpoint on this disk")
    ranks = ranked_by(sweep.objective)
    chosen = [median_seed(group, ranks) for group in by_config(there)]
    if len(chosen) < 2:
        raise UsageError(
            f"an ensemble needs two runs or more on the windows of sweep {sweep.sweep_id} with "
            f"forecasts and checkpoint on this disk, there are {len(chosen)}"
            f"{' (' + '; '.join(notes) + ')' if notes else ''}; see: foresweep runs --sweep "
            f"{sweep.sweep_id}"
        )
    panel, split = reopen(sweep, runs_dir)
    return Pool(sweep, panel, split, {r.run_id: r for r in chosen}, metric, tuple(notes))


def _require_two(pool: Pool, weights: dict[str, float]) -> None:
    """Raises ModelError for a mix of one: a copy of a run would count as a trial of its own."""
    if len(weights) < 2:
        (name,) = weights
        raise ModelError(
            f"no mix has a lower {pool.metric} on tune than {pool.runs[name].model_name} alone "
            f"({name}): there is nothing to save; try --method median or mean, or more runs"
        )


def _wanted(run: Run, models: Sequence[str]) -> bool:
    return not models or run.model_name in models


def _cells(sweep: Sweep) -> list[tuple[str, str]]:
    return [(part, sweep.fingerprints[part]) for part in SCORED_PARTS]


def _is_there(run: Run) -> bool:
    if run.forecasts_path is None or not run.has_checkpoint_files:
        return False
    folder = Path(run.forecasts_path)
    return all(has_losses(run, p) and (folder / p / FORECASTS).is_file() for p in OPEN_PARTS)


def _member(run: Run, weight: float) -> Member:
    return Member(read_checkpoint(Path(str(run.checkpoint_path))), weight, run.run_id)


def _record(
    tracker: Tracker,
    pool: Pool,
    recipe: Recipe,
    mixer: Mixer,
    members: Sequence[Member],
    digest: str,
    runs_dir: Path,
    resources: Resources,
    started: float,
) -> Run:
    """Save and score it as a trial of the sweep; whatever happens is on record."""
    config = {
        **asdict(recipe),
        "metric": pool.metric,
        "members": {m.run_id: m.weight for m in members},
        **_pretrained(pool, members),
    }
    sweep, source = pool.sweep, f"ensemble: {recipe.method} of {len(members)}"
    prepared = Prepared(Proposal(ENSEMBLE, config, source), config, digest, digest)
    trial = tracker.heads.add_trial(sweep.sweep_id, **prepared.columns())
    cells = (sweep.panel_hash, sweep.task_hash, sweep.fingerprints)
    ground = Ground(runs_dir, cut_of(sweep), *cells)  # its panel is read already
    spec = RunSpec(ground, prepared, 0, resources, trial=(sweep.sweep_id, trial.number))
    with run_here(tracker, spec) as run:
        for member in members:
            _prove(pool, member, resources)
        out = (runs_dir / run.run_id).resolve()
        scores = _save_and_score(pool, mixer, members, recipe.method, run, out)
        # it costs as much as all of its members
        trained = sum(pool.runs[m.run_id].training_time_seconds or 0.0 for m in members)
        spent = time.perf_counter() - started
        result = TrialResult(scores, out / CHECKPOINT, spent + trained, peak_memory_mb=None)
        return complete_run(tracker, run, result, out=out, started=started)


def _pretrained(pool: Pool, members: Sequence[Member]) -> dict[str, str]:
    """The weights that its members started from: it may know what they know."""
    found = {pool.runs[m.run_id].hyperparams.get("pretrained") for m in members} - {None}
    return {"pretrained": ", ".join(sorted(str(f) for f in found))} if found else {}


def _prove(pool: Pool, member: Member, resources: Resources) -> None:
    """Raises CheckpointError where a member does not make the forecasts on record any more."""
    run = pool.runs[member.run_id]
    windows = pool.windows("val")
    first, *_ = pool.split.stretches(pool.panel, "val")  # later ones are by refitted weights
    num = int((windows.origin < first.last).sum())
    some = np.unique(np.linspace(0, num - 1, PROVED).round().astype(np.int64))
    checkpoint = member.checkpoint
    predictor = load_predictor(get_model(checkpoint.model), checkpoint, resources)
    length = min(predictor.context_length, pool.split.max_context)
    made = predictor.predict(
        windows.context(length, some),
        horizon=pool.split.horizon,
        levels=DEFAULT_LEVELS,
        seed=run.seed or 0,
    ).values
    stored = pool.forecast(member.run_id, windows)[some]
    band = float((stored[..., -1] - stored[..., 0]).mean())
    drift = float(np.abs(made - stored).mean())
    if drift > LARGEST_DRIFT * max(band, 1e-4 * float(np.abs(stored).mean())):
        raise CheckpointError(
            f"the checkpoint of run {run.run_id} does not make the forecasts on record any more "
            f"(they differ by {100 * drift / max(band, 1e-12):.2g} % of their band): the package "
            f"of {run.model_name} or the files changed; train it again with --again"
        )


def _save_and_score(
    pool: Pool,
    mixer: Mixer,
    members: Sequence[Member],
    method: Method,
    run: Run,
    out: Path,
) -> dict[str, float]:
    weights = {m.run_id: m.weight for m in members}
    made: dict[PartName, Forecast] = {"tune": mixer.cross_fitted()}
    for part in OPEN_PARTS[1:]:
        windows = pool.windows(part)
        values = [pool.forecast(name, windows) for name in weights]
        made[part] = Forecast(mixer.combined(values, weights), DEFAULT_LEVELS)
    checkpoint = write_ensemble(out / CHECKPOINT, members, method, card={})
    scores = evaluate(
        last_value(pool.split), pool.panel, pool.split, parts=OPEN_PARTS, out=out, made=made
    )
    card = card_of(
        pool.panel,
        pool.split,
        scores,
        run_id=run.run_id,
        seed=0,
        fingerprints=pool.sweep.fingerprints,
        cutoff=_cutoff(pool, members),
    )
    update_card(checkpoint, {**checkpoint.card, **card})
    return scores


def _cutoff(pool: Pool, members: Sequence[Member]) -> dict[str, Any] | None:
    """The latest day that a member's weights may know; a date of None where one knows who knows
    what."""
    known = []
    for member in members:
        said = member.checkpoint.card.get("pretrain_cutoff")
        if said:
            known.append({**said, "source": f"member {member.run_id}: {said.get('source', '')}"})
        elif pool.runs[member.run_id].hyperparams.get("pretrained"):
            return {"date": None, "source": f"member {member.run_id}: nobody knows"}
    return max(known, key=lambda c: str(c["date"]), default=None)


def _beside_its_parts(pool: Pool, run: Run, weights: dict[str, float], *, is_new: bool) -> Made:
    def mean(panel: LossPanel) -> float:
        return panel_mean(panel.losses[pool.metric])

    own = open_losses(run, "val")
    parts = []
    for name, weight in sorted(weights.items(), key=lambda pair: -pair[1]):
        member = pool.runs[name]
        val = open_losses(member, "val")
        p = compare(own, val, metric=pool.metric)
        parts.append(Share(member, weight, mean(open_losses(member, "tune")), mean(val), p))
    tune = mean(open_losses(run, "tune"))
    return Made(run, pool.metric, tuple(parts), tune, mean(own), is_new, pool.left_out)


def ensembles_of(tracker: Tracker, run_id: str) -> list[Run]:
    """Complete, shown ensembles that a run is a member of: without its checkpoint they cannot
    forecast."""
    found = tracker.get_runs(ENSEMBLE, state=RunState.COMPLETE.value)
    return [run for run in found if run_id in (run.hyperparams.get("members") or {})]
