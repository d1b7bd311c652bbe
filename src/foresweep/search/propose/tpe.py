"""TPE: Optuna proposes the next config from what is known; and the door of all samplers.

The study lives in memory and holds nothing but what this sampler was told: finished configs with
their costs. Each proposal is drawn by a sampler of its own, seeded by the trial number, so that it
depends on the tellings and the number alone (one that lives on repeats its first proposals after
every rebuild).
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from foresweep.metrics import METRICS
from foresweep.records import Run, RunState
from foresweep.search.propose.modes import Proposal
from foresweep.space import Choice, Dimension, Float, Int, SearchSpace
from foresweep.tracker.tracker import Tracker

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

# The door of the search: who says which config is next, and what such a one is told.
#
# A sampler is asked for a config and told what became of it; it sees scores on tune alone. The
# database gives out the trial numbers and holds the results: a sampler keeps nothing that cannot be
# rebuilt from it.


MOST_ATTEMPTS = 100
"""Proposals for one trial number that were refused or known: then the space is taken as used up."""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a config, or that it is running."""

    model: str
    config: Mapping[str, Any]  # with every hyperparameter, as it was trained
    state: RunState
    scores: Mapping[str, float] = field(default_factory=dict)  # on tune, by the metric's bare name
    series: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # step -> the same
    number: int | None = None  # in this sweep; None: it is of an earlier one


class Sampler(Protocol):
    """Says which config is next. The same tellings and the same number give the same proposal."""

    def ask(
        self, number: int, running: Sequence[Told] = (), *, attempt: int = 0
    ) -> Proposal | None:
        """The config of trial `number`; None: nothing is left. `running` are the trials of this
        and of other heads that have not ended; `attempt` counts the proposals for this number
        that could not be tried."""
        ...

    def tell(self, told: Told) -> None:
        """Take note of a trial that ended, or of an earlier run."""
        ...


def seed_of(sweep_seed: int, number: int, attempt: int, model: str) -> int:
    """The seed of one proposal, in 32 bits: a function of the sweep's seed and the trial number,
    so that a sweep that was resumed or is shared goes on as one that was not."""
    text = f"{sweep_seed}/{number}/{attempt}/{model}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclass(slots=True)
class Rounds:
    """One sampler a model; the trials are handed round, fewest first. Not frozen: it counts."""

    samplers: Mapping[str, Sampler]
    tried: dict[str, int] = field(default_factory=dict)

    def ask(
        self, number: int, running: Sequence[Told] = (), *, attempt: int = 0
    ) -> Proposal | None:
        busy = {m: sum(t.model == m for t in running) for m in self.samplers}
        load = {m: self.tried.get(m, 0) + busy[m] for m in self.samplers}
        for model in sorted(self.samplers, key=lambda m: load[m]):
            mine = [t for t in running if t.model == model]
            found = self.samplers[model].ask(number, mine, attempt=attempt)
            if found is not None:
                return found
        return None

    def tell(self, told: Told) -> None:
        if told.model in self.samplers:
            self.samplers[told.model].tell(told)
            if told.number is not None:
                self.tried[told.model] = self.tried.get(told.model, 0) + 1


def tell_all(sampler: Sampler, told: Iterable[Told]) -> None:
    """Rebuild a sampler: earlier runs first, then this sweep's by number, whatever the order in
    which they ended."""
    for one in sorted(told, key=lambda t: -1 if t.number is None else t.number):
        sampler.tell(one)


# TPE: Optuna proposes the next config from what is known so far.


STARTUP = 10
"""Told configs below which proposals are drawn at random."""
SMART = "smart"


