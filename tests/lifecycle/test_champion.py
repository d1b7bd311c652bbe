"""A champion comes by a verdict, or by force that is on record, and the one before is one step
away."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import foresweep
from foresweep.errors import CheckpointError, NotFound, TrackerError, UsageError
from foresweep.evaluation.predict import predict_panel
from foresweep.lifecycle import champion
from foresweep.lifecycle.inference import load_slot, record_forecasts
from foresweep.models import licence
from foresweep.models.base import Checkpoint
from foresweep.models.checkpoint import read_checkpoint, write_checkpoint
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker
from panels import make_frame, make_panel
from served_runs import HORIZON, a_run, a_sweep
from shells import Shell


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return Shell(capsys)


@pytest.fixture
def tracker(tmp_path: Path, shell: Shell) -> Iterator[Tracker]:
    with Tracker(tmp_path / "hyperparams" / "sweeps.db") as opened:
        yield opened


def held(tracker: Tracker, slot: str = "prices-h5") -> str | None:
    entry = Service(tracker.store).slot(slot).champion
    return None if entry is None else entry.run_id


def test_a_promoted_run_is_champion_of_the_slot_of_its_panel_and_horizon(
    tracker: Tracker, tmp_path: Path, shell: Shell
) -> None:
    run = a_run(tracker, tmp_path)
    out = shell("promote", run.run_id)
    assert f"Run {run.run_id} is the champion of slot prices-h5." in out
    assert held(tracker) == run.run_id
    told = json.loads(shell("champion", "--json"))
    assert told[0]["champion"]["verdict_id"] == 1
    assert run.run_id in shell("champion", "--history")


def test_a_run_without_a_promote_verdict_is_refused_or_forced_on_record(
    tracker: Tracker, tmp_path: Path, shell: Shell
) -> None:
    sweep = a_sweep(tracker)
    none = a_run(tracker, tmp_path, verdict=None, sweep=sweep)
    hold = a_run(tracker, tmp_path, "last-value", verdict="hold", sweep=sweep)
    assert "has no verdict" in shell.error("promote", none.run_id, code=2)
    assert "is 'hold' (as planted)" in shell.error("promote", hold.run_id, code=2)
    assert "say why with --reason" in shell.error("promote", hold.run_id, "--force", code=2)
    assert held(tracker) is None
    out = shell("promote", hold.run_id, "--force", "--reason", "a demo")
    assert "forced against the verdict 'hold'" in out
    entry = Service(tracker.store).slot("prices-h5").champion
    assert entry is not None
    assert (entry.run_id, entry.reason) == (hold.run_id, "a demo")
    out = shell("promote", none.run_id, "--force", "--reason", "a demo")
    assert "forced without a verdict; the reason is on record" in out


FOUND = champion.Comparison("", 1, 60, "2016-01-04T00:00:00", 1.0, 0.9, pvalue=0.01, level=0.05)


def test_an_update_goes_in_service_by_its_own_comparison_on_record_and_in_its_card(
    tracker: Tracker, tmp_path: Path, shell: Shell
) -> None:
    parent = a_run(tracker, tmp_path)
    found = replace(FOUND, parent=parent.run_id)
    child = a_run(tracker, tmp_path, "last-value", verdict=None, source=f"updates: {parent.run_id}")
    with pytest.raises(UsageError, match="nothing is the champion of slot"):
        champion.promote(tracker, child.run_id, comparison=found)
    champion.promote(tracker, parent.run_id)
    with pytest.raises(UsageError, match="has no verdict"):
        champion.promote(tracker, child.run_id)
    with pytest.raises(UsageError, match="no update of somebody"):
        champion.promote(tracker, child.run_id, comparison=replace(found, parent="somebody"))
    with pytest.raises(UsageError, match="not better than it on 60 origins"):
        champion.promote(tracker, child.run_id, comparison=replace(found, pvalue=0.05))
    assert held(tracker) == parent.run_id
    entry = champion.promote(tracker, child.run_id, comparison=found).entry
    assert (entry.reason, entry.verdict_id) == (None, None)
    assert "update 1 of" in shell("champion", "--history")
    told = json.loads(shell("champion", "--json"))[0]["champion"]["content"]["promoted_by"]
    card = read_checkpoint(Path(str(child.checkpoint_path))).card["promoted_by"]
    assert told == card == found.as_json()
    assert (card["kind"], card["num_origins"], card["pvalue"]) == ("update", 60, 0.01)


def test_what_was_trained_on_surrogate_prices_never_goes_in_service(
    tracker: Tracker, tmp_path: Path
) -> None:
    sweep = a_sweep(tracker, plan={"asked": {"surrogate": {"of": "another", "kind": "signs"}}})
    run = a_run(tracker, tmp_path, sweep=sweep)
    for reason in (None, "it looks so good"):
        with pytest.raises(UsageError, match="surrogate prices, which no market has"):
            champion.promote(tracker, run.run_id, force_reason=reason)


def test_only_the_newest_verdict_counts(tracker: Tracker, tmp_path: Path) -> None:
    run = a_run(tracker, tmp_path, verdict="promote")
    judging = tracker.judgings.begin([run.run_id])
    tracker.judgings.end(judging, {run.run_id: {"outcome": "hold"}})
    with pytest.raises(UsageError, match="'hold'"):
        champion.promote(tracker, run.run_id)


def test_rollback_returns_to_the_champion_before_and_further(
    tracker: Tracker, tmp_path: Path, shell: Shell
) -> None:
    runs = [a_run(tracker, tmp_path, context=c) for c in (40, 50, 60)]
    for run in runs:
        shell("promote", run.run_id, "--export-path")
    path = tmp_path / ".best_model_path"
    assert path.read_text() == str(runs[2].checkpoint_path)
    shell("rollback", "--export-path", "--reason", "it drifts")
    assert held(tracker) == runs[1].run_id
    slot = Service(tracker.store).slot("prices-h5")
    assert slot.since == slot.history[-1].made_at > slot.history[1].made_at
    (told,) = json.loads(shell("champion", "--json"))
    assert told["since"] == slot.since.isoformat()
    assert path.read_text() == str(runs[1].checkpoint_path)
    shell("rollback")
    assert held(tracker) == runs[0].run_id
    assert "nothing before it to return to" in shell.error("rollback", code=1)
    actions = [e.action for e in Service(tracker.store).slot("prices-h5").history]
    assert actions == ["promote"] * 3 + ["rollback"] * 2
    shell("promote", runs[2].run_id)  # back again: rollback now leads to the first
    shell("rollback")
    assert held(tracker) == runs[0].run_id


def test_rollback_to_weights_that_were_altered_is_refused(tracker: Tracker, tmp_path: Path) -> None:
    first, second = (a_run(tracker, tmp_path, context=c) for c in (40, 50))
    for run in (first, second):
        champion.promote(tracker, run.run_id)
    (Path(str(first.checkpoint_path)) / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="altered"):
        champion.rollback(tracker)
    assert held(tracker) == second.run_id


def test_sound_weights_that_are_not_those_put_in_service_are_refused(
    tracker: Tracker, tmp_path: Path
) -> None:
    """As where the run was trained again: every file is as its own card says."""
    first, second = (a_run(tracker, tmp_path, context=c) for c in (40, 50))
    for run in (first, second):
        champion.promote(tracker, run.run_id)
    for run in (first, second):
        folder = Path(str(run.checkpoint_path))
        shutil.rmtree(folder)
        write_checkpoint(folder, model="drift", config={"context_length": 60}, card={"horizon": 5})
    with pytest.raises(CheckpointError, match="is not what was put in service"):
        champion.rollback(tracker)
    with pytest.raises(CheckpointError, match="is not what was put in service"):
        load_slot(Service(tracker.store).slot("prices-h5"))


def test_of_many_rollbacks_and_promotions_at_once_each_is_whole_or_refused(
    tracker: Tracker, tmp_path: Path
) -> None:
    runs = [a_run(tracker, tmp_path, context=c) for c in range(40, 50)]
    for run in runs[:6]:  # more than can be rolled back
        champion.promote(tracker, run.run_id)
    outcomes: list[str] = []
    gate = threading.Barrier(8)

    def work(k: int) -> None:
        with Tracker(tracker.store.path) as own:
            gate.wait()
            try:
                if k % 2:
                    champion.rollback(own)
                else:
                    champion.promote(own, runs[6 + k // 2].run_id)
                outcomes.append("rollback" if k % 2 else "promote")
            except TrackerError as error:
                outcomes.append("refused" if "at the same time" in str(error) else str(error))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slot = Service(tracker.store).slot("prices-h5")
    done = [e.action for e in slot.history[6:]]
    assert sorted(done) == sorted(o for o in outcomes if o != "refused")
    assert 1 <= len(done) <= 8
    depth = 6 + done.count("promote") - done.count("rollback")
    assert len(slot.before) == depth - 1


def test_a_change_seen_too_late_is_refused(tracker: Tracker, tmp_path: Path) -> None:
    first, second = (a_run(tracker, tmp_path, context=c) for c in (40, 50))
    done = champion.promote(tracker, first.run_id)
    champion.promote(tracker, second.run_id)
    with pytest.raises(TrackerError, match="at the same time"):
        Service(tracker.store).change("prices-h5", "rollback", seen=done.slot.last_id)
    assert held(tracker) == second.run_id


def test_shadows_stand_beside_the_champion_until_promoted_or_retired(
    tracker: Tracker, tmp_path: Path, shell: Shell
) -> None:
    sweep = a_sweep(tracker)
    king = a_run(tracker, tmp_path, sweep=sweep)
    one, two = (a_run(tracker, tmp_path, context=c, verdict=None, sweep=sweep) for c in (41, 42))
    shell("promote", king.run_id)
    shell("promote", one.run_id, "--shadow")
    shell("promote", two.run_id, "--shadow")
    assert held(tracker) == king.run_id
    loaded = load_slot(Service(tracker.store).slot("prices-h5"))
    assert [(s.role, s.run_id) for s in loaded] == [
        ("champion", king.run_id), ("shadow", one.run_id), ("shadow", two.run_id),
    ]  # fmt: skip
    shell("champion", "--retire", two.run_id)
    shell("promote", one.run_id, "--force", "--reason", "won beside it")
    slot = Service(tracker.store).slot("prices-h5")
    assert (held(tracker), slot.shadows) == (one.run_id, ())
    assert "is no shadow" in shell.error("champion", "--retire", two.run_id, code=1)


def test_a_shadow_that_cannot_be_loaded_leaves_the_champion_alone(
    tracker: Tracker, tmp_path: Path
) -> None:
    sweep = a_sweep(tracker)
    king = a_run(tracker, tmp_path, sweep=sweep)
    other = a_run(tracker, tmp_path, context=41, sweep=sweep)
    champion.promote(tracker, king.run_id)
    slot = champion.promote(tracker, other.run_id, shadow=True).slot
    (Path(str(other.checkpoint_path)) / "config.json").write_text("{}")
    loaded = load_slot(slot)
    assert loaded.champion.run_id == king.run_id
    assert "altered" in (loaded.left_out or {})[other.run_id]


def test_files_in_service_and_those_rollback_needs_are_not_removed(
    tracker: Tracker, tmp_path: Path, shell: Shell
) -> None:
    runs = [a_run(tracker, tmp_path / "hyperparams" / "runs", context=c) for c in (40, 50, 60)]
    for run in runs:
        shell("promote", run.run_id)
    for run in runs[1:]:
        assert "it is in service" in shell.error("rm", run.run_id, "--yes", code=1)
        assert Path(str(run.checkpoint_path)).is_dir()
    shell("rm", runs[0].run_id, "--yes")
    assert not Path(str(runs[0].checkpoint_path)).exists()


def test_slots_are_apart_and_named_where_there_are_several(
    tracker: Tracker, tmp_path: Path, shell: Shell
) -> None:
    one = a_run(tracker, tmp_path, sweep=a_sweep(tracker, "trainingdata/train"))
    two = a_run(tracker, tmp_path, sweep=a_sweep(tracker, "/data/Crypto Coins", 3), context=50)
    assert champion.promote(tracker, one.run_id).slot.name == "trainingdata-h5"
    assert champion.promote(tracker, two.run_id).slot.name == "crypto-coins-h3"
    assert "say which with --slot" in shell.error("rollback", code=2)
    assert "did you mean 'trainingdata-h5'" in shell.error(
        "rollback", "--slot", "traindata-h5", code=2
    )


def test_nothing_in_service_says_how_to_promote(tracker: Tracker, shell: Shell) -> None:
    assert "foresweep promote RUN" in shell.error("champion", code=1)
    with pytest.raises(NotFound, match="foresweep promote RUN"):
        foresweep.load_champion()


def test_a_champion_is_found_where_the_folder_of_runs_stands_now(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, where it is mounted elsewhere."""
    (tmp_path / "runs").mkdir()
    run = a_run(tracker, tmp_path / "runs")
    champion.promote(tracker, run.run_id)
    elsewhere = tmp_path / "elsewhere" / run.run_id / Path(str(run.checkpoint_path)).name
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="cannot be read"):
        foresweep.load_champion("prices-h5")
    monkeypatch.setenv("FORESWEEP_RUNS", str(tmp_path / "elsewhere"))
    assert foresweep.load_champion("prices-h5").forecaster.path == elsewhere
    assert tracker.get_run(run.run_id).checkpoint_path == str(elsewhere)
    shutil.rmtree(elsewhere)
    write_checkpoint(elsewhere, model="drift", config={"context_length": 60}, card={"horizon": 5})
    with pytest.raises(CheckpointError, match="is not what was put in service"):
        foresweep.load_champion("prices-h5")


