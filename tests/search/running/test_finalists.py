"""A sweep's finalists under several seeds: runs of one trial, the median one of which stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from foresweep.data.splits import Cut, make_split
from foresweep.errors import UsageError
from foresweep.evaluation.yardstick import EQUALS_LAST_VALUE
from foresweep.models.checkpoint import Cutoff
from foresweep.records import Run, RunState
from foresweep.search.events import Event, FinalistsChosen, SeedsCompared, TrialSkipped
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.propose.modes import Proposal
from foresweep.search.running.trials import Contender, choose_finalists
from foresweep.search.stage import CONTAMINATED, cutoffs, is_contaminated
from foresweep.search.sweep import sweep, train
from foresweep.search.trial import Prepared
from foresweep.tracker.tracker import Tracker
from panels import make_panel
from planted_model import plugin
from runs import make_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("finalists")]  # its sweeps are made once

DICE = """from foresweep.models.base import Forecast
from foresweep.models.baselines.naive import Drift
from foresweep.models.checkpoint import write_checkpoint
from foresweep.models.base import as_dict
from dataclasses import dataclass
from typing import Any

OFF = {0: 0.0, 1: 0.2, 2: 0.1}


@dataclass
class Moved:
    inner: Any
    off: float

    @property
    def context_length(self):
        return self.inner.context_length

    def predict(self, context, *, horizon, levels, seed):
        made = self.inner.predict(context, horizon=horizon, levels=levels, seed=seed)
        return Forecast(made.values * (1 + self.off), levels)


class Guest(Drift):
    name = "guest"

    def train(self, job):
        return self.scored(job, self.predictor(job.config), off=OFF[job.seed])

    def load(self, checkpoint, resources):
        config = self.Config(**checkpoint.config)
        return Moved(self.predictor(config), checkpoint.card["off"])
