"""How many forecasts a second does `foresweep serve` give, how late, and does it drop one?

A tiny model of each family, trained for a moment on the demo panel, is put in service, and 50
clients over loopback ask for one item's forecast each (256 bars, a body of some 20 kB, every body
another origin), again and again, while two champions take turns every 5 seconds. Beside it the same
server that forecasts one request at a time, and the same model behind LitServe (its own batching)
and behind `mlflow models serve`, each with the same clients, in turns on the same machine.

    python benchmarks/serving.py [--requests 10000] [--share 0.2]
        [--models chronos2,toto,kronos,drift] [--litserve PYTHON] [--mlflow PYTHON] [--leak 1000]
        [--kills 50]

`--litserve` and `--mlflow` are Pythons that have litserve or mlflow beside foresweep: environments
of their own. The forecasts of `foresweep serve` in the first line are on record, hash-chained,
before they are answered; in the lines beside the peers they are not, as those keep none. CPU is the
seconds that the server and its workers computed for 1,000 windows, which a busy machine does not
change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from foresweep.data.reading.sources import load_panel
from foresweep.lifecycle.champion import promote, rollback
from foresweep.lifecycle.inference import load_champion
from foresweep.models.checkpoint import write_checkpoint
from foresweep.serving.asked import EXAMPLE
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker

BARS, CLIENTS, SWAP_S = 256, 50, 5.0
SERVER = """
import sys
from foresweep.models.base import Resources
from foresweep.serving.app import Limits, serving_app
from foresweep.serving.batching import Batcher
from foresweep.serving.live import Live
from foresweep.tracker.tracker import Tracker
from foresweep.web import Guard, listen, serve
db, together, record = sys.argv[1], sys.argv[2] == "together", sys.argv[3] == "record"
with Tracker(db, create=False) as tracker:
    live = Live.open(tracker, None, Resources(threads=1))
    batcher = Batcher(live, record=record, together=together)
    app = serving_app(live, Guard(is_api=True), limits=Limits(), batcher=batcher)
    with listen("127.0.0.1", 0) as listening:
        print(listening.getsockname()[1], flush=True)
        serve(app, listening)
"""


@dataclass(frozen=True)
class Asked:
    """How a server is asked."""

    path: str
    body: Callable[[dict[str, Any]], bytes]


def _as_frame(body: dict[str, Any]) -> bytes:
    """MLflow's dataframe_split of one item's bars."""
    (item,) = body["items"]
    name, num = item["item_id"], len(item["timestamp"])
    columns = {"volume": [0.0] * num, **item, "item_id": [name] * num}
    data = [*zip(*columns.values(), strict=True)]
    return json.dumps({"dataframe_split": {"columns": [*columns], "data": data}}).encode()


ASKED = Asked("/forecast", lambda body: json.dumps(body).encode())
MLFLOW = Asked("/invocations", _as_frame)


# Champions.


def prepare(model: str, folder: Path) -> Path:
    """The database of a slot with two champions of a family, the first in service before."""
    db = folder / "sweeps.db"
    with Tracker(db) as tracker:
        for seed in (0, 1):
            run = _trained(tracker, model, folder, seed)
            promote(tracker, run, slot="bench", force_reason="a benchmark")
    return db


def _trained(tracker: Tracker, model: str, folder: Path, seed: int) -> str:
    from foresweep.data.splits import Cut, make_split
    from foresweep.data.windows import TrainWindows
    from foresweep.models.base import Facts, TrainingJob, make_config
    from foresweep.models.registry import get_model

    family = get_model(model)
    run = tracker.start_run(model=model, hyperparams={}, seed=seed, is_baseline=False)
    out = folder / run.run_id / "checkpoint"
    out.parent.mkdir(parents=True)
    if model in ("drift", "last-value"):
        write_checkpoint(out, model=model, config={"context_length": BARS}, card={"horizon": 5})
    else:
        panel = load_panel("demo").panel
        split = make_split(panel, Cut())
        windows = TrainWindows(panel, split, split.part("train"))
        values = {"size": "tiny", "context_length": BARS, "max_steps": 4}
        facts = Facts(5, 1024, panel.num_rows, 4)
        config = family.resolve(make_config(family.Config, values, model=model), facts)
        family.train(TrainingJob(windows, config, seed=seed, horizon=5, out=out))
    tracker.finish_run(run.run_id, "complete", checkpoint_path=out)
    return run.run_id


def bodies(count: int, asked: Asked = ASKED) -> list[bytes]:
    """Requests of one item each, every one at another origin of the demo panel."""
    panel = load_panel("demo").panel
    found = []
    for k in range(count):
        i = k % panel.num_items
        last = len(panel.bars[i].values) - 1 - (k // panel.num_items) % 1500
        rows = slice(last + 1 - BARS, last + 1)
        values, times = panel.bars[i].values[rows], panel.timestamps_of(i)[rows]
        item: dict[str, Any] = {"item_id": panel.items[i]}
        item["timestamp"] = [str(t)[:10] for t in times]
        for c, name in enumerate(("open", "high", "low", "close", "volume")):
            item[name] = [round(float(v), 6) for v in values[:, c]]
        lows, highs = values[:, 1:4:1].min(axis=1), values[:, :4].max(axis=1)
        item["low"] = [float(v) for v in np.minimum(lows, values[:, 0])]
        item["high"] = [float(v) for v in highs]
        found.append(asked.body({"items": [item]}))
    return found


# Servers.


@contextmanager
def server(db: Path, how: str, record: bool = True) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    words = [sys.executable, "-c", SERVER, str(db), how, "record" if record else "no"]
    with started(words) as found:
        yield found


@contextmanager
def litserve(python: str, checkpoint: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The same model behind LitServe, one worker, its own batching of up to 64 within 4 ms."""
    peer = Path(__file__).with_name("serving_litserve.py")
    with started([python, str(peer), str(checkpoint)]) as found:
        yield found


