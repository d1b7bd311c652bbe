"""Records: the frozen values that the tracker hands out. They know no database."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

PARTS = ("train", "tune", "val", "test")
"""As in data.splits; said again here, so that reading records loads no data library."""
REPRODUCES = "reproduces"
MOVES = "moves"
"""In a sweep's plan: hashes of the moves that it was steered by, ranked and sealed on."""
"""Before the run's id in the source of a run that trained another once more."""
CONTINUES = "continues"
"""Before the run's id in the source of a run that goes on training where another ended."""
UPDATES = "updates"
"""Before the run's id in the source of a run that trained its weights on with newer bars."""
UPDATE = "update"
"""The mode of the sweep of such a run."""
STILL_LEARNING = "still learning"
"""Tag of a run whose last step is its best, after steps that still made it better."""
STEERING = "steering"
"""Among a run's fingerprints, beside those of its parts: the windows of tune that steered it, where
they were not all. `N/M seed S HASH`."""
_SEALED = re.compile(r"test(?![a-z0-9])", re.IGNORECASE)


class Shown:
    """What a notebook draws as the pages do. Its `repr` stays plain."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        """HTML without a script; None where the pages' libraries are not installed."""
        # by name: pages stand above records, and are loaded by a notebook alone
        found: str | None = import_module("foresweep.reporting.notebook").html_of(self)
        return found


class RunState(StrEnum):
    """Where a run stands. Compares equal to its own word."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    LOST = "lost"  # its process is gone and told nobody
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """No more steps can come. A lost run is final unless its process turns up again."""
        return self not in (RunState.WAITING, RunState.RUNNING)


class SweepState(StrEnum):
    """Where a sweep stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LOST = "lost"


def split_name(full_name: str) -> tuple[str, str]:
    """(part, metric) of a score's full name; the part is "" where the name carries none.

    >>> split_name("val_pct_mae"), split_name("duration")
    (('val', 'pct_mae'), ('', 'duration'))
    """
    if is_sealed(full_name):
        return "test", full_name[4:].lstrip("_-/. ") or full_name
    part, _, metric = full_name.partition("_")
    return (part, metric) if metric and part in PARTS else ("", full_name)


def is_sealed(full_name: str) -> bool:
    """Does this name speak of the test part? `test_mae`, `test/mae` and `Test-MAE` do."""
    return _SEALED.match(full_name) is not None


def is_surrogate(plan: Mapping[str, Any]) -> bool:
    """Does a sweep's record say that it ran on surrogate prices? Nothing asks for such a sweep but
    the verdict on the one that it is a surrogate of."""
    return bool(plan.get("asked", {}).get("surrogate"))


def is_aside(plan: Mapping[str, Any]) -> bool:
    """Does a sweep's record say that it was no search of its own: on surrogate prices, an update of
    a champion, a fold of a walk-forward? "latest" passes over it, so that `best` and `verdict`
    still mean the search that somebody asked for after an update that runs every night."""
    asked = plan.get("asked", {})
    return is_surrogate(plan) or asked.get("mode") == UPDATE or asked.get("fold") is not None


def refits_of(plan: Mapping[str, Any]) -> int:
    """How many stretches val and test are forecast in, by a sweep's record; 1: no refits."""
    return int(plan.get("asked", {}).get("cut", {}).get("refits", 1))


