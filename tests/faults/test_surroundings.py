"""The command line where disks are full, places closed, clocks wrong and names strange."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from foresweep.cli.main import main
from foresweep.tracker.tracker import Tracker
from panels import make_frame
from shells import Shell

pytestmark = pytest.mark.filterwarnings("ignore:Unable to import Axes3D")
HOW = ("--horizon", "2", "--stride", "60", "--max-context", "64")


def prices(folder: Path, names: tuple[str, ...] = ("A", "B")) -> Path:
    """A folder with a file of 300 bars for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        frame = make_frame(k + 1, 300).filter(pl.col("item_id") == f"A{k}").drop("item_id")
        frame.write_csv(folder / f"{name}.csv")
    return folder


def with_runs(db: Path, num: int = 3) -> Path:
    """A database with runs by hand."""
    with Tracker(db) as tracker:
        for n in range(num):
            tracker.log_run("toto", {"lr": n / 10}, {"val_pct_mae": 1.0 + n})
    return db


def run(
    *args: str, cwd: Path, before: Callable[[], object] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own: its error is one line, and no traceback."""
    environment = {**os.environ, "FORESWEEP_CACHE": "off", **more.pop("env", {})}
    done = subprocess.run(
        [sys.executable, "-m", "foresweep", *args],
        cwd=cwd, env=environment, preexec_fn=before, text=True, timeout=900,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )  # fmt: skip
    said = done.stderr or ""
    assert "Traceback" not in said, said
    assert "Exception ignored" not in said, said
    return done


def without_power() -> None:
    """Root obeys modes from the next program on: two capabilities are dropped that let it pass by
    them. Anybody else does so anyway."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            assert libc.prctl(24, capability, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())


@contextmanager
def closed(*folders: Path) -> Iterator[None]:
    """Folders that can be read and not written to."""
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o755)


