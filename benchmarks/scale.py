"""Where a sweep bends: 1,000 workers that report, 100,000 trials, one head, 2,000 names.

    python benchmarks/scale.py [--only reports,trials,memory,worker] [--workers 1000] [--seconds 20]
                               [--trials 100000] [--names 2000 --bars 2500]

reports   A head polls the pipes of so many simulated workers, each of which reports a step of 50
          metrics a second through the channel that trials report by, and logs every one as a
          sweep's head does, into SQLite and into PostgreSQL (fsync off, as in the tests, and its
          defaults). Lag is from the worker's send to the commit.
trials    A sweep of so many trials, runs and scores, copied in SQL from one that went through the
          tracker; then one trial more is claimed, begun, closed, and all are ranked. Proposing is
          timed on as many told trials as `--told` says.
memory    What a head's process grows by over 500 trials: claimed, begun, one scoring, closed, told.
worker    The peak of a process that loads a panel of `--names` times `--bars` bars and trains and
          scores a tiny Toto of a few steps on a sample of it, as a worker does.

CPU seconds stand beside the clock: on a machine that others use, only those say something.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for the PostgreSQL server

import numpy as np
import psutil
from overhead import _on_record

from foresweep.search.engines.base import PipeChannel, Progress
from foresweep.search.propose.modes import load_space
from foresweep.search.propose.tpe import Told, TpeSampler, told_of
from foresweep.tracker.tracker import Tracker

NAMES = [f"metric_{n}" for n in range(49)]
SENT = "sent_at"  # the 50th metric
SENDERS = 4
PARTS = ("reports", "trials", "memory", "worker")
SWEEP: dict[str, Any] = {
    "models": ["chronos2"], "mode": "smart", "objective": "pinball", "horizon": 5, "seed": 0,
    "panel_hash": "p", "task_hash": "t", "fingerprints": {"tune": "a", "val": "b"}, "plan": {},
}  # fmt: skip


def report_for(pipes: Sequence[Connection], seconds: float) -> None:
    """The life of a process that plays some workers: each reports once a second."""
    channels = [PipeChannel(pipe) for pipe in pipes]
    scores = dict.fromkeys(NAMES, 0.5)
    started, step = time.time(), 0
    while step < seconds:
        step += 1
        for n, channel in enumerate(channels):
            due = started + step - 1 + n / len(channels)  # spread over the second
            if (early := due - time.time()) > 0:
                time.sleep(early)
            channel.send(Progress(step, {**scores, SENT: time.time()}))
    for channel in channels:
        channel.send(Progress(-1, {}))


def reports(place: str, workers: int, seconds: float) -> str:
    """A line: points a second that were kept, lag, the head's CPU."""
    context = multiprocessing.get_context("fork")
    pairs = [context.Pipe(duplex=False) for _ in range(workers)]
    with Tracker(place) as tracker:
        sweep = tracker.create_sweep(**SWEEP)
        runs = {}
        for heard, _ in pairs:
            run = tracker.start_run(model="toto", hyperparams={}, sweep_id=sweep.sweep_id)
            runs[heard] = run.run_id
        senders = [
            context.Process(
                target=report_for, args=([told for _, told in pairs[k::SENDERS]], seconds)
            )
            for k in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        lags, open_pipes = [], set(runs)
        started, cpu = time.time(), time.process_time()
        while open_pipes:
            for pipe in wait(list(open_pipes)):
                message = pipe.recv()  # type: ignore[union-attr]
                if message.step < 0:
                    open_pipes.discard(pipe)  # type: ignore[arg-type]
                    continue
                tracker.log(runs[pipe], message.step, message.scores)  # type: ignore[index]
                lags.append(time.time() - message.scores[SENT])
        took, cpu = time.time() - started, time.process_time() - cpu
        for sender in senders:
            sender.join()
    half, most = 1000 * np.quantile(lags, [0.5, 0.99])
    points = len(lags) * (len(NAMES) + 1)
    return (
        f"{points / took:,.0f} of {workers * 50:,} points/s, lag p50 {half:,.0f} ms, p99 "
        f"{most:,.0f} ms, the head's CPU {100 * cpu / took:.0f} % of a core, "
        f"{1000 * cpu / len(lags):.2f} ms a report: {points / cpu:,.0f} points a CPU second"
    )


def places(folder: Path) -> Iterator[tuple[str, str]]:
    """Databases to report into, by name."""
    yield "SQLite", str(folder / "sweeps.db")
    import postgres

    if postgres.binaries() is None:
        print("PostgreSQL is not installed: left out")
        return
    for name, settings in (("PostgreSQL, fsync off", None), ("PostgreSQL, its defaults", [])):
        with postgres.running(settings) as server:
            server.execute("CREATE DATABASE ours")
            yield name, server.url("ours")


def ms(do: Any, times: int = 5) -> str:
    """Median of the clock and of CPU, in ms."""
    found = []
    for _ in range(times):
        clock, cpu = time.perf_counter(), time.process_time()
        do()
        found.append((time.perf_counter() - clock, time.process_time() - cpu))
    wall, spent = 1000 * np.median(found, axis=0)
    return f"{wall:,.1f} ms ({spent:,.1f} of CPU)"


def trials(folder: Path, count: int, told: Sequence[int]) -> list[str]:
    """Lines: what the next trial costs in a sweep that has so many."""
    file, space = folder / "many.db", load_space("chronos2", "scratch").space
    tpe = TpeSampler("chronos2", space, objectives=("pinball",), base={}, seed=0)
    with Tracker(file) as tracker:
        sweep = tracker.create_sweep(**SWEEP).sweep_id
        proposal = tpe.ask(1)
        assert proposal is not None
        run = _on_record(tracker, sweep, proposal)
    copied(file, count)
    lines, number = [f"{count:,} trials, runs and their scores in one sweep:"], iter(range(10**9))
    with Tracker(file) as tracker:

        def claim() -> Any:
            name = f"new{next(number)}"
            return tracker.heads.claim_trial(
                sweep, model="chronos2", config={"lr": 1e-3}, source="smart",
                config_hash=name, train_hash=name,
            )  # fmt: skip

        def whole() -> None:
            trial = claim()
            begun = tracker.start_run(
                model="chronos2", hyperparams={"lr": 1e-3}, sweep_id=sweep,
                trial_number=trial.number, seed=0, config_hash=trial.config_hash,
                train_hash=trial.train_hash, fingerprints={"tune": "a", "val": "b"},
            )  # fmt: skip
            tracker.finish_run(begun.run_id, "complete", scores={"val_pinball": 0.5})

        lines.append(f"- to claim the next: {ms(claim)}")
        lines.append(f"- to claim, begin and close it: {ms(whole)}")
        lines.append(f"- a head's pulse: {ms(lambda: tracker.heads.pulse(sweep))}")
        top = ms(lambda: tracker.get_top_k_models(10, metric="val_metric_1", minimize=True))
        lines.append(f"- the ten best of all: {top}")
        lines.append(f"- every trial of it, as a head that resumes reads them: "
                     f"{ms(lambda: tracker.get_trials(sweep), 1)}")  # fmt: skip
        rng, seen = np.random.default_rng(0), 0
        example = told_of(run, tracker, ("pinball",), sweep_id=sweep)
        for wanted in told:
            while seen < wanted:
                seen += 1
                tpe.tell(_another(example, space.sample(rng), float(rng.random())))
            asked = ms(lambda: tpe.ask(next(number) + 10**6), 3)
            lines.append(f"- to propose after {wanted:,} told: {asked}")
    return lines


def _another(example: Told, config: Any, value: float) -> Told:
    return replace(example, config={**example.config, **config}, scores={"pinball": value})


def copied(file: Path, count: int) -> None:
    """Trials, runs and scores like the first ones, with numbers and hashes of their own."""
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA foreign_keys=OFF")
        for table, changed in (
            ("trials", {"number": "n", "config_hash": "'h' || n", "train_hash": "'h' || n"}),
            ("runs", {"run_id": "run_id || '_' || n", "trial_number": "n",
                      "config_hash": "'h' || n", "train_hash": "'h' || n"}),
            ("scores", {"run_id": "run_id || '_' || n", "value": "value + n * 1e-6"}),
        ):  # fmt: skip
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            chosen = ", ".join(changed.get(name, name) for name in names)
            db.execute(
                f"WITH RECURSIVE c(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM c WHERE n < {count})"
                f" INSERT INTO {table} ({', '.join(names)}) SELECT {chosen} FROM "
                f"(SELECT * FROM {table}) CROSS JOIN c"
            )
        db.execute("UPDATE sweeps SET num_trials = ?", (count,))
        db.execute("ANALYZE")
    db.close()


def memory(folder: Path, count: int) -> str:
    """MB that this process grows by from the 50th trial to the last."""
    space = load_space("chronos2", "scratch").space
    tpe = TpeSampler("chronos2", space, objectives=("pinball",), base={}, seed=0)
    process, before = psutil.Process(), math.nan
    with Tracker(folder / "head.db") as tracker:
        sweep = tracker.create_sweep(**SWEEP).sweep_id
        for number in range(1, count + 1):
            proposal = tpe.ask(number)
            assert proposal is not None
            run = _on_record(tracker, sweep, proposal)
            tpe.tell(told_of(run, tracker, ("pinball",), sweep_id=sweep))
            if number == 50:
                before = process.memory_info().rss
    after = process.memory_info().rss
    return (
        f"a head's process over {count} trials: {after / 1e6:.0f} MB at the end, "
        f"{(after - before) / 1e6:+.1f} MB since the 50th"
    )


def worker(folder: Path, names: int, bars: int) -> str:
    """The peak of a process that trains and scores on a panel of so many bars."""
    context = multiprocessing.get_context("spawn")
    heard, told = context.Pipe()
    process = context.Process(target=work, args=(told, names, bars, str(folder)))
    process.start()
    found = heard.recv()
    process.join()
    return found


def work(told: Any, names: int, bars: int, folder: str) -> None:
    """Make the panel, write it, and do with it what a worker does."""
    from trial_cost import long_frame

    from foresweep.data.panel import panel_from_frame
    from foresweep.data.reading.sources import load_panel
    from foresweep.data.splits import Cut, make_split
    from foresweep.data.tables import read_panel, write_panel
    from foresweep.data.windows import TrainWindows
    from foresweep.evaluation.backtest import evaluate, make_scorer
    from foresweep.models.base import Facts, Resources, TrainingJob, make_config
    from foresweep.models.registry import get_model

    file = Path(folder) / "panel"
    if os.fork() == 0:  # what makes the panel is no part of the worker
        demo = load_panel("demo").panel
        made = panel_from_frame(long_frame(demo, names).group_by("item_id").tail(bars))
        write_panel(file, made)
        os._exit(0)
    os.wait()
    panel = read_panel(file)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    split = make_split(panel, Cut(5))
    model = get_model("toto")
    values = {"size": "tiny", "max_steps": 8}
    config = model.resolve(make_config(model.Config, values, model="toto"), Facts(5, 512, 10**6))
    train = TrainWindows(panel, split, split.part("train"))
    job = TrainingJob(train, config, Resources(), horizon=5, out=Path(folder) / "c",
                      score=make_scorer(panel, split, steer=1024))  # fmt: skip
    predictor = model.load(model.train(job), Resources())
    trained = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    from foresweep.models.baselines.naive import LastValue

    del predictor
    naive = LastValue()
    plain = naive.predictor(naive.resolve(naive.Config(), Facts(5, 512, 0)))
    evaluate(plain, panel, split, parts=("tune", "val"), out=Path(folder) / "o")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told.send(
        f"a worker's peak, {panel.num_items:,} names of {bars:,} bars: {loaded:,.0f} MiB with the "
        f"panel read, {trained:,.0f} trained and steered, {peak:,.0f} with all of tune and val "
        f"scored and written (the forecasts by last-value: a model's need no more than its "
        f"batch besides)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--told", type=int, action="append")
    parser.add_argument("--head-trials", type=int, default=500)
    parser.add_argument("--names", type=int, default=2000)
    parser.add_argument("--bars", type=int, default=2500)
    asked = parser.parse_args()
    only = asked.only.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "memory" in only:  # first: nothing else has touched this process
            print(memory(folder, asked.head_trials), flush=True)
        if "reports" in only:
            for kind, place in places(folder):
                found = reports(place, asked.workers, asked.seconds)
                print(f"{asked.workers:,} workers into {kind}: {found}", flush=True)
        if "trials" in only:
            print("\n".join(trials(folder, asked.trials, asked.told or [100, 1000])), flush=True)
        if "worker" in only:
            print(worker(folder, asked.names, asked.bars), flush=True)
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {cores} cores, load {load:.1f} at the end.")


if __name__ == "__main__":
    main()
