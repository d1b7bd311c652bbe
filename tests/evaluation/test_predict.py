"""Forecasts from a checkpoint start at each item's last whole bar and are the model's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foresweep.data.panel import CLOSE, Panel, panel_from_frame
from foresweep.data.tables import write_table
from foresweep.errors import CheckpointError
from foresweep.evaluation.predict import PanelForecast, predict_panel
from foresweep.models.checkpoint import write_checkpoint
from panels import make_frame, make_panel, walk_frame, weekdays
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
