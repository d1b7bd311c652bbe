"""How fast is the tracker beside the database itself, MLflow, Optuna's RDB storage and trackio?

    python benchmarks/tracker.py [--write] [--no-large] [--no-peers]

Every figure is the median of five, all in one run of this file on one machine. A peer that is not
installed (pip install 'foresweep[bench]') is left out; PostgreSQL too, where there is no server.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import multiprocessing
import os
import platform
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for the PostgreSQL server

from foresweep.tracker.storage.sqlite import LOG_PAGES
from foresweep.tracker.tracker import Tracker
from foresweep.tracker.writing import runs as creation
from foresweep.tracker.writing import steps
from foresweep.tracker.writing.runs import NewRun

REPEATS = 5
PARAMS = {f"param_{n}": n * 0.5 for n in range(20)}
SCORES = {f"val_metric_{n}": float(n) for n in range(14)} | {"val_pct_mae": 1.0}
NAMES = [f"metric_{n}" for n in range(50)]
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    what: str
    ours: float
    unit: str
    target: str
    beside: str = ""  # floor and peers


def timed(do: Callable[[], Any]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def rate(num: int, do: Callable[[], Any]) -> float:
    """Median of `num` things a second."""
    return median(num / timed(do) for _ in range(REPEATS))


def latency_ms(do: Callable[[], Any]) -> float:
    do()
    return median(1000 * timed(do) for _ in range(REPEATS))


def values() -> dict[str, float]:
    return {name: random.random() for name in NAMES}


class Raw:
    """The floor: the same tables and durability, nothing but sqlite3."""

    def __init__(self, folder: Path) -> None:
        Tracker(folder / "raw.db").close()
        self.db = sqlite3.connect(folder / "raw.db", isolation_level=None)
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
        self.row, self.scores = raw_rows()
        self.step = self.number = 0

    def log(self, numbers: dict[str, float]) -> None:
        self.step += 1
        step, now, db = self.step, time.time(), self.db
        db.execute("BEGIN IMMEDIATE")
        db.executemany(steps._POINT, [("r", n, step, v, now) for n, v in numbers.items()])
        curves = [("r", n, step, v, v, step, v, step) for n, v in numbers.items()]
        db.executemany(steps._CURVE, curves)
        db.execute("COMMIT")

    def create(self) -> None:
        self.number += 1
        key = f"raw-{self.number:08d}-{os.getpid()}"
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute(creation._INSERT_RUN, (key, *self.row[1:]))
        self.db.executemany(creation._INSERT_SCORE, [(key, *s[1:]) for s in self.scores])
        self.db.execute("COMMIT")


def raw_rows() -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    """A run's row and its scores' rows, as the tracker stores them."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "x.db"
        with Tracker(place) as tracker:
            tracker.log_run("toto", PARAMS, SCORES)
        with sqlite3.connect(place) as db:
            db.execute("PRAGMA foreign_keys=OFF")
            row = db.execute(f"SELECT {', '.join(creation._RUN_COLUMNS)} FROM runs").fetchone()
            scores = db.execute("SELECT * FROM scores").fetchall()
        db.close()
    at = creation._RUN_COLUMNS.index("environment_id")
    return (*row[:at], None, *row[at + 1 :]), scores


def logging_lines(tracker: Tracker, raw: Raw | None, kind: str) -> Iterator[Line]:
    run = tracker.start_run(model="toto", hyperparams=PARAMS).run_id
    counter = iter(range(10**9))
    num = 200

    def log_steps() -> None:
        for _ in range(num):
            tracker.log(run, next(counter), values())

    def raw_steps() -> None:
        for _ in range(num):
            raw.log(values())  # type: ignore[union-attr]

    ours = rate(50 * num, log_steps)
    if raw is None:
        yield Line(f"steps of 50 metrics, {kind}", ours, "points/s", "")
    else:
        floor = rate(50 * num, raw_steps)
        share = f"raw sqlite3 {floor:,.0f}: ours is {ours / floor:.2f} of it"
        yield Line(f"steps of 50 metrics, {kind}", ours, "points/s", ">= 0.7 of raw", share)
    single = tracker.start_run(model="toto", hyperparams=PARAMS).run_id

    def log_points() -> None:
        for _ in range(1000):
            tracker.log(single, next(counter), {"loss": 0.5})

    target = "" if raw is None else ">= 10,000"
    yield Line(f"single points, {kind}", rate(1000, log_points), "points/s", target)
    with tracker.buffered(single) as buffer:

        def log_buffered() -> None:
            for _ in range(num):
                buffer.log(next(counter), values())
            buffer.flush()

        said = f"loses up to {buffer.loss_window_s:g} s on a kill"
        yield Line(
            f"the same, buffered, {kind}", rate(50 * num, log_buffered), "points/s", "", said
        )


