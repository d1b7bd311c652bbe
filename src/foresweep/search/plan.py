"""The plan of a sweep: one question, in full, and as it stands on record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from uuid import uuid4

from foresweep.data.splits import PARTS, SHARES, Cut
from foresweep.errors import ConfigError, UnknownName, UsageError
from foresweep.evaluation.steering import ALL
from foresweep.evaluation.yardstick import BASELINE_SOURCE
from foresweep.metrics import METRICS, PANEL_LOSSES, objectives_of
from foresweep.models.base import Resources
from foresweep.models.checkpoint import parse_date
from foresweep.models.registry import BASELINES, require_packages
from foresweep.records import Sweep
from foresweep.search.propose.modes import (
    DEFAULT_MAX_RUNS,
    DRAWS,
    FOCUSED,
    SMART,
    ZERO_SHOT,
    Proposal,
    expand_models,
)
from foresweep.space import Spaces, Start, as_spec, from_spec

NO_OBJECTIVES = ("naive_pct_mae", "dm_pvalue_vs_naive", "sharpe_se")
OBJECTIVES = tuple(m for m in METRICS if m not in NO_OBJECTIVES)
"""What a sweep can be about: scores of the model itself, not of naive and not of chance."""
PRUNING = ("none", "hyperband", "racing", "both", "promotion")
FINALISTS = 3
"""Trials of a sweep that are trained with every seed, unless said."""
STEP_FLOOR = 200
"""From scratch a config that asks for epochs trains so long at least, unless it is told by name to
train less (`--max-steps`, `--set`): of a panel of four items and 2,000 bars "20 epochs" are 20
steps, after which a network has learnt next to nothing."""
TINY_STEP_CAP = 300
"""Tiny models from scratch stop here unless --max-steps says otherwise."""


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """One question, in full."""

    models: tuple[str, ...]
    mode: str = "priority"
    data: str = "demo"
    cut: Cut = field(default_factory=Cut)  # its seed names all randomness of the runs, too
    objective: str = "pct_mae"
    max_runs: int | None = None
    size: str | None = "tiny"  # None with pretrained weights
    pretrained: str | None = None
    pretrain_cutoff: str | None = None  # last day that the weights may know, where nobody states it
    max_steps: int | None = None
    seeds: int = 1  # trainings of each finalist: seed, seed + 1, ...
    finalists: int | None = None  # trials that are trained with every seed; None: FINALISTS
    actions: str | None = None  # a file of splits and dividends for the data gate
    reading: Mapping[str, Any] = field(default_factory=dict)  # for `load_panel`: how files are read
    again: bool = False  # train equal configs once more
    steer_windows: int | str | None = None  # of tune, on the way; "all"; None: steering.py decides
    resources: Resources = field(default_factory=Resources)
    pruning: str = "none"  # one of PRUNING
    time_budget_s: float | None = None  # no trial begins later than this after a head began
    step_budget: int | None = None  # optimiser steps of all trials together
    family: str = ""  # shared by the sweeps of one question at several horizons
    spaces: Spaces = field(default_factory=Spaces)  # files and changes in place of the built-in
    transfer_from: str | None = None  # a model whose best runs are mapped onto the others
    surrogate: Mapping[str, Any] | None = None  # {of, kind, seed}: on surrogate prices of a sweep
    fold: int | None = None  # of a walk-forward, counted from 1
    declared: str | None = None  # the declaration that this sweep is made for
    proposals: tuple[Proposal, ...] = ()  # given outright (a run by hand) instead of by mode

    @property
    def budget(self) -> int:
        """Trials at most, baselines aside."""
        return self.max_runs or DEFAULT_MAX_RUNS * len(self.models)

    @property
    def other_seeds(self) -> range:
        """Of the finalists, beside the sweep's own."""
        return range(self.cut.seed + 1, self.cut.seed + self.seeds)

    @property
    def num_finalists(self) -> int:
        return FINALISTS if self.finalists is None else self.finalists

    @property
    def step_cap(self) -> int | None:
        """Optimiser steps a config may take at most; None: as many as it asks for."""
        if self.max_steps is not None or self.pretrained or self.size != "tiny":
            return self.max_steps
        return TINY_STEP_CAP

    @property
    def step_floor(self) -> int:
        """Optimiser steps that epochs are at least, from scratch; 0 where steps or epochs are said
        by name."""
        said = "max_epochs" in self.spaces.changes or bool(self.proposals)
        return 0 if said else STEP_FLOOR

    @property
    def base(self) -> dict[str, Any]:
        """Laid under every trained config."""
        return {"pretrained": self.pretrained, "size": None if self.pretrained else self.size}

    @property
    def start(self) -> Start:
        """Which side of the space files is read."""
        return "pretrained" if self.pretrained else "scratch"

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the sweep is about, metric by metric."""
        return objectives_of(self.objective)

    @property
    def pruners(self) -> tuple[str, ...]:
        """What ends trials early."""
        asked: dict[str, tuple[str, ...]] = {"none": (), "both": ("hyperband", "racing")}
        return asked.get(self.pruning, (self.pruning,))

    @property
    def trained(self) -> tuple[str, ...]:
        """The models that are searched: the baselines have nothing to search."""
        return tuple(m for m in self.models if m not in BASELINES)

    def checked(self) -> SweepPlan:
        """This plan with model names spelt out. Raises UnknownName, ConfigError, UsageError,
        MissingExtra."""
        objective = self._sound_objective()
        models = expand_models(self.models)
        require_packages(models)
        if self.mode == ZERO_SHOT and not self.pretrained and not set(models) <= set(BASELINES):
            raise UsageError(
                f"--mode {ZERO_SHOT} asks weights as they are, and a model from scratch has none; "
                f"give --pretrained published (or a Hugging Face id, or a folder), or train from "
                f"scratch with --mode priority"
            )
        self._require_seeds_that_matter(models)
        self._require_steering(models)
        self._refuse_idle_changes()
        self._refuse_idle_refits()
        self._refuse_impossible_pruning()
        cutoff = None if self.pretrain_cutoff is None else self._said_cutoff()
        return dataclasses.replace(
            self,
            models=models,
            objective=objective,
            pretrain_cutoff=cutoff,
            transfer_from=self._sound_source(models),
        )

    def _sound_objective(self) -> str:
        """The objectives' bare names, separated by commas. Raises ConfigError, UnknownName, and
        UsageError where several of them leave a mode nothing to go by."""
        names = self.objectives
        for name in names:
            if name.partition("_")[0] in PARTS:
                raise ConfigError(
                    f"objective {name!r}: a sweep is steered by tune alone; give the metric's bare "
                    f"name, e.g. --objective pct_mae"
                )
            if name not in OBJECTIVES:
                raise UnknownName("objective", name, OBJECTIVES)
            if names.count(name) > 1:
                raise ConfigError(
                    f"--objective {self.objective}: {name} stands there twice; give it once"
                )
        if len(names) > 1 and self.mode == FOCUSED:
            raise UsageError(
                f"--mode {FOCUSED} narrows a space around the best runs, and by several objectives "
                f"none is the best; use --mode {SMART}, or --objective {names[0]}"
            )
        return ",".join(names)

    def _sound_source(self, models: tuple[str, ...]) -> str | None:
        """The model whose runs are handed on, by its own name. Raises UnknownName, UsageError where
        it has nothing to hand on or nobody to hand it to."""
        if self.transfer_from is None:
            return None
        found = expand_models([self.transfer_from])
        said = f"--transfer-from {self.transfer_from}"
        if len(found) > 1:
            raise UsageError(f"{said}: give one model, whose runs are to be mapped onto others")
        if found[0] in BASELINES:
            raise UsageError(
                f"{said}: a baseline is not trained and has nothing to hand on; give a model "
                f"that was swept, e.g. --transfer-from toto"
            )
        if not set(models) - {*found, *BASELINES}:
            raise UsageError(
                f"{said}: its own runs are no transfer to {', '.join(models)}; --mode smart "
                f"learns from them, --transfer-from takes another model"
            )
        if self.mode == ZERO_SHOT or self.proposals:
            raise UsageError(f"{said} has no effect in mode {self.mode}; leave it out")
        return found[0]

    def _require_seeds_that_matter(self, models: tuple[str, ...]) -> None:
        """Raises UsageError where the finalists' seeds would change nothing."""
        for name, value in (("--seeds", self.seeds), ("--finalists", self.num_finalists)):
            if value < 1:
                raise UsageError(f"{name} {value}: it must be at least 1")
        if self.seeds == 1 and self.finalists is not None:
            raise UsageError(
                f"--finalists {self.finalists} has no effect without --seeds: finalists are the "
                f"trials that are trained with several seeds; add --seeds 3, or leave it out"
            )
        if self.seeds > 1 and set(models) <= set(BASELINES):
            raise UsageError(
                f"--seeds {self.seeds} has no effect on {', '.join(models)}: baselines draw "
                f"nothing; leave it out"
            )

    def _require_steering(self, models: tuple[str, ...]) -> None:
        """Raises UsageError for windows that cannot steer, or where nothing is steered."""
        asked = self.steer_windows
        if asked is None:
            return
        if asked != ALL and (not isinstance(asked, int) or asked < 1):
            raise UsageError(f"--steer-windows {asked}: give a number of windows, or {ALL}")
        if asked != ALL and set(models) <= set(BASELINES):
            raise UsageError(
                f"--steer-windows {asked} has no effect on {', '.join(models)}: baselines are not "
                f"trained; leave it out"
            )

    def _refuse_impossible_pruning(self) -> None:
        """Raises UnknownName, UsageError where no trial could be judged so."""
        if self.pruning not in PRUNING:
            raise UnknownName("pruning", self.pruning, PRUNING)
        if len(self.objectives) > 1 and self.pruners:
            raise UsageError("a sweep with several objectives is not pruned; use --pruning none")
        if "racing" in self.pruners and self.objective not in PANEL_LOSSES:
            raise UsageError(
                f"--pruning {self.pruning}: {self.objective} has no loss by origin to race on; use "
                f"--pruning hyperband, or one of {', '.join(PANEL_LOSSES)} as objective"
            )

    def _refuse_idle_changes(self) -> None:
        """Raises UsageError for a choice that nothing would draw from."""
        idle = [n for n in self.spaces.changes if n not in self.spaces.fixed]
        if idle and self.mode not in DRAWS:
            raise UsageError(
                f"--set {idle[0]}={self.spaces.changes[idle[0]]}: --mode {self.mode} draws "
                f"nothing; give one value, or use --mode smart, random or full"
            )
        if self.spaces.changes and (self.mode == ZERO_SHOT or not self.trained):
            names = ", ".join(self.spaces.changes)
            raise UsageError(f"--set {names} has no effect where nothing is trained")

    def _refuse_idle_refits(self) -> None:
        """Raises UsageError where refits would change nothing, or cannot be paid for as said."""
        if self.cut.refits < 2:
            return
        said = f"--refits {self.cut.refits}"
        if self.mode == ZERO_SHOT:
            raise UsageError(
                f"{said} has no effect in --mode {ZERO_SHOT}: weights as they are learn nothing; "
                f"leave it out"
            )
        if self.step_budget is not None:
            raise UsageError(
                f"{said} beside --step-budget {self.step_budget}: a refit takes as many steps as "
                f"the kept weights of its trial took, which nobody knows before; use --time-budget "
                f"or --max-runs"
            )

    def _said_cutoff(self) -> str:
        """Raises UsageError where it is no date or there are no weights."""
        if not self.pretrained:
            raise UsageError(
                f"--pretrain-cutoff {self.pretrain_cutoff} says nothing of models from scratch; "
                f"give it with --pretrained, or leave it out"
            )
        return parse_date(str(self.pretrain_cutoff))


