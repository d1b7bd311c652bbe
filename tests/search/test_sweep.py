"""A sweep's own promises, on baselines and planted models: fast, and in real processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foresweep.data.demo import demo_panel
from foresweep.data.splits import Cut
from foresweep.data.tables import write_panel
from foresweep.data.windows import Context
from foresweep.errors import ConfigError, LeakFound, UnknownName, UsageError
from foresweep.metrics import METRICS
from foresweep.models.base import Forecast, Resources
from foresweep.models.baselines.naive import Walk
from foresweep.records import Run, RunState
from foresweep.search.engines.base import TaskFailed
from foresweep.search.events import Event, LeakTested, TrialSkipped
from foresweep.search.plan import TINY_STEP_CAP, SweepPlan, by_hand
from foresweep.search.propose.modes import Proposal
from foresweep.search.sweep import sweep, train
from foresweep.search.trial import Ground, LeakTest, Prepared, RunSpec
from foresweep.tracker.tracker import Tracker
from panels import make_panel
from planted_model import installed, plugin

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sweep")]  # its sweeps are made once

PLAN = SweepPlan(models=("drift",), cut=Cut(stride=40, max_context=128))


class Place:
    """A folder with a database and runs of its own, and what was heard there."""

    def __init__(self, folder: Path) -> None:
        self.db, self.runs_dir = folder / "sweeps.db", folder / "runs"
        self.heard: list[Event] = []

    def sweep(self, plan: SweepPlan) -> list[Run]:
        """Run a plan by hand (no values) and give back every run on record."""
        self.heard.clear()
        sweep(by_hand(plan, {}), db=self.db, runs=self.runs_dir, listen=self.heard.append)
        return self.runs()

    def runs(self) -> list[Run]:
        with Tracker(self.db) as tracker:
            return tracker.get_runs()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("swept"))
    place.sweep(PLAN)
    return place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_model_is_tested_for_leaks_before_it_is_trained(swept: Place) -> None:
    tested = [e.model for e in swept.heard if isinstance(e, LeakTested)]
    assert sorted(tested) == sorted({r.model_name for r in swept.runs()})


def test_a_leaking_model_stops_the_sweep_and_none_of_its_runs_is_made(
    place: Place, tmp_path: Path
) -> None:
    with installed(tmp_path), pytest.raises(LeakFound, match="leaky"):
        place.sweep(replace(PLAN, models=("leaky",)))
    assert not [r for r in place.runs() if r.model_name == "leaky"]


def test_a_model_whose_leak_test_dies_is_on_record_and_the_others_go_on(
    place: Place, tmp_path: Path
) -> None:
    with installed(tmp_path):
        found = place.sweep(replace(PLAN, models=("killed",)))
    (killed,) = (r for r in found if r.model_name == "killed")
    assert killed.state == RunState.FAILED
    assert "leak test" in (killed.error or "")
    assert "SIGKILL" in (killed.error or "")
    assert {r.state for r in found if r.is_baseline} == {RunState.COMPLETE}


def test_no_file_outside_the_sealed_part_holds_a_test_score(swept: Place) -> None:
    names = [f"test_{metric}".encode() for metric in METRICS]
    for file in swept.runs_dir.rglob("*"):
        if file.is_file() and "test" not in file.relative_to(swept.runs_dir).parts:
            content = file.read_bytes()
            assert not any(n in content for n in names), file


def test_a_card_says_whether_naive_was_beaten(swept: Place) -> None:
    for run in swept.runs():
        card = json.loads((Path(str(run.checkpoint_path)) / "card.json").read_text())
        assert card["beats_naive"] is (run.metrics["val_skill"] > 0)
        assert card["run_id"] == run.run_id


def test_what_was_asked_is_what_is_on_record(swept: Place) -> None:
    with Tracker(swept.db) as tracker:
        plan = tracker.get_sweep().plan
    assert plan["max_context"] == 128
    assert {p["stride"] for n, p in plan["parts"].items() if n != "train"} == {40}
    assert plan["parts"]["val"]["from"].startswith("2011-01-19")


def test_checkpoints_are_on_record_so_that_any_folder_finds_them(swept: Place) -> None:
    assert all(Path(str(r.checkpoint_path)).is_absolute() for r in swept.runs())


def test_an_equal_question_is_not_answered_twice(swept: Place) -> None:
    before = len(swept.runs())
    assert len(swept.sweep(PLAN)) == before
    assert sum(isinstance(e, TrialSkipped) for e in swept.heard) == before
    assert len(swept.sweep(replace(PLAN, objective="rmse_pct"))) == before


def test_a_question_of_quantiles_has_calibrated_baselines_beside_the_plain_ones(
    swept: Place,
) -> None:
    before = {r.run_id for r in swept.runs()}
    new = [r for r in swept.sweep(replace(PLAN, objective="pinball")) if r.run_id not in before]
    assert {(r.model_name, r.source) for r in new} == {
        ("random-walk", "baseline: ewma, scaled"),
        ("random-walk", "baseline: garman-klass, scaled"),
        ("har", "baseline: har, scaled"),
    }
    assert all(r.hyperparams["fit_scale"] and r.state == "complete" for r in new)


def test_another_horizon_is_another_question(swept: Place) -> None:
    before = {r.run_id for r in swept.runs()}
    new = [
        r
        for r in swept.sweep(replace(PLAN, cut=replace(PLAN.cut, horizon=3)))
        if r.run_id not in before
    ]
    assert {r.model_name for r in new} >= {"drift", "last-value"}
    assert len({r.fingerprint for r in swept.runs()}) == 2


def test_other_scored_items_are_another_question(place: Place) -> None:
    """With few windows allowed, the seed draws the items."""
    few = replace(PLAN, cut=replace(PLAN.cut, max_windows=15, stride=None))
    first = place.sweep(few)
    chosen = {r.fingerprint for r in first}
    for seed in range(1, 5):
        found = {r.fingerprint for r in place.sweep(replace(few, cut=replace(few.cut, seed=seed)))}
        if found != chosen:
            assert len(place.runs()) > len(first)
            return
    raise AssertionError("five seeds drew the same items")


def test_a_damaged_panel_file_is_written_anew(place: Place) -> None:
    place.sweep(PLAN)
    (file,) = (place.runs_dir / "panels").iterdir()
    file.write_bytes(b"half a fi")
    found = place.sweep(replace(PLAN, again=True))
    assert {r.state for r in found} == {RunState.COMPLETE}


def test_train_gives_back_the_run_it_was_asked_for(swept: Place) -> None:
    run = train(PLAN, {}, db=swept.db, runs=swept.runs_dir)
    assert (run.model_name, run.state) == ("drift", RunState.COMPLETE)


def test_a_device_that_is_not_there_stops_the_sweep_before_it_opens(place: Place) -> None:
    plan = replace(PLAN, models=("toto",), resources=Resources(device="mps"))
    with pytest.raises(TaskFailed, match="this machine has no mps"):
        place.sweep(plan)
    with Tracker(place.db) as tracker:
        assert tracker.list_sweeps() == []


def test_a_run_by_hand_has_one_model_and_takes_the_steps_it_is_given() -> None:
    with pytest.raises(UsageError, match="one run has one model"):
        by_hand(SweepPlan(models=("all",)), {})
    assert SweepPlan(models=("toto",)).step_cap == TINY_STEP_CAP
    assert by_hand(SweepPlan(models=("toto",)), {"max_steps": 600}).step_cap == 600
    assert by_hand(SweepPlan(models=("toto",)), {"size": "small"}).step_cap is None
    assert SweepPlan(models=("toto",), max_steps=50).step_cap == 50
    assert SweepPlan(models=("toto",), size=None, pretrained="published").step_cap is None


def test_what_is_no_score_of_a_model_is_no_objective() -> None:
    with pytest.raises(UnknownName, match="naive_pct_mae"):
        SweepPlan(models=("toto",), objective="naive_pct_mae").checked()


def test_the_demo_panel_is_what_the_sweep_says_it_is(swept: Place) -> None:
    with Tracker(swept.db) as tracker:
        dataset = tracker.get_dataset(str(tracker.get_sweep().dataset_id))
    assert dataset["num_items"] == demo_panel().num_items == 6


def test_the_load_of_the_machine_stands_beside_the_curves(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foresweep.search.running.head.SYSTEM_EVERY_S", 0.02)
    runs = place.sweep(PLAN)
    with Tracker(place.db) as tracker:
        names = {c.name for r in runs for c in tracker.get_curves(r.run_id)}
    assert {"system/cpu_pct", "system/memory_pct"} <= names
    assert "system/process_memory_mb" not in names


SPACE = 'model = "guest"\n[[quick]]\nname = "plain"\nsource = "the only way"\n'


def test_a_plugin_is_swept_by_its_own_space_file(place: Place, tmp_path: Path) -> None:
    """Its config has neither size nor pretrained, and it is asked for neither."""
    plan = replace(PLAN, models=("guest",), mode="quick")
    with plugin(tmp_path, space=SPACE):
        sweep(plan, db=place.db, runs=place.runs_dir)
    (guest,) = (r for r in place.runs() if r.model_name == "guest")
    assert (guest.state, guest.source) == (RunState.COMPLETE, "quick: plain")


@pytest.mark.parametrize(
    ("asked", "named"),
    [({"size": "small"}, "'size' of guest"), ({"pretrained": "x", "size": None}, "'pretrained'")],
)
def test_what_a_plugin_has_no_field_for_is_refused(
    asked: dict[str, str | None], named: str, place: Place, tmp_path: Path
) -> None:
    plan = replace(PLAN, models=("guest",), mode="quick", **asked)  # type: ignore[arg-type]
    with plugin(tmp_path, space=SPACE), pytest.raises(ConfigError, match=named):
        sweep(plan, db=place.db, runs=place.runs_dir)


@pytest.mark.parametrize(("values", "most"), [({}, 0), ({"fit_scale": True}, 8 * 12)])
def test_a_leak_test_forecasts_a_few_windows_however_large_the_panel(
    values: dict[str, object], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its training is scored by nothing; a calibration is fitted on a few windows of tune."""
    ground = Ground(tmp_path / "panel.npz", Cut(horizon=2, stride=1, max_context=64))
    write_panel(ground.panel_path, make_panel(12, 600))
    asked: list[int] = []
    plain = Walk.predict

    def counted(self: Walk, context: Context, **rest: Any) -> Forecast:
        asked.append(len(context))
        return plain(self, context, **rest)

    monkeypatch.setattr(Walk, "predict", counted)
    monkeypatch.setattr("foresweep.search.trial.check_no_leak", lambda *_, **__: None)
    config = {"context_length": 64, **values}
    prepared = Prepared(Proposal("drift", config, "by hand"), config, "", "")
    LeakTest(RunSpec(ground, prepared), tmp_path)(lambda *_: None)  # type: ignore[arg-type]
    assert sum(asked) == most