def steering_words(fingerprints: Mapping[str, str]) -> str | None:
    """Which windows steer, of a sweep's or a run's fingerprints; None: all of tune."""
    said = fingerprints.get(STEERING)
    if said is None:
        return None
    share, _, drawn = said.rpartition(" ")[0].partition(" ")
    some, _, every = share.partition("/")
    return f"{int(some):,} of {int(every):,} windows of tune, {drawn}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(Shown):
    """One question: panel, split, horizon, models, space, objective and budget."""

    sweep_id: str
    name: str | None
    models: tuple[str, ...]
    mode: str
    objective: str
    horizon: int
    seed: int
    panel_hash: str
    task_hash: str
    fingerprints: Mapping[str, str]  # part -> hash of its (item, origin, label) cells
    plan: Mapping[str, Any]  # space, budget and whatever else a resumed sweep must know
    dataset_id: str | None
    state: SweepState
    started_at: datetime
    finished_at: datetime | None
    num_trials: int = 0
    stop_asked_at: datetime | None = None  # by another process


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One config in a sweep, with a number unique in it."""

    sweep_id: str
    number: int  # 1, 2, 3 ... given out by the database
    model_name: str
    config: Mapping[str, Any]
    config_hash: str
    train_hash: str
    source: str  # how it was proposed
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Shown):
    """One execution of a config. `metrics` never holds a test score."""

    run_id: str
    model_name: str
    created_at: datetime
    hyperparams: Mapping[str, Any]
    metrics: Mapping[str, float]  # by full name; nan: failed to score
    checkpoint_path: str | None = None
    training_time_seconds: float | None = None
    notes: str | None = None
    git_commit: str | None = None
    state: RunState = RunState.COMPLETE
    is_baseline: bool = False
    sweep_id: str | None = None
    trial_number: int | None = None
    seed: int | None = None
    attempt: int = 1
    config_hash: str = ""
    train_hash: str = ""
    panel_hash: str = ""
    task_hash: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    objective_score: float | None = None  # the sweep's objective on tune
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None  # what failed, with its traceback
    tags: tuple[str, ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""  # how the config was proposed
    forecasts_path: str | None = None  # forecasts and loss panels of the run
    peak_memory_mb: float | None = None
    duration_seconds: float | None = None  # from start to end, scoring and overhead included
    is_late_seed: bool = False  # added to a config whose seeds were settled; known among others

    @property
    def timestamp(self) -> str:
        """`created_at` in ISO form."""
        return self.created_at.isoformat()

    @property
    def fingerprint(self) -> str:
        """Fingerprint of val: only equal ones stand in one table. "": logged by hand."""
        return self.fingerprints.get("val", "")

    @property
    def reproduces(self) -> str | None:
        """The run that this one trained once more, to see whether it can be. Such a run competes
        nowhere: the original stands for its config and seed."""
        word, _, run_id = self.source.partition(": ")
        return run_id if word == REPRODUCES else None

    @property
    def continues(self) -> str | None:
        """The run whose training this one goes on with; a trial of its own, with its own config."""
        word, _, run_id = self.source.partition(": ")
        return run_id if word == CONTINUES else None

    @property
    def updates(self) -> str | None:
        """The run whose weights this one trained on with newer bars."""
        word, _, run_id = self.source.partition(": ")
        return run_id if word == UPDATES else None

    @property
    def steered_by(self) -> str | None:
        """The windows of tune that pruned it and chose its kept step, in words; None: all, or
        nothing was trained."""
        return None if self.is_baseline else steering_words(self.fingerprints)

    @property
    def has_checkpoint_files(self) -> bool:
        """Is the checkpoint still on this machine's disk?"""
        return self.checkpoint_path is not None and Path(self.checkpoint_path).exists()

    @property
    def json_metrics(self) -> dict[str, float | None]:
        """`metrics` as JSON can hold them: None where a score failed or is undefined."""
        return {name: None if math.isnan(v) else v for name, v in self.metrics.items()}

    def score(self, full_name: str) -> float | None:
        """A score by full name, None where it is missing or failed."""
        value = self.metrics.get(full_name)
        return None if value is None or math.isnan(value) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One metric over a run's steps, with the best of both directions kept."""

    run_id: str
    name: str
    num_points: int
    last_step: int
    last: float  # nan: the point was no number
    lowest: float
    lowest_step: int | None
    highest: float
    highest_step: int | None


class Outcome(StrEnum):
    """What a verdict says of a candidate."""

    PROMOTE = "promote"
    HOLD = "hold"
    NAIVE_WINS = "naive wins"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question of a gate: a value held against its threshold."""

    gate: int  # 0 evidence, 1 val, 2 probability of loss, 3 contamination, 4 test
    name: str
    value: float | str | None  # None: could not be had
    relation: str  # how `value` has to stand to `threshold`: "<", ">", ">="
    threshold: float | str | None
    passed: bool | None  # None: not looked


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """The candidate against one opponent. Skill = 1 - loss / opponent's loss; scaled: of losses in
    units of the volatility known at the origin, averaged over items per origin."""

    opponent: str
    raw_skill: float  # on val
    scaled_skill: float
    lower_skill: float | None  # simultaneous bounds of scaled skill, 95 % each side, all trials
    upper_skill: float | None
    t: float | None
    pvalue: float  # of StepM, step-down over all trials
    superior: tuple[str, ...]  # trials that StepM finds better than the opponent
    max_upper_skill: float | None  # the largest upper bound of any trial; None: unbounded
    max_upper_trial: str | None
    df: float | None = None  # of the t, of Student's; None: of edition 1
    inflation: float | None = None  # of the variance, by autocorrelation beyond shared labels
    without_item: str | None = None  # the item on which the candidate gains most
    pvalue_without: float | None = None  # of StepM without it; None: too few items to ask
    pvalue_rescaled: float | None = None  # of StepM by our scale; None: the scale was ours
    test_raw_skill: float | None = None  # None: not looked
    test_scaled_skill: float | None = None
    test_t: float | None = None
    test_pvalue: float | None = None  # Diebold-Mariano, one-sided; of a growing test anytime-valid
    test_lower_skill: float | None = None  # of a growing test: scaled skill, right at any time
    test_upper_skill: float | None = None
    test_origins: int | None = None  # on which a growing test was read
    test_pvalue_rescaled: float | None = None  # as `pvalue_rescaled`, on test


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A wish put in numbers, whether it is met, and how much that can mean on prices."""

    name: str
    value: float | None
    target: str
    met: bool | None  # None: not known
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeflatedSharpe:
    """What the stated trading rule would have earned on a candidate's val: shown, never asked.

    Sharpe ratios are a year's, after cost, in excess of always-long.
    """

    num_trials: int  # of the lineage, all of them
    num_bars: int | None = None
    annual: float | None = None
    probabilistic: float | None = None  # chance that the true ratio is above 0
    luck: float | None = None  # what the best of `num_trials` without skill is expected to show
    deflated: float | None = None  # chance that the true ratio is above that
    why_not: str | None = None  # where something could not be had


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategySharpe(DeflatedSharpe):
    """The same of a strategy's own returns on val, with its 95 % interval: shown, never asked."""

    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The share of closes in a candidate's 80 % band."""

    name: str  # all, calm, usual or wild
    share: float
    lower: float | None  # 95 %, origins drawn in blocks; None: too few of them
    upper: float | None
    num_origins: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cones:
    """Are a candidate's cones on val as wide as they say? Shown, never asked."""

    groups: tuple[Coverage, ...] = ()
    too_narrow: tuple[str, ...] = ()  # groups whose interval ends below 80 %
    why_not: str | None = None  # where it could not be had


