"""A champion is trained on with newer bars; what comes of it goes in service only if better."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import postgres
from foresweep.data.demo import demo_panel
from foresweep.data.panel import Panel, panel_from_frame
from foresweep.data.splits import Cut
from foresweep.errors import NotEnoughData
from foresweep.lifecycle.champion import promote
from foresweep.lifecycle.update import Updated, update
from foresweep.models.checkpoint import read_checkpoint, read_weights
from foresweep.records import Run
from foresweep.search.plan import SweepPlan
from foresweep.search.sweep import train
from foresweep.tracker.service import Service
from foresweep.tracker.storage.verifying import verify
from foresweep.tracker.tracker import Tracker
from live_world import World
from panels import make_frame

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("update")]
NEW = 240
CONFIG = {"context_length": 64, "batch_size": 16, "lr": 2e-3}


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return demo_panel().to_frame()


def until(frame: pl.DataFrame, bars: int) -> Panel:
    """The demo panel without its newest bars."""
    times = np.unique(frame["timestamp"].to_numpy())
    return panel_from_frame(frame.filter(pl.col("timestamp") <= times[-1 - bars]), source="demo")


def in_service(folder: Path, frame: pl.DataFrame, steps: int) -> Run:
    """A tiny Chronos-2, trained for so many steps on all but the newest bars, as champion."""
    old = folder / "old.parquet"
    until(frame, NEW).to_frame().write_parquet(old)
    plan = SweepPlan(
        models=("chronos2",), data=str(old), cut=Cut(horizon=1, stride=10), objective="pinball"
    )
    run = train(plan, CONFIG | {"max_steps": steps}, db=folder / "sweeps.db", runs=folder / "runs")
    with Tracker(folder / "sweeps.db") as tracker:
        promote(tracker, run.run_id, slot="demo", force_reason="for a test")
    return run


def updated(folder: Path, panel: Panel, **how: object) -> Updated:
    with Tracker(folder / "sweeps.db") as tracker:
        slot = Service(tracker.store).slot("demo")
        return update(
            tracker,
            slot,
            panel,
            runs_dir=folder / "runs",
            listen=lambda _: None,
            **how,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory, frame: pl.DataFrame) -> tuple[Path, Run]:
    folder = tmp_path_factory.mktemp("weak")
    return folder, in_service(folder, frame, steps=2)


def test_a_champion_that_learnt_next_to_nothing_is_replaced_by_its_update(
    weak: tuple[Path, Run], frame: pl.DataFrame
) -> None:
    folder, parent = weak
    done = updated(
        folder, panel_from_frame(frame), steps=80, rate=1.0, finetune="full", compare_bars=120
    )
    assert done.promoted
    assert done.found.pvalue < 0.05
    assert done.found.num_origins == 120
    assert (done.found.parent, done.run.updates) == (parent.run_id, parent.run_id)
    with Tracker(folder / "sweeps.db") as tracker:
        slot = Service(tracker.store).slot("demo")
        assert slot.champion is not None
        assert slot.champion.run_id == done.run.run_id
        assert [e.run_id for e in slot.before] == [parent.run_id]
        assert slot.champion.reason is None  # nobody forced it: it has evidence of its own
        assert "better than it on 120 origins" in slot.champion.why
        assert slot.champion.content["promoted_by"] == done.found.as_json()
        sweep = tracker.get_sweep(str(done.run.sweep_id))
        assert (sweep.mode, sweep.num_trials, sweep.state) == ("update", 1, "complete")
        assert tracker.get_sweep("latest").mode != "update"  # still the search before it
        assert sweep.plan["parts"]["train"]["to"] > "2012-07"  # it has seen newer bars
    # neither was trained, tuned or selected on what they were compared on
    cards = [read_checkpoint(Path(str(r.checkpoint_path))).card for r in (parent, done.run)]
    assert cards[0]["selected_until"] < done.found.compared_from
    assert cards[1]["tuned_until"] < done.found.compared_from
    assert cards[1]["promoted_by"]["pvalue"] == done.found.pvalue
    assert cards[1]["pretrain_cutoff"]["date"] >= cards[0]["selected_until"][:10]


def test_an_update_that_is_no_better_changes_nothing_but_the_record(
    tmp_path: Path, frame: pl.DataFrame
) -> None:
    parent = in_service(tmp_path, frame, steps=60)
    done = updated(tmp_path, panel_from_frame(frame), steps=4, rate=0.01)
    assert not done.promoted
    assert done.run.hyperparams["finetune"] == "lora"
    assert done.run.hyperparams["lr"] == pytest.approx(CONFIG["lr"] * 0.01)
    with Tracker(tmp_path / "sweeps.db") as tracker:
        slot = Service(tracker.store).slot("demo")
        assert slot.champion is not None
        assert slot.champion.run_id == parent.run_id
        assert len(slot.history) == 1
        notes = " ".join(text for _, _, text in tracker.get_notes(done.run.run_id))
        assert "not better than it" in notes
    again = updated(tmp_path, panel_from_frame(frame), steps=4, rate=0.02)
    assert (again.found.number, again.found.level) == (2, pytest.approx(0.05 / 4))


TINY = {
    "toto": {"patch_size": 8, "embed_dim": 32, "num_layers": 2, "num_heads": 2},
    "kronos": {"d_model": 32, "ff_dim": 64, "token_bits": 5, "num_samples": 8},
}


@pytest.mark.parametrize(("model", "backend"), [("toto", "sqlite"), ("kronos", "postgresql")])
def test_every_family_is_trained_on_and_watched_on_either_database(
    model: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, frame = str(tmp_path / "sweeps.db"), make_frame(2, 700)
    with ExitStack() as stack:
        if backend == "postgresql":
            server = stack.enter_context(postgres.running())
            server.execute("CREATE DATABASE live")
            db = server.url("live")
        plan = SweepPlan(models=(model,), data="", cut=Cut(horizon=1, stride=10))
        parent = parent_of(plan, tmp_path, frame, db)
        tracker = stack.enter_context(Tracker(db))
        promote(tracker, parent.run_id, slot="live", force_reason="for a test")
        world = World(tracker, frame, "live", now=650)
        world.live(3, monkeypatch)
        check = world.look()
        assert (check.scored.written, check.num_origins) == (6, 3)
        assert world.look().scored.written == 0
        slot = Service(tracker.store).slot("live")
        done = update(
            tracker, slot, panel_from_frame(frame), runs_dir=tmp_path / "runs",
            listen=lambda _: None, steps=4, compare_bars=60,
        )  # fmt: skip
        assert done.found.num_origins == 60
        assert done.run.updates == parent.run_id
        assert done.run.hyperparams["finetune"] == "lora"
        slot = Service(tracker.store).slot("live")
        assert slot.champion is not None
        assert slot.champion.run_id == (done.run.run_id if done.promoted else parent.run_id)
        world.live(2, monkeypatch)
        assert world.look().scored.written == 4
        assert Service(tracker.store).verify() == []
        with tracker.store.read() as connection:
            assert verify(connection).problems == ()
        old, new = (weights_of(run) for run in (parent, done.run))
    moved = {name for name in old if not np.array_equal(old[name], new[name])}
    assert moved
    assert not [name for name in moved if name.startswith("tokenizer")]  # words keep their meaning


def parent_of(plan: SweepPlan, folder: Path, frame: pl.DataFrame, db: str) -> Run:
    """A tiny model trained on the first 400 bars."""
    old = folder / "old.parquet"
    frame.filter(pl.col("timestamp") <= np.unique(frame["timestamp"])[400]).write_parquet(old)
    (model,) = plan.models
    config = {"context_length": 64, "batch_size": 4, "max_steps": 4, **TINY[model]}
    return train(replace(plan, data=str(old)), config, db=db, runs=folder / "runs")


def weights_of(run: Run) -> dict[str, np.ndarray]:
    return dict(read_weights(read_checkpoint(Path(str(run.checkpoint_path)))))


def test_before_enough_bars_are_new_it_is_said_how_many_are_missing(
    weak: tuple[Path, Run], frame: pl.DataFrame
) -> None:
    # the champion of this folder may be the update by now; what it was selected on is newer still
    with pytest.raises(NotEnoughData, match=r"wait for \d+ more, or compare on fewer"):
        updated(weak[0], panel_from_frame(frame), compare_bars=900)
