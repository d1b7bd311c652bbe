"""How soon do the pages stand with 10,000 and 100,000 runs, beside MLflow, Optuna and Trackio?

    python benchmarks/dashboard.py [--sizes 10000,100000] [--peers PYTHON] [--write]

Each run has 20 hyperparameters and 15 scores. Ours are made through the tracker in one sweep
(beyond 2,000 copied in SQL); the peers' are written into their own SQLite databases (begun by
their own calls, most rows in SQL, which takes minutes instead of hours) and served by their own
servers. A page counts as usable when the first row of its table of runs stands in a headless
Chromium. All servers run at once and are visited in turns, so that a busy machine is as busy for
each; each figure is the median of 20 fresh visits (5 for peers). Before each visit of ours but
one a note is written: what a page kept is of no use to it. The peers need newer web libraries
than the models allow: `--peers` names a Python of an environment with `mlflow`, `optuna-
dashboard` and `trackio`. What open pages cost a sweep is told in CPU time of the process that
logs, with 20 pages open and with none, in turns.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from foresweep.tracker.tracker import Tracker

VISITS = 20
MADE = 2_000
PARAMS, SCORES = 20, 15
HERE = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
ROWS = "#leaderboard tbody tr:not(.pinned)"
PATIENCE_MS = 120_000


def fill_ours(database: Path, size: int) -> None:
    """A sweep of so many runs of three models, 2 % of them failed, beside three baselines; beyond
    the first 2,000 they are copies of those, under ids and scores of their own."""
    make_ours(database, min(size, MADE))
    with sqlite3.connect(database) as db:
        tables = ("runs", "scores")
        last = {t: db.execute(f"SELECT max(rowid) FROM {t}").fetchone()[0] for t in tables}
        for copy in range(1, size // MADE):
            for table in last:
                names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
                own = {
                    "run_id": f"run_id || '_{copy}'",
                    "trial_number": f"trial_number + {copy * MADE}",
                    "value": "value + abs(random()) / 9.3e20",
                    "config_hash": f"config_hash || '_{copy}'",
                    "train_hash": f"train_hash || '_{copy}'",
                }
                chosen = ", ".join(own.get(n, n) for n in names)
                made = f"is_baseline = 0 AND rowid <= {last[table]}"
                db.execute(f"INSERT INTO {table} SELECT {chosen} FROM {table} WHERE {made}")


def make_ours(database: Path, size: int) -> None:
    """Through the tracker, one transaction a call."""
    chance = random.Random(0)
    cells = {"tune": "a", "val": "b"}
    with Tracker(database) as tracker:
        sweep = tracker.create_sweep(
            models=["toto", "kronos", "chronos2"], mode="random", objective="pct_mae", horizon=5,
            seed=0, panel_hash="p", task_hash="t", fingerprints=cells, plan={},
        )  # fmt: skip
        for number in range(size):
            name = ("last-value", "drift", "har")[number] if number < 3 else None
            run = tracker.start_run(
                model=name or ("toto", "kronos", "chronos2")[number % 3],
                hyperparams={f"param_{k}": chance.random() for k in range(PARAMS)},
                sweep_id=sweep.sweep_id,
                trial_number=number + 1,
                is_baseline=name is not None,
                fingerprints=cells,
                config_hash=str(number),
                train_hash=str(number),
                source="baseline" if name else "random",
            )
            is_bad = name is None and chance.random() < 0.02
            scores = {f"val_metric_{k}": chance.random() for k in range(SCORES - 3)}
            scores |= {f"{p}_pct_mae": chance.gauss(2.1, 0.02) for p in cells}
            scores["val_skill"] = 1 - scores["val_pct_mae"] / 2.1
            if is_bad:
                tracker.finish_run(run.run_id, "failed", error="ValueError: loss is nan")
            else:
                tracker.finish_run(run.run_id, "complete", scores=scores)
        tracker.finish_sweep(sweep.sweep_id, "complete")


FILL_MLFLOW = """
import random, sqlite3, sys, uuid, mlflow
folder, size = sys.argv[1], int(sys.argv[2])
mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
experiment = mlflow.create_experiment("sweep", artifact_location=f"{folder}/artifacts")
db, chance = sqlite3.connect(f"{folder}/mlflow.db"), random.Random(0)
for number in range(size):
    key = uuid.uuid4().hex
    db.execute("INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, "
               "user_id, status, start_time, end_time, source_version, lifecycle_stage, "
               "artifact_uri, experiment_id) VALUES (?,?,'LOCAL','','','u','FINISHED',?,?,'',"
               "'active',?,?)", (key, f"run-{number}", number, number + 1,
                                 f"{folder}/artifacts/{key}", int(experiment)))
    db.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?,?,?)",
                   [(f"param_{k}", str(chance.random()), key) for k in range(20)])
    tags = {"mlflow.runName": f"run-{number}", "mlflow.user": "u", "mlflow.source.type": "LOCAL"}
    db.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?,?,?)",
                   [(name, value, key) for name, value in tags.items()])
    scores = [(f"val_metric_{k}", chance.random(), number, 0, 0, key) for k in range(15)]
    for table in ("metrics", "latest_metrics"):
        db.executemany(f"INSERT INTO {table} (key, value, timestamp, step, is_nan, run_uuid) "
                       "VALUES (?,?,?,?,?,?)", scores)
