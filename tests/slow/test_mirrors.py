"""The mirrors against the real MLflow and W&B, with local stores."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wandb_server
from foresweep.integrations.mirror import Mirrored, copy_runs, open_mirror
from foresweep.records import Run
from foresweep.tracker.tracker import Tracker
from shells import Shell

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning"),  # MLflow's own SQL
]

SECRET = 7.654321
HYPERPARAMS = {"lr": 1e-4, "sizes": [1, 2], "weird name!": "é", "long": "x" * 7000, "none": None}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages talk to nobody."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return tmp_path


@pytest.fixture
def tracker(workplace: Path) -> Iterator[Tracker]:
    with Tracker(workplace / "hyperparams" / "sweeps.db") as opened:
        yield opened


def play(tracker: Tracker, mirrors: list[Mirrored], *, state: str = "complete") -> Run:
    """One run, on record and told to the mirrors as a sweep tells it."""
    run = tracker.start_run(
        model="toto", hyperparams=HYPERPARAMS, seed=3, notes="a note", tags=["good"]
    )
    for mirror in mirrors:
        mirror.start(run)
    for step in (1, 2):
        scores = {"train_loss": 1.0 / step, "tune_pct_mae": 2.0 / step}
        tracker.log(run.run_id, step, scores)
        for mirror in mirrors:
            mirror.log(run, step, scores | {"test_pct_mae": SECRET})
    scores = {"val_pct_mae": 0.5, "val_r2": float("nan"), "test_pct_mae": SECRET}
    done = tracker.finish_run(run.run_id, state, scores=scores)
    for mirror in mirrors:
        mirror.finish(done)
    return done


def live(*names: str) -> tuple[list[Mirrored], list[str]]:
    said: list[str] = []
    return [Mirrored(n.partition(":")[0], open_mirror(n), said.append) for n in names], said


def mlflow_runs(folder: Path) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("foresweep")
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]))


def test_mlflow_has_what_a_sweep_did(tracker: Tracker, workplace: Path) -> None:
    from mlflow.tracking import MlflowClient

    mirrors, said = live(f"mlflow:sqlite:///{workplace / 'mlflow.db'}")
    done = play(tracker, mirrors)
    failed = play(tracker, mirrors, state="failed")
    stopped = tracker.start_run(model="toto", hyperparams={})
    mirrors[0].start(stopped)  # Ctrl-C: no word of its end
    mirrors[0].close()
    assert said == []
    first, second, third = mlflow_runs(workplace)
    assert first.info.run_name == done.run_id
    assert [r.info.status for r in (first, second, third)] == ["FINISHED", "FAILED", "KILLED"]
    assert first.data.params["lr"] == "0.0001"
    assert first.data.params["weird name_"] == "é"
    assert len(first.data.params["long"]) == 6000
    assert first.data.metrics == {"train_loss": 0.5, "tune_pct_mae": 1.0, "val_pct_mae": 0.5}
    assert "val_pct_mae" not in second.data.metrics
    assert first.data.tags["foresweep.run_id"] == done.run_id
    assert first.data.tags["mlflow.note.content"] == "a note"
    assert second.data.tags["foresweep.run_id"] == failed.run_id
    client = MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    history = client.get_metric_history(first.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5)]
    assert str(SECRET).encode() not in (workplace / "mlflow.db").read_bytes()
    assert b"test_pct_mae" not in (workplace / "mlflow.db").read_bytes()


def test_what_is_on_record_is_exported_to_mlflow_once(
    tracker: Tracker, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = play(tracker, [])
    tracker.start_run(model="toto", hyperparams={})  # still running: stays at home
    shell = Shell(capsys)
    assert "1 runs repeated to mlflow." in shell("export", "mlflow")
    play(tracker, [])
    assert "1 were there already" in shell("export", "mlflow", "--where", "lr < 1")
    first, second = mlflow_runs(workplace)
    assert first.info.run_name == done.run_id
    assert first.data.metrics == {"train_loss": 0.5, "tune_pct_mae": 1.0, "val_pct_mae": 0.5}
    assert second.info.status == "FINISHED"


def test_a_mirror_without_a_place_warns_and_the_runs_go_on(
    tracker: Tracker, workplace: Path
) -> None:
    (workplace / "file").touch()
    mirrors, said = live(f"mlflow:sqlite:///{workplace / 'file' / 'mlflow.db'}")
    done = play(tracker, mirrors)
    mirrors[0].close()
    assert len(said) == 1
    assert "the mirror mlflow stopped" in said[0]
    assert tracker.get_run(done.run_id).state == "complete"


def wandb_records(folder: Path) -> list[Any]:
    """The records of the one offline run: blocks of 32 kB, headers of crc, length and type."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    content, at, held, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        held += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(Record.FromString(held))
            held = b""
    return found


