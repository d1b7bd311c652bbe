"""What is in service is scored when its truth comes, once, and its monitor wakes when it should."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foresweep.errors import CheckpointError, UsageError
from foresweep.lifecycle import champion, scoring
from foresweep.lifecycle.champion import checkpoint_in_service, require_champion
from foresweep.lifecycle.evidence import champion_against, promote_by_live
from foresweep.lifecycle.monitor import _clock, _naive, last_check, live_series, monitor
from foresweep.lifecycle.watches import State
from foresweep.models.checkpoint import write_checkpoint
from foresweep.tracker.monitoring import Monitoring
from foresweep.tracker.service import Entry, Service
from foresweep.tracker.tracker import Tracker
from live_world import World
from panels import make_frame
from served_runs import a_run, a_sweep
from shells import Shell

BARS = 420


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Three items, a champion that is `drift`, forecast one bar ahead."""
    with Tracker(tmp_path / "sweeps.db") as tracker:
        sweep = a_sweep(tracker, horizon=1)
        run = a_run(tracker, tmp_path, sweep=sweep)
        champion.promote(tracker, run.run_id)
        yield World(tracker, make_frame(num_bars=BARS), "prices-h1", now=300)


def kinds(check: object) -> set[str]:
    return {r.kind for r in check.reasons}  # type: ignore[attr-defined]


def test_a_forecast_is_scored_once_when_its_truth_has_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.forecast(monkeypatch)
    before = world.look()
    assert (before.scored.written, before.scored.waiting, before.num_origins) == (0, 3, 0)
    world.now += 1
    after = world.look()
    assert (after.scored.written, after.scored.waiting, after.num_origins) == (3, 0, 1)
    again = world.look()
    assert (again.scored.written, again.num_origins) == (0, 1)
    rows = Monitoring(world.tracker.store).scores("prices-h1")
    assert len(rows) == 3
    close = world.panel.bars[0].values[:, 3]
    by_hand = 100 * abs(close[-1] - close[-2]) / close[-2]  # of last-value
    assert rows[0]["last_value_loss"] == pytest.approx(by_hand, rel=1e-12)
    assert rows[0]["loss"] != rows[0]["last_value_loss"]


def test_live_scores_are_those_of_a_backtest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same windows through evaluation's engine: the same losses, scale included."""
    from foresweep.data.windows import Windows
    from foresweep.evaluation.backtest import forecast_part, naive_part, score_part
    from foresweep.lifecycle.inference import load_slot

    world.live(4, monkeypatch)
    world.look()
    measure = scoring.measure_of(world.tracker, _champion(world))
    windows = scoring.live_windows(world.panel, measure, world.times[300:304])
    assert isinstance(windows, Windows)
    predictor = load_slot(
        Service(world.tracker.store).slot(world.slot)
    ).champion.forecaster.predictor
    panel = score_part(forecast_part(predictor, windows), windows, naive=naive_part(windows)).losses
    rows = Monitoring(world.tracker.store).scores("prices-h1")
    found = np.array([[r["loss"], r["scale"]] for r in rows]).reshape(4, 3, 2)
    assert np.allclose(found[..., 0], panel.losses["pct_mae"], rtol=1e-12)
    assert np.allclose(found[..., 1], panel.scale, rtol=1e-12)


def _champion(world: World) -> Entry:
    return require_champion(Service(world.tracker.store).slot(world.slot))


def test_a_forecast_made_after_its_truth_is_no_evidence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.offset_h = 24 * 3 + 1  # three days late: Monday's bar was known
    world.forecast(monkeypatch)
    world.now += 1
    check = world.look()
    assert check.num_origins == 0
    assert check.left_out == {scoring.AFTER_TRUTH: 3}