db.commit()
print(experiment)
"""
FILL_OPTUNA = """
import random, sqlite3, sys, optuna
folder, size, made = sys.argv[1], int(sys.argv[2]), 100
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(storage=f"sqlite:///{folder}/optuna.db", study_name="sweep")
chance = random.Random(0)
flat = optuna.distributions.FloatDistribution(0, 1)
names = [f"param_{k}" for k in range(20)]
study.add_trials(optuna.trial.create_trial(
    params={n: chance.random() for n in names}, distributions=dict.fromkeys(names, flat),
    value=chance.random(), user_attrs={f"val_metric_{k}": chance.random() for k in range(14)})
    for _ in range(min(made, size)))
with sqlite3.connect(f"{folder}/optuna.db") as db:
    for copy in range(1, size // made):
        for table in ("trials", "trial_params", "trial_values", "trial_user_attributes"):
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            key = "trial_id" if table == "trials" else columns[0]
            own = {"trial_id": f"trial_id + {copy * made}", "number": f"number + {copy * made}"}
            kept = [c for c in columns if c != key or table == "trials"]
            chosen = ", ".join(own.get(c, c) for c in kept)
            db.execute(f"INSERT INTO {table} ({', '.join(kept)}) SELECT {chosen} FROM {table} "
                       f"WHERE trial_id <= {made}")
"""
FILL_TRACKIO = """
import json, os, random, sqlite3, sys
folder, size = sys.argv[1], int(sys.argv[2])
os.environ["TRACKIO_DIR"] = folder
from trackio.sqlite_storage import SQLiteStorage
chance = random.Random(0)
def scores():
    return {f"val_metric_{k}": chance.random() for k in range(15)}
def config():
    return {f"param_{k}": chance.random() for k in range(20)}
SQLiteStorage.bulk_log(project="sweep", run="run-0", metrics_list=[scores()], steps=[0],
                       config=config())
with sqlite3.connect(f"{folder}/sweep.db") as db:
    at = db.execute("SELECT timestamp FROM metrics").fetchone()[0]
    ids = [(f"id-{n}", f"run-{n}") for n in range(1, size)]
    db.executemany("INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) "
                   "VALUES (?, ?, ?, 0, ?)", [(i, at, n, json.dumps(scores())) for i, n in ids])
    db.executemany("INSERT INTO configs (run_id, run_name, config, created_at) "
                   "VALUES (?, ?, ?, ?)", [(i, n, json.dumps(config()), at) for i, n in ids])
"""


@contextmanager
def served(command: list[str], address: str, **more: str) -> Iterator[None]:
    """A server until the block ends, its first answer waited for; `more`: of its environment."""
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=quiet, stderr=quiet, env={**os.environ, **more})
    try:
        until = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(address, timeout=60).read()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if server.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.3)
        yield
    finally:
        server.terminate()
        server.wait(30)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class Side:
    """A page to visit: where, what stands when it can be used, what is done before each visit."""

    name: str
    address: str
    row: str
    visits: int = VISITS
    before: Callable[[], object] = lambda: None


def in_turns(sides: Sequence[Side]) -> dict[str, tuple[float, float]]:
    """By side: medians of ms to the first byte and ms until the first row stands; infinite where
    none did within two minutes."""
    from playwright.sync_api import TimeoutError as TooLong
    from playwright.sync_api import sync_playwright

    first: dict[str, list[float]] = {s.name: [] for s in sides}
    usable: dict[str, list[float]] = {s.name: [] for s in sides}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for turn in range(VISITS):
            for side in (s for s in sides if turn < s.visits):
                side.before()
                page = browser.new_page()
                started = time.perf_counter()
                try:
                    page.goto(side.address, wait_until="commit", timeout=PATIENCE_MS)
                    page.wait_for_selector(side.row, timeout=PATIENCE_MS)
                    usable[side.name].append(1000 * (time.perf_counter() - started))
                except TooLong:
                    usable[side.name].append(float("inf"))
                timing = "performance.getEntriesByType('navigation')[0].responseStart"
                first[side.name].append(float(page.evaluate(timing)))
                page.close()
        browser.close()
    return {s.name: (median(first[s.name]), median(usable[s.name])) for s in sides}


@contextmanager
def our_sides(folder: Path) -> Iterator[list[Side]]:
    port, database = free_port(), folder / "ours.db"
    command = [sys.executable, "-m", "foresweep", "dashboard", "--port", str(port)]
    command += ["--db", str(database), "--runs", str(folder / "runs")]
    base = f"http://127.0.0.1:{port}"
    sweep = f"{base}/sweep/latest"
    with Tracker(database) as tracker:
        run_id = tracker.get_runs(limit=1)[0].run_id

        def write_a_note() -> None:
            tracker.add_note(run_id, "a change")

        with served(command, sweep):
            yield [
                Side("foresweep, the leaderboard", sweep, ROWS, before=write_a_note),
                Side("foresweep, the same where nothing changed", sweep, ROWS),
                Side("foresweep, its page 20", f"{sweep}?page=20", ROWS, before=write_a_note),
                Side(
                    "foresweep, the overview", f"{base}/", "#sweeps tbody tr", before=write_a_note
                ),
            ]


@contextmanager
def peer_sides(folder: Path, size: int, python: str | None) -> Iterator[list[Side]]:
    """The servers of those peers that are installed beside `python`."""
    with ExitStack() as stack:
        found: list[Side] = []
        bin_ = Path(python).parent if python else Path("/nowhere")
        asked = [str(folder), str(size)]
        if (bin_ / "mlflow").exists():
            code = textwrap.dedent(FILL_MLFLOW)
            said = subprocess.run(
                [str(python), "-c", code, *asked], check=True, capture_output=True, text=True
            )
            experiment, port = said.stdout.split()[-1], free_port()
            command = [str(bin_ / "mlflow"), "server", "--port", str(port), "--workers", "1"]
            command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
            base = f"http://127.0.0.1:{port}"
            stack.enter_context(served(command, base))
            row = f"a[href*='/experiments/{experiment}/runs/']"
            found.append(Side("MLflow", f"{base}/#/experiments/{experiment}/runs", row, 5))
        if (bin_ / "optuna-dashboard").exists():
            code = textwrap.dedent(FILL_OPTUNA)
            subprocess.run([str(python), "-c", code, *asked], check=True)
            port = free_port()
            command = [str(bin_ / "optuna-dashboard"), f"sqlite:///{folder}/optuna.db"]
            base = f"http://127.0.0.1:{port}"
            stack.enter_context(served([*command, "--port", str(port)], base))
            trials = f"{base}/dashboard/studies/1/trials"
            found.append(Side("optuna-dashboard", trials, "text=/^Trial [0-9]+/", 5))
        if (bin_ / "trackio").exists():
            code = textwrap.dedent(FILL_TRACKIO)
            subprocess.run([str(python), "-c", code, *asked], check=True)
            port = free_port()
            command = [str(bin_ / "trackio"), "show", "--project", "sweep"]
            base = f"http://127.0.0.1:{port}"
            place = {"TRACKIO_DIR": str(folder), "GRADIO_SERVER_PORT": str(port)}
            stack.enter_context(served(command, base, **place))
            found.append(Side("Trackio", f"{base}/runs?project=sweep", "table tbody tr", 5))
        yield found


ROUNDS, STEPS = 7, 1000
LOGS = """
import sys, time
from foresweep.tracker.tracker import Tracker
with Tracker(sys.argv[1]) as tracker:
    run = tracker.start_run(model="toto", hyperparams={})
    tracker.log(run.run_id, 0, {"train_loss": 1.0})
    began, clock = time.process_time(), time.monotonic()
    for step in range(1, int(sys.argv[2]) + 1):
        tracker.log(run.run_id, step, {"train_loss": 1.0 / step})
        time.sleep(0.003)
    print(time.process_time() - began, time.monotonic() - clock)
    tracker.finish_run(run.run_id, "complete")
"""


def cost_of_watching(folder: Path, rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Of a process that logs STEPS steps, medians over rounds in turns: its CPU seconds with no
    page open, with 20, and the median of the differences as a share of the time it takes."""
    database = folder / "watched.db"
    Tracker(database).close()

    def log() -> tuple[float, float]:
        command = [sys.executable, "-c", LOGS, str(database), str(STEPS)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        spent, took = done.stdout.split()
        return float(spent), float(took)

    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "foresweep", "dashboard", "--port", str(port)]
    alone, watched, shares = [], [], []
    with served([*command, "--db", str(database)], base):
        for _ in range(rounds):
            alone.append(log()[0])
            done = threading.Event()
            pages = [threading.Thread(target=_watch, args=(base, done)) for _ in range(20)]
            for page in pages:
                page.start()
            spent, took = log()
            done.set()
            for page in pages:
                page.join()
            watched.append(spent)
            shares.append((spent - alone[-1]) / took)
    return median(alone), median(watched), median(shares)


def _watch(base: str, done: threading.Event) -> None:
    """What an open page does: listen, and ask for the page again when something changed."""
    with urllib.request.urlopen(f"{base}/events", timeout=60) as events:
        while not done.is_set():
            if events.readline().startswith(b"event: changed"):
                urllib.request.urlopen(base, timeout=60).read()


def lines(sizes: list[int], python: str | None) -> Iterator[str]:
    yield "| page | runs | first byte | usable |"
    yield "|---|---:|---:|---:|"
    ratios = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fill_ours(folder / "ours.db", size)
            with our_sides(folder) as ours, peer_sides(folder, size, python) as peers:
                found = in_turns([*ours, *peers])
            for side, (first, usable) in found.items():
                stood = f"{usable:.0f} ms" if usable < PATIENCE_MS else "not in 120 s"
                yield f"| {side} | {size:,} | {first:.0f} ms | {stood} |"
            if peers:
                best = min(found[p.name][1] for p in peers)
                ratio = best / found[ours[0].name][1]
                ratios.append(f"{ratio:.1f} x ahead of the best peer at {size:,} runs")
    with tempfile.TemporaryDirectory() as name:
        alone, watched, share = cost_of_watching(Path(name))
    yield ""
    if ratios:
        yield f"The leaderboard is usable {', '.join(ratios)}."
    yield (
        f"A process that logs {STEPS:,} steps needs {alone:.2f} CPU seconds, and {watched:.2f} "
        f"with 20 pages open on it: {100 * share:+.1f} % of a core."
    )


def write(text: str) -> None:
    """The table between its marks in README.md."""
    page = HERE / "README.md"
    start, end = "<!-- dashboard -->\n", "\n<!-- /dashboard -->"
    where = f"Python {platform.python_version()}, {os.cpu_count()} cores, "
    where += f"load {os.getloadavg()[1]:.1f} at the end."
    before, _, rest = page.read_text().partition(start)
    page.write_text(f"{before}{start}\n{text}\n\n{where}\n{end}{rest.partition(end)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--peers", help="a Python with mlflow, optuna-dashboard and trackio")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    said = parser.parse_args()
    found = []
    for line in lines([int(s) for s in said.sizes.split(",")], said.peers):
        found.append(line)
        print(line, flush=True)
    if said.write:
        write("\n".join(found))


if __name__ == "__main__":
    main()