def size_meant(size: str | None, pretrained: str | None) -> str | None:
    """The size of a plan: tiny unless said, none beside weights. Raises UsageError for both."""
    if pretrained and size:
        raise UsageError(
            f"--size {size} and --pretrained {pretrained}: the weights fix the size; give "
            f"one of the two"
        )
    return None if pretrained else size or "tiny"


def at_horizons(plan: SweepPlan, horizons: Sequence[int]) -> tuple[SweepPlan, ...]:
    """The same question at several horizons: a family of sweeps, judged together. Raises UsageError
    for a horizon that is asked for twice."""
    if len(set(horizons)) < len(horizons):
        raise UsageError(f"--horizon {','.join(map(str, horizons))}: each horizon once")
    family = uuid4().hex[:12] if len(horizons) > 1 else ""
    return tuple(
        dataclasses.replace(plan, cut=dataclasses.replace(plan.cut, horizon=h), family=family)
        for h in horizons
    )


def by_hand(plan: SweepPlan, values: Mapping[str, Any]) -> SweepPlan:
    """The plan of one run with hyperparameters given outright: steps, size and weights said among
    them hold as said. Raises UnknownName, UsageError for more than one model."""
    models = expand_models(plan.models)
    if len(models) != 1:
        raise UsageError(f"one run has one model, not {', '.join(models)}; sweep takes several")
    said = {k: values[k] for k in ("max_steps", "size", "pretrained") if k in values}
    if said.get("pretrained"):
        said.setdefault("size", None)
    plan = dataclasses.replace(plan, **said)
    base = {} if models[0] in BASELINES else plan.base
    config = {**base, **values}
    source = BASELINE_SOURCE if models[0] in BASELINES and not values else "by hand"
    return dataclasses.replace(plan, proposals=(Proposal(models[0], config, source),))


