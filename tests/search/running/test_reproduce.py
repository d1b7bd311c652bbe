"""A run trained once more from its record: the same scores, and no place beside the original."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import learning_model
from foresweep.data.splits import Cut
from foresweep.errors import PanelChanged, SearchError, UsageError
from foresweep.models.registry import ENSEMBLE
from foresweep.records import Run, RunState
from foresweep.search.events import Event, TrialFinished, TrialProgressed, TrialSkipped
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.propose.tpe import earlier_runs
from foresweep.search.running.head import attempts_at, is_open
from foresweep.search.running.reproduce import (
    Compared,
    Reproduction,
    Versions,
    differing,
    reproduce,
)
from foresweep.search.sweep import sweep, train
from foresweep.selection.leaderboard import leaderboard
from foresweep.selection.verdict.runs import ask
from foresweep.tracker.hiding import hide_run
from foresweep.tracker.tracker import Tracker
from planted_model import plugin
from runs import make_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("reproduce")]  # its sweeps are made once

MOODY = """from dataclasses import replace
from pathlib import Path

from learning_model import Learner

MOOD = Path(__file__).with_name("mood")


class Guest(Learner):
    name = "guest"

    def after(self, config, step):
        made = super().after(config, step)
        return replace(made, percent=made.percent + float(MOOD.read_text()))
