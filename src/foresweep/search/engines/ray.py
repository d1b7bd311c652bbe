"""The Ray engine: tasks on the nodes of a cluster, and the host that runs them on each.

Ray finds a place with enough CPUs and GPUs, says when a node is lost and carries the messages.
Each place is a host (`Host`): an actor that holds its share of the node and runs tasks in fresh
processes. The head asks each host for its next message and waits for whichever answers first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foresweep import __version__
from foresweep.errors import MissingExtra, SearchError, UsageError
from foresweep.models.base import TrialPruned
from foresweep.search.engines.base import FOREVER, Died, Job, Message, Progress, Task, failed
from foresweep.search.engines.local import LocalEngine
from foresweep.search.engines.storage import Known, Storage, Way, carried, moved, shared

# A slot on some node of a cluster: a local engine there, which the head drives from afar.
#
# The cluster's own worker is only a host. Each task runs in a process of its own, forked from a
# server that has done the imports, as on one machine: a task costs a fork, its memory is its own,
# and its death has a name.


@dataclass(frozen=True, slots=True)
class Setting:
    """What a host takes over from its head."""

    models: tuple[str, ...]
    folder: str  # the head's working directory: relative names of weights start there
    environment: Mapping[str, str]
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Order:
    """A task on its way to a host."""

    number: int
    task: bytes  # pickled: a task that cannot be read is the task's failure, not the host's
    log: Path
    way: Way


@dataclass(frozen=True, slots=True)
class _Work:
    """A task that runs here."""

    job: Job
    way: Way
    listening: threading.Lock = field(default_factory=threading.Lock)


class Host:
    """Runs tasks on a node. Its methods are called from several threads at once."""

    def __init__(self, setting: Setting) -> None:
        """Raises SearchError where another foresweep is installed than the head's."""
        if setting.version != __version__:
            raise SearchError(
                f"{socket.gethostname()} has foresweep {__version__}, the head {setting.version}: "
                f"install the same version on every node"
            )
        os.environ.update(setting.environment)
        with contextlib.suppress(OSError):  # another machine, another tree
            os.chdir(setting.folder)
        self._works: dict[int, _Work] = {}
        self._ended: set[int] = set()
        self._starting = threading.Lock()
        self._engine = LocalEngine(setting.models)
        self._engine.warm_up()

    def stand(self) -> None:
        """Never returns: who waits for it hears at once when the host is gone."""
        threading.Event().wait()

    def start(self, order: Order) -> list[Message]:
        """Start a task and wait for its first message."""
        try:
            task: Task = pickle.loads(order.task)
            task, log = order.way.arrive(task, order.log)
            with self._starting:
                if order.number in self._ended:
                    raise TrialPruned  # nobody hears it
                job = self._engine.start(task, log=log, beside=True)
                self._works[order.number] = _Work(job, order.way)
        except Exception as error:  # a task of a plug-in may raise anything when it is read
            return [order.way.leave(failed(error))]
        return self.hear(order.number)

    def hear(self, number: int) -> list[Message]:
        """Wait for the next message of a task; none where it has been ended."""
        work = self._works.get(number)
        if work is None:
            return []
        with work.listening:
            return self._hear(number, work) if number in self._works else []

    def _hear(self, number: int, work: _Work) -> list[Message]:
        work.way.keep()
        while not (found := self._engine.poll(work.way.every_s, (work.job,))):
            work.way.keep()
        ((_, message),) = found
        if isinstance(message, Progress):
            return [message]
        message = work.way.leave(_with_place(message))
        del self._works[number]
        return [message]

    def reply(self, number: int, answer: str) -> None:
        if number in self._works:
            self._engine.reply(self._works[number].job, answer)

    def end(self, number: int) -> None:
        """End a task now, or see that it never starts; what it wrote is handed over."""
        with self._starting:
            self._ended.add(number)
        if (work := self._works.get(number)) is not None:
            self._engine.kill(work.job)
        while number in self._works:
            self.hear(number)

    def close(self) -> None:
        """End every task."""
        for number in tuple(self._works):
            self.end(number)


def _with_place(message: Message) -> Message:
    """A death with the name of the machine."""
    if isinstance(message, Died):
        return replace(message, how=f"{message.how} (on {socket.gethostname()})")
    return message


# The Ray engine: tasks on the nodes of a cluster, behind the same door as the local one.


logger = logging.getLogger(__name__)