# Disks.


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def test_a_full_output_is_told_in_a_line(tmp_path: Path) -> None:
    db = with_runs(tmp_path / "a.db")
    with open("/dev/full", "w") as full:
        done = run("runs", "--db", str(db), cwd=tmp_path, stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device; free some space")
    assert done.stderr.count("\n") == 1


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_disk_that_is_full_ends_a_sweep_in_a_line_and_what_was_there_stays(
    tmp_path: Path,
) -> None:
    data = prices(tmp_path / "prices")
    with small_disk(tmp_path / "disk", "8m") as disk:
        db = with_runs(disk / "sweeps.db")
        filler = disk / "filler"
        free = shutil.disk_usage(disk).free
        filler.write_bytes(bytes(max(free - 60_000, 0)))
        before = {r.run_id for r in Tracker(db).get_runs()}
        places = ("--db", str(db), "--runs", str(disk / "runs"))
        done = run("train", "-m", "drift", "--data", str(data), *HOW, *places, cwd=tmp_path)
        assert done.returncode == 1
        assert "full" in done.stderr or "No space" in done.stderr, done.stderr
        filler.unlink()
        assert run("db", "check", "--db", str(db), cwd=tmp_path).returncode == 0
        with Tracker(db) as tracker:
            assert before <= {r.run_id for r in tracker.get_runs()}
        again = run("train", "-m", "drift", "--data", str(data), *HOW, *places, cwd=tmp_path)
        assert again.returncode == 0, again.stderr  # with room it goes on as if nothing had been


DRIVER = """
import contextlib, io, json, os, resource, sys
from foresweep.cli.main import main
import foresweep.lifecycle.bundle, foresweep.reporting.render
import foresweep.tracker.tracker
size, commands = json.loads(sys.argv[1])
if size:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
for command in commands:
    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        try:
            main(command)
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, err.getvalue()]), flush=True)
"""


def one_by_one(
    commands: Sequence[Sequence[str]], cwd: Path, *, size: int = 0, **more: Any
) -> list[tuple[int, str]]:
    """(exit code, standard error) of commands in one process, in which no file may grow beyond
    `size` bytes, which is how a full disk looks to a writer."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps([size, commands])], cwd=cwd, text=True,
        capture_output=True, timeout=300, env={**os.environ, "FORESWEEP_CACHE": "off"}, **more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_a_file_that_grows_too_large_for_its_disk_is_never_left_half_written(
    tmp_path: Path,
) -> None:
    db = str(with_runs(tmp_path / "a.db"))
    there = str(tmp_path / "out")
    commands = [
        [*command, "--db", db]
        for command in (
            ("export", "json", "-o", there),
            ("report", "-o", f"{there}.md"),
            ("db", "backup", f"{there}.db"),
            ("db", "copy", f"{there}.copy.db"),
            ("export", "optuna", f"sqlite:///{there}.study.db"),
        )
    ]
    for command, (code, said) in zip(
        commands, one_by_one(commands, tmp_path, size=200), strict=True
    ):
        assert code == 1, command
        assert said.startswith("error: "), said
        assert said.count("\n") == 1, said
    left = sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("a.db"))
    assert [n for n in left if (tmp_path / n).stat().st_size] == [], left


# Places that are closed.


def test_a_place_that_is_closed_is_named_in_a_line(tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir()
    data, hidden = prices(tmp_path / "prices"), prices(shut / "prices")
    files = prices(shut / "files")
    db, old = with_runs(tmp_path / "a.db"), with_runs(shut / "old.db")
    with Tracker(old) as tracker:
        (one, *_) = tracker.get_runs()
    train = ["train", "-m", "drift", "--data", str(data), *HOW]
    commands = {
        "a new database": [*train, "--db", str(shut / "new.db")],
        "an old database": ["note", one.run_id, "a note", "--db", str(old)],
        "the runs": [*train, "--db", str(db), "--runs", str(shut / "runs")],
        "the data": ["data", "check", str(hidden)],
        "a data file": ["data", "check", str(files)],
        "a report": ["report", "-o", str(shut / "r.md"), "--db", str(db)],
        "a draft": ["data", "check", str(data), "--write-actions", str(shut / "actions.csv")],
        "a backup": ["db", "backup", str(shut / "b.db"), "--db", str(db)],
    }
    old.chmod(0o444)
    for file in files.iterdir():
        file.chmod(0)
    hidden.chmod(0)
    before = {p.name for p in shut.iterdir()}
    with closed(shut):
        told = one_by_one(list(commands.values()), tmp_path, preexec_fn=without_power)
    hidden.chmod(0o755)
    for what, (code, said) in zip(commands, told, strict=True):
        assert code == 1, (what, said)
        assert said.startswith("error: "), (what, said)
        assert str(shut) in said, (what, said)
        assert said.count("\n") == 1, (what, said)
    assert {p.name for p in shut.iterdir()} == before


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_home_that_cannot_be_written_to_is_not_needed(tmp_path: Path) -> None:
    data = prices(tmp_path / "prices")
    home = tmp_path / "home"
    home.mkdir()
    hide = dict.fromkeys(("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "MPLCONFIGDIR"), "")
    with closed(home):
        for args in (
            ("doctor",),
            ("train", "-m", "drift", "--data", str(data), *HOW),
            ("report", "-o", "r.html"),
        ):
            done = run(
                *args, cwd=tmp_path, before=without_power,
                env={"HOME": str(home), **hide, "FORESWEEP_CACHE": str(home / "cache")},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        assert list(home.iterdir()) == []
    assert (tmp_path / "r.html").stat().st_size > 1000


# Clocks.

SHIFTED = """
import datetime, os, time
shift = float(os.environ.get("CLOCK_SHIFT_S", 0))
real_time, Real = time.time, datetime.datetime
time.time = lambda: real_time() + shift
class Meta(type):
    def __instancecheck__(cls, one): return isinstance(one, Real)
class Shifted(Real, metaclass=Meta):
    @classmethod
    def now(cls, tz=None): return Real.now(tz) + datetime.timedelta(seconds=shift)
    @classmethod
    def utcnow(cls): return Real.utcnow() + datetime.timedelta(seconds=shift)
datetime.datetime = Shifted
"""


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_clock_that_is_set_back_loses_no_run_and_mistakes_none_for_the_latest(
    tmp_path: Path,
) -> None:
    """A sweep, then another after the clock went back by a day: both are whole, what a command says
    of the latest sweep names it, and a run that begins before it was made is none."""
    data = prices(tmp_path / "prices")
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(SHIFTED)
    path = f"{tmp_path / 'clock'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    ids = []
    for shift in (0, -86_400):
        env = {"PYTHONPATH": path, "CLOCK_SHIFT_S": str(shift)}
        args = ("sweep", "-m", "drift", "--data", str(data), *HOW, "--again")
        done = run(*args, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        with Tracker(tmp_path / "hyperparams" / "sweeps.db") as tracker:
            ids += [s.sweep_id for s in tracker.list_sweeps() if s.sweep_id not in ids]
            assert tracker.get_sweep("latest").sweep_id == ids[-1]
            for one in tracker.get_runs():
                assert one.state == "complete", one.error
                assert one.finished_at is not None
                assert one.started_at is not None
                assert one.finished_at >= one.started_at
                assert (one.duration_seconds or 0) >= 0
    assert len(ids) == 2
    assert run("db", "check", cwd=tmp_path).returncode == 0
    assert run("db", "verify", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/New_York", "Pacific/Kiritimati"])
def test_a_time_zone_changes_no_record_and_no_answer(
    zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell, db = Shell(capsys), tmp_path / "a.db"
    data = str(prices(tmp_path / "prices"))
    asked = [("runs", "--json", "--db", str(db)), ("data", "show", data, "--json"),
             ("data", "check", data, "--json")]  # fmt: skip
    try:
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()
        with_runs(db, 2)
        told = [shell(*args) for args in asked]
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert [shell(*args) for args in asked] == told
        with Tracker(db) as tracker:
            made = tracker.get_run(tracker.log_run("toto", {}, {"val_pct_mae": 1.0}))
        assert abs(made.created_at - datetime.now(UTC)) < timedelta(minutes=1)
        newest = json.loads(shell("runs", "--json", "--db", str(db)))
        assert {r["run_id"] for r in newest} >= {made.run_id}
    finally:
        monkeypatch.undo()
        time.tzset()


# Names and places.

STRANGE = "Прайс-лист 名前 é ü 'single' \"double\" $HOME `id` #1 %s [red] {0}"


@pytest.mark.slow
def test_any_folder_may_be_called_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way in a folder with spaces, quotes and letters of four alphabets, whose runs lie
    behind a link and whose git has no sound HEAD, at a dumb terminal of 40 columns."""
    home, shell = tmp_path / STRANGE, Shell(capsys)
    data = prices(home / "the prices", ("A B", "名", "it's", 'say "so"', "two\nlines"))
    git("init", cwd=home)
    (home / ".git" / "HEAD").write_text("ref: refs/heads/\x00\n")
    (tmp_path / "else where").mkdir()
    (home / "hyperparams").mkdir()
    (home / "hyperparams" / "runs").symlink_to(tmp_path / "else where")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.chdir(home)
    shell("data", "check", str(data))
    told = shell("train", "-m", "drift", "--data", str(data), *HOW)
    assert "\x1b" not in told + shell.err
    assert "drift" in shell("runs")
    with Tracker(home / "hyperparams" / "sweeps.db") as tracker:
        assert {r.git_commit for r in tracker.get_runs()} == {None}
    for args in (
        ("report", "-o", "r.html"), ("report", "-o", "r.md"), ("export", "json", "-o", "é.json"),
        ("db", "backup", "b c.db"), ("db", "check"), ("db", "verify"), ("show", "drift"),
    ):  # fmt: skip
        shell(*args)
    checkpoint = next((home / "hyperparams" / "runs").glob("drift*/checkpoint"))
    told = shell("predict", "--checkpoint", str(checkpoint), "--data", str(data), "--json")
    items = {row["item_id"] for row in json.loads(told)}
    assert {"A B", "名", "it's", 'say "so"'} <= items


def test_links_are_followed_and_a_link_to_nowhere_or_to_itself_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(capsys)
    real = prices(tmp_path / "real")
    (tmp_path / "prices").symlink_to(real)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    db = with_runs(tmp_path / "real.db")
    (tmp_path / "linked.db").symlink_to(db)
    assert shell("data", "check", str(tmp_path / "prices"))
    assert "toto" in shell("runs", "--db", str(tmp_path / "linked.db"))
    for place in ("nowhere", "round"):
        assert place in shell.error("data", "check", str(tmp_path / place), code=1)
        assert place in shell.error("runs", "--db", str(tmp_path / place), code=1)
    (real / "C.csv").symlink_to(real / "gone.csv")
    (real / "D.csv").symlink_to(real / "D.csv")
    findings = json.loads(shell("data", "check", str(real), "--json", code=1))["findings"]
    assert sorted(f["item"] for f in findings if f["rule"] == "unreadable") == ["C", "D"]
    assert sorted(p.name for p in real.iterdir()) == ["A.csv", "B.csv", "C.csv", "D.csv"]


# Git.


def git(*args: str, cwd: Path) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *who, *args], cwd=cwd, check=True, capture_output=True)


