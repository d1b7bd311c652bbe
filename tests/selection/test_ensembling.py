"""An ensemble of a sweep's runs: on record like a run, and loaded it forecasts what was scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from foresweep.data.splits import Cut
from foresweep.data.windows import Windows
from foresweep.errors import CheckpointError, ModelError, PanelChanged, UnknownName, UsageError
from foresweep.evaluation.backtest import FORECASTS, forecast_part, score_part
from foresweep.evaluation.losses import load_forecast, save_forecast
from foresweep.models.base import DEFAULT_LEVELS, Checkpoint, Forecast, Resources
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.ensemble import MEMBERS, Member
from foresweep.models.registry import get_model
from foresweep.records import Run, RunState
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal
from foresweep.search.stage import reopen
from foresweep.search.sweep import sweep
from foresweep.selection import ensembling
from foresweep.selection.ensembling import Made, Pool, Recipe, ensembles_of, make_ensemble
from foresweep.selection.sealed import reveal
from foresweep.selection.verdict.runs import verdict_on_runs
from foresweep.tracker.tracker import Tracker
from planted_model import plugin
from shells import Shell

pytestmark = pytest.mark.slow

GUESTS = {"short": 40, "long": 128}
PLAN = SweepPlan(
    models=("guest",),
    objective="pinball",
    cut=Cut(stride=20, max_context=128),
    max_runs=2,
    proposals=tuple(
        Proposal("guest", {"context_length": n}, f"by hand: {name}") for name, n in GUESTS.items()
    ),
)


@dataclass
class Place:
    folder: Path

    @property
    def db(self) -> Path:
        return self.folder / "sweeps.db"

    @property
    def runs_dir(self) -> Path:
        return self.folder / "runs"

    def make(self, recipe: Recipe | None = None) -> Made:
        with Tracker(self.db) as tracker:
            return make_ensemble(tracker, recipe or Recipe(), runs_dir=self.runs_dir)

    def runs(self, model: str | None = None) -> list[Run]:
        with Tracker(self.db) as tracker:
            return tracker.get_runs(model)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Made]]:
    """A sweep of two configs beside the baselines, and the mean of both and the best baseline."""
    folder = tmp_path_factory.mktemp("guest")
    with plugin(folder):
        place = Place(tmp_path_factory.mktemp("ensembles"))
        sweep(PLAN, db=place.db, runs=place.runs_dir)
        yield place, place.make(Recipe(method="mean"))


@pytest.fixture
def copied(made: tuple[Place, Made], tmp_path: Path) -> Place:
    """The same database, whose runs' files may be harmed: they are copied back afterwards."""
    place, _ = made
    shutil.copytree(place.folder, tmp_path / "kept")
    yield place
    shutil.rmtree(place.folder)
    shutil.copytree(tmp_path / "kept", place.folder)


def test_its_test_is_mixed_of_its_members_forecasts_when_it_is_opened(
    made: tuple[Place, Made], copied: Place
) -> None:
    """As it was when every trial forecast test and an ensemble read its members' files."""
    run = made[1].run
    with Tracker(copied.db) as tracker:
        scores = reveal(tracker, run, why="a test")
        panel, split = reopen(tracker.get_sweep("latest"), copied.runs_dir)
        members = [tracker.get_run(name) for name in run.hyperparams["members"]]
    windows, sources = Windows(panel, split, split.part("test")), []
    for member in members:
        checkpoint = read_checkpoint(Path(member.checkpoint_path))
        predictor = load_predictor(get_model(checkpoint.model), checkpoint, Resources())
        save_forecast(copied.folder / "f.npz", forecast_part(predictor, windows), windows)
        values = load_forecast(copied.folder / "f.npz", windows).values
        close = windows.last_close[:, None, None]
        sources.append(np.where(values == close.astype(np.float32), close, values))
        assert not (Path(member.forecasts_path) / "test").exists()  # it was not looked at itself
    weights = run.hyperparams["members"].values()
    mean = sum(w * v for w, v in zip(weights, sources, strict=True))
    found = score_part(Forecast(mean, DEFAULT_LEVELS), windows).scores
    assert scores["test_pinball"] == pytest.approx(found["test_pinball"], rel=1e-12)
    stored = load_forecast(Path(run.forecasts_path) / "test" / FORECASTS, windows)
    np.testing.assert_array_equal(stored.values, mean.astype(np.float32))


