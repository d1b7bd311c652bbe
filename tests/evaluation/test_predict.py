"""Forecasts from a checkpoint start at each item's last whole bar and are the model's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from foresweep.data.panel import CLOSE, Panel, panel_from_frame
from foresweep.data.tables import write_table
from foresweep.errors import CheckpointError, ForecastError, NotEnoughData
from foresweep.evaluation.predict import PanelForecast, predict_panel
from foresweep.lifecycle.champion import promote
from foresweep.lifecycle.inference import InService
from foresweep.models.checkpoint import write_checkpoint
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker
from panels import close_panel, make_frame, make_panel, walk_frame, weekdays
from served_runs import a_run, a_sweep
from shells import Shell

CONTEXT, HORIZON = 64, 7
MEDIAN = 0.5


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:
    monkeypatch.chdir(tmp_path)
    for key in ("FORESWEEP_DB", "FORESWEEP_RUNS", "FORESWEEP_DATA"):
        monkeypatch.delenv(key, raising=False)
    return Shell(capsys)


def _checkpoint(folder: Path, model: str) -> Path:
    config, card = {"context_length": CONTEXT}, {"horizon": HORIZON}
    return write_checkpoint(folder / model, model=model, config=config, card=card).path


def _medians(found: PanelForecast) -> np.ndarray:
    return found.forecast.values[:, :, found.forecast.levels.index(MEDIAN)]


def _ragged() -> Panel:
    """Three items that end on different days."""
    days = weekdays(300)
    parts = [walk_frame(name, days[k : 300 - 9 * k]) for k, name in enumerate("ABC")]
    return panel_from_frame(pl.concat(parts))


def test_last_value_says_the_close_of_each_items_last_bar(tmp_path: Path) -> None:
    panel = _ragged()
    found = predict_panel(_checkpoint(tmp_path, "last-value"), panel)
    closes = np.array([bars.values[-1, CLOSE] for bars in panel.bars])
    assert np.array_equal(found.last_close, closes)
    assert np.array_equal(_medians(found), np.repeat(closes[:, None], HORIZON, axis=1))
    assert found.origins.tolist() == weekdays(300)[[299, 290, 281]].tolist()


def test_drift_moves_on_at_the_mean_move_of_its_context(tmp_path: Path) -> None:
    panel = _ragged()
    found = predict_panel(_checkpoint(tmp_path, "drift"), panel, horizon=3)
    for n, bars in enumerate(panel.bars):
        logs = np.log(bars.values[-CONTEXT:, CLOSE])
        wanted = np.exp(logs[-1] + np.arange(1, 4) * (logs[-1] - logs[0]) / (CONTEXT - 1))
        assert _medians(found)[n] == pytest.approx(wanted, rel=1e-12)


def test_the_times_are_the_next_sessions_of_each_item(tmp_path: Path) -> None:
    panel = _ragged()
    found = predict_panel(_checkpoint(tmp_path, "last-value"), panel)
    days = weekdays(300 + HORIZON)
    for n, last in enumerate((299, 290, 281)):
        assert np.array_equal(found.times[n], days[last + 1 : last + 1 + HORIZON])


def test_a_masked_last_row_moves_that_items_origin_back_and_no_others(tmp_path: Path) -> None:
    frame = make_frame(3, 200)
    close = frame["close"].to_numpy().copy()
    close[[398, 399]] = np.nan  # the last two rows of A1
    panel = panel_from_frame(frame.with_columns(close=close))
    found = predict_panel(_checkpoint(tmp_path, "last-value"), panel)
    assert np.array_equal(found.origins, weekdays(200)[[199, 197, 199]])
    assert found.last_close[1] == close[397]
    assert np.array_equal(found.times[1], weekdays(200 + HORIZON)[198 : 198 + HORIZON])
    whole = predict_panel(tmp_path / "last-value", make_panel(3, 200))
    assert np.array_equal(found.forecast.values[[0, 2]], whole.forecast.values[[0, 2]])


def test_records_hold_every_item_lead_and_level(tmp_path: Path) -> None:
    found = predict_panel(_checkpoint(tmp_path, "drift"), make_panel(2, 100))
    records = found.records()
    assert [(r["item_id"], r["lead"]) for r in records] == [
        (item, lead) for item in ("A0", "A1") for lead in range(1, HORIZON + 1)
    ]
    assert [r["q50"] for r in records] == pytest.approx(_medians(found).ravel())
    assert records[0]["origin"] == "2015-05-22T00:00:00"


def test_an_altered_checkpoint_is_refused(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path, "drift")
    (path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="altered"):
        predict_panel(path, make_panel(1, 100))


def _prices(folder: Path) -> Path:
    """Two items: of one a row is masked; a third file cannot be used."""
    for name in ("GOOD", "HURT"):
        write_table(folder / f"{name}.csv", walk_frame(name, weekdays(200)).drop("item_id"))
    lines = (folder / "HURT.csv").read_text().splitlines()
    lines[-1] = lines[-1].split(",")[0] + ",,,,,"
    (folder / "HURT.csv").write_text("\n".join(lines) + "\n")
    (folder / "LOST.csv").write_text("no prices\n1\n")
    return folder


def test_predict_says_on_the_error_stream_what_the_gate_left_out(
    shell: Shell, tmp_path: Path
) -> None:
    folder, path = _prices(tmp_path / "prices"), _checkpoint(tmp_path, "last-value")
    out = shell("predict", "--checkpoint", str(path), "--data", str(folder), "--json")
    assert {r["item_id"] for r in json.loads(out)} == {"GOOD", "HURT"}
    assert "1 left out (LOST)" in shell.err
    assert "1 of 400 rows masked" in shell.err


def test_predict_reads_the_folder_that_the_settings_name_and_an_actions_file(
    shell: Shell, tmp_path: Path
) -> None:
    _prices(tmp_path / "prices")
    (tmp_path / "pyproject.toml").write_text('[tool.foresweep]\ndata = "prices"\n')
    actions = tmp_path / "actions.csv"
    actions.write_text(f"item,date,ratio\nGONE,{str(weekdays(200)[99])[:10]},2\n")
    call = ("predict", "--checkpoint", str(_checkpoint(tmp_path, "drift")), "--item", "GOOD")
    assert "GOOD" in shell(*call)
    assert "unused_action" not in shell.err
    shell(*call, "--actions", str(actions))
    assert "unused_action 1" in shell.err
    assert json.loads(shell("data", "show", "--json"))["source"] == str(tmp_path / "prices")
    assert "contexts of at most" in shell("data", "show")


# Whose forecast, how far, at which levels, into which file.


def test_an_item_with_too_few_bars_is_refused_by_name_and_the_others_are_forecast(
    shell: Shell, tmp_path: Path
) -> None:
    frame = pl.concat([walk_frame("OLD", weekdays(200)), walk_frame("NEW", weekdays(200)[-31:])])
    path = _checkpoint(tmp_path, "drift")
    found = predict_panel(path, panel_from_frame(frame))
    assert found.items == ("OLD",)
    assert found.refused == {"NEW": "31 whole bars: at least 32 are needed"}
    with pytest.raises(NotEnoughData, match="NEW has 31 whole bars"):
        predict_panel(path, panel_from_frame(frame).select(["NEW"]))
    enough = pl.concat([walk_frame("OLD", weekdays(200)), walk_frame("NEW", weekdays(200)[-32:])])
    assert predict_panel(path, panel_from_frame(enough)).refused == {}


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_forecasts_go_to_a_file_with_all_their_digits(
    shell: Shell, tmp_path: Path, ending: str
) -> None:
    folder, path = _prices(tmp_path / "prices"), _checkpoint(tmp_path, "drift")
    to = tmp_path / f"out.{ending}"
    call = ("predict", "--checkpoint", str(path), "--data", str(folder))
    shell(*call, "--levels", "0.9,0.05", "--items", "GOOD,HURT", "--horizon", "2", "-o", str(to))
    assert "does not beat the last close on val" in shell.err
    told = json.loads(shell(*call, "--levels", "0.05,0.9", "--horizon", "2", "--json"))
    assert list(told[0])[-3:] == ["q5", "q50", "q90"]
    assert len(told) == 4
    if ending == "json":
        assert json.loads(to.read_text()) == told
    else:
        table = pl.read_parquet(to) if ending == "parquet" else pl.read_csv(to)
        assert table["q5"].to_list() == [r["q5"] for r in told]
        assert str(table["timestamp"][0]).replace(" ", "T")[:19] == told[0]["timestamp"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (("--levels", "0.5,1"), "between 0 and 1"),
        (("--levels", "a"), "between 0 and 1"),
        (("-o", "out.xls"), ".parquet, .csv, .json"),
        (("--checkpoint", "x", "--slot", "s"), "give one of RUN"),
        (("--items", "NOBODY"), "unknown item 'NOBODY'"),
        (("some_run",), "no database"),
        ((), "no .best_model_path"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(
    shell: Shell, tmp_path: Path, call: tuple[str, ...], words: str
) -> None:
    _prices(tmp_path / "prices")
    shell("predict", "--data", "prices", *call, code=1 if words[:2] == "no" else 2)
    assert words in shell.err.strip().splitlines()[-1]


def test_the_champion_forecasts_by_default_and_its_shadow_only_on_record(
    shell: Shell, tmp_path: Path
) -> None:
    folder = _prices(tmp_path / "prices")
    with Tracker(tmp_path / "hyperparams" / "sweeps.db") as tracker:
        sweep = a_sweep(tracker)
        king, other, spare = (
            a_run(tracker, tmp_path, model, sweep=sweep)
            for model in ("drift", "last-value", "random-walk")
        )
        promote(tracker, king.run_id)
        promote(tracker, other.run_id, shadow=True)
        call = ("predict", "--data", str(folder), "--json")
        told = json.loads(shell(*call))
        assert "4 new forecasts on record in slot prices-h5" in shell.err
        assert json.loads(shell(*call, "--no-record")) == told
        assert json.loads(shell(*call, king.run_id)) == told
        assert json.loads(shell(*call, spare.run_id)) != told
        shell(*call)
        assert "0 new forecasts" in shell.err
        rows = Service(tracker.store).forecasts()
    assert [(r["role"], r["item_id"]) for r in rows] == [
        (role, item) for role in ("champion", "shadow") for item in ("GOOD", "HURT")
    ]
    assert [q[4] for q in rows[0]["quantiles"]] == [r["q50"] for r in told[:5]]
    assert rows[2]["quantiles"][0][4] == rows[2]["last_close"]


def test_a_shadow_that_fails_takes_nothing_from_the_champion(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _prices(tmp_path / "prices")
    with Tracker(tmp_path / "hyperparams" / "sweeps.db") as tracker:
        sweep = a_sweep(tracker)
        king, other = (a_run(tracker, tmp_path, m, sweep=sweep) for m in ("drift", "last-value"))
        promote(tracker, king.run_id)
        promote(tracker, other.run_id, shadow=True)

    whole = InService.forecast

    def broken(self: InService, panel: Panel, **asked: Any) -> PanelForecast:
        if self.role == "shadow":
            raise ForecastError("1 of 2 forecasts are not finite")
        return whole(self, panel, **asked)

    monkeypatch.setattr(InService, "forecast", broken)
    out = shell("predict", "--data", str(folder), "--json")
    assert len(json.loads(out)) == 10
    assert f"shadow {other.run_id} made no forecast" in shell.err
    assert "2 new forecasts" in shell.err


@pytest.mark.parametrize(
    ("closes", "digits"),
    [
        ([101.03125, 101.0625], 5),  # a bond, in 1/32
        ([0.00001234, 0.00001235], 8),  # a coin
        ([5321.4, 5322.0], 2),  # an index
        ([187.43, 187.5], 2),
        ([187.4312345678, 187.5123456789], 3),  # multiplied by an adjustment
        ([1.08452, 1.0846], 5),  # a currency
    ],
)
def test_prices_keep_the_decimals_they_are_quoted_with(closes: list[float], digits: int) -> None:
    assert close_panel({"A": closes}).decimals(0) == digits


def test_the_next_bars_of_an_hourly_market_follow_its_own_hours(tmp_path: Path) -> None:
    days = np.busday_offset(np.datetime64("2024-01-08"), np.arange(20))
    hours = (days[:, None].astype("datetime64[h]") + np.arange(9, 16)).ravel()
    panel = panel_from_frame(walk_frame("X", hours.astype("datetime64[ns]")))
    found = predict_panel(_checkpoint(tmp_path, "last-value"), panel, horizon=9)
    friday, monday = np.datetime64("2024-02-02T15"), np.datetime64("2024-02-05T09")
    assert found.origins[0] == friday
    assert (found.times[0, :7] == monday + np.arange(7).astype("timedelta64[h]")).all()
    assert found.times[0, 7] == np.datetime64("2024-02-06T09")