"""
"""A model whose seed moves every forecast: 0 the least, 1 the most, 3 is not to be trained."""
SPACE = 'model = "guest"\n' + "".join(
    f'[[quick]]\nname = "{n}"\nsource = "made up"\nconfig = {{ context_length = {n} }}\n'
    for n in (32, 64, 128)
)
PLAN = SweepPlan(models=("guest",), mode="quick", cut=Cut(stride=40, max_context=128))
SEEDED = replace(PLAN, seeds=3, finalists=2)


class Place:
    """A folder with a database of its own, and what was heard there."""

    def __init__(self, folder: Path) -> None:
        self.db, self.runs_dir = folder / "sweeps.db", folder / "runs"
        self.heard: list[Event] = []

    def sweep(self, plan: SweepPlan) -> list[Run]:
        """Run a plan and give back every run of `guest` on record."""
        self.heard.clear()
        sweep(plan, db=self.db, runs=self.runs_dir, listen=self.heard.append)
        with Tracker(self.db) as tracker:
            return tracker.get_runs("guest")

    def told(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.heard if isinstance(event, kind)]


@pytest.fixture(scope="module", autouse=True)
def dice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with plugin(tmp_path_factory.mktemp("dice"), module=DICE, space=SPACE):
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("swept"))
    place.sweep(SEEDED)
    return place


@pytest.fixture(scope="module")
def runs(swept: Place) -> list[Run]:
    with Tracker(swept.db) as tracker:
        return tracker.get_runs("guest")


def test_the_best_by_tune_are_trained_with_every_seed_and_the_rest_with_one(
    runs: list[Run],
) -> None:
    first = sorted((r for r in runs if r.seed == 0), key=lambda r: r.metrics["tune_pct_mae"])
    seeds = {r.run_id: {o.seed for o in runs if o.config_hash == r.config_hash} for r in first}
    assert [seeds[r.run_id] for r in first] == [{0, 1, 2}, {0, 1, 2}, {0}]
    assert {r.state for r in runs} == {RunState.COMPLETE}


def test_seeds_are_runs_of_one_trial(swept: Place, runs: list[Run]) -> None:
    assert len({r.trial_number for r in runs}) == 3 == len({r.config_hash for r in runs})
    for run in runs:
        same = {o.trial_number for o in runs if o.config_hash == run.config_hash}
        assert same == {run.trial_number}
    with Tracker(swept.db) as tracker:
        trials = tracker.get_trials(tracker.get_sweep().sweep_id)
        assert sum(t.model_name == "guest" for t in trials) == 3
        assert tracker.get_sweep().plan["seeds"] == 3


def test_the_median_seed_stands_for_its_config(swept: Place, runs: list[Run]) -> None:
    """Seed 0 is the lucky one, seed 1 the unlucky one, on tune and on val alike."""
    compared = swept.told(SeedsCompared)
    assert [(len(e.runs), e.chosen.seed) for e in compared] == [(3, 2), (3, 2)]
    (chosen,) = swept.told(FinalistsChosen)
    assert [r.config_hash for r in chosen.runs] == [e.chosen.config_hash for e in compared]
    lucky = min(runs, key=lambda r: r.metrics["val_pct_mae"])
    assert lucky.seed == 0
    with Tracker(swept.db) as tracker:
        ranked = tracker.get_top_k_models(9, model_name="guest")
    assert sorted(r.seed or 0 for r in ranked) == [0, 2, 2]


def test_the_same_question_again_trains_nothing_and_gives_the_same_answer(swept: Place) -> None:
    before = [e.chosen for e in swept.told(SeedsCompared)]
    found = swept.sweep(SEEDED)
    assert len(found) == 7
    assert sum(e.earlier.model_name == "guest" for e in swept.told(TrialSkipped)) == 7
    assert [e.chosen for e in swept.told(SeedsCompared)] == before


def test_seeds_asked_for_later_join_the_trial_that_is_on_record(swept: Place) -> None:
    plan = by_hand(PLAN, {"context_length": 48})
    (first,) = (r for r in swept.sweep(plan) if r.hyperparams["context_length"] == 48)
    found = [
        r for r in swept.sweep(replace(plan, seeds=3)) if r.hyperparams["context_length"] == 48
    ]
    assert {r.seed for r in found} == {0, 1, 2}
    assert {(r.sweep_id, r.trial_number) for r in found} == {(first.sweep_id, first.trial_number)}
    assert [e.chosen.seed for e in swept.told(SeedsCompared)] == [2]


def test_a_seed_that_fails_is_on_record_and_the_others_decide(swept: Place) -> None:
    plan = by_hand(
        replace(PLAN, cut=replace(PLAN.cut, seed=1), seeds=3),
        {"context_length": 80},
    )
    found = [r for r in swept.sweep(plan) if r.hyperparams["context_length"] == 80]
    assert {r.seed: r.state.value for r in found} == {1: "complete", 2: "complete", 3: "failed"}
    (compared,) = swept.told(SeedsCompared)
    assert compared.chosen.seed == 2  # of two the better on tune: the lower median


def test_a_run_by_hand_comes_back_as_its_median_seed(swept: Place) -> None:
    plan = replace(PLAN, mode="by hand", seeds=3)
    run = train(plan, {"context_length": 96}, db=swept.db, runs=swept.runs_dir)
    assert (run.model_name, run.seed) == ("guest", 2)


@dataclass
class Case:
    """One contender and whether it may be a finalist under pct_mae."""

    name: str
    able: bool
    source: str = "quick: one"
    model: str = "guest"
    state: RunState = RunState.COMPLETE
    tags: tuple[str, ...] = ()
    tune: float = 1.0


CASES = [
    Case("asked for", True),
    Case("a baseline", False, model="drift", source="baseline"),
    Case("untrained weights beside it", False, source="beside: zero-shot"),
    Case("failed", False, state=RunState.FAILED),
    Case("pruned", False, state=RunState.PRUNED),
    Case("last-value in disguise", False, tags=(EQUALS_LAST_VALUE,)),
    Case("failed to score", False, tune=float("nan")),
]


def contender(case: Case, number: int = 1) -> Contender:
    run = make_run(case.model, number, 1.0, state=case.state)
    scores = {"tune_pct_mae": case.tune, "tune_pinball": case.tune, "tune_r2": case.tune}
    run = replace(run, metrics=scores, tags=case.tags)
    return Contender(Prepared(Proposal(case.model, {}, case.source), {}, "", ""), run)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_who_may_be_a_finalist(case: Case) -> None:
    assert bool(choose_finalists([contender(case)], "pct_mae", 3)) is case.able


def test_finalists_are_the_best_by_the_objective_and_ties_go_to_the_older() -> None:
    found = [contender(Case("", True, tune=t), n) for n, t in enumerate((2.0, 1.0, 1.0, 3.0))]
    for objective, order in (("pct_mae", [1, 2, 0]), ("r2", [3, 0, 1])):
        chosen = choose_finalists(reversed(found), objective, 3)
        assert chosen == tuple(found[k] for k in order)


def test_under_quantiles_a_median_at_the_last_close_is_no_bar() -> None:
    same = contender(Case("", True, tags=(EQUALS_LAST_VALUE,)))
    assert choose_finalists([same], "pinball", 3) == (same,)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"models": ("drift",), "seeds": 3}, "baselines draw nothing"),
        ({"finalists": 2}, "no effect without --seeds"),
        ({"seeds": 0}, "--seeds 0"),
        ({"seeds": 2, "finalists": 0}, "--finalists 0"),
    ],
)
def test_seeds_without_effect_are_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        replace(PLAN, **changed).checked()


PRETRAINED = """from foresweep.models.baselines.naive import BaselineConfig, Drift
from foresweep.models.base import config_class, hyper
from foresweep.models.checkpoint import Cutoff