@contextmanager
def mlflow(python: str, checkpoint: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The same model behind `mlflow models serve`, as it is started by default."""
    peer = Path(__file__).with_name("serving_mlflow.py")
    with started([python, str(peer), str(checkpoint)], MLFLOW) as found:
        yield found


@contextmanager
def started(words: list[str], asked: Asked = ASKED) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        while line and not line.strip().isdecimal():
            line = process.stdout.readline()
        port = int(line)
        threading.Thread(target=process.stdout.read, daemon=True).start()
        _wait(port, asked)
        yield port, process
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):  # LitServe leaves workers behind that spin for ever
            os.killpg(process.pid, signal.SIGKILL)


def _wait(port: int, asked: Asked) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            status, _ = asyncio.run(_once(port, asked.body(EXAMPLE), asked.path))
            if status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit("the server does not answer")


async def _once(port: int, body: bytes, path: str = ASKED.path) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await _ask(reader, writer, port, body, path)
    finally:
        writer.close()


# Clients.


@dataclass
class Load:
    """What clients saw."""

    statuses: Counter[int]
    seconds: list[float]
    wall_s: float
    run_ids: set[str]
    cpu_s: float = 0.0  # of the server

    @property
    def failed(self) -> int:
        return sum(n for status, n in self.statuses.items() if status != 200)

    @property
    def a_second(self) -> float:
        return len(self.seconds) / self.wall_s

    def __str__(self) -> str:
        p50, p99 = np.percentile(self.seconds, (50, 99)) * 1000
        return (
            f"{self.a_second:7.0f} windows/s, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms, "
            f"{1000 * self.cpu_s / len(self.seconds):5.2f} s CPU, "
            f"{self.failed} of {sum(self.statuses.values()):,} failed"
        )


def load(
    port: int, asked: list[bytes], requests: int, clients: int = CLIENTS, pid: int | None = None,
    path: str = ASKED.path,
) -> Load:  # fmt: skip
    before = _cpu_s(pid)
    found = asyncio.run(_load(port, asked, requests, clients, path))
    found.cpu_s = _cpu_s(pid) - before
    return found


def _cpu_s(pid: int | None) -> float:
    """Of a process and those it started."""
    if pid is None:
        return 0.0
    own = psutil.Process(pid)
    times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


async def _load(port: int, asked: list[bytes], requests: int, clients: int, path: str) -> Load:
    found = Load(Counter(), [], 0.0, set())
    numbers = iter(range(requests))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for k in numbers:
            begun = time.perf_counter()
            try:
                status, answer = await _ask(reader, writer, port, asked[k % len(asked)], path)
                if k % 50 == 0 and status == 200:
                    found.run_ids.add(json.loads(answer).get("run_id", "?"))
            except (OSError, asyncio.IncompleteReadError):
                status = 0
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            found.statuses[status] += 1
            found.seconds.append(time.perf_counter() - begun)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    found.wall_s = time.perf_counter() - begun
    return found


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    port: int,
    body: bytes,
    path: str = ASKED.path,
) -> tuple[int, bytes]:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    head_read = await reader.readuntil(b"\r\n\r\n")
    status = int(head_read.split(b" ", 2)[1])
    lines = head_read.lower().split(b"\r\n")
    length = next(int(x.split(b":")[1]) for x in lines if x.startswith(b"content-length:"))
    return status, await reader.readexactly(length)


@contextmanager
def swapping(db: Path, every_s: float) -> Iterator[list[str]]:
    """Rollbacks and promotions in turns while the block runs."""
    stop, done = threading.Event(), []

    def swap() -> None:
        with Tracker(db, create=False) as tracker:
            slot = Service(tracker.store).slot("bench")
            other = slot.champion
            assert other is not None
            while not stop.wait(every_s):
                if len(done) % 2 == 0:
                    rollback(tracker, "bench")
                else:
                    promote(tracker, other.run_id, slot="bench", force_reason="a benchmark")
                done.append("swap")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


# What is measured.


def compare(model: str, requests: int, share: float, peers: dict[str, str | None]) -> None:
    asked = bodies(2000)
    with tempfile.TemporaryDirectory() as name:
        db = prepare(model, Path(name))
        print(f"\n{model}")
        with server(db, "together") as (port, own), swapping(db, SWAP_S) as swaps:
            load(port, asked, 200)
            found = load(port, asked, requests, pid=own.pid)
            print(f"  batched, {len(swaps)} swaps    {found}; {len(found.run_ids)} champions")
        if share <= 0:
            return
        few = max(int(requests * share), 100)
        rates: dict[str, list[float]] = {}

        def note(label: str, port: int, own: subprocess.Popen[str], how: Asked = ASKED) -> None:
            sent = asked if how is ASKED else bodies(2000, how)
            load(port, sent, 200, path=how.path)
            part = load(port, sent, few, pid=own.pid, path=how.path)
            rates.setdefault(label, []).append(part.a_second)
            print(f"  {label:14s} no record {part}")

        for _ in range(2):
            for how, label in (("together", "batched"), ("alone", "one at a time")):
                with server(db, how, record=False) as (port, own):
                    note(label, port, own)
            checkpoint = load_champion(db=db).forecaster.path
            if python := peers["LitServe"]:
                with litserve(python, checkpoint) as (port, own):
                    note("LitServe", port, own)
            if python := peers["MLflow"]:
                with mlflow(python, checkpoint) as (port, own):
                    note("MLflow", port, own, MLFLOW)
        ours = float(np.mean(rates.pop("batched")))
        for label, seen in rates.items():
            print(f"  batched / {label}: {ours / np.mean(seen):.2f}x")


def leaks(requests: int) -> None:
    """Memory and handles of the server over a loop of requests."""
    asked = bodies(2000)
    with tempfile.TemporaryDirectory() as name:
        db = prepare("chronos2", Path(name))
        with server(db, "together") as (port, process):
            own = psutil.Process(process.pid)
            load(port, asked, 2 * requests, clients=4)  # what is kept for good is there by now
            before = own.memory_info().rss, own.num_fds(), own.num_threads()
            load(port, asked, requests, clients=4)
            after = own.memory_info().rss, own.num_fds(), own.num_threads()
    grown = (after[0] - before[0]) / 2**20
    print(f"\n{requests} predictions: memory {grown:+.1f} MiB of {before[0] / 2**20:.0f}, "
          f"handles {before[1]} -> {after[1]}, threads {before[2]} -> {after[2]}")  # fmt: skip


def kills(count: int) -> None:
    """Kill -9 at random moments: is every forecast that was answered on record?"""
    asked, rng = bodies(500), np.random.default_rng(0)
    answered: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory() as name:
        db = prepare("drift", Path(name))
        for _ in range(count):
            words = [sys.executable, "-c", SERVER, str(db), "together", "record"]
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            port = int(process.stdout.readline())
            asyncio.run(_once(port, asked[0]))  # a server that has warmed up is killed
            timer = threading.Timer(float(rng.uniform(0.01, 1.0)), process.kill)
            timer.start()
            asyncio.run(_until_killed(port, asked, answered, int(rng.integers(500))))
            process.wait()
        with Tracker(db, create=False) as tracker:
            service = Service(tracker.store)
            kept = {(r["item_id"], r["origin"]) for r in service.forecasts()}
            faults = service.verify()
    print(f"\n{count} kills: {len(answered)} forecasts answered, {len(answered - kept)} lost, "
          f"{len(kept)} on record, chain {faults or 'sound'}")  # fmt: skip
    assert not answered - kept
    assert not faults


async def _until_killed(
    port: int, asked: list[bytes], answered: set[tuple[str, str]], start: int
) -> None:
    async def client(k: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                status, answer = await _ask(reader, writer, port, asked[k % len(asked)])
                if status == 200:
                    for one in json.loads(answer)["forecasts"]:
                        answered.add((one["item_id"], one["origin"]))
                k += 7
        except (OSError, asyncio.IncompleteReadError):
            return

    await asyncio.gather(*(client(start + n) for n in range(8)))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--requests", type=int, default=10_000)
    asked.add_argument("--models", default="chronos2,toto,kronos,drift")
    asked.add_argument("--share", type=float, default=0.2, help="of them in a comparison; 0: none")
    asked.add_argument("--litserve", metavar="PYTHON")
    asked.add_argument("--mlflow", metavar="PYTHON")
    asked.add_argument("--leak", type=int, default=1000)
    asked.add_argument("--kills", type=int, default=50)
    given = asked.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {CLIENTS} clients, {BARS} bars")
    peers = {"LitServe": given.litserve, "MLflow": given.mlflow}
    for model in filter(None, given.models.split(",")):
        compare(model, given.requests, given.share, peers)
    if given.leak:
        leaks(given.leak)
    if given.kills:
        kills(given.kills)


if __name__ == "__main__":
    main()