def test_a_rebased_history_changes_no_live_loss(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A dividend scales all of an adjusted history: a forecast in old prices still holds."""
    world.forecast(monkeypatch)
    world.now += 1
    prices = ("open", "high", "low", "close")
    world.frame = world.frame.with_columns(*(pl.col(c) * 0.97 for c in prices))
    world.look()
    rows = Monitoring(world.tracker.store).scores("prices-h1")
    own = [r["loss"] for r in rows]
    quantiles = [f["quantiles"] for f in Service(world.tracker.store).forecasts()]
    closes = [b.values[-2:, 3] / 0.97 for b in world.panel.bars]
    wanted = [100 * abs(q[0][4] - c[1]) / c[0] for q, c in zip(quantiles, closes, strict=True)]
    assert own == pytest.approx(wanted, rel=1e-9)


def test_bars_corrected_later_change_nothing_that_was_scored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.live(3, monkeypatch)
    world.look()
    before = Monitoring(world.tracker.store).scores("prices-h1")
    world.frame = world.frame.with_columns(pl.col("close") * 1.0001)
    world.look()
    assert Monitoring(world.tracker.store).scores("prices-h1") == before


def test_an_item_without_truth_holds_up_nobody_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.forecast(monkeypatch)
    gone = (pl.col("item_id") == "A1") & (pl.col("timestamp") > world.times[300])
    world.frame = world.frame.filter(~gone)
    world.now += scoring.GRACE
    assert world.look().scored.waiting == 3
    world.now += 1
    check = world.look()
    assert (check.scored.written, check.num_origins) == (3, 1)
    assert check.left_out == {scoring.NO_TRUTH: 1}


def test_a_dead_feed_and_a_silent_champion_are_alarms(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.forecast(monkeypatch)
    world.now += 1
    assert world.look().state == State.OK
    dead = world.look(now=world.clock + timedelta(days=6))
    assert (dead.state, kinds(dead)) == (State.ALARM, {"no-truth"})
    assert dead.next_sweep is None  # nothing to search for: the feed is to be mended
    world.now += 1
    silent = world.look()
    assert (silent.state, kinds(silent)) == (State.ALARM, {"no-forecast"})


def test_a_clock_that_was_set_back_loses_and_doubles_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.live(3, monkeypatch)
    world.look()
    world.offset_h = -24 * 40.0  # forecasts and looks of a machine that is 40 days behind
    world.live(3, monkeypatch)
    check = world.look()
    assert check.num_origins == 6
    assert check.left_out == {}
    dead = world.look(now=None)  # today's clock, years later: a dead feed
    assert "no-truth" in kinds(dead)


def test_a_clock_behind_the_record_makes_no_dead_feed_look_alive() -> None:
    ahead = datetime.now(UTC) + timedelta(days=40)
    assert _clock(None, ahead) == _naive(ahead)
    assert _clock(None, None) < _naive(ahead)
    assert _clock(ahead, None) == _naive(ahead)  # a time that was given is taken


def test_a_champion_that_loses_sets_off_an_alarm_with_the_next_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _lose(world, monkeypatch)
    check = world.look(data="prices", runs_dir=tmp_path, places=("--db", "x.db"))
    assert check.state == State.ALARM
    assert check.reasons[0].kind == "last-value"
    assert "does worse than last-value: by" in check.reasons[0].text
    rows = Monitoring(world.tracker.store).scores("prices-h1")
    ours, theirs = (np.mean([r[k] for r in rows]) for k in ("loss", "last_value_loss"))
    assert check.against[0].skill == pytest.approx(1 - ours / theirs)
    assert f"by {100 * (ours / theirs - 1):.1f} % in raw losses" in check.reasons[0].text
    assert check.next_sweep == (
        "foresweep sweep --mode smart --max-runs 20 --data prices --horizon 1 "
        "--objective pct_mae --db x.db"
    )


def _lose(world: World, monkeypatch: pytest.MonkeyPatch, bars: int = 60) -> None:
    """The record of a champion whose forecasts are 5 % off, as if it had been made every day."""
    from foresweep.lifecycle.inference import InService
    from foresweep.models.base import Forecast

    real = InService.forecast

    def off(self: InService, panel: object, **how: object) -> object:
        from dataclasses import replace

        told = real(self, panel, **how)  # type: ignore[arg-type]
        values = told.forecast.values * (1.01 if self.role == "champion" else 1.0)
        return replace(told, forecast=Forecast(values, told.forecast.levels))

    with monkeypatch.context() as patch:
        patch.setattr(InService, "forecast", off)
        world.live(bars, monkeypatch)


def test_two_opponents_share_the_chance_of_an_alarm(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.live(3, monkeypatch)
    world.look()
    slot = Service(world.tracker.store).slot(world.slot)
    measure = scoring.measure_of(world.tracker, _champion(world))
    both = champion_against(world.tracker, slot, replace(measure, benchmark="random-walk"))
    assert [(p.second, p.level) for p in both] == [("random-walk", 0.025), ("last-value", 0.025)]


def test_forecasts_from_bars_that_the_champion_was_selected_on_are_no_evidence(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    until = str(world.times[301].astype("datetime64[s]"))
    sweep = world.tracker.get_sweep()
    run = a_run(world.tracker, tmp_path, context=40, sweep=sweep, card={"selected_until": until})
    champion.promote(world.tracker, run.run_id)
    world.live(3, monkeypatch)
    check = world.look()
    assert check.left_out == {scoring.SELECTED_ON: 3}
    assert check.num_origins == 2


def test_the_worst_reason_comes_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.forecast(monkeypatch)
    world.frame = world.frame.filter(pl.col("timestamp") != world.times[300])
    world.now += 2
    check = world.look()
    assert [(r.state, r.kind) for r in check.reasons] == [
        (State.ALARM, "no-forecast"), (State.WATCH, "unmatched"),
    ]  # fmt: skip


def test_an_honest_champion_is_left_in_peace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.live(60, monkeypatch)
    check = world.look()
    assert check.state == State.OK, check.reasons
    assert check.against[0].pvalue > 0.05
    assert check.num_origins == 60


def test_a_shadow_answers_beside_the_champion_and_is_told_when_it_is_better(
    world: World, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sweep = world.tracker.get_sweep()
    shadow = a_run(world.tracker, tmp_path, "last-value", sweep=sweep)
    champion.promote(world.tracker, shadow.run_id, shadow=True)
    _lose(world, monkeypatch)
    check = world.look()
    (paired,) = check.shadows
    assert (paired.first, paired.num_origins) == (shadow.run_id, 60)
    assert paired.difference is not None
    assert paired.difference < 0
    assert paired.is_found
    assert check.num_origins == 60
    said = shell("champion", "--db", str(tmp_path / "sweeps.db"))
    assert f"Live: ALARM at {datetime.now(UTC):%Y-%m-%d}" in said
    assert f"Shadow {shadow.run_id} does better than the champion" in said
    assert f"enough to swap: foresweep promote {shadow.run_id} --live" in said


def test_a_shadow_that_is_proved_better_is_promoted_by_that_evidence(
    world: World, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held, sweep = _champion(world).run_id, world.tracker.get_sweep()
    shadow = a_run(world.tracker, tmp_path, "last-value", sweep=sweep, verdict=None)
    asked = ("promote", shadow.run_id, "--live", "--db", str(tmp_path / "sweeps.db"))
    assert "is no shadow of slot prices-h1" in shell.error(*asked, code=2)
    champion.promote(world.tracker, shadow.run_id, shadow=True)
    assert "has been scored yet" in shell.error(*asked, code=2)
    _lose(world, monkeypatch)
    (paired,) = world.look().shadows
    assert "leave out --shadow" in shell.error(*asked, "--shadow", code=2)
    said = shell(*asked)
    assert f"By its forecasts live, as a shadow: better than {held} on 60 origins" in said
    slot = Service(world.tracker.store).slot(world.slot)
    assert slot.champion is not None
    assert (slot.champion.run_id, slot.champion.reason) == (shadow.run_id, None)
    assert (slot.shadows, slot.before[0].run_id) == ((), held)
    evidence = slot.champion.content["promoted_by"]
    found = {k: evidence[k] for k in ("kind", "champion", "num_origins", "pvalue", "level")}
    assert found == {
        "kind": "shadow", "champion": held, "num_origins": 60, "pvalue": paired.pvalue,
        "level": 0.05,
    }  # fmt: skip
    assert checkpoint_in_service(slot.champion).card["promoted_by"] == evidence
    assert "p = " in slot.champion.why


def test_a_shadow_that_is_not_proved_better_stays_one(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before, sweep = _champion(world), world.tracker.get_sweep()
    shadow = a_run(world.tracker, tmp_path, "last-value", sweep=sweep)
    champion.promote(world.tracker, shadow.run_id, shadow=True)
    world.live(6, monkeypatch)
    world.look()
    with pytest.raises(UsageError, match=r"it stays a shadow: .* not proved to be better than"):
        promote_by_live(world.tracker, shadow.run_id)
    place = Path(str(shadow.checkpoint_path))
    shutil.rmtree(place)
    write_checkpoint(place, model="last-value", config={"context_length": 41}, card={})
    with pytest.raises(CheckpointError, match="its live forecasts are of other weights"):
        promote_by_live(world.tracker, shadow.run_id)
    assert _champion(world) == before


def test_shadows_tried_one_after_the_other_share_the_level(world: World, tmp_path: Path) -> None:
    sweep = world.tracker.get_sweep()
    tried = [a_run(world.tracker, tmp_path, context=c, sweep=sweep).run_id for c in (40, 41, 42)]
    for run_id in tried[:2]:
        champion.promote(world.tracker, run_id, shadow=True)
        champion.retire(world.tracker, run_id)
    champion.promote(world.tracker, tried[2], shadow=True)
    assert [p.level for p in world.look().shadows] == [pytest.approx(0.05 / 3)]
    champion.promote(world.tracker, tried[0])  # against another champion it begins anew
    assert [p.level for p in world.look().shadows] == [0.05]


def test_what_was_found_is_on_record_for_pages(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert last_check(world.tracker, world.slot) is None
    world.live(3, monkeypatch)
    check = world.look()
    told = last_check(world.tracker, world.slot)
    assert told is not None
    told.pop("checked_at")
    assert told == json.loads(json.dumps(check.as_json()))
    series = live_series(world.tracker, Service(world.tracker.store).slot(world.slot))
    assert len(series["origins"]) == 3 == len(series["champion"]) == len(series["last_value"])


def test_prices_of_other_items_are_refused(world: World, tmp_path: Path) -> None:
    from foresweep.data.panel import panel_from_frame
    from foresweep.models.checkpoint import read_checkpoint, update_card

    entry = _champion(world)
    update_card(read_checkpoint(Path(entry.checkpoint_path)), {"items": ["A0"]})
    other = panel_from_frame(world.frame.with_columns(item_id=pl.lit("B") + pl.col("item_id")))
    with pytest.raises(UsageError, match="none of the items that slot prices-h1 forecasts"):
        monitor(world.tracker, Service(world.tracker.store).slot(world.slot), other)


# Two at once, and killed at any moment.


def test_two_monitors_at_once_count_every_forecast_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.live(20, monkeypatch)
    slot = Service(world.tracker.store).slot(world.slot)
    panel, clock = world.panel, world.clock
    together = threading.Barrier(4)

    def look() -> int:
        with Tracker(world.tracker.store.path) as mine:
            together.wait()
            return monitor(mine, slot, panel, now=clock).scored.written

    with ThreadPoolExecutor(4) as pool:
        written = sum(f.result() for f in [pool.submit(look) for _ in range(4)])
    numbers = [r["number"] for r in Monitoring(world.tracker.store).scores(world.slot)]
    assert written == 60 == len(numbers) == len(set(numbers))


@pytest.mark.slow
@pytest.mark.parametrize("kills", [12, pytest.param(50, marks=pytest.mark.soak)])
def test_killed_at_random_moments_nothing_is_lost_and_nothing_counts_twice(
    world: World, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    """A process forecasts and monitors day by day, says what it was told is on record, and is
    killed; the next goes on from the record alone."""
    random = np.random.default_rng(0)
    first, told = world.now, 0
    for world.now in range(first, first + 61):
        world.kept[world.now] = world.panel
    world.now = first
    for kill in range(kills + 1):
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            with Tracker(world.tracker.store.path) as mine:
                world.tracker = mine
                while world.now < first + 60:
                    world.forecast(monkeypatch)
                    os.write(theirs, b".")  # acknowledged: on record, whatever comes
                    world.now += 1
                    world.look()
            os._exit(0)
        os.close(theirs)
        if kill < kills:
            time.sleep(float(random.uniform(0.0, 0.25)))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(ours, "rb") as pipe:
            told = max(told, len(pipe.read()))
        made = Service(world.tracker.store).forecasts()
        assert len(made) >= 3 * min(told, 60)
    assert told == 60
    scores = Monitoring(world.tracker.store).scores(world.slot)
    assert sorted(r["number"] for r in scores) == list(range(1, 3 * 60 + 1))
    assert Service(world.tracker.store).verify() == []
    assert len({r["origin"] for r in scores}) == 60


# The command.


@pytest.fixture
def shell(
    world: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return Shell(capsys)


def shifted(world: World, days: int) -> None:
    """The market so many days later, so that the machine's own clock is the right one."""
    world.frame = world.frame.with_columns(pl.col("timestamp") + pl.duration(days=days))
    world.times = np.unique(world.frame["timestamp"].to_numpy())


def written(world: World, place: Path) -> str:
    """The known bars as a file."""
    known = world.frame.filter(pl.col("timestamp") <= world.times[world.now])
    known.write_csv(place)
    return str(place)


def test_the_command_ends_with_a_code_that_cron_understands_and_tells_somebody(
    world: World, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gap = (datetime.now(UTC).date() - world.clock.date()).days
    shifted(world, gap - gap % 7)
    out = tmp_path / "told.json"
    tell = tmp_path / "tell.sh"
    tell.write_text(f"#!/bin/sh\ncat >> {out}; echo >> {out}\n")
    tell.chmod(0o755)
    world.live(2, monkeypatch)
    asked = ("monitor", "--db", str(tmp_path / "sweeps.db"), "--notify", str(tell))
    calm = shell(*asked, "--data", written(world, tmp_path / "prices.csv"))
    assert calm.startswith("OK: slot prices-h1")
    assert not out.exists()
    world.now += 1
    alarm = shell(*asked, "--json", "--data", written(world, tmp_path / "prices.csv"), code=6)
    assert json.loads(alarm)["reasons"][0]["kind"] == "no-forecast"
    (line,) = out.read_text().splitlines()
    assert json.loads(line) == json.loads(alarm)
    tell.write_text("#!/bin/sh\nexit 3\n")
    shell(*asked, "--data", written(world, tmp_path / "prices.csv"), code=6)
    assert "tell.sh ended with 3" in shell.err


def test_the_command_without_anything_in_service_says_what_to_do(
    shell: Shell, tmp_path: Path
) -> None:
    with Tracker(tmp_path / "empty.db"):
        pass
    said = shell.error("monitor", "--db", str(tmp_path / "empty.db"), code=1)
    assert "nothing is in service yet" in said