# A sweep's plan on record, so that another process can go on with it as it was asked.


CUT = ("horizon", "stride", "max_context", "max_windows", "seed")
ASKED = "asked"
"""Where the plan stands in a sweep's record, beside how its parts were cut."""
STEERED = "steer_windows"
"""How many windows of tune steer, as it was decided: a number or "all". A sweep whose record says
nothing of it was begun when all of them did, and goes on so."""


def as_record(plan: SweepPlan) -> dict[str, Any]:
    """The whole plan as JSON values."""
    found = {f.name: getattr(plan, f.name) for f in fields(plan)}
    spaces = plan.spaces
    if not plan.reading:
        del found["reading"]
    return found | {
        "models": list(plan.models),
        "cut": cut_record(plan.cut),
        "resources": asdict(plan.resources),
        "spaces": {
            "texts": dict(spaces.texts),
            "places": dict(spaces.places),
            "changes": {name: as_spec(d) for name, d in spaces.changes.items()},
        },
        "proposals": [
            {"model": p.model, "config": dict(p.config), "source": p.source} for p in plan.proposals
        ],
    }


def cut_record(cut: Cut) -> dict[str, Any]:
    """A cut as JSON values: of one that asks for no refits as it was before there were any."""
    found = asdict(cut)
    if cut.refits == 1:
        del found["refits"]
    return found


