"""The record of forecasts can be handed to somebody, who finds what was done to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foresweep.lifecycle.champion import promote
from foresweep.lifecycle.inference import load_slot, record_forecasts
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker
from panels import make_panel
from served_runs import a_run
from shells import Shell


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:
    monkeypatch.chdir(tmp_path)
    with Tracker(tmp_path / "hyperparams" / "sweeps.db") as tracker:
        promote(tracker, a_run(tracker, tmp_path).run_id)
        served = load_slot(Service(tracker.store).slot("prices-h5")).champion
        record_forecasts(tracker, [(served, served.forecast(make_panel(4, 100)))], source="t")
    return Shell(capsys)


def test_a_sound_record_ends_in_a_mark_to_note(shell: Shell) -> None:
    out = shell("ledger", "verify")
    assert "4 forecasts, as they were written" in out
    mark = out.strip().splitlines()[-1].removeprefix("The last: ")
    assert mark.startswith("4:")
    shell("ledger", "verify", "--noted", mark)
    shell("ledger", "verify", "--noted", "4:" + "0" * 64, code=1)
    assert "NUMBER:HASH" in shell.error("ledger", "verify", "--noted", "4", code=2)


def test_an_exported_record_is_verified_by_whoever_gets_it(shell: Shell, tmp_path: Path) -> None:
    shell("ledger", "export", "-o", "record.jsonl")
    file = tmp_path / "record.jsonl"
    told = json.loads(shell("ledger", "verify", "--file", "record.jsonl", "--json"))
    assert (told["num_forecasts"], told["faults"]) == (4, [])
    lines = file.read_text().splitlines()
    changed = json.loads(lines[1]) | {"last_close": 1.0}
    file.write_text("\n".join([lines[0], json.dumps(changed), *lines[2:]]))
    assert "fault: forecast 2 is not what was written" in shell(
        "ledger", "verify", "--file", "record.jsonl", code=1
    )
    file.write_text("\n".join([lines[0], *lines[2:]]))
    assert "forecast 2 is missing" in shell("ledger", "verify", "--file", "record.jsonl", code=1)
    file.write_text("\n".join([*lines[:2], lines[1], *lines[2:]]))
    assert "fault" in shell("ledger", "verify", "--file", "record.jsonl", code=1)
    file.write_text("x")
    assert "no export" in shell.error("ledger", "verify", "--file", "record.jsonl", code=1)