def test_a_loaded_champion_predicts_a_frame_as_its_checkpoint_does(
    tracker: Tracker, tmp_path: Path
) -> None:
    run = a_run(tracker, tmp_path)
    champion.promote(tracker, run.run_id)
    frame = foresweep.load_champion("prices-h5").predict(make_frame(3, 200))
    wanted = predict_panel(Path(str(run.checkpoint_path)), make_panel(3, 200))
    assert len(frame) == 3 * HORIZON
    assert np.array_equal(frame["0.5"].to_numpy(), wanted.forecast.median.ravel())
    assert frame["timestamp"].dtype.kind == "M"


# Licences.


@dataclass(frozen=True)
class Borrowed:
    """A plug-in whose weights are somebody's."""

    name: ClassVar[str] = "borrowed"
    said: licence.Licence | None = None

    class Config:
        def __init__(self, **_: Any) -> None: ...

    def weights_licence(self, config: Any) -> licence.Licence | None:
        return self.said


NC = licence.Licence("CC-BY-NC-4.0", "its model card", False)


def test_weights_that_forbid_production_need_to_be_accepted_on_record(
    tracker: Tracker, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tracker, tmp_path, config={})
    monkeypatch.setattr(licence, "make_config", lambda kind, *_, **__: kind())
    monkeypatch.setattr(champion, "get_model", lambda _: Borrowed(NC))
    line = shell.error("promote", run.run_id, code=2)
    assert "CC-BY-NC-4.0" in line and "--accept-licence" in line  # noqa: PT018
    out = shell("promote", run.run_id, "--accept-licence")
    assert "licence CC-BY-NC-4.0 accepted" in out
    card = read_checkpoint(Path(str(run.checkpoint_path))).card
    assert card["weights_licence"]["licences"][0]["name"] == "CC-BY-NC-4.0"
    assert "accepted_at" in card["weights_licence"]