def test_it_is_a_run_and_a_trial_of_the_sweep_scored_on_every_part(
    made: tuple[Place, Made],
) -> None:
    place, ensemble = made
    run = ensemble.run
    guest = place.runs("guest")[0]
    assert (run.model_name, run.state, run.is_baseline) == ("ensemble", "complete", False)
    assert (run.sweep_id, run.fingerprints) == (guest.sweep_id, guest.fingerprints)
    assert run.trial_number > guest.trial_number
    assert set(run.metrics) == set(guest.metrics)
    assert not [name for name in run.metrics if name.startswith("test")]
    assert not (Path(run.forecasts_path) / "test").exists()
    assert run.training_time_seconds > sum(p.run.training_time_seconds for p in ensemble.parts)


def test_its_members_are_both_configs_and_the_best_baseline_at_equal_weights(
    made: tuple[Place, Made],
) -> None:
    _, ensemble = made
    assert [p.weight for p in ensemble.parts] == [1 / 3] * 3
    assert sorted(p.run.is_baseline for p in ensemble.parts) == [False, False, True]
    assert ensemble.run.hyperparams["members"] == {p.run.run_id: p.weight for p in ensemble.parts}


def test_loaded_it_forecasts_what_was_scored(made: tuple[Place, Made]) -> None:
    place, ensemble = made
    with Tracker(place.db) as tracker:
        panel, split = reopen(tracker.get_sweep("latest"), place.runs_dir)
    windows = Windows(panel, split, split.part("val"))
    checkpoint = read_checkpoint(Path(ensemble.run.checkpoint_path))
    predictor = load_predictor(get_model(checkpoint.model), checkpoint, Resources())
    stored = load_forecast(Path(ensemble.run.forecasts_path) / "val" / FORECASTS, windows)
    np.testing.assert_allclose(forecast_part(predictor, windows).values, stored.values, rtol=1e-6)
    assert ensemble.run.config_hash == checkpoint.card["files"][MEMBERS]
    assert checkpoint.card["run_id"] == ensemble.run.run_id
    assert not [name for name in checkpoint.card["scores"] if name.startswith("test")]
    for part in ensemble.parts:  # it has seen as much as each of them
        card = read_checkpoint(Path(part.run.checkpoint_path)).card
        for key in ("tuned_until", "selected_until"):
            assert checkpoint.card[key] >= card[key]


def test_made_again_it_is_the_one_on_record(made: tuple[Place, Made]) -> None:
    place, ensemble = made
    again = place.make(Recipe(method="mean"))
    assert (again.run.run_id, again.is_new) == (ensemble.run.run_id, False)


def test_an_ensemble_is_no_member_of_the_next(made: tuple[Place, Made]) -> None:
    place, _ = made
    assert all(p.run.model_name != "ensemble" for p in place.make(Recipe(method="median")).parts)


def test_the_verdict_takes_it_like_any_other(made: tuple[Place, Made]) -> None:
    place, ensemble = made
    with Tracker(place.db) as tracker:
        (verdict,) = verdict_on_runs(tracker, [ensemble.run.run_id])
    assert verdict.candidate == ensemble.run.run_id
    (gate,) = (check for check in verdict.checks if check.gate == 3)
    assert (gate.value, gate.passed) == ("from scratch", True)
    assert verdict.sharpe is not None
    annual = ensemble.run.score("val_sharpe")
    assert annual is not None
    assert verdict.sharpe.annual == pytest.approx(annual)


def test_a_mix_of_one_is_refused_and_leaves_no_trial(made: tuple[Place, Made]) -> None:
    place, _ = made
    before = len(place.runs("ensemble"))
    with pytest.raises(ModelError, match="guest alone"):
        place.make(Recipe(top_k=1, baselines=False, method="mean"))
    assert len(place.runs("ensemble")) == before


def test_nothing_to_mix_is_said(made: tuple[Place, Made]) -> None:
    with pytest.raises(UsageError, match="two runs or more"):
        made[0].make(Recipe(models=("kronos",), baselines=False))
    with pytest.raises(UnknownName, match="pinball"):
        made[0].make(Recipe(metric="pinbal"))


