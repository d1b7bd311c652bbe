"""Sweeps that search: what they propose follows from the seed and from what came, and from nothing
else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import learning_model
from foresweep.data.splits import Cut
from foresweep.errors import UsageError
from foresweep.records import STEERING, Run, RunState
from foresweep.search.events import Event, Listener, SpaceNarrowed
from foresweep.search.plan import ASKED, SweepPlan, by_hand, plan_of
from foresweep.search.propose.modes import load_space
from foresweep.search.propose.spacefiles import read_sweep_files
from foresweep.search.running.pruning import RACED, judge_of
from foresweep.search.sweep import resume, sweep
from foresweep.space import Spaces
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines
from planted_model import plugin

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("search")]  # its sweeps are made once

SMART = SweepPlan(
    models=("guest",),
    mode="smart",
    objective="pinball",
    max_runs=14,
    cut=Cut(stride=12, max_context=64),
    pruning="both",
)


class Place:
    """A folder with a database of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.db, self.runs_dir = folder / "sweeps.db", folder / "runs"
        know_baselines(self.db, SMART)

    def sweep(self, plan: SweepPlan, listen: Listener | None = None) -> list[Run]:
        """The runs of a sweep, baselines aside, in the order of their trials."""
        done = sweep(plan, db=self.db, runs=self.runs_dir, listen=listen)
        with Tracker(self.db) as tracker:
            runs = tracker.get_runs("guest", sweep_id=done.sweep_id)
        return sorted(runs, key=lambda r: r.trial_number or 0)


@pytest.fixture(scope="module", autouse=True)
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("guest")
    with plugin(folder, module=learning_model.MODULE, space=learning_model.SPACE):
        yield


@pytest.fixture(scope="module")
def smart_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("smart"))


@pytest.fixture(scope="module")
def smart(smart_place: Place) -> list[Run]:
    return smart_place.sweep(SMART)


def configs(runs: list[Run]) -> list[dict[str, object]]:
    return [dict(r.hyperparams) for r in runs]


def test_a_smart_sweep_begins_with_what_is_recommended_and_spends_its_budget(
    smart: list[Run],
) -> None:
    assert [r.source for r in smart] == ["priority: first"] + 13 * ["smart"]
    assert len({r.config_hash for r in smart}) == 14


def test_conditions_hold_in_what_is_proposed(smart: list[Run]) -> None:
    for config in configs(smart):
        assert (config["bend"] is None) == (config["kind"] == "plain")


def test_the_same_seed_and_the_same_results_give_the_same_proposals(
    smart: list[Run], tmp_path: Path
) -> None:
    again = Place(tmp_path).sweep(replace(SMART, max_runs=12))
    assert configs(again) == configs(smart)[:12]
    assert [r.state for r in again] == [r.state for r in smart][:12]


def test_hopeless_trials_are_cut_short_and_say_why(smart: list[Run]) -> None:
    pruned = [r for r in smart if r.state == RunState.PRUNED]
    assert 3 <= len(pruned) < len(smart)
    assert all("steps" in (r.notes or "") and not r.metrics for r in pruned)
    complete = [r for r in smart if r.state == RunState.COMPLETE]
    best = min(complete, key=lambda r: r.metrics["tune_pinball"])
    assert (Path(str(best.forecasts_path)) / RACED).is_file()


def test_a_config_that_was_pruned_is_trained_where_nothing_is(
    smart_place: Place, smart: list[Run]
) -> None:
    """A run that was cut short stands for no training, whatever the next sweep is about."""
    cut = next(r for r in smart if r.state == RunState.PRUNED)
    asked = ("tilt", "rate", "kind", "bend")
    plan = by_hand(
        replace(SMART, mode="by hand", pruning="none"), {k: cut.hyperparams[k] for k in asked}
    )
    (run,) = smart_place.sweep(plan)
    assert (run.config_hash, run.state) == (cut.config_hash, RunState.COMPLETE)