def test_wandb_offline_has_what_a_sweep_did_and_knows_nothing_of_the_machine(
    tracker: Tracker, workplace: Path
) -> None:
    mirrors, said = live("wandb:offline")
    done = play(tracker, mirrors)
    mirrors[0].close()
    assert said == []
    ends = time.monotonic() + 30  # its service may still be writing when `finish` returns
    while not any(r.WhichOneof("record_type") == "exit" for r in wandb_records(workplace)):
        assert time.monotonic() < ends, "the file of the run never ends"
        time.sleep(0.05)
    records = wandb_records(workplace)
    (run,) = (r.run for r in records if r.WhichOneof("record_type") == "run")
    config = {u.key or u.nested_key[0]: u.value_json for u in run.config.update}
    assert (run.run_id, run.project, run.job_type) == (done.run_id, "foresweep", "toto")
    assert json.loads(config["lr"]) == 1e-4
    assert json.loads(config["sizes"]) == [1, 2]
    history = [
        {(i.key or i.nested_key[0]): json.loads(i.value_json) for i in r.history.item}
        for r in records
        if r.WhichOneof("record_type") == "history"
    ]
    assert [(h["_step"], h["train_loss"]) for h in history] == [(1, 1.0), (2, 0.5)]
    everything = b"".join(p.read_bytes() for p in workplace.glob("wandb/offline-run-*/**/*.wandb"))
    assert b"val_pct_mae" in everything
    assert b"test_pct_mae" not in everything
    assert not any(r.WhichOneof("record_type") == "stats" for r in records)
    assert not list(workplace.glob("wandb/**/wandb-metadata.json"))


@pytest.fixture
def told(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[wandb_server.Told]:
    """What a stand-in of W&B's API hears; W&B forgets whom else it talked to."""
    import wandb

    with wandb_server.running() as server:
        wandb.teardown()
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        yield server
        wandb.teardown()


def test_wandb_online_has_what_a_sweep_did_and_knows_nothing_of_the_machine(
    tracker: Tracker, workplace: Path, told: wandb_server.Told
) -> None:
    mirrors, said = live("wandb")
    done = play(tracker, mirrors)
    mirrors[0].close()
    assert said == []
    opened = told.opened[done.run_id]
    assert (opened["project"], opened["jobType"], opened["notes"]) == (
        "foresweep",
        "toto",
        "a note",
    )
    assert json.loads(opened["config"])["lr"]["value"] == 1e-4
    steps = [(h["_step"], h["train_loss"]) for h in told.history[done.run_id]]
    assert steps == [(1, 1.0), (2, 0.5)]
    assert told.summary[done.run_id]["val_pct_mae"] == 0.5
    assert told.ended == {done.run_id: 0}
    everything = b"".join(told.heard)
    words = ("test_pct_mae", str(SECRET), str(workplace), sys.argv[0], "numpy==")
    assert [word for word in words if word.encode() in everything] == []
    assert (opened["host"], opened["program"]) == ("foresweep", "foresweep")


def test_a_key_that_wandb_refuses_stops_the_mirror_and_not_the_run(
    tracker: Tracker, told: wandb_server.Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foresweep.integrations.mirror.INIT_S", 2.0)
    told.refuses = True
    mirrors, said = live("wandb")
    done = play(tracker, mirrors)
    mirrors[0].close()
    assert told.heard
    assert len(said) == 1
    assert said[0].startswith("the mirror wandb stopped")
    assert tracker.get_run(done.run_id).state == "complete"


def test_what_is_on_record_is_exported_to_wandb_offline(
    tracker: Tracker, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = play(tracker, [])
    assert "1 runs repeated to wandb." in Shell(capsys)("export", "wandb", "--offline")
    assert any(done.run_id in p.name for p in workplace.glob("wandb/offline-run-*"))
    assert copy_runs("wandb", open_mirror("wandb:offline"), [], lambda _: {}) == 0