class TpeSampler:
    """Multivariate TPE over one model's space, with one objective or several."""

    def __init__(
        self,
        model: str,
        space: SearchSpace,
        *,
        objectives: Sequence[str],
        base: Mapping[str, Any],
        seed: int,
        startup: int = STARTUP,
        source: str = SMART,
        at_edge: bool = True,
    ) -> None:
        """`base` is laid under every proposal. Values beyond the space are told at its edge, or,
        without `at_edge`, such configs not at all."""
        self.model, self.space, self.base = model, space, base
        self.objectives, self.seed, self.source = tuple(objectives), seed, source
        self.startup, self.at_edge = startup, at_edge
        self._axes = {name: _Axis(d) for name, d in space.dimensions.items()}
        self._order = _parents_first(space)
        self.study = new_study(len(self.objectives))

    def tell(self, told: Told) -> None:
        """Learn from a trial that ended or waits. One that failed, or whose score is no number,
        counts as worse than all others; one cut short by its last score at its last step."""
        if told.state in LEARNED and (self.at_edge or self.holds(told.config)):
            self.study.add_trial(self._frozen(told))

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Does a config lie in the space?"""
        return all(
            axis.holds(config.get(name))
            for name, axis in self._axes.items()
            if self.space.is_present(name, config)
        )

    def ask(
        self, number: int, running: Sequence[Told] = (), *, attempt: int = 0
    ) -> Proposal | None:
        """See Sampler. Running trials count among the bad ones, so that two heads do not ask the
        same thing at once (constant liar)."""
        from optuna.trial import TrialState

        study = self._beside(running) if running else self.study
        with quiet():
            seed = seed_of(self.seed, number, attempt, self.model)
            study.sampler = self._optunas(seed, liar=bool(running))
            trial = study.ask()
        config = self._draw(trial)
        # What is told is the config as it was trained, if it could be: this trial only asked.
        study.tell(trial, state=TrialState.FAIL)
        return Proposal(self.model, {**self.base, **config}, self.source)

    def _optunas(self, seed: int, *, liar: bool) -> optuna.samplers.BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(
            seed=seed,
            n_startup_trials=self.startup,
            multivariate=True,
            group=True,
            constant_liar=liar,
        )

    def _draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """The config that Optuna wants, in the order of the space."""
        config: dict[str, Any] = {}
        for name in self._order:
            axis = self._axes[name]
            if self.space.is_present(name, config):
                config[name] = axis.suggested(trial, name)
        return {n: config[n] for n in self.space.dimensions if n in config}

    def _beside(self, running: Sequence[Told]) -> optuna.Study:
        """A copy of the study in which running trials are known, as worse than all others."""
        study = new_study(len(self.objectives))
        study.add_trials(self.study.get_trials(deepcopy=False))
        study.add_trials([self._frozen(t) for t in running])
        return study

    def _frozen(self, told: Told) -> optuna.trial.FrozenTrial:
        """A telling in Optuna's words: what lies beyond the space is moved to its edge."""
        from optuna.trial import TrialState, create_trial

        config = {k: v for k, v in told.config.items() if v is not None}
        params, distributions = {}, {}
        for name, axis in self._axes.items():
            inward = axis.inward(config[name]) if name in config else None
            if axis.distribution is None or inward is None:
                continue
            if self.space.is_present(name, config):
                params[name], distributions[name] = inward, axis.distribution
        values = [METRICS[m].badness(told.scores.get(m, math.nan)) for m in self.objectives]
        whole = told.state == RunState.COMPLETE and all(math.isfinite(v) for v in values)
        if len(self.objectives) > 1:
            state = TrialState.COMPLETE if whole else TrialState.FAIL
            return create_trial(
                state=state,
                values=values if whole else None,
                params=params,
                distributions=distributions,
            )
        first = self.objectives[0]
        series = {s: METRICS[first].badness(v[first]) for s, v in told.series.items() if first in v}
        if told.state not in CUT_SHORT:
            series = {}  # a failed one without a series ranks below every pruned one
        return create_trial(
            state=TrialState.COMPLETE if whole else TrialState.PRUNED,
            value=values[0] if whole else None,
            params=params,
            distributions=distributions,
            intermediate_values={s: v for s, v in series.items() if math.isfinite(v)},
        )