def test_earlier_runs_on_the_same_windows_are_told_and_not_tried_again(
    smart_place: Place, smart: list[Run]
) -> None:
    """What one sweep learned starts the next."""
    more = smart_place.sweep(replace(SMART, max_runs=4))
    assert not {r.config_hash for r in more} & {r.config_hash for r in smart}
    assert all(r.source == "smart" for r in more)


def test_a_focused_sweep_stays_near_the_best_and_writes_its_space(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    first = place.sweep(replace(SMART, max_runs=13, mode="random", pruning="none"))
    heard: list[Event] = []
    plan = replace(SMART, mode="focused", max_runs=4)
    more = place.sweep(plan, listen=heard.append)
    (narrowed,) = (e for e in heard if isinstance(e, SpaceNarrowed))
    file = read_sweep_files([narrowed.file])
    space = load_space("guest", "scratch", file).space
    assert space.dimensions["tilt"].high - space.dimensions["tilt"].low < 6  # type: ignore[union-attr]
    ranked = sorted(first, key=lambda r: r.metrics["tune_pinball"])
    for run in more:
        assert run.source == "focused"
        assert space.dimensions["tilt"].low <= run.hyperparams["tilt"]  # type: ignore[union-attr]
        assert run.hyperparams["tilt"] <= space.dimensions["tilt"].high  # type: ignore[union-attr]
    assert narrowed.num_runs == len(ranked) == 13
    told = narrowed.file.read_text("utf-8")
    resume("latest", db=place.db, runs=place.runs_dir, listen=lambda _: None)
    assert narrowed.file.read_text("utf-8") == told  # not narrowed anew around its own runs


def test_too_few_runs_to_focus_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(UsageError, match=r"guest has 0 complete runs.*--mode smart or random"):
        place.sweep(replace(SMART, mode="focused"))
    with Tracker(place.db) as tracker:
        assert len(tracker.list_sweeps()) == 1  # that of the baselines


def test_a_search_whose_first_configs_cannot_be_tried_begins_with_its_space(tmp_path: Path) -> None:
    """Its recommended contexts are too long for the sweep; draws from the space are not."""
    text = learning_model.SPACE.replace("rate = 0.5 }", "rate = 0.5, context_length = 500 }")
    plan = replace(SMART, max_runs=2, pruning="none", spaces=Spaces({"guest": text}))
    runs = Place(tmp_path).sweep(plan)
    assert [(r.source, r.state) for r in runs] == 2 * [("smart", RunState.COMPLETE)]


def test_few_windows_steer_all_are_scored_and_the_record_says_so(
    smart_place: Place, smart: list[Run]
) -> None:
    """A trial's curve is of the windows that steer; its score on tune is of all."""
    plan = replace(by_hand(SMART, {"tilt": 0.5}), steer_windows=54, pruning="none")
    (run,) = smart_place.sweep(plan)
    assert run.steered_by == "54 of 108 windows of tune, seed 0"
    with Tracker(smart_place.db) as tracker:
        last = tracker.get_curve(run.run_id, "tune_pinball")[-1][1]
        known = tracker.get_sweep(str(run.sweep_id))
    assert last != run.score("tune_pinball")
    assert all(r.steered_by is None and r.task_hash != run.task_hash for r in smart)
    assert plan_of(known).steer_windows == 54
    older = {k: v for k, v in known.plan[ASKED].items() if k != "steer_windows"}
    assert plan_of(replace(known, plan={ASKED: older})).steer_windows == "all"


def test_a_race_is_run_against_losses_of_the_same_windows_only(
    smart_place: Place, smart: list[Run]
) -> None:
    with Tracker(smart_place.db) as tracker:
        cells = dict(smart[0].fingerprints)
        for mine, knows in ((cells, True), ({**cells, STEERING: "54/108 seed 0 x"}, False)):
            judge = judge_of(SMART, tracker, mine)
            assert judge is not None
            racing = judge.pruners["guest"].racing
            assert racing is not None
            assert (racing.best is not None) is knows