def plan_of(sweep: Sweep) -> SweepPlan:
    """The plan that a sweep was opened with. Raises UsageError where its record does not say."""
    asked = sweep.plan.get(ASKED)
    if asked is None:
        raise UsageError(
            f"sweep {sweep.sweep_id} does not say what was asked (it was recorded by hand or by an "
            f"older foresweep), so it cannot be resumed; the same command as then goes on where "
            f"it stopped"
        )
    if "cut" not in asked:  # an older foresweep's
        cut = {name: asked[name] for name in CUT if name in asked}
        asked = {k: v for k, v in asked.items() if k not in cut} | {"cut": cut}
    decided = sweep.plan.get(STEERED, asked.get("steer_windows", ALL))
    asked = {**asked, "steer_windows": decided}
    unknown = sorted(asked.keys() - {f.name for f in fields(SweepPlan)})
    if unknown:
        raise UsageError(
            f"sweep {sweep.sweep_id} was asked for {', '.join(unknown)}, which this foresweep does "
            f"not know; resume it with the newer one that began it"
        )
    return SweepPlan(**asked | _values(asked))


def on_surrogate(sweep: Sweep, *, kind: str, seed: int) -> SweepPlan:
    """The plan of a sweep once more, on surrogate prices of its panel. Raises UsageError for one
    that is a surrogate itself, or does not say what was asked."""
    plan = plan_of(sweep)
    if plan.surrogate is not None:
        raise UsageError(
            f"sweep {sweep.sweep_id} is on surrogate prices of {plan.surrogate['of']}; name that"
        )
    said = {"of": sweep.sweep_id, "kind": kind, "seed": seed}
    return dataclasses.replace(plan, surrogate=said, declared=None, family="", transfer_from=None)


def family_of(sweep: Sweep, sweeps: Iterable[Sweep]) -> list[Sweep]:
    """The sweeps that ask what this one asks at other horizons, itself among them, by horizon."""
    family = sweep.plan.get(ASKED, {}).get("family")
    found = [s for s in sweeps if family and s.plan.get(ASKED, {}).get("family") == family]
    return sorted(found, key=lambda s: s.horizon) or [sweep]


def _values(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are no plain JSON values."""
    spaces = asked["spaces"]
    changes = {name: from_spec(name, spec) for name, spec in spaces["changes"].items()}
    return {
        "models": tuple(asked["models"]),
        "cut": Cut(**asked["cut"] | {"shares": tuple(asked["cut"].get("shares", SHARES))}),
        "resources": Resources(**asked["resources"]),
        "spaces": Spaces(spaces["texts"], spaces["places"], changes),
        "proposals": tuple(Proposal(**p) for p in asked["proposals"]),
    }