@pytest.mark.parametrize(
    ("model", "config", "name"),
    [
        ("toto", {"pretrained": "published"}, "Apache-2.0"),
        ("kronos", {"pretrained": "NeoQuasar/Kronos-mini+NeoQuasar/Kronos-Tokenizer-2k"}, "MIT"),
        ("kronos", {"pretrained": "mini"}, "MIT"),
        ("chronos2", {"pretrained": "amazon/chronos-2"}, "Apache-2.0"),
        ("chronos2", {"pretrained": "somebody/else"}, "unknown"),
        ("chronos2", {"pretrained": None}, None),
        ("drift", {}, None),
    ],
)
def test_every_family_is_asked_for_its_licence(
    model: str, config: dict[str, Any], name: str | None, tmp_path: Path
) -> None:
    class Quiet:
        pass

    found = licence.weights_licence(Checkpoint(tmp_path, model, config), lambda _: Quiet())  # type: ignore[arg-type,return-value]
    assert [one.name for one in found] == ([] if name is None else [name])


def test_a_plug_in_that_says_nothing_is_unknown_and_said_so(tmp_path: Path) -> None:
    silent = Checkpoint(tmp_path, "borrowed", {})
    assert licence.weights_licence(silent, lambda _: object()) == (licence.UNKNOWN,)  # type: ignore[arg-type,return-value]