class _Axis:
    """One dimension in Optuna's words. Numbers to choose from are told by rank, so that 16 lies
    between 8 and 32."""

    def __init__(self, dimension: Dimension) -> None:
        self.dimension = dimension
        self.values: tuple[Any, ...] = ()
        self.ranked = False
        if isinstance(dimension, Choice):
            self.values = dimension.values
            self.ranked = len(self.values) > 2 and all(_is_number(v) for v in self.values)
            if self.ranked:
                self.values = tuple(sorted(self.values))
        self.distribution = self._distribution()

    def _distribution(self) -> BaseDistribution | None:
        """None where there is nothing to choose."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        d = self.dimension
        if isinstance(d, Float):
            return FloatDistribution(d.low, d.high, log=d.log)
        if isinstance(d, Int):
            if d.log:  # Optuna has no steps in logs: rounded on the way out
                return IntDistribution(d.low, d.high, log=True)
            return IntDistribution(d.low, d.low + (d.high - d.low) // d.step * d.step, step=d.step)
        if len(self.values) < 2:
            return None
        if self.ranked:
            return IntDistribution(0, len(self.values) - 1)
        return CategoricalDistribution(self.values)

    def suggested(self, trial: optuna.Trial, name: str) -> Any:
        """The value that Optuna wants next."""
        d = self.dimension
        if self.distribution is None:
            return self.values[0]
        if isinstance(d, Float):
            return trial.suggest_float(name, d.low, d.high, log=d.log)
        if isinstance(d, Int):
            step = 1 if d.log else d.step
            high = d.high if d.log else d.low + (d.high - d.low) // d.step * d.step
            return self._on_grid(trial.suggest_int(name, d.low, high, step=step, log=d.log))
        if self.ranked:
            return self.values[trial.suggest_int(name, 0, len(self.values) - 1)]
        return trial.suggest_categorical(name, self.values)

    def inward(self, value: Any) -> Any:
        """What Optuna is told of a config's value; None where the space has no such value."""
        d = self.dimension
        if isinstance(d, Choice) and not self.ranked:
            return value if value in self.values else None
        if not _is_number(value):
            return None
        if isinstance(d, Choice):
            return min(range(len(self.values)), key=lambda k: abs(self.values[k] - value))
        if isinstance(d, Int):
            return self._on_grid(value)
        return float(min(max(value, d.low), d.high))

    def holds(self, value: Any) -> bool:
        """Is this one of the dimension's values?"""
        d = self.dimension
        if isinstance(d, Choice):
            return value in d.values
        return _is_number(value) and d.low <= value <= d.high

    def _on_grid(self, value: float) -> int:
        d = self.dimension
        assert isinstance(d, Int)
        steps = round((min(max(value, d.low), d.high) - d.low) / d.step)
        return d.low + d.step * min(steps, (d.high - d.low) // d.step)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parents_first(space: SearchSpace) -> tuple[str, ...]:
    """The dimensions, each after those that its condition asks for."""
    order: list[str] = []

    def put(name: str) -> None:
        for parent in space.when.get(name, {}):
            if parent in space.dimensions and parent not in order:
                put(parent)
        if name not in order:
            order.append(name)

    for name in space.dimensions:
        put(name)
    return tuple(order)


def new_study(num_objectives: int, *, name: str | None = None) -> optuna.Study:
    """An empty study in memory, everything to be made small."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    return optuna.create_study(study_name=name, directions=["minimize"] * num_objectives)


@contextmanager
def quiet() -> Iterator[None]:
    """`group` and the Wilcoxon pruner are marked experimental in Optuna 5, and say so each time."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


# What the database knows of earlier trials, in the words that samplers are told.


TUNE = "tune_"
CUT_SHORT = (RunState.PRUNED, RunState.WAITING)
"""A trial that waits is, until it goes on, one that was cut short."""
LEARNED = (RunState.COMPLETE, RunState.FAILED, *CUT_SHORT)
"""States that say something of a config. A lost or cancelled run says nothing."""


def told_of(run: Run, tracker: Tracker, objectives: Sequence[str], *, sweep_id: str) -> Told:
    """A run that ended. The series of one that was cut short is read from its curves; that of a
    complete one nobody asks for."""
    scores = {m: run.metrics[TUNE + m] for m in objectives if TUNE + m in run.metrics}
    series: dict[int, dict[str, float]] = {}
    if run.state in CUT_SHORT:
        for metric in objectives:
            for step, value in tracker.get_curve(run.run_id, TUNE + metric):
                series.setdefault(step, {})[metric] = value
    number = run.trial_number if run.sweep_id == sweep_id else None
    return Told(run.model_name, run.hyperparams, run.state, scores, series, number)


def earlier_runs(
    tracker: Tracker,
    *,
    model: str,
    fingerprints: Mapping[str, str],
    base: Mapping[str, Any],
) -> list[Run]:
    """The runs of a model that ended on the same windows of tune and val and started from the same
    weights or size, oldest first; of a config trained more than once the newest. Reproductions say
    nothing new."""
    found: dict[str, Run] = {}
    for run in tracker.get_runs(model, fingerprint=fingerprints["val"]):
        config = run.hyperparams  # a plug-in's may have neither size nor pretrained
        same_start = all(config.get(k, v) == v for k, v in base.items())
        same_cells = run.fingerprints.get("tune") == fingerprints["tune"]
        counts = run.state in LEARNED and run.config_hash and run.reproduces is None
        if counts and same_start and same_cells:
            found.pop(run.config_hash, None)
            found[run.config_hash] = run
    return list(found.values())