def test_a_run_of_other_windows_is_not_asked(made: tuple[Place, Made]) -> None:
    place, ensemble = made
    guest = place.runs("guest")[0]
    with Tracker(place.db) as tracker:
        other = tracker.start_run(
            model="guest",
            hyperparams={},
            fingerprints={**guest.fingerprints, "tune": "another"},
            config_hash="other",
        )
        tracker.finish_run(
            other.run_id,
            "complete",
            scores=dict(guest.metrics),
            checkpoint_path=guest.checkpoint_path,
            forecasts_path=guest.forecasts_path,
        )
    again = place.make(Recipe(method="mean"))
    assert again.left_out == ("1 runs were scored on other windows of tune or test",)
    assert again.run.run_id == ensemble.run.run_id


def test_a_member_that_forecasts_differently_now_is_named_and_the_run_failed(
    copied: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = load_predictor

    def other(model, checkpoint, resources):
        config = {**checkpoint.config, "context_length": 17}
        return real(model, replace(checkpoint, config=config), resources)

    monkeypatch.setattr(ensembling, "load_predictor", other)
    with pytest.raises(CheckpointError, match="does not make the forecasts on record any more"):
        copied.make(Recipe(method="mean", top_k=1))
    failed = [r for r in copied.runs("ensemble") if r.state == RunState.FAILED]
    assert "does not make the forecasts" in failed[-1].error


def test_runs_without_forecasts_are_left_out_and_counted(copied: Place) -> None:
    (long,) = (r for r in copied.runs("guest") if r.hyperparams.get("context_length") == 128)
    (Path(long.forecasts_path) / "val" / FORECASTS).unlink()
    made = copied.make(Recipe(method="mean"))
    assert "1 runs have no forecasts or no checkpoint on this disk" in made.left_out
    assert long.run_id not in [p.run.run_id for p in made.parts]


def test_without_its_data_it_says_where_they_were_looked_for(
    copied: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(copied.runs_dir / "panels")
    copied.make(Recipe(method="mean"))  # the source is what it was
    monkeypatch.setattr("foresweep.search.stage.load_panel", _other_panel)
    with pytest.raises(PanelChanged, match="--runs"):
        copied.make(Recipe(method="mean"))


def _other_panel(source, actions=None):
    from types import SimpleNamespace

    from panels import make_panel

    return SimpleNamespace(panel=make_panel(3, 900))


def test_it_may_know_what_its_members_weights_know() -> None:
    def member(name: str, cutoff: dict[str, str] | None) -> Member:
        card = {"files": {}, "pretrain_cutoff": cutoff}
        return Member(Checkpoint(Path(name), "guest", {}, card), 0.5, name)

    def run(name: str, pretrained: str | None) -> Run:
        return replace(RUN, run_id=name, hyperparams={"pretrained": pretrained})

    RUN = Run(run_id="", model_name="guest", created_at=None, hyperparams={}, metrics={})
    runs = {"a": run("a", "published"), "b": run("b", "folder"), "c": run("c", None)}
    pool = Pool(None, None, None, runs, "pinball", ())
    early, late = ({"date": d, "source": "s"} for d in ("2020-01-31", "2024-05-31"))
    both = [member("a", early), member("b", late), member("c", None)]
    assert ensembling._cutoff(pool, both)["date"] == "2024-05-31"
    assert ensembling._cutoff(pool, [member("a", late), member("b", None)])["date"] is None
    assert ensembling._cutoff(pool, [member("c", None)]) is None
    assert ensembling._pretrained(pool, both) == {"pretrained": "folder, published"}
    assert ensembling._pretrained(pool, [member("c", None)]) == {}


def test_the_commands_make_it_rank_it_and_pin_its_members(
    copied: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(capsys)
    places = ("--db", str(copied.db), "--runs", str(copied.runs_dir))
    said = json.loads(shell("ensemble", "--method", "mean", "--top-k", "1", "--json", *places))
    assert sum(m["weight"] for m in said["members"]) == pytest.approx(1)
    assert said["metric"] == "pinball"
    assert "p: one-sided" in shell("ensemble", "--method", "mean", "--top-k", "1", *places)
    best = json.loads(shell("best", "--model", "ensemble", "--json", "--db", str(copied.db)))
    assert best[0]["model"] == "ensemble"
    member = said["members"][0]["run_id"]
    line = shell.error("rm", member, "--yes", *places, code=1)
    assert said["run_id"] in line
    assert "is a member of" in line
    with Tracker(copied.db) as tracker:
        assert said["run_id"] in [r.run_id for r in ensembles_of(tracker, member)]
    assert "unknown model" in shell.error("ensemble", "-m", "totto", *places, code=2).lower()