def test_a_checkpoint_of_ours_stands_under_what_it_started_from(tmp_path: Path) -> None:
    parent = write_checkpoint(tmp_path / "p", model="toto", config={"pretrained": "published"})
    child = Checkpoint(tmp_path, "toto", {"pretrained": str(parent.path)})
    assert licence.weights_licence(child, lambda _: object()) == (licence.TOTO,)  # type: ignore[arg-type,return-value]


# Forecasts on record.


def test_forecasts_of_champion_and_shadow_are_put_on_record_once(
    tracker: Tracker, tmp_path: Path
) -> None:
    sweep = a_sweep(tracker)
    king, other = (a_run(tracker, tmp_path, context=c, sweep=sweep) for c in (40, 50))
    champion.promote(tracker, king.run_id)
    slot = champion.promote(tracker, other.run_id, shadow=True).slot
    panel = make_panel(3, 200)
    made = {served: served.forecast(panel) for served in load_slot(slot)}
    assert record_forecasts(tracker, made, source="test") == 6
    assert record_forecasts(tracker, made, source="again") == 0
    rows = Service(tracker.store).forecasts()
    assert [r["number"] for r in rows] == [1, 2, 3, 4, 5, 6]
    assert [(r["role"], r["run_id"]) for r in rows[::3]] == [
        ("champion", king.run_id), ("shadow", other.run_id),
    ]  # fmt: skip
    told = next(iter(made.values()))
    assert rows[1]["quantiles"] == told.forecast.values[1].tolist()
    assert rows[0]["times"][0] > rows[0]["origin"]


def test_corrected_bars_make_another_forecast(tracker: Tracker, tmp_path: Path) -> None:
    champion.promote(tracker, a_run(tracker, tmp_path).run_id)
    served = load_slot(Service(tracker.store).slot("prices-h5")).champion
    for seed in (0, 1):
        told = served.forecast(make_panel(2, 200, seed))
        assert record_forecasts(tracker, [(served, told)], source="test") == 2
    assert [r["number"] for r in Service(tracker.store).forecasts()] == [1, 2, 3, 4]
