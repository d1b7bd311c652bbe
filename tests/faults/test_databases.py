"""Damaged databases and files of runs at the command line: refused, or what is told is true."""

from __future__ import annotations

import json
import random
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import broken
from foresweep.cli.main import main
from foresweep.tracker.jsonfile import JsonTracker, export_json
from foresweep.tracker.tracker import Tracker

RUNS = 30


@dataclass
class Said:
    code: int
    out: str
    err: str


class Line:
    """The command line in this process: what it said, whatever came of it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: str) -> Said | str:
        """What a command said, or `wrong: ...`."""
        try:
            main(args)
        except SystemExit as ended:
            out, err = self.capsys.readouterr()
            said = Said(int(ended.code or 0), out, err)
        except BaseException as error:
            self.capsys.readouterr()
            return f"{broken.refusal(error)} in {args[0]}".replace("refused", "wrong: not told", 1)
        if said.code in (1, 2) and said.err and len(said.err.strip().splitlines()) != 1:
            return f"wrong: {args[0]} says more than a line: {said.err[:300]!r}"
        if "Traceback" in said.err:
            return f"wrong: a traceback in {args[0]}"
        return said


def filled(place: Path) -> None:
    """A database of runs by hand with curves, notes and tags."""
    with Tracker(place) as tracker:
        for n in range(RUNS):
            run = tracker.start_run(model=("toto", "kronos")[n % 2], hyperparams={"lr": n / 100})
            tracker.log(run.run_id, 1, {"tune_pinball": 1.0 + n})
            scores = {"val_pct_mae": 1.0 + n / 10, "test_pct_mae": 2.0}
            tracker.finish_run(run.run_id, "complete", scores=scores)
        tracker.add_note(run.run_id, "the last of them")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """(a database in one file, the same runs as JSON)."""
    folder = tmp_path_factory.mktemp("whole")
    filled(folder / "a.db")
    with Tracker(folder / "a.db") as tracker:
        export_json(tracker, folder / "a.json")
    with sqlite3.connect(folder / "a.db") as line:
        line.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    line.close()
    return (folder / "a.db").read_bytes(), (folder / "a.json").read_bytes()


def told_of(line: Line, place: Path) -> Said | str:
    return line("runs", "--json", "--db", str(place))


def damaged_database(
    folder: Path, whole: bytes, truth: Any, chance: random.Random, line: Line
) -> tuple[str, str]:
    """What the runs of a damaged database are said to be is true, or `db check` or `db verify` says
    that the database is not sound. No command that asks changes it."""
    place = folder / "a.db"
    what, content = broken.damaged(whole, chance)
    if chance.random() < 0.1:
        what, content = "a log of noise beside it", whole
        (folder / "a.db-wal").write_bytes(chance.randbytes(4096))
    place.write_bytes(content)
    said = told_of(line, place)
    if isinstance(said, str):
        return said, what
    for command in (["db", "check"], ["db", "verify"], ["note", "toto", "a note"], ["best"]):
        if isinstance(other := line(*command, "--db", str(place)), str):
            return other, what
    if said.code:
        if place.read_bytes() != content:
            return f"wrong: {place.name} was changed", what
        return f"refused: {said.err}", what
    try:
        told = json.loads(said.out)
    except ValueError:
        return f"wrong: no JSON: {said.out[:200]!r}", what
    if told == truth:
        return "read: all", what
    checks = [line("db", c, "--db", str(place)) for c in ("check", "verify")]
    if all(isinstance(c, Said) and c.code == 0 for c in checks):
        rows = told["runs"] if isinstance(told, dict) else told
        return f"wrong: {len(rows)} runs are told otherwise and nothing notices", what
    return "noticed: by check or verify", what


def records(content: bytes) -> dict[str, Any]:
    return {r["run_id"]: r for r in json.loads(content)["runs"]}


def damaged_json(folder: Path, whole: bytes, chance: random.Random, line: Line) -> tuple[str, str]:
    """Runs come in as they were but for those that were touched, what is missing is told, and the
    file stays as it is; a run that is logged to it later leaves the damaged file beside it."""
    file = folder / "a.json"
    if chance.random() < 0.5:
        what, text = broken.retyped(whole.decode(), chance)
        content = text.encode("utf-8", "surrogatepass")
    else:
        what, content = broken.damaged(whole, chance)
    file.write_bytes(content)
    said = line("import", "json", str(file), "--db", str(folder / "new.db"))
    if isinstance(said, str):
        return said, what
    if file.read_bytes() != content:
        return "wrong: the file was changed", what
    try:
        with JsonTracker(file) as tracker:
            tracker.log_run("toto", {"lr": 1.0}, {"val_pct_mae": 1.0})
            again = {r.run_id for r in tracker.get_runs()}
        kept = [p.read_bytes() for p in folder.glob("a*.json")]
        if content not in kept and len(again) <= RUNS:
            return "wrong: the damaged file is nowhere", what
    except BaseException as error:
        if (found := broken.refusal(error)).startswith("wrong"):
            return found, what
        if file.read_bytes() != content:
            return "wrong: refused, and the file was changed", what
    if said.code:
        return f"refused: {said.err}", what
    with Tracker(folder / "new.db") as tracker:
        export_json(tracker, folder / "back.json")
    truth, found_runs = records(whole), records((folder / "back.json").read_bytes())
    altered = [i for i, r in found_runs.items() if truth.get(i) != r]
    if len(altered) > 3:
        return f"wrong: {len(altered)} runs came in otherwise: {altered[:3]}", what
    if len(found_runs) < len(truth) and not said.err and "lost" not in what:
        return f"wrong: {len(truth) - len(found_runs)} runs lost without a word", what
    return f"read: {len(found_runs)}", what


def campaign(
    folder: Path, whole: tuple[bytes, bytes], num: int, seed: int, line: Line
) -> broken.Seen:
    (folder / "whole.db").write_bytes(whole[0])
    said = told_of(line, folder / "whole.db")
    assert isinstance(said, Said)
    truth = json.loads(said.out)
    seen = broken.Seen()
    for number, chance in broken.chances(num, seed):
        own = folder / str(number)
        own.mkdir()
        if number % 2:
            outcome, what = damaged_json(own, whole[1], chance, line)
        else:
            outcome, what = damaged_database(own, whole[0], truth, chance, line)
        seen.add(outcome, f"case {number}: {what}")
    return seen


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE runs SET created_at = '2026-11-29T21:50:17+]0:00'", "a time on record reads"),
        ("UPDATE runs SET hyperparams = '{\"lr\": '", "a value on record reads"),
        ("UPDATE runs SET metrics = x'7b00'", "a value on record reads"),
        ("UPDATE runs SET fingerprints = '{'", "a value on record reads"),
        ("UPDATE runs SET tags = '3', hyperparams = '{}'", "on record reads"),
        ("UPDATE runs SET state = 'compl'", "on record reads"),
        ("UPDATE sqlite_master SET sql = CAST(x'435245FC4154' AS TEXT) WHERE name = 'runs'", "is"),
    ],
)
def test_a_row_that_foresweep_never_writes_is_refused_in_a_line(
    change: str, says: str, whole: tuple[bytes, bytes], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    place = tmp_path / "a.db"
    place.write_bytes(whole[0])
    with sqlite3.connect(place) as raw:
        raw.execute("PRAGMA writable_schema=ON")
        raw.execute(change)
    raw.close()
    said = told_of(Line(capsys), place)
    assert isinstance(said, Said), said
    assert said.code == 1
    assert re.search(f"{says}.*damaged|damaged.*{says}", said.err), said.err
    for command in ("check", "verify"):
        looked = Line(capsys)("db", command, "--db", str(place))
        assert isinstance(looked, Said), looked
    assert looked.code == 1


def test_a_file_of_a_byte_is_no_database_and_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a.db"
    place.write_bytes(b"\n")
    for command in (["runs"], ["db", "check"], ["import", "json", str(tmp_path / "none.json")]):
        said = Line(capsys)(*command, "--db", str(place))
        assert isinstance(said, Said), said
        assert "is not a database" in said.err
    assert place.read_bytes() == b"\n"


def test_a_damaged_database_or_file_of_runs_is_refused_or_told_as_it_was(
    tmp_path: Path, whole: tuple[bytes, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = campaign(tmp_path, whole, 12, seed=0, line=Line(capsys))
    seen.require_none_wrong()
    assert seen.outcomes["refused"] >= 2, seen.outcomes


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_five_hundred_damaged_databases_and_files_of_runs(
    tmp_path: Path, whole: tuple[bytes, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    campaign(tmp_path, whole, 500, seed=1, line=Line(capsys)).require_none_wrong()
