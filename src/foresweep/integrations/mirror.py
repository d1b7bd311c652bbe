"""What a mirror is, and the thread that keeps its troubles away from the runs.

A mirror repeats runs to another tracker as they happen. It works in a thread of its own, so that
a slow server slows no training, and whatever goes wrong there is said once and ends the mirror
alone: the database has everything, and `foresweep export` can repeat it later.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from typing import Any, Literal, Protocol, TypeAlias, get_args
from urllib.parse import urlsplit

from foresweep.errors import MissingExtra, TrackerError, UnknownName, UsageError
from foresweep.records import Run, is_sealed

NAMES = ("mlflow", "wandb")
WandbMode: TypeAlias = Literal["online", "offline"]
WANDB_MODES: tuple[WandbMode, ...] = get_args(WandbMode)
CLOSE_S = 60.0
"""Longest wait at the end for what has not been sent."""


class Mirror(Protocol):
    """Another tracker. Any method may raise anything."""

    def has(self, run: Run) -> bool:
        """Is the run there, finished?"""
        ...

    def start(self, run: Run) -> None: ...

    def log(self, run: Run, step: int, scores: Mapping[str, float]) -> None: ...

    def finish(self, run: Run) -> None: ...

    def close(self) -> None:
        """Close what is open; a run that has not finished was stopped."""
        ...


def open_mirror(wanted: str) -> Callable[[], Mirror]:
    """What opens the mirror `mlflow[:TRACKING_URI]` or `wandb[:offline|:online]`.

    The package is looked for now and imported where the mirror works. Raises UnknownName,
    MissingExtra, UsageError where W&B would have to ask for a key.
    """
    name, _, target = wanted.partition(":")
    if name not in NAMES:
        raise UnknownName("mirror", name, NAMES)
    if find_spec(name) is None:
        raise MissingExtra(name, name)
    if name == "mlflow":
        return partial(_mlflow, target)
    mode = target or os.environ.get("WANDB_MODE", "") or "online"
    known = next((m for m in WANDB_MODES if m == mode), None)
    if known is None:
        raise UnknownName("mode of wandb", mode, WANDB_MODES)
    if known == "online" and not _is_logged_in():
        raise UsageError("nobody is logged in to W&B: run `wandb login`, or use wandb:offline")
    return partial(_wandb, known)


def _mlflow(uri: str) -> Mirror:
    from foresweep.integrations.mlflow import MlflowMirror

    return MlflowMirror(uri or None)


def _wandb(mode: WandbMode) -> Mirror:
    from foresweep.integrations.wandb import WandbMirror

    return WandbMirror(mode)


def _is_logged_in() -> bool:
    """Has W&B a key to use? Without one it would ask in the terminal, in the middle of a sweep."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False


def shown_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores that may leave the house: none of test, none that failed."""
    return {n: v for n, v in scores.items() if not is_sealed(n) and math.isfinite(v)}


class Mirrored:
    """A mirror at work in its own thread; every method returns at once and raises nothing.

    `warn` is told once, in that thread, when the mirror fails; from then on it is silent.
    """

    def __init__(
        self, name: str, opener: Callable[[], Mirror], warn: Callable[[str], None]
    ) -> None:
        self._name, self._opener, self._warn = name, opener, warn
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"foresweep-{name}")
        self._mirror: Mirror | None = None
        self._broken = threading.Event()
        self._pending: list[Future[None]] = []

    def start(self, run: Run) -> None:
        self._do(lambda mirror: mirror.start(run))

    def log(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        kept = shown_scores(scores)
        if kept:
            self._do(lambda mirror: mirror.log(run, step, kept))

    def finish(self, run: Run) -> None:
        self._do(lambda mirror: mirror.finish(run))

    def close(self, *, within_s: float = CLOSE_S) -> None:
        """Wait for what has not been sent, not longer than `within_s`."""
        self._do(lambda mirror: mirror.close())
        late = wait(self._pending, timeout=within_s).not_done
        if late:
            self._say(f"{len(late)} messages were not sent within {within_s:.0f} s")
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _do(self, work: Callable[[Mirror], None]) -> None:
        if self._broken.is_set():
            return
        self._pending = [f for f in self._pending if not f.done()]
        future = self._pool.submit(self._work, work)
        self._pending.append(future)
        future.add_done_callback(self._done)

    def _work(self, work: Callable[[Mirror], None]) -> None:
        if self._broken.is_set():
            return
        if self._mirror is None:
            self._mirror = self._opener()
        work(self._mirror)

    def _done(self, future: Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._say(f"{type(error).__name__}: {error}")

    def _say(self, problem: str) -> None:
        if not self._broken.is_set():
            self._broken.set()
            self._warn(
                f"the mirror {self._name} stopped ({' '.join(problem.split())[:300]}); the sweep "
                f"goes on, its database has everything; afterwards: foresweep export {self._name}"
            )


def copy_runs(
    name: str,
    opener: Callable[[], Mirror],
    runs: Iterable[Run],
    curves_of: Callable[[Run], Mapping[int, Mapping[str, float]]],
) -> int:
    """Repeat finished runs to a mirror; what it has finished already is skipped. The number of
    runs that are new there.

    `curves_of` gives step -> scores, by rising step. Raises TrackerError where the mirror fails.
    """
    with ThreadPoolExecutor(1) as pool:  # whatever a foreign package raises comes back as a value
        future = pool.submit(_copy, opener, runs, curves_of)
        error = future.exception()
    if error is not None:
        raise TrackerError(f"{name} failed with {type(error).__name__}: {error}") from error
    return future.result()


def _copy(
    opener: Callable[[], Mirror],
    runs: Iterable[Run],
    curves_of: Callable[[Run], Mapping[int, Mapping[str, float]]],
) -> int:
    mirror = opener()
    count = 0
    for run in runs:
        if mirror.has(run):
            continue
        mirror.start(run)
        for step, scores in curves_of(run).items():
            if kept := shown_scores(scores):
                mirror.log(run, step, kept)
        mirror.finish(run)
        count += 1
    mirror.close()
    return count


def facts_of(run: Run) -> dict[str, Any]:
    """What a mirror is told of a run beside its config and scores; {} values left out."""
    facts = {
        "run_id": run.run_id,
        "sweep_id": run.sweep_id,
        "trial_number": run.trial_number,
        "seed": run.seed,
        "state": run.state.value,
        "source": run.source,
        "git_commit": run.git_commit,
        "config_hash": run.config_hash,
        "train_hash": run.train_hash,
        "fingerprint": run.fingerprint,
        "training_time_seconds": run.training_time_seconds,
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}