@pytest.mark.parametrize("state", ["no git", "no commit", "broken head", "no head", "gitfile"])
def test_a_run_is_recorded_without_git_and_beside_a_broken_one(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if state == "no git":
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    elif state == "gitfile":
        (tmp_path / ".git").write_text("gitdir: /no/such/place\n")
    else:
        git("init", cwd=tmp_path)
    if state == "broken head":
        (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/\x00\n")
    if state == "no head":
        (tmp_path / ".git" / "HEAD").unlink()
    with Tracker(tmp_path / "a.db") as tracker:
        run_id = tracker.log_run("toto", {}, {"val_pct_mae": 1.0})
    told = json.loads(Shell(capsys)("show", run_id, "--json", "--db", str(tmp_path / "a.db")))
    assert told["provenance"]["git_commit"] is None
    assert told["provenance"]["git_diff"] is None


def test_a_diff_of_a_megabyte_is_cut_and_its_secrets_are_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", cwd=tmp_path)
    (tmp_path / "big.txt").write_text("a\n")
    git("add", ".", cwd=tmp_path)
    git("commit", "-m", "first", cwd=tmp_path)
    lines = [f"line {n} of a file that has changed a lot since\n" for n in range(25_000)]
    (tmp_path / "big.txt").write_text("password = hunter2hunter2\n" + "".join(lines))
    with Tracker(tmp_path / "a.db") as tracker:
        run_id = tracker.log_run("toto", {}, {"val_pct_mae": 1.0})
    told = json.loads(Shell(capsys)("show", run_id, "--json", "--db", str(tmp_path / "a.db")))
    diff = told["provenance"]["git_diff"]
    assert told["provenance"]["git_dirty"] is True
    assert len(diff) < 70_000
    assert "more characters]" in diff
    assert "hunter2" not in diff
    assert "of tracked" not in Shell(capsys)("show", run_id, "--db", str(tmp_path / "a.db"))


# Terminals and pipes.


@pytest.mark.parametrize("columns", ["40", "12"])
def test_a_dumb_terminal_of_few_columns_is_written_to_without_an_escape(
    columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", columns)
    db, data = with_runs(tmp_path / "a.db"), prices(tmp_path / "prices")
    with Tracker(db) as tracker:
        (one, *_) = tracker.get_runs()
    shell = Shell(capsys)
    for args in (
        ("runs",), ("show", one.run_id), ("compare", one.run_id, one.run_id),
        ("impact", "lr", "-m", "toto"), ("sweeps",), ("best",),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main([*args, "--db", str(db)])
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err
        assert ended.value.code in (0, None) or err.count("\n") == 1, err
    for told in (shell("data", "check", str(data)), shell("data", "show", str(data))):
        assert "\x1b" not in told
    width = int(columns)
    if width >= 40:
        assert max(map(len, shell("runs", "--db", str(db)).splitlines())) <= width


@pytest.mark.parametrize("args", [("runs", "--json"), ("runs",)])
def test_a_pipe_that_is_closed_early_is_no_error(args: tuple[str, ...], tmp_path: Path) -> None:
    db = with_runs(tmp_path / "a.db", 400)
    reader, writer = os.pipe()
    os.close(reader)  # whoever would read has left before the first word
    try:
        done = run(*args, "--db", str(db), cwd=tmp_path, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_sweep_whose_pipe_is_closed_comes_to_its_end(tmp_path: Path) -> None:
    data = prices(tmp_path / "prices")
    command = [sys.executable, "-m", "foresweep", "sweep", "-m", "drift", "--data", str(data), *HOW]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as head:
        assert head.stdout is not None
        assert head.stdout.readline()
        head.stdout.close()
        assert head.stderr is not None
        said = head.stderr.read()
    assert (head.returncode, said) == (0, "")
    with Tracker(tmp_path / "hyperparams" / "sweeps.db") as tracker:
        assert tracker.get_sweep().state == "complete"
        assert {r.state for r in tracker.get_runs()} == {"complete"}
