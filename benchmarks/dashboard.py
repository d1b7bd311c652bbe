"""How soon do the pages stand with 10,000 and 100,000 runs, beside MLflow's and Optuna's pages?

    python benchmarks/dashboard.py [--sizes 10000,100000] [--peers PYTHON] [--write]

Each run has 20 hyperparameters and 15 scores. Ours are made through the tracker in one sweep
(beyond 2,000 copied in SQL); the peers' are written into their own SQLite databases (MLflow's
tables directly, which takes minutes instead of an hour) and served by their own servers. A page
counts as usable when the first row of its table of runs stands in a headless Chromium; each figure
is the median of 20 fresh visits (5 for peers). The peers need newer web libraries than the models
allow: `--peers` names a Python of an environment with `mlflow` and `optuna-dashboard`. What open
pages cost a sweep is told in CPU seconds of the process that logs, with 20 pages open and with
none.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from foresweep.tracker.tracker import Tracker

VISITS = 20
MADE = 2_000
PARAMS, SCORES = 20, 15
HERE = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
ROWS = "#leaderboard tbody tr:not(.pinned)"


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
import random, sys, optuna
from datetime import datetime
folder, size = sys.argv[1], int(sys.argv[2])
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(storage=f"sqlite:///{folder}/optuna.db", study_name="sweep")
chance = random.Random(0)
flat = optuna.distributions.FloatDistribution(0, 1)
names = [f"param_{k}" for k in range(20)]
study.add_trials(optuna.trial.create_trial(
    params={n: chance.random() for n in names}, distributions=dict.fromkeys(names, flat),
    value=chance.random(), user_attrs={f"val_metric_{k}": chance.random() for k in range(14)})
    for _ in range(size))
"""


@contextmanager
def served(command: list[str], address: str) -> Iterator[None]:
    """A server until the block ends, its first answer waited for."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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


def visits(address: str, row: str, num: int = VISITS) -> tuple[float, float]:
    """Medians over fresh visits: ms to the first byte, ms until the first row stands."""
    from playwright.sync_api import sync_playwright

    first, usable = [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(num):
            page = browser.new_page()
            started = time.perf_counter()
            page.goto(address, wait_until="commit")
            page.wait_for_selector(row, timeout=120_000)
            usable.append(1000 * (time.perf_counter() - started))
            timing = "performance.getEntriesByType('navigation')[0].responseStart"
            first.append(float(page.evaluate(timing)))
            page.close()
        browser.close()
    return median(first), median(usable)


def our_pages(folder: Path, size: int) -> Iterator[tuple[str, float, float]]:
    port = free_port()
    command = [sys.executable, "-m", "foresweep", "dashboard", "--port", str(port)]
    command += ["--db", str(folder / "ours.db"), "--runs", str(folder / "runs")]
    base = f"http://127.0.0.1:{port}"
    sweep = f"{base}/sweep/latest"
    with served(command, sweep):
        yield "the leaderboard", *visits(sweep, ROWS)
        yield "its page 20", *visits(f"{sweep}?page=20", ROWS)
        yield "the overview", *visits(f"{base}/", "#sweeps tbody tr")


def peer_pages(folder: Path, size: int, python: str) -> Iterator[tuple[str, float, float]]:
    bin_ = Path(python).parent
    asked = [str(folder), str(size)]
    if (bin_ / "mlflow").exists():
        code = textwrap.dedent(FILL_MLFLOW)
        said = subprocess.run(
            [python, "-c", code, *asked], check=True, capture_output=True, text=True
        )
        experiment, port = said.stdout.split()[-1], free_port()
        command = [str(bin_ / "mlflow"), "server", "--port", str(port)]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
        base = f"http://127.0.0.1:{port}"
        with served(command, base):
            row = f"a[href*='/experiments/{experiment}/runs/']"
            yield "MLflow", *visits(f"{base}/#/experiments/{experiment}/runs", row, 5)
    if (bin_ / "optuna-dashboard").exists():
        subprocess.run([python, "-c", textwrap.dedent(FILL_OPTUNA), *asked], check=True)
        port = free_port()
        command = [str(bin_ / "optuna-dashboard"), f"sqlite:///{folder}/optuna.db"]
        base = f"http://127.0.0.1:{port}"
        with served([*command, "--port", str(port)], base):
            table = f"{base}/dashboard/studies/1/trialTable"
            yield "optuna-dashboard", *visits(table, "table tbody tr", 5)


def cost_of_watching(folder: Path) -> tuple[float, float]:
    """CPU seconds that the process which logs 2,000 steps needs: with no page open, with 20."""
    code = textwrap.dedent(
        """
        import sys, time
        from foresweep.tracker.tracker import Tracker
        with Tracker(sys.argv[1]) as tracker:
            run = tracker.start_run(model="toto", hyperparams={})
            tracker.log(run.run_id, 0, {"train_loss": 1.0})
            began = time.process_time()
            for step in range(1, 2001):
                tracker.log(run.run_id, step, {"train_loss": 1.0 / step})
                time.sleep(0.003)
            print(time.process_time() - began)
        """
    )
    database = folder / "watched.db"
    Tracker(database).close()

    def log() -> float:
        done = subprocess.run(
            [sys.executable, "-c", code, str(database)], check=True, capture_output=True, text=True
        )
        return float(done.stdout)

    alone = [log() for _ in range(3)]
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "foresweep", "dashboard", "--port", str(port)]
    with served([*command, "--db", str(database)], base):
        done = threading.Event()
        pages = [threading.Thread(target=_watch, args=(base, done)) for _ in range(20)]
        for page in pages:
            page.start()
        watched = [log() for _ in range(3)]
        done.set()
        for page in pages:
            page.join()
    return median(alone), median(watched)


def _watch(base: str, done: threading.Event) -> None:
    """What an open page does: listen, and ask for the page again when something changed."""
    with urllib.request.urlopen(f"{base}/events", timeout=60) as events:
        while not done.is_set():
            if events.readline().startswith(b"event: changed"):
                urllib.request.urlopen(base, timeout=60).read()


def lines(sizes: list[int], python: str | None) -> Iterator[str]:
    yield "| page | runs | first byte | usable |"
    yield "|---|---:|---:|---:|"
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fill_ours(folder / "ours.db", size)
            for what, first, usable in our_pages(folder, size):
                yield f"| foresweep, {what} | {size:,} | {first:.0f} ms | {usable:.0f} ms |"
            asked = python if size == min(sizes) else None  # Optuna takes minutes for 10,000
            for what, first, usable in peer_pages(folder, size, asked) if asked else ():
                yield f"| {what} | {size:,} | {first:.0f} ms | {usable:.0f} ms |"
    with tempfile.TemporaryDirectory() as name:
        alone, watched = cost_of_watching(Path(name))
    yield ""
    yield (
        f"A process that logs 2,000 steps needs {alone:.2f} CPU seconds, and {watched:.2f} with 20 "
        f"pages open on it."
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
    parser.add_argument("--peers", help="a Python with mlflow and optuna-dashboard")
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