"""
"""A learner that depends on what no record holds: the words of a file."""
PLAN = SweepPlan(
    models=("guest",),
    mode="by hand",
    objective="pinball",
    cut=Cut(stride=12, max_context=64),
    max_runs=1,
)


@dataclass
class Place:
    """A folder with a database of its own, and the mood of its guest."""

    folder: Path
    mood: Path

    def __post_init__(self) -> None:
        self.db, self.runs_dir = self.folder / "sweeps.db", self.folder / "runs"
        self.heard: list[Event] = []

    def train(self, **values: object) -> Run:
        self.mood.write_text("0")
        plan = replace(
            PLAN,
            cut=replace(PLAN.cut, seed=int(str(values.pop("seed", 0)))),
        )
        return train(plan, values, db=self.db, runs=self.runs_dir)

    def again(self, run: Run, mood: str = "0") -> Reproduction:
        self.mood.write_text(mood)
        self.heard.clear()
        with Tracker(self.db) as tracker:
            return reproduce(run, tracker=tracker, runs_dir=self.runs_dir, listen=self.heard.append)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("guest")
    with plugin(folder, module=MOODY, space=learning_model.SPACE):
        yield Place(tmp_path_factory.mktemp("place"), folder / "guest_package" / "mood")


def test_the_same_training_gives_the_same_scores_bit_for_bit(place: Place) -> None:
    run = place.train(tilt=1.0)
    found = place.again(run)
    assert found.is_bit_for_bit
    assert found.is_test_equal is None  # nobody has opened it
    assert {s.name.partition("_")[0] for s in found.scores} == {"tune", "val"}
    assert all(s.difference == 0 or s.then is None is s.now for s in found.scores)
    assert found.versions == ()
    assert found.in_words().startswith("reproduced bit for bit")


def test_test_scores_that_were_opened_are_compared_without_a_look(place: Place) -> None:
    run = place.train(tilt=1.0)
    again = place.again(run).again.run_id
    with Tracker(place.db) as tracker:
        tracker.add_scores(run.run_id, {"test_pct_mae": 1.5})
        assert tracker.judgings.has_equal_test(again) is None
        tracker.add_scores(again, {"test_pct_mae": 1.5})
        assert tracker.judgings.has_equal_test(again) is True
        tracker.add_scores(again, {"test_r2": 0.0})
        assert tracker.judgings.has_equal_test(again) is False
        assert tracker.judgings.test_looks() == []


def test_it_is_a_further_run_of_the_same_trial_and_says_of_which(place: Place) -> None:
    run = place.train(tilt=1.1, seed=3)
    first, second = place.again(run).again, place.again(run).again
    for again, attempt in ((first, 2), (second, 3)):
        assert (again.sweep_id, again.trial_number, again.seed) == (
            run.sweep_id, run.trial_number, 3,
        )  # fmt: skip
        assert again.config_hash == run.config_hash
        assert again.reproduces == run.run_id
        assert again.attempt == attempt
    with Tracker(place.db) as tracker:
        assert {first.run_id, second.run_id} <= {r.run_id for r in tracker.get_runs("guest")}
        (note,) = tracker.get_notes(first.run_id)
        assert f"trains {run.run_id} once more" in note[2]
        assert first.run_id in tracker.get_notes(run.run_id)[0][2]
    assert run.reproduces is None


def test_a_better_second_training_takes_the_place_of_the_original_nowhere(place: Place) -> None:
    """Everything that ranks, counts, learns or skips holds on to the original."""
    run = place.train(tilt=1.2)
    with Tracker(place.db) as tracker:
        before = tracker.judgings.lineage([str(run.sweep_id)])
        trials = len(tracker.get_trials(str(run.sweep_id)))
        rows = leaderboard(tracker.get_runs(), metric="val_pinball").rows
        tested = ask(tracker, run.run_id).trials
    found = place.again(run, mood="-0.5")
    assert found.again.metrics["tune_pinball"] < run.metrics["tune_pinball"]
    with Tracker(place.db) as tracker:
        assert tracker.judgings.lineage([str(run.sweep_id)]) == before
        assert len(tracker.get_trials(str(run.sweep_id))) == trials
        assert leaderboard(tracker.get_runs(), metric="val_pinball").rows == rows
        assert ask(tracker, run.run_id).trials == tested
        assert ask(tracker, found.again.run_id).candidate == run
        assert tracker.get_seeds(run.run_id) == tracker.get_seeds(found.again.run_id) == [run]
        ranked = tracker.get_top_k_models(99, "val_pinball", "guest")
        assert run in ranked
        assert found.again not in ranked
        learnt = earlier_runs(tracker, model="guest", fingerprints=run.fingerprints, base={})
        assert run in learnt
        assert found.again not in learnt
        counted = tracker.summarise_hyperparam("guest", "tilt", "val_pinball")
        assert sum(v.count for v in counted.values) == len(ranked)
    heard: list[Event] = []
    plan = by_hand(PLAN, {"tilt": 1.2})
    sweep(plan, db=place.db, runs=place.runs_dir, listen=heard.append)
    assert run in [e.earlier for e in heard if isinstance(e, TrialSkipped)]


def test_where_the_original_is_removed_its_reproduction_does_not_take_its_rank(
    place: Place,
) -> None:
    run = place.train(tilt=1.3)
    again = place.again(run).again
    with Tracker(place.db) as tracker:
        hide_run(tracker, run.run_id)
        hashes = {r.config_hash for r in tracker.get_top_k_models(99, "val_pinball", "guest")}
    assert again.config_hash not in hashes


def test_what_is_not_the_same_is_shown_with_the_largest_difference(place: Place) -> None:
    found = place.again(place.train(tilt=1.4), mood="0.25")
    assert not found.is_bit_for_bit
    mae = next(s for s in found.scores if s.name == "tune_pct_mae")
    assert mae.difference == found.again.metrics["tune_pct_mae"] - mae.then  # type: ignore[operator]
    assert found.worst is not None
    assert found.worst.share == max(s.share for s in found.scores) > 0
    assert "not reproduced bit for bit" in found.in_words()
    assert found.worst.name in found.in_words()


def test_forecasts_of_borrowed_weights_are_made_of_weights_trained_anew(place: Place) -> None:
    place.train(tilt=1.5)
    run = place.train(tilt=1.5, samples=4)
    with Tracker(place.db) as tracker:
        assert "not trained: the weights are those of" in tracker.get_notes(run.run_id)[0][2]
    found = place.again(run)
    assert found.is_bit_for_bit
    assert any(isinstance(event, TrialProgressed) for event in place.heard)


def test_a_baseline_is_reproduced_as_well(place: Place) -> None:
    place.train(tilt=1.0)
    with Tracker(place.db) as tracker:
        run = tracker.get_runs("random-walk")[0]
    found = place.again(run)
    assert found.is_bit_for_bit
    assert found.again.is_baseline
    with Tracker(place.db) as tracker:
        names = [r.run.run_id for r in leaderboard(tracker.get_runs(), metric="val_pinball").rows]
        assert found.again.run_id not in names
        assert found.again not in ask(tracker).baselines.values()


def test_a_training_that_fails_is_on_record_and_the_original_stands(place: Place) -> None:
    run = place.train(tilt=1.6)
    with pytest.raises(SearchError, match=r"second training failed.*foresweep show guest_"):
        place.again(run, mood="a broken word")
    with Tracker(place.db) as tracker:
        (again,) = (r for r in tracker.get_runs("guest") if r.reproduces == run.run_id)
        assert again.state == RunState.FAILED
        assert "could not convert" in str(again.error)
        assert tracker.heads.take_lease(str(run.sweep_id), int(run.trial_number or 0))
    assert [e.run.state for e in place.heard if isinstance(e, TrialFinished)] == [RunState.FAILED]


def test_what_cannot_be_trained_again_is_refused_with_the_way_on(place: Place) -> None:
    run = place.train(tilt=1.0)
    again = place.again(run).again
    cases = {
        "reproduce that one": again,
        "logged by hand": replace(run, sweep_id=None),
        r"is pruned.*--state complete": replace(run, state=RunState.PRUNED),
        "is failed": replace(run, state=RunState.FAILED),
        r"its members \(a, b\)": replace(
            run, model_name=ENSEMBLE, hyperparams={"members": {"a": 0.5, "b": 0.5}}
        ),
    }
    for says, refused in cases.items():
        with pytest.raises(UsageError, match=says):
            place.again(refused)


def test_other_bars_windows_or_weights_are_refused_before_anything_is_trained(
    place: Place, tmp_path: Path
) -> None:
    run = place.train(tilt=1.0)
    with Tracker(place.db) as tracker:
        before = len(tracker.get_runs())
    with pytest.raises(PanelChanged, match="other windows"):
        place.again(replace(run, fingerprints={**run.fingerprints, "val": "other"}))
    with pytest.raises(SearchError, match="are not what they were"):
        place.again(replace(run, config_hash="other"))
    with pytest.raises(SearchError, match="cannot be trained again"):
        place.again(replace(run, hyperparams={"no such": 1}))
    with Tracker(place.db) as tracker:
        assert len(tracker.get_runs()) == before


def test_a_reproduction_that_was_broken_off_is_no_attempt_that_a_sweep_goes_on_from() -> None:
    run = replace(make_run("guest", 1, 1.0), trial_number=1, seed=0)
    lost = replace(
        run, run_id="guest_002", attempt=2, state=RunState.LOST, source=f"reproduces: {run.run_id}"
    )
    found = attempts_at([run, lost], 1, 0)
    assert found == [run]
    assert not is_open(found)


def test_versions_that_differ_are_named_one_by_one() -> None:
    then = {"packages": {"torch": "2.12.0", "numpy": "2.1"}, "python": "3.11.2", "host": "a"}
    now = {"packages": {"torch": "2.13.0", "numpy": "2.1", "peft": "1"}, "python": "3.11.2"}
    now |= {"gpu_models": ["H100"], "host": "b"}
    assert differing(then, now) == (
        Versions("gpu_models", "none", "H100"),
        Versions("peft", "none", "1"),
        Versions("torch", "2.12.0", "2.13.0"),
    )
    assert differing(then, then) == ()


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.none()


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6), st.sampled_from([True, False, None]))
def test_bit_for_bit_means_that_nothing_differs(
    pairs: list[tuple[float | None, float | None]], test: bool | None
) -> None:
    scores = tuple(Compared(f"tune_{n}", a, b) for n, (a, b) in enumerate(pairs))
    run = make_run("guest", 1, 1.0)
    found = Reproduction(run, run, (), scores, test)
    assert found.is_bit_for_bit is (all(a == b for a, b in pairs) and test is not False)
    assert found.in_words().startswith("reproduced") is found.is_bit_for_bit
    for score in scores:
        assert 0 <= score.share <= 2 or math.isinf(score.share)
        assert (score.share == 0) is (score.then == score.now)
