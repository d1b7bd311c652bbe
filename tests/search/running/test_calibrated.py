"""A calibrated trial: fitted once it is trained, stored, scored and served alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foresweep.data.demo import demo_panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows, make_context
from foresweep.errors import ConfigError
from foresweep.evaluation.backtest import calibrate, score_part
from foresweep.evaluation.losses import load_forecast
from foresweep.evaluation.predict import predict_panel
from foresweep.evaluation.yardstick import EQUALS_LAST_VALUE
from foresweep.models.base import DEFAULT_LEVELS
from foresweep.models.baselines.naive import Drift
from foresweep.models.calibration import FILE, Calibrated
from foresweep.records import Run
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.sweep import sweep
from foresweep.selection.leaderboard import leaderboard
from foresweep.tracker.tracker import Tracker
from planted_model import plugin

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("calibrated")]  # its sweeps are made once

PLAN = SweepPlan(models=("drift",), objective="pinball", cut=Cut(stride=20, max_context=128))
ASKED = {"centre": True, "fit_scale": True, "isotonic": True}


class Place:
    """A folder with a database and runs of its own."""

    def __init__(self, folder: Path) -> None:
        self.db, self.runs_dir = folder / "sweeps.db", folder / "runs"

    def sweep(self, plan: SweepPlan, values: dict[str, object]) -> list[Run]:
        sweep(by_hand(plan, values), db=self.db, runs=self.runs_dir, listen=lambda _: None)
        with Tracker(self.db) as tracker:
            return tracker.get_runs()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture(scope="module")
def runs(place: Place) -> list[Run]:
    return place.sweep(PLAN, ASKED)


@pytest.fixture(scope="module")
def run(runs: list[Run]) -> Run:
    (found,) = (r for r in runs if r.source == "by hand")
    return found


def test_it_shares_its_training_with_the_plain_one_and_is_another_config(
    runs: list[Run], run: Run
) -> None:
    (plain,) = (r for r in runs if r.model_name == "drift" and r.source == "baseline")
    assert run.train_hash == plain.train_hash
    assert run.config_hash != plain.config_hash
    assert run.score("val_pinball") != plain.score("val_pinball")


def test_tune_is_scored_cross_fitted_and_val_by_what_all_of_tune_taught(run: Run) -> None:
    panel = demo_panel()
    split = make_split(panel, Cut(5, stride=20, max_context=128))
    raw = Drift().predictor(Drift.Config(context_length=128))
    tuned = calibrate(raw, Drift.Config(**ASKED), panel, split)
    windows = {n: Windows(panel, split, split.part(n)) for n in ("tune", "val")}
    assert run.score("tune_pinball") == pytest.approx(
        score_part(tuned.forecast, windows["tune"]).scores["tune_pinball"], rel=1e-12
    )
    expected = Calibrated(raw, tuned.calibration).predict(
        windows["val"].context(128), horizon=5, levels=DEFAULT_LEVELS, seed=0
    )
    assert run.forecasts_path is not None
    stored = load_forecast(Path(run.forecasts_path) / "val" / "forecasts.npz", windows["val"])
    np.testing.assert_allclose(stored.values, expected.values, rtol=1e-6)


def test_a_new_forecast_from_the_checkpoint_is_calibrated(run: Run) -> None:
    panel = demo_panel()
    assert run.checkpoint_path is not None
    path = Path(run.checkpoint_path)
    card = json.loads((path / "card.json").read_text())
    assert set(card["files"]) == {"config.json", FILE}
    found = predict_panel(path, panel)
    assert (found.forecast.median == found.last_close[:, None]).all()  # centred
    stored = json.loads((path / FILE).read_text())
    row = np.array([len(b.values) - 1 for b in panel.bars])
    context = make_context(panel, np.arange(panel.num_items), row, 128, 5)
    raw = Drift().predictor(Drift.Config(context_length=128))
    plain = raw.predict(context, horizon=5, levels=DEFAULT_LEVELS, seed=0)
    assert stored["num_windows"] > 0
    assert (found.forecast.values != plain.values).any()


def test_centring_is_refused_under_pct_mae_before_anything_is_run(place: Place) -> None:
    with pytest.raises(ConfigError, match="centre=true makes every median the last close: under"):
        place.sweep(replace(PLAN, objective="pct_mae"), ASKED)


def test_a_trained_run_whose_medians_are_the_last_close_is_tagged_and_unranked(
    place: Place, tmp_path: Path
) -> None:
    with plugin(tmp_path):
        runs = place.sweep(replace(PLAN, models=("guest",)), {"centre": True})
    (guest,) = (r for r in runs if r.model_name == "guest")
    assert guest.tags == (EQUALS_LAST_VALUE,)
    assert not any(r.tags for r in runs if r.is_baseline)
    same = [r for r in runs if r.fingerprint == guest.fingerprint]
    places = {
        metric: next(r.place for r in leaderboard(same, metric=metric).rows if r.run == guest)
        for metric in ("val_pct_mae", "val_pinball")
    }
    assert places["val_pct_mae"] is None
    assert places["val_pinball"] is not None


COUNTING = """from pathlib import Path

from foresweep.models.baselines.naive import Drift


class Guest(Drift):
    name = "guest"

    def train(self, job):
        if "leaktest" not in str(job.out):
            with Path(__file__).with_name("trained.txt").open("a") as counted:
                counted.write("once\\n")
        return super().train(job)
"""


def test_another_calibration_of_the_same_training_is_not_trained_again(
    place: Place, tmp_path: Path
) -> None:
    plan = replace(PLAN, models=("guest",), cut=replace(PLAN.cut, seed=1))
    count = tmp_path / "guest_package" / "trained.txt"
    with plugin(tmp_path, module=COUNTING):
        place.sweep(plan, {"fit_scale": True})
        place.sweep(plan, {"isotonic": True})
        assert count.read_text() == "once\n"
        runs = place.sweep(plan, {})
        assert count.read_text() == "once\n"
    guests = {
        tuple(k for k, v in r.hyperparams.items() if v is True): r
        for r in runs
        if r.model_name == "guest" and r.seed == 1
    }
    (drift,) = (r for r in runs if r.model_name == "drift" and r.source == "baseline")
    assert guests[()].score("val_pinball") == drift.score("val_pinball")
    files = {
        k: json.loads((Path(r.checkpoint_path or "") / "card.json").read_text())["files"]
        for k, r in guests.items()
    }
    assert FILE in files["isotonic",]
    assert FILE not in files[()]
    with Tracker(place.db) as tracker:
        ((_, _, note),) = tracker.get_notes(guests["isotonic",].run_id)
    assert guests["fit_scale",].run_id in note
