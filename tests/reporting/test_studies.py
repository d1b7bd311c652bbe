"""Runs as Optuna's studies: nothing is lost, nothing of test goes along, what is there stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from foresweep.cli.main import main
from foresweep.errors import UsageError
from foresweep.reporting.studies import contour_plot, export_optuna, slice_plot
from foresweep.tracker.tracker import Tracker
from judged_sweep import Planted, plant

HYPER = {
    "good": {"lr": 1e-3, "loss": "huber", "batch_size": 16, "members": ["a", "b"], "same": 1},
    "fair": {"lr": 1e-4, "loss": "mse", "batch_size": 32, "members": ["a"], "same": 1},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("studies")
    with Tracker(folder / "sweeps.db") as tracker:
        found = plant(tracker, folder / "runs", {"good": 0.1, "fair": 0.0}, hyperparams=HYPER,
                      items=2, origins=20)  # fmt: skip
        sweep_id = found.sweep.sweep_id
        for state in ("pruned", "failed", "lost", "running"):
            run = tracker.start_run(
                model="toto", hyperparams={"lr": 1e-2, "loss": "huber"}, sweep_id=sweep_id
            )
            for step in (1, 2):
                tracker.log(run.run_id, step, {"tune_pct_mae": 3.0 - step, "train_loss": 1.0})
            if state != "running":
                tracker.finish_run(run.run_id, state, error=f"Traceback\nValueError: {state}")
            found.runs[state] = tracker.get_run(run.run_id)
        yield found


def study_in(place: Path, made: Planted) -> optuna.Study:
    return optuna.load_study(storage=f"sqlite:///{place}", study_name=f"{made.sweep.sweep_id}/toto")


@pytest.fixture(scope="module")
def study(made: Planted, tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    place = tmp_path_factory.mktemp("study") / "study.db"
    export_optuna(made.tracker, f"sqlite:///{place}", [made.sweep])
    return study_in(place, made)


def test_every_ended_run_is_a_trial_with_its_params_values_and_state(
    study: optuna.Study, made: Planted
) -> None:
    trials = {t.user_attrs["run_id"]: t for t in study.trials}
    states = {"good": TrialState.COMPLETE, "fair": TrialState.COMPLETE,
              "pruned": TrialState.PRUNED, "failed": TrialState.FAIL,
              "lost": TrialState.FAIL}  # fmt: skip
    assert set(trials) == {made.id(name) for name in states}
    for name, state in states.items():
        run, trial = made.runs[name], trials[made.id(name)]
        assert trial.state == state, name
        for key in ("lr", "loss", "batch_size"):
            assert trial.params.get(key) == run.hyperparams.get(key)
        if name in HYPER:
            assert trial.params["members"] == json.dumps(HYPER[name]["members"])
            assert trial.user_attrs["config: same"] == 1
            assert trial.value == run.score("tune_pct_mae")
            assert trial.user_attrs["val_pct_mae"] == run.score("val_pct_mae")
    assert study.best_trial.user_attrs["run_id"] == made.id("good")
    pruned = trials[made.id("pruned")]
    assert pruned.intermediate_values == {1: 2.0, 2: 1.0}
    assert trials[made.id("failed")].user_attrs["error"] == "ValueError: failed"


def test_a_study_names_its_objective_and_what_the_baselines_scored(
    study: optuna.Study, made: Planted
) -> None:
    assert study.metric_names == ["tune_pct_mae"]
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    beside = study.user_attrs["baselines"]
    assert beside["last-value"]["tune_pct_mae"] == made.runs["last-value"].score("tune_pct_mae")
    assert study.user_attrs["horizon"] == made.sweep.horizon


def test_baselines_that_an_earlier_sweep_ran_are_told_with_a_later_one_each_by_its_name(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    with Tracker(tmp_path / "sweeps.db") as tracker:
        old = plant(tracker, tmp_path / "runs", {"good": 0.1}, items=2, origins=20).sweep
        later = tracker.create_sweep(
            models=["toto"], mode="quick", objective="pct_mae", horizon=5, seed=0,
            panel_hash=old.panel_hash, task_hash="later", fingerprints=old.fingerprints,
            plan=old.plan,
        )  # fmt: skip
        for model, source, extra in (
            ("random-walk", "baseline: garman-klass", {"is_baseline": True}),
            ("toto", "quick: good", {}),
        ):
            run = tracker.start_run(
                model=model, hyperparams={"lr": 0.1}, sweep_id=later.sweep_id, source=source,
                fingerprints=later.fingerprints, **extra,
            )  # fmt: skip
            tracker.finish_run(run.run_id, "complete", scores={"tune_pct_mae": 1.5})
        export_optuna(tracker, url, [later])
    study = optuna.load_study(storage=url, study_name=f"{later.sweep_id}/toto")
    beside = study.user_attrs["baselines"]
    assert {"last-value", "random-walk", "random-walk garman-klass"} <= set(beside)
    assert beside["random-walk garman-klass"] == {"tune_pct_mae": 1.5}


def test_no_score_of_test_goes_along(study: optuna.Study, made: Planted) -> None:
    text = json.dumps([[t.user_attrs, t.params] for t in study.trials]) + json.dumps(
        study.user_attrs
    )
    assert "test" not in text
    for name in HYPER:
        for value in made.tracker.reveal_test(made.id(name), why="to know it").values():
            assert abs(value) < 0.01 or repr(value) not in text


def test_a_second_export_adds_only_what_is_new(made: Planted, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    (first,) = export_optuna(made.tracker, url, [made.sweep])
    (again,) = export_optuna(made.tracker, url, [made.sweep])
    assert (first.num_new, first.num_known) == (5, 0)
    assert (again.num_new, again.num_known) == (0, 5)
    assert len(study_in(tmp_path / "s.db", made).trials) == 5


def test_objectives_are_told_in_their_own_direction_and_a_target_as_the_distance_from_it(
    tmp_path: Path,
) -> None:
    with Tracker(tmp_path / "sweeps.db") as tracker:
        sweep = tracker.create_sweep(
            models=["toto"], mode="random", objective="pct_mae,sharpe,coverage_80", horizon=5,
            seed=0, panel_hash="p", task_hash="t", fingerprints={"val": "v", "tune": "u"}, plan={},
        )  # fmt: skip
        run = tracker.start_run(model="toto", hyperparams={"lr": 1e-3}, sweep_id=sweep.sweep_id)
        scores = {"tune_pct_mae": 2.0, "tune_sharpe": 0.5, "tune_coverage_80": 0.7}
        tracker.finish_run(run.run_id, "complete", scores=scores)
        export_optuna(tracker, f"sqlite:///{tmp_path / 's.db'}", [sweep])
    (name,) = optuna.get_all_study_names(f"sqlite:///{tmp_path / 's.db'}")
    study = optuna.load_study(storage=f"sqlite:///{tmp_path / 's.db'}", study_name=name)
    assert [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE", "MINIMIZE"]
    assert study.trials[0].values == pytest.approx([2.0, 0.5, 0.1])
    assert study.metric_names[2] == "tune_coverage_80: distance from 0.8"


def test_the_database_of_the_runs_is_never_written_to_by_optuna(
    made: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    own = made.tracker.store.path
    with pytest.raises(UsageError, match="database of the runs itself"):
        export_optuna(made.tracker, f"sqlite:///{own}", [made.sweep])
    for place, words in (("study.db", "sqlite:///study.db"), ("odd://x/y", "cannot write")):
        with pytest.raises(SystemExit) as ended:
            main(["export", "optuna", place, "--db", str(own)])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_the_command_says_what_it_wrote(
    made: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(SystemExit) as ended:
        main(["export", "optuna", url, "--db", str(made.tracker.store.path)])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"{made.sweep.sweep_id}/toto: 5 trials" in said
    assert f"optuna-dashboard {url}" in said


def test_optunas_plots_are_drawn_with_names_as_text() -> None:
    axes = {
        "lr": [1e-4, 1e-3, 1e-2, 1e-1],
        "<b>x</b>": [1, 2, 3, 4],
        "loss": ["<i>", "b", "b", "<i>"],
    }
    scores = [1.0, 2.0, 3.0, 4.0]
    for spec in (
        slice_plot(axes, scores, "val_pct_mae"),
        contour_plot({k: axes[k] for k in ("lr", "<b>x</b>")}, scores, "val_pct_mae"),
    ):
        text = json.dumps(spec)
        assert "<b>x" not in text
        assert "<i>" not in text
        assert "&lt;b&gt;x" in text
        assert spec["data"]
        assert "template" not in spec["layout"]


def test_where_nothing_is_to_export_no_file_is_made_and_what_chose_is_said(
    made: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = ("--db", str(made.tracker.store.path))
    study = tmp_path / "study.db"
    asked = {
        ("optuna", f"sqlite:///{study}", "--model", "har"): "no trial by --model har has ended",
        ("mlflow", "--where", "val_skill > 9"): "no finished run by --where 'val_skill > 9' to",
    }
    for words, said in asked.items():
        with pytest.raises(SystemExit):
            main(["export", *words, *db])
        assert said in capsys.readouterr().err
    assert not study.exists()
