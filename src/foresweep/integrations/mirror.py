"""Runs repeated to other trackers as they happen: MLflow, and Weights & Biases.

A mirror works in a thread of its own, so that a slow server slows no training, and whatever goes
wrong there is said once and ends the mirror alone: the database has everything, and
`foresweep export` can repeat it later.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from typing import Any, Literal, Protocol, TypeAlias, get_args
from urllib.parse import urlsplit

from foresweep.errors import MissingExtra, TrackerError, UnknownName, UsageError
from foresweep.records import Run, RunState, is_sealed

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


def shown_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores that may leave the house: none of test, none that failed."""
    return {n: v for n, v in scores.items() if not is_sealed(n) and math.isfinite(v)}


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


# MLflow: hyperparameters as params, scores as metrics, facts as tags.


EXPERIMENT = "foresweep"
DEFAULT_URI = "sqlite:///mlflow.db"
RUN_ID = "foresweep.run_id"
LONGEST_VALUE, LONGEST_NAME, LONGEST_TAG = 6000, 250, 5000
PARAMS_A_CALL, METRICS_A_CALL = 100, 1000
"""MLflow's own limits."""
STATUS = {
    RunState.COMPLETE: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.LOST: "FAILED",
    RunState.PRUNED: "KILLED",
    RunState.CANCELLED: "KILLED",
}


class MlflowMirror:
    """An experiment `foresweep` in an MLflow store.

    `uri`: of the tracking store; None: what MLFLOW_TRACKING_URI says, else sqlite:///mlflow.db in
    the working directory. Raises whatever MLflow raises.
    """

    def __init__(self, uri: str | None = None) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(
            tracking_uri=uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
        )
        known = self._client.get_experiment_by_name(EXPERIMENT)
        self._experiment: str = (
            known.experiment_id if known else self._client.create_experiment(EXPERIMENT)
        )
        self._open: dict[str, str] = {}  # our id -> MLflow's

    def has(self, run: Run) -> bool:
        found = self._find(run)
        return found is not None and found.info.status != "RUNNING"

    def start(self, run: Run) -> None:
        """A new MLflow run, or the one that was begun for this run and never ended."""
        from mlflow.entities import Param

        begun = self._find(run)
        if begun is None:
            begun = self._client.create_run(
                self._experiment,
                start_time=_milliseconds(run),
                tags=_tags(run),
                run_name=run.run_id[:LONGEST_NAME],
            )
        self._open[run.run_id] = begun.info.run_id
        params = [Param(_name(n), _text(v, LONGEST_VALUE)) for n, v in run.hyperparams.items()]
        for k in range(0, len(params), PARAMS_A_CALL):
            self._client.log_batch(begun.info.run_id, params=params[k : k + PARAMS_A_CALL])

    def log(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        self._send(run, step, scores)

    def finish(self, run: Run) -> None:
        from mlflow.entities import RunTag

        self._send(run, 0, run.metrics)
        there = self._open.pop(run.run_id)
        tags = [RunTag(n, v) for n, v in _tags(run).items()]
        self._client.log_batch(there, tags=tags)
        ended = None if run.finished_at is None else int(run.finished_at.timestamp() * 1000)
        self._client.set_terminated(there, STATUS.get(run.state, "FAILED"), end_time=ended)

    def close(self) -> None:
        for there in self._open.values():
            self._client.set_terminated(there, "KILLED")
        self._open.clear()

    def _send(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        at = _milliseconds(run)
        points = [Metric(_name(n), v, at, step) for n, v in shown_scores(scores).items()]
        for k in range(0, len(points), METRICS_A_CALL):
            chosen = points[k : k + METRICS_A_CALL]
            self._client.log_batch(self._open[run.run_id], metrics=chosen)

    def _find(self, run: Run) -> Any:
        """The MLflow run of our run, None where there is none."""
        wanted = run.run_id.replace("\\", "\\\\").replace("'", "\\'")
        query = f"tags.`{RUN_ID}` = '{wanted}'"
        found = self._client.search_runs([self._experiment], query, max_results=1)
        return found[0] if found else None


def _milliseconds(run: Run) -> int:
    return int((run.started_at or run.created_at).timestamp() * 1000)


def _tags(run: Run) -> dict[str, str]:
    told = {f"foresweep.{n}": _text(v, LONGEST_TAG) for n, v in facts_of(run).items()}
    said = {"mlflow.note.content": run.notes, "foresweep.tags": " ".join(run.tags)}
    return (
        {"model": run.model_name} | told | {n: _text(v, LONGEST_TAG) for n, v in said.items() if v}
    )


def _name(name: str) -> str:
    """MLflow takes letters, digits and `_-. :/` in names of params and metrics."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:LONGEST_NAME]


def _text(value: Any, longest: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= longest else text[: longest - 3] + "..."


# Weights & Biases, offline (a folder to sync later) or online.


PROJECT = "foresweep"
WANDB_ID, WANDB_TAG = 128, 64
"""Longest that W&B takes."""
INIT_S = 30.0
UNSAID = "foresweep"
"""What W&B is told for the machine's name and the script's path, which it else looks up itself."""


class WandbMirror:
    """Runs of a project (WANDB_PROJECT, else `foresweep`), grouped by sweep.

    W&B is kept from looking around by itself: the command line, the code, the terminal and the
    environment stay here, since they may hold secrets. Raises whatever W&B raises.
    """

    def __init__(self, mode: WandbMode = "online") -> None:
        self._mode = mode
        self._open: dict[str, Any] = {}

    def has(self, run: Run) -> bool:
        """Never known without asking the server: a run that is sent again keeps its id there."""
        return False

    def start(self, run: Run) -> None:
        if run.run_id in self._open:  # it waited, and goes on
            return
        import wandb

        self._open[run.run_id] = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=_id(run.run_id),
            name=run.run_id,
            group=run.sweep_id,
            job_type=run.model_name[:WANDB_TAG],
            config={**run.hyperparams, "model_name": run.model_name},
            tags=[tag[:WANDB_TAG] for tag in run.tags],
            notes=run.notes,
            mode=self._mode,
            dir=os.environ.get("WANDB_DIR") or os.getcwd(),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                init_timeout=INIT_S,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
                host=UNSAID,
                program=UNSAID,
                program_relpath=UNSAID,
            ),
        )

    def log(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        self._open[run.run_id].log(shown_scores(scores), step=step)

    def finish(self, run: Run) -> None:
        there = self._open.pop(run.run_id)
        there.summary.update(shown_scores(run.metrics) | facts_of(run))
        there.finish(exit_code=0 if run.state == RunState.COMPLETE else 1)

    def close(self) -> None:
        for there in self._open.values():
            there.finish(exit_code=1)
        self._open.clear()


def _id(run_id: str) -> str:
    """W&B takes no `/\\#?%:` in ids."""
    return re.sub(r"[/\\#?%:]", "-", run_id)[:WANDB_ID]


# Which mirror is meant, and how it works beside the runs.


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
        return partial(MlflowMirror, target or None)
    mode = target or os.environ.get("WANDB_MODE", "") or "online"
    known = next((m for m in WANDB_MODES if m == mode), None)
    if known is None:
        raise UnknownName("mode of wandb", mode, WANDB_MODES)
    if known == "online" and not _is_logged_in():
        raise UsageError("nobody is logged in to W&B: run `wandb login`, or use wandb:offline")
    return partial(WandbMirror, known)


def _is_logged_in() -> bool:
    """Has W&B a key to use? Without one it would ask in the terminal, in the middle of a sweep."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False


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