CALLS = 64
"""Calls that a host answers at a time: one waits in each running task, the others are short."""
LOOK_EVERY_S = 1.0
"""How often the head asks which nodes there are."""
END_WITHIN_S = 10.0
REACHED_WITHIN_S = 5.0
PATIENCE_S = 5.0
"""How often it asks, while nothing is heard, whether there still is a node for what waits."""
LONGEST = 400
COLOURS = re.compile(r"\x1b\[\d+m")
TOKEN = "~/.ray/auth_token"
OWN_CLUSTER = {"address": "local", "include_dashboard": False, "object_store_memory": 128 * 2**20}
"""What the head starts where no address is given; messages are small, and so is their store."""
TAKEN_OVER = ("HF_HOME", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM", "POLARS_MAX_THREADS")
"""What workers are told of the head's environment. Nothing that may be a secret: Ray logs it."""


@dataclass(slots=True)
class _Place:
    """A host that was asked for. Not frozen: jobs come and go."""

    actor: Any
    standing: Any  # ready once the host is gone
    job: Job | None = None  # the one that takes the slot
    answers: bool = False  # it has been heard of: before, it may wait for room in the cluster
    given_up: str = ""  # why nobody waits for it any more


@dataclass(slots=True)
class _Running:
    place: _Place
    hearing: Any  # a reference to the next messages
    way: Way


@dataclass(slots=True)
class RayEngine:
    """Runs tasks on a Ray cluster. Not frozen: it holds them."""

    models: tuple[str, ...] = ()
    """Models whose imports are done beforehand."""
    address: str | None = None
    """host:port of a running cluster, or auto for the one of this machine; None: one is started
    here, for this engine alone."""
    cpus: float = 1.0
    """CPUs that a task takes; fractions share."""
    gpus: float = 0.0
    workers: int | None = None
    """Tasks at once at most; None: as many as the cluster has room for."""
    storage: str | None = None
    """An fsspec URL by which files travel; None: every node sees the runs folder, under the same
    path as the head."""
    _places: list[_Place] = field(default_factory=list)
    _running: dict[Job, _Running] = field(default_factory=dict)
    _known: Known = field(default_factory=dict)  # what was stored for tasks to read
    _started: int = 0
    _connected: bool = False
    _ours: bool = False  # this engine connected to Ray, and is to leave it
    _room: int = 0
    _looked_at: float = -FOREVER

    def __post_init__(self) -> None:
        """Raises UsageError for resources that are none, and for Ray's client."""
        if str(self.address).startswith("ray://"):
            raise UsageError(
                f"{self.address}: a head is a part of the cluster; run it on one of its nodes, "
                f"with the address auto"
            )
        if min(self.cpus, self.gpus) < 0 or self.cpus + self.gpus == 0:
            raise UsageError(f"a task needs CPUs or GPUs, not {self.cpus:g} and {self.gpus:g}")

    @property
    def slots(self) -> int:
        """Tasks that may run at once, with the nodes that there are now.

        Raises SearchError where the cluster cannot be had, MissingExtra without ray.
        """
        self._connect()
        self._bury()
        if time.monotonic() - self._looked_at > LOOK_EVERY_S:
            self._room, self._looked_at = self._look(), time.monotonic()
        return min(self._room, self.workers or self._room)

    @property
    def free(self) -> int:
        return max(0, self.slots - sum(p.job is not None for p in self._places))

    def needs(self, memory_mb: float) -> None:
        """See Engine: Ray's own scheduler shares out the nodes."""

    def warm_up(self) -> None:
        """Have one host do its imports while the head reads data."""
        if self.slots and not self._places:
            self._settle()

    def start(self, task: Task, *, log: Path, beside: bool = False) -> Job:
        """See Engine. Raises SearchError where no slot is free."""
        if self.free < 1 and not (beside and self._places):
            raise SearchError(self._why_full())
        place = self._place(beside)
        self._started += 1
        job = Job(self._started, log)
        order = self._order(job, task)
        self._running[job] = _Running(place, place.actor.start.remote(order), order.way)
        if not beside:
            place.job = job
        return job

    def poll(
        self, timeout_s: float, jobs: Collection[Job] | None = None
    ) -> list[tuple[Job, Message]]:
        heard = self._running if jobs is None else {j: self._running[j] for j in jobs}
        if not heard:
            time.sleep(0.0 if timeout_s == FOREVER else timeout_s)
            return []
        calls = {running.hearing: job for job, running in heard.items()}
        until = time.monotonic() + timeout_s
        while not (ready := _ready(list(calls), min(left := until - time.monotonic(), PATIENCE_S))):
            if left <= PATIENCE_S:
                break
            self._give_up_waiting()
        return [(calls[r], m) for r in ready for m in self._receive(calls[r])]

    def _receive(self, job: Job) -> list[Message]:
        ray = _ray()
        running = self._running[job]
        try:
            messages: list[Message] = ray.get(running.hearing)
        except ray.exceptions.RayError as error:
            self._lose(running.place)
            messages = [obituary(running.place.given_up or str(error), job)]
        else:
            running.place.answers = True
        if isinstance(messages[-1], Progress):
            running.hearing = running.place.actor.hear.remote(job.number)
            return messages
        try:
            self._forget(job).way.back()
        except SearchError as error:
            return [failed(error)]
        return messages

    def reply(self, job: Job, answer: str) -> None:
        if job in self._running:
            self._running[job].place.actor.reply.remote(job.number, answer)

    def end(self, job: Job) -> None:
        if job not in self._running:
            return
        running = self._forget(job)
        place = running.place
        ended = place.answers and _all_ready([place.actor.end.remote(job.number)])
        if not ended and not self._load(place):
            self._lose(place)
        _take_back(running)

    def close(self) -> None:
        places = tuple(self._places)
        _all_ready([p.actor.close.remote() for p in places if p.answers])
        for place in places:
            self._lose(place)
        _all_ready([p.standing for p in places])
        for job in tuple(self._running):
            _take_back(self._forget(job))
        if self._ours:
            _ray().shutdown()
            _speak(_ray(), True)
        self._connected = self._ours = False

    def _forget(self, job: Job) -> _Running:
        """A job that is over: its slot is free."""
        running = self._running.pop(job)
        if running.place.job == job:
            running.place.job = None
        return running

    def _give_up_waiting(self) -> None:
        """Tasks that wait for a node where none is left that could take them have died."""
        if not self._most():
            for place in tuple(self._places):
                place.given_up = self._why_full()
                self._lose(place)

    def _order(self, job: Job, task: Task) -> Order:
        log = job.log.absolute()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        task = moved(task, Path.absolute)
        if self.storage is None:
            way: Way = shared(log)
        else:
            way = carried(Storage(self.storage), task, log, self._known)
        return Order(job.number, pickle.dumps(task), log, way)

    def _place(self, beside: bool) -> _Place:
        """A host for a task: an idle one, or a new one; beside others, any."""
        idle = [p for p in self._places if p.job is None]
        chosen = idle or (self._places if beside else [])
        return min(chosen, key=self._load) if chosen else self._settle()

    def _load(self, place: _Place) -> int:
        """The tasks on a host."""
        return sum(running.place is place for running in self._running.values())

    def _settle(self) -> _Place:
        """Ask for one more host."""
        setting = Setting(self.models, str(Path.cwd()), _environment())
        actor = (
            _ray()
            .remote(Host)
            .options(
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=CALLS,
                scheduling_strategy="SPREAD",
                runtime_env={"env_vars": {"PYTHONPATH": _own_path()}},
            )
            .remote(setting)
        )
        place = _Place(actor, actor.stand.remote())
        self._places.append(place)
        return place

    def _bury(self) -> None:
        """Forget hosts that are gone, but for those whose jobs have yet to be told of it."""
        standing = [p.standing for p in self._places]
        gone = set(_ready(standing, 0.0)) if standing else set()
        for place in [p for p in self._places if p.standing in gone and not self._load(p)]:
            self._lose(place)

    def _lose(self, place: _Place) -> None:
        """Be rid of a host."""
        if place in self._places:
            self._places.remove(place)
            self._looked_at = -FOREVER
        if _ray().is_initialized():  # else Ray would start itself
            _ray().kill(place.actor)

    def _why_full(self) -> str:
        if self.slots:
            return f"all {self.slots} slots of the cluster are busy"
        asked = f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"
        return f"no node of the cluster has {asked} to spare; ask for less a trial, or add a node"

    def _look(self) -> int:
        """Hosts that the cluster has room for, this engine's own included."""
        left = _ray()._private.state.available_resources_per_node()  # their sum fits nowhere
        return min(self._most(), len(self._places) + sum(map(self._fitting, left.values())))

    def _most(self) -> int:
        """Hosts that the cluster has room for when nobody else uses it."""
        return sum(self._fitting(n["Resources"]) for n in _ray().nodes() if n["Alive"])

    def _fitting(self, resources: dict[str, float]) -> int:
        """How many tasks these resources would do for."""
        asked = {"CPU": self.cpus, "GPU": self.gpus}
        return min(int(resources.get(k, 0.0) / v + 1e-6) for k, v in asked.items() if v > 0)

    def _connect(self) -> None:
        if self._connected:
            return
        if self.storage is not None:
            Storage(self.storage).check()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            _require_reachable(self.address)
        except (OSError, ValueError) as error:
            raise SearchError(
                f"no Ray cluster at {self.address}: {error}; start one with ray start --head"
            ) from error
        if self.address:
            _show_token()
        try:
            self._join()
        except (OSError, RuntimeError, ValueError) as error:
            place = f"at {self.address}" if self.address else "on this machine"
            raise SearchError(
                f"no Ray cluster {place}: {' '.join(str(error).split())}; start one with ray "
                f"start --head; if one is there, it may ask for a token: copy {TOKEN} of its first "
                f"machine to this one"
            ) from error
        self._connected = True

    def _join(self) -> None:
        ray = _ray()
        if not ray.is_initialized():  # else somebody has, in a notebook for one
            where = {"address": self.address} if self.address else OWN_CLUSTER
            with _own_sigterm():
                ray.init(**where, log_to_driver=False, logging_level="ERROR")
            _speak(ray, False)
            self._ours = True


def _require_reachable(address: str | None) -> None:
    """Raises OSError at once; Ray would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon:
        with socket.create_connection((host, int(port)), REACHED_WITHIN_S):
            pass


def _show_token() -> None:
    """Where this machine has a token, show it to the cluster. Ray does so by itself for the address
    auto alone; `ray start` asks for it as soon as the machine has one."""
    kept = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN).expanduser()
    if "RAY_AUTH_MODE" in os.environ or not (os.environ.get("RAY_AUTH_TOKEN") or kept.is_file()):
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    if "ray" in sys.modules:  # it has read its environment when it was imported
        _ray()._raylet.Config.initialize("")


def _ray() -> Any:
    """Raises MissingExtra."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtra("ray", "ray") from error
    return ray


def _speak(ray: Any, aloud: bool) -> None:
    """Ray prints what befalls its nodes on the head's stdout, whatever was said to ray.init: that
    is said by the engine where it matters, and stdout may be somebody's JSON."""
    ray._private.worker._worker_logs_enabled = aloud


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """What the caller answers SIGTERM with stays. Ray puts two answers in its place: one that
    leaves at once, whatever runs, and one that prints a stack and aborts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _ready(calls: list[Any], timeout_s: float) -> list[Any]:
    """The calls that have an answer, in the order given; waits for a first one."""
    ray = _ray()
    first, _ = ray.wait(calls, num_returns=1, timeout=max(0.0, timeout_s))
    if not first:
        return []
    ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
    return list(ready)


def _own_path() -> str:
    """Where this process finds modules beside its interpreter's own places; then, as Ray reads it,
    what a node has of its own."""
    places = (sys.prefix, sys.base_prefix)
    found = dict.fromkeys(Path(p).absolute() for p in sys.path)
    ours = [str(p) for p in found if not any(p.is_relative_to(own) for own in places)]
    return os.pathsep.join([*ours, "${PYTHONPATH}"])


def _environment() -> dict[str, str]:
    found = {k: os.environ[k] for k in TAKEN_OVER if k in os.environ}
    return {**found, "OMP_NUM_THREADS": "1"}


def _all_ready(calls: list[Any]) -> bool:
    """Have all answered, or come to nothing, in time?"""
    if not calls:
        return True
    _, missing = _ray().wait(calls, num_returns=len(calls), timeout=END_WITHIN_S)
    return not missing


def _take_back(running: _Running) -> None:
    """Have the files of a task that nobody waits for any more."""
    try:
        running.way.back()
    except SearchError as error:
        logger.warning("files of an ended task were not fetched: %s", error)


def obituary(said: str, job: Job) -> Died:
    """What Ray says of a lost host, in short: its reports quote command lines of other people."""
    lines = [x.strip() for x in COLOURS.sub("", said).splitlines() if x[:1].strip()]
    text = " ".join(lines)[:LONGEST]
    how = f"the trial's node or its worker was lost: {text}; see {job.log}"
    return Died(how, "low on memory" in text)