def creation_lines(
    tracker: Tracker, raw: Raw | None, kind: str, floor: float = 0.0
) -> Iterator[Line]:
    """`floor`: what the driver alone does, where there is no `raw`."""

    def create() -> None:
        for _ in range(200):
            tracker.log_run("toto", PARAMS, SCORES)

    def raw_create() -> None:
        for _ in range(200):
            raw.create()  # type: ignore[union-attr]

    ours = rate(200, create)
    target, beside = ">= 400", f"raw psycopg {floor:,.0f}"
    if raw is not None:
        target, beside = ">= 1,000", f"raw sqlite3 {rate(200, raw_create):,.0f}"
    yield Line(f"runs of 20 params and 15 scores, {kind}", ours, "runs/s", target, beside)
    many = [NewRun("toto", PARAMS, SCORES) for _ in range(1000)]
    bulk = rate(1000, lambda: tracker.log_runs(many))
    yield Line(f"the same by `log_runs`, {kind}", bulk, "runs/s", "")


def query_lines(place: str, num_runs: int, kind: str) -> Iterator[Line]:
    """`num_runs` of a common model and ten of a rare one, filled through the tracker."""
    chance = random.Random(0)
    with Tracker(place) as tracker:
        names = ["common"] * num_runs + ["rare"] * 10
        tracker.log_runs(
            NewRun(name, PARAMS, SCORES | {"val_pct_mae": chance.random()}, "somewhere")
            for name in names
        )
        at = f"of {num_runs:,} runs, {kind}"
        for name in ("common", "rare"):
            ours = latency_ms(lambda name=name: tracker.get_best_model("val_pct_mae", name))
            yield Line(f"best of a {name} model {at}", ours, "ms", "<= 2")
        ours = latency_ms(lambda: tracker.get_top_k_models(10, "val_pct_mae"))
        yield Line(f"top 10 {at}", ours, "ms", "<= 3")
        seconds = latency_ms(lambda: tracker.compare_models(["val_pct_mae"])) / 1000
        target = "<= 0.5" if num_runs == 10_000 else "<= 6"
        yield Line(f"a table {at}", seconds, "s", target)
    opening = median(1000 * timed(lambda: Tracker(place).close()) for _ in range(REPEATS))
    yield Line(f"opening, {num_runs:,} runs, {kind}", opening, "ms", "<= 30")


def crowd_task(kind: str, place: str, together: Any, num: int) -> None:
    if kind == "raw":
        raw_postgres(place, together, num)
        return
    with Tracker(place) as tracker:
        tracker.log_run("toto", PARAMS, SCORES)
        together.wait()
        for _ in range(num):
            tracker.log_run("toto", PARAMS, SCORES)
    together.wait()


def raw_postgres(place: str, together: Any, num: int) -> None:
    import psycopg

    row, scores = raw_rows()
    truths = [creation._RUN_COLUMNS.index("is_baseline")]
    row = tuple(bool(v) if n in truths else v for n, v in enumerate(row))
    scores = [(*s[:6], bool(s[6]), bool(s[7]), *s[8:]) for s in scores]
    run_sql = creation._INSERT_RUN.replace("?", "%s")
    score_sql = creation._INSERT_SCORE.replace("?", "%s")
    with psycopg.connect(place) as db:
        together.wait()
        for number in range(num):
            key = f"raw-{time.time_ns()}-{number}-{os.getpid()}"
            with db.transaction():
                db.execute(run_sql, (key, *row[1:]))
                db.cursor().executemany(score_sql, [(key, *s[1:]) for s in scores])
    together.wait()