@dataclass(frozen=True, slots=True, kw_only=True)
class Economy:
    """What the stated trading rule would have kept on val after costs: shown, never asked. Sharpe
    ratios are a year's, in excess of always-long; bounds are one-sided, 95 %."""

    cost_bps: float | None = None
    sharpe: float | None = None
    sharpe_lower: float | None = None
    sharpe_twice: float | None = None  # at twice the costs
    sharpe_twice_lower: float | None = None
    break_even_bps: float | None = None  # cost at which the mean excess is 0; 0: not even free
    turnover: float | None = None  # capital a year
    why_not: str | None = None


EDITION = 2
"""Of the rules of the verdict; on record with it. One without this number is of edition 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Shown):
    """What is known of one candidate, every number beside its threshold. Test: None, not looked."""

    outcome: Outcome
    answer: str  # the outcome in words: a benchmark other than last-value wins under its own name
    reason: str
    candidate: str
    label: str  # what people call the candidate
    metric: str
    unit: str
    horizon: int  # bars
    stride: int  # bars between origins
    benchmark: str
    benchmark_why: str
    checks: tuple[Check, ...]
    against: tuple[Against, ...]  # the benchmark first
    level: float  # of gate 1: 0.05 / j^2
    test_level: float | None  # of gate 4: 0.05 / k^2
    judged_number: int  # j: which judging of the lineage on val
    look_number: int | None  # k: which look at the lineage's test
    num_horizons: int  # judged together; Holm over them
    num_tested: int  # trials in StepM
    num_trials: int  # of the lineage: failed, pruned and earlier ones too
    num_effective_trials: float
    num_items: int
    num_origins: Mapping[str, int]  # by part
    effective_origins: Mapping[str, float]
    num_draws: int  # of the bootstrap: no p-value of StepM below 1 / num_draws can be told from it
    num_blocks: int  # of CSCV
    probability_of_loss: float | None
    pbo: float | None  # shown, never a gate
    detectable_skill: float | None  # scaled skill that gate 1 would find in 80 % of cases
    expected_best_skill: float | None  # what the best of all trials shows by luck alone
    debiased_skill: float | None  # of the best on val: its scaled skill less the luck of picking
    best: str  # lowest raw loss on val; the candidate, unless one was named, by scaled losses
    one_se_choice: str  # the cheapest within one standard error of the best
    overtuning: float | None  # loss on val over the best incumbent's, in the metric's unit
    zero_shot: Mapping[str, float | str] | None  # the same weights, not fine-tuned
    members: tuple[str, ...] = ()  # superior to every opponent
    sharpe: DeflatedSharpe | None = None  # None: of losses from elsewhere
    cones: Cones | None = None  # None: of losses from elsewhere
    economy: Economy | None = None
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    surrogates: tuple[Mapping[str, Any], ...] = ()  # the same search where nothing is to be found
    declared: Mapping[str, Any] | None = None  # what was declared beforehand, and departures
    edition: int = EDITION
    growing: bool = False  # is its test one that goes on, read at any time at one level?

    @property
    def looked(self) -> bool:
        """Was the test opened?"""
        return self.look_number is not None

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values; what could not be had is null."""
        found: dict[str, Any] = _plain(asdict(self))
        return found

    def without_test(self) -> dict[str, Any]:
        """`as_json` less every number that comes from test."""
        found = self.as_json()
        if self.looked:  # the words for a test that disagrees name its numbers
            found["reason"] = self.reason.partition(":")[0]
        found["checks"] = [
            c | ({"value": None} if c["gate"] == TEST_GATE else {}) for c in found["checks"]
        ]
        for one in found["against"]:
            one |= dict.fromkeys((k for k in one if k.startswith("test_")), None)
        found["targets"] = [
            t | ({"value": None} if is_sealed(t["name"]) else {}) for t in found["targets"]
        ]
        return found


TEST_GATE = 4


def _plain(value: Any) -> Any:
    """NaN and infinities as None, tuples as lists, enums as their words."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