@config_class
class Config(BaselineConfig):
    pretrained: str | None = hyper(None, "weights", probe=(None, "some"))


class Guest(Drift):
    name = "guest"
    Config = Config

    def pretrain_cutoff(self, config):
        return Cutoff("2013-01-31", "made up")
"""


def test_a_run_whose_weights_may_have_seen_test_says_so(tmp_path: Path) -> None:
    place, plan = Place(tmp_path), replace(PLAN, size=None, pretrained="some")
    with plugin(tmp_path, module=PRETRAINED):
        (run,) = place.sweep(by_hand(plan, {}))
    assert CONTAMINATED in run.tags
    with Tracker(place.db) as tracker:
        known = tracker.get_sweep().plan["cutoffs"]
        assert not any(CONTAMINATED in r.tags for r in tracker.get_runs() if r.is_baseline)
    assert known == {run.train_hash: {"date": "2013-01-31", "source": "made up"}}


@pytest.mark.parametrize(
    ("config", "cutoff", "seen"),
    [
        ({"pretrained": None}, None, False),  # from scratch
        ({}, None, False),
        ({"pretrained": "some"}, None, True),  # nobody knows
        ({"pretrained": "some"}, "first day", True),
        ({"pretrained": "some"}, "day before", False),
    ],
)
def test_weights_are_clean_if_they_are_known_to_end_before_test(
    config: dict[str, Any], cutoff: str | None, seen: bool
) -> None:
    panel = make_panel(1, 400)
    split = make_split(panel, Cut(3))
    first = panel.timeline[split.part("test").start].astype("datetime64[D]")
    days = {"first day": first, "day before": first - np.timedelta64(1, "D")}
    known = None if cutoff is None else Cutoff(str(days[cutoff]), "made up")
    prepared = Prepared(Proposal("guest", {}, "quick: one"), config, "c", "t", cutoff=known)
    stage = SimpleNamespace(panel=panel, split=split)
    assert is_contaminated(stage, prepared) is seen  # type: ignore[arg-type]
    on_record = cutoffs([prepared])
    assert on_record == ({"t": known and asdict(known)} if config.get("pretrained") else {})