def crowd_rate(kind: str, place: str, num: int) -> float:
    """Runs a second of four processes together."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(5)
    crowd = [
        context.Process(target=crowd_task, args=(kind, place, together, num)) for _ in range(4)
    ]
    for process in crowd:
        process.start()
    together.wait()
    seconds = timed(together.wait)
    for process in crowd:
        process.join()
        assert process.exitcode == 0, "a writer failed"
    return 4 * num / seconds


def crowd_lines(place: str, kind: str) -> Iterator[Line]:
    Tracker(place).close()
    num = 250
    ours = median(crowd_rate("ours", place, num) for _ in range(REPEATS))
    with Tracker(place) as tracker:
        assert len(tracker.get_runs()) == REPEATS * 4 * (num + 1), "a run was lost"
    if kind == "SQLite":
        yield Line("4 processes, SQLite", ours, "runs/s", ">= 1,000", "none lost, no lock error")
        return
    floor = median(crowd_rate("raw", place, num) for _ in range(REPEATS))
    share = f"raw psycopg {floor:,.0f}: ours is {ours / floor:.2f} of it"
    yield Line("4 processes, PostgreSQL", ours, "runs/s", ">= 0.6 of raw", share)


def mlflow_lines(folder: Path) -> Iterator[Line]:
    import mlflow
    from mlflow.entities import Metric, Param

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("bench")
    run = client.create_run(experiment).info.run_id
    counter = iter(range(10**9))

    def log_steps() -> None:
        for _ in range(20):
            step = next(counter)
            found = [Metric(n, v, 0, step) for n, v in values().items()]
            client.log_batch(run, metrics=found)

    def create() -> None:
        for _ in range(10):
            new = client.create_run(experiment).info.run_id
            params = [Param(n, str(v)) for n, v in PARAMS.items()]
            client.log_batch(new, [Metric(n, v, 0, 0) for n, v in SCORES.items()], params)
            client.set_terminated(new)

    yield Line("MLflow: steps of 50 metrics", rate(1000, log_steps), "points/s", "")
    yield Line("MLflow: runs", rate(10, create), "runs/s", "")
    order = ["metrics.val_pct_mae ASC"]
    best = latency_ms(lambda: client.search_runs([experiment], "", max_results=1, order_by=order))
    yield Line("MLflow: best of 51 runs", best, "ms", "")


def optuna_lines(folder: Path) -> Iterator[Line]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/optuna.db", sampler=optuna.samplers.RandomSampler(seed=0)
    )

    def create() -> None:
        for _ in range(5):
            trial = study.ask()
            for name in PARAMS:
                trial.suggest_float(name, 0.0, 1.0)
            for name, value in SCORES.items():
                trial.set_user_attr(name, value)
            study.tell(trial, 1.0)

    yield Line("Optuna RDB: trials of 20 params, 15 attributes", rate(5, create), "runs/s", "")


def trackio_lines(folder: Path) -> Iterator[Line]:
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")
    try:
        import trackio
    except ImportError as error:  # it asks for packages of a certain age
        yield Line(f"trackio could not be imported ({error})", math.nan, "", "")
        return

    def log_steps() -> None:
        run = trackio.init(project="bench", name=f"r{random.random()}", config=PARAMS)
        for _ in range(200):
            run.log(values())
        run.finish()

    said = "loses up to 0.5 s on a kill; opening and finishing the run included"
    yield Line("trackio: steps of 50 metrics", rate(10_000, log_steps), "points/s", "", said)


PEERS = {"mlflow": mlflow_lines, "optuna": optuna_lines, "trackio": trackio_lines}


@contextmanager
def postgres_server() -> Iterator[Any]:
    """A server with its own settings (synchronous_commit and fsync on), None where none is."""
    if importlib.util.find_spec("psycopg") is None:
        yield None
        return
    import postgres

    if postgres.binaries() is None:
        yield None
        return
    with postgres.running([]) as server:
        yield server


def all_lines(*, large: bool, peers: bool) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as name, postgres_server() as server:
        folder = Path(name)
        raw = Raw(folder)
        with Tracker(folder / "ours.db") as tracker:
            yield from logging_lines(tracker, raw, "SQLite")
            yield from creation_lines(tracker, raw, "SQLite")
        sizes = (10_000, 100_000) if large else (10_000,)
        for size in sizes:
            yield from query_lines(str(folder / f"{size}.db"), size, "SQLite")
        yield from crowd_lines(str(folder / "crowd.db"), "SQLite")
        if server is not None:
            yield from postgres_lines(server, sizes)
        for peer in PEERS if peers else ():
            if importlib.util.find_spec(peer) is not None:
                yield from PEERS[peer](folder)


def postgres_lines(server: Any, sizes: tuple[int, ...]) -> Iterator[Line]:
    for database in ("ours", "crowd", *(f"q{size}" for size in sizes)):
        server.execute(f"CREATE DATABASE {database}")
    with Tracker(server.url("ours")) as tracker:
        yield from logging_lines(tracker, None, "PostgreSQL")
        alone = threading.Barrier(1)
        floor = rate(200, lambda: raw_postgres(server.url("ours"), alone, 200))
        yield from creation_lines(tracker, None, "PostgreSQL", floor)
    for size in sizes:
        yield from query_lines(server.url(f"q{size}"), size, "PostgreSQL")
    yield from crowd_lines(server.url("crowd"), "PostgreSQL")


def shown(line: Line) -> str:
    number = f"{line.ours:,.0f}" if line.ours >= 100 else f"{line.ours:.3g}"
    return f"| {line.what} | {number} {line.unit} | {line.target} | {line.beside} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--no-large", action="store_true", help="leave out 100,000 runs")
    parser.add_argument("--no-peers", action="store_true", help="leave out the peers")
    said = parser.parse_args()
    table = ["| what | measured | target | beside it |", "|---|---|---|---|"]
    print("\n".join(table), flush=True)
    for line in all_lines(large=not said.no_large, peers=not said.no_peers):
        table.append(shown(line))
        print(table[-1], flush=True)
    if said.write:
        write("\n".join(table))


def write(table: str) -> None:
    """The table between its marks in README.md."""
    page = HERE / "README.md"
    start, end = "<!-- tracker -->\n", "\n<!-- /tracker -->"
    where = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
    where += f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.1f} at the end."
    before, _, rest = page.read_text().partition(start)
    page.write_text(f"{before}{start}\n{table}\n\n{where}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
