"""What the Ray engine does without Ray: hosts, and how files travel. The cluster itself is in
tests/slow/test_cluster.py."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from foresweep.data.splits import Cut
from foresweep.errors import MissingExtra, SearchError, UsageError
from foresweep.search.engines import storage as travelling
from foresweep.search.engines.base import GO, Died, Done, Failed, Job, Message, Progress
from foresweep.search.engines.ray import Host, Order, RayEngine, Setting, obituary
from foresweep.search.engines.storage import Carried, Shared, Storage, carried, moved, shared
from foresweep.search.events import Event, Waiting
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.sweep import Workers, sweep
from trial_tasks import Hang, Raise, Report, Twice, Writer


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(Setting((), str(Path.cwd()), {}))
    yield host
    host.close()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "storage").as_uri())


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers have their scratch folders."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def order(number: int, task: Any, log: Path, way: Any = None) -> Order:
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    return Order(number, pickle.dumps(task), log, way or shared(log))


def test_a_node_that_does_not_see_the_runs_folder_says_so(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(travelling, "SEEN_WITHIN_S", 0.5)
    elsewhere = Shared(tmp_path / "of another machine" / ".seen")
    (message,) = host.start(order(1, Twice(1), tmp_path / "log", elsewhere))
    assert isinstance(message, Failed)
    assert message.kind == "SearchError"
    assert "does not see" in message.error
    assert "--runs FOLDER" in message.error


@pytest.mark.slow
def test_what_shows_that_a_node_sees_the_folder_is_gone_in_the_end(
    host: Host, tmp_path: Path
) -> None:
    given = order(2, Twice(21), tmp_path / "log")
    assert host.start(given) == [Done(42)]
    given.way.back()
    assert [f.name for f in tmp_path.iterdir()] == ["log"]


@pytest.mark.slow
def test_a_task_that_cannot_be_read_fails_alone(host: Host, tmp_path: Path) -> None:
    broken = replace(order(3, Twice(1), tmp_path / "log"), task=b"cno_such_module\nTask\n.")
    (message,) = host.start(broken)
    assert isinstance(message, Failed)
    assert "no_such_module" in message.error
    assert host.start(order(4, Twice(21), tmp_path / "log")) == [Done(42)]


def test_a_task_that_is_ended_before_it_began_never_begins(host: Host, tmp_path: Path) -> None:
    host.end(5)
    (message,) = host.start(order(5, Report(), tmp_path / "log"))
    assert isinstance(message, Failed)
    assert not (tmp_path / "log").read_text()


def test_a_task_that_never_begins_leaves_no_scratch(
    host: Host, storage: Storage, tmp_path: Path, scratch: Path
) -> None:
    task = Writer(tmp_path / "panel.txt", tmp_path / "out")
    host.end(9)
    host.start(order(9, task, tmp_path / "log", carried(storage, task, tmp_path / "log", {})))
    assert not list(scratch.iterdir())


@pytest.mark.slow
def test_a_task_that_is_ended_while_somebody_listens_leaves_in_order(
    host: Host, tmp_path: Path
) -> None:
    (hello,) = host.start(order(6, Hang(), tmp_path / "log"))
    assert isinstance(hello, Progress)
    heard: list[Message] = []
    listener = threading.Thread(target=lambda: heard.extend(host.hear(6)))
    listener.start()
    host.end(6)
    listener.join(10)
    assert not listener.is_alive()
    assert host.hear(6) == []
    assert all(isinstance(m, Died) for m in heard)


def test_another_version_of_foresweep_is_refused() -> None:
    with pytest.raises(SearchError, match="install the same version"):
        Host(Setting((), ".", {}, version="0.0.0"))


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"foresweep\[ray\]"):
        RayEngine().start(Twice(1), log=Path("log"))


def test_ray_is_not_loaded_before_it_is_used() -> None:
    code = "import foresweep.search.engines.ray, sys; print({'ray', 'fsspec'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("asked", [{"cpus": 0.0}, {"cpus": -1.0}, {"gpus": -0.5}])
def test_a_task_must_ask_for_something(asked: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="needs CPUs or GPUs"):
        RayEngine(**asked)  # type: ignore[arg-type]


def test_ray_s_client_is_refused() -> None:
    with pytest.raises(UsageError, match="address auto"):
        RayEngine(address="ray://far:10001")


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:port"])
def test_an_address_without_a_cluster_is_told_at_once(address: str) -> None:
    started = time.monotonic()
    with pytest.raises(SearchError, match=f"no Ray cluster at {address}"):
        RayEngine(address=address).warm_up()
    assert time.monotonic() - started < 10


def test_a_sweep_says_at_once_which_cluster_it_waits_for(tmp_path: Path) -> None:
    heard: list[Event] = []
    plan = SweepPlan(models=("drift",), cut=Cut(stride=40, max_context=128))
    nobody = Workers(engine="ray", address="127.0.0.1:1")
    with pytest.raises(SearchError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        sweep(
            by_hand(plan, {}),
            db=tmp_path / "db",
            runs=tmp_path,
            listen=heard.append,
            workers=nobody,
        )
    assert heard == [Waiting("the Ray cluster at 127.0.0.1:1 is being joined")]


LOST = """The actor died unexpectedly before finishing this task.
\tclass_name: Host
\tpid: 20303
The actor died because its node has died. Node Id: 37e6"""
FAILED = """The actor died because of an error in its creation task, \x1b[36mray::Host\x1b[39m
  File "host.py", line 61, in __init__
foresweep.errors.SearchError: vm has foresweep 0.0.9, the head 0.1.0: install the same"""
SHORT = "1 worker(s) were killed due to the node running low on memory.\nTop 10 memory users:\n"


@pytest.mark.parametrize(
    ("said", "kept", "for_memory"),
    [
        (LOST, "this task. The actor died because its node has died. Node Id: 37e6;", False),
        (FAILED, "ray::Host foresweep.errors.SearchError: vm has foresweep 0.0.9", False),
        (SHORT + "x" * 400 + " --password=secret", "running low on memory.", True),
    ],
)
def test_what_ray_says_of_a_lost_host_is_told_in_short(
    said: str, kept: str, for_memory: bool
) -> None:
    died = obituary(said, Job(1, Path("runs/a/training.log")))
    assert kept in died.how
    assert "class_name" not in died.how
    assert "secret" not in died.how
    assert died.how.endswith("; see runs/a/training.log")
    assert died.for_memory is for_memory


@dataclass(frozen=True)
class Inner:
    path: Path
    number: int = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner
    several: tuple[Path, ...]
    by_name: dict[str, Path]
    other: Inner | None = None
    text: str = "/data/text"


def test_every_path_in_a_task_is_moved_and_nothing_else() -> None:
    old = Outer(Inner(Path("/data/a")), (Path("/data/b"), Path("c")), {"d": Path("/data/d")})
    new = moved(old, lambda p: Path("/far") / p.name)
    assert new == Outer(
        Inner(Path("/far/a")), (Path("/far/b"), Path("/far/c")), {"d": Path("/far/d")}
    )
    assert moved([Inner(Path("/data/a"))], lambda p: Path("/far") / p.name) == [
        Inner(Path("/far/a"))
    ]


def test_what_holds_no_path_is_the_same_object() -> None:
    values = ("text", {"a": 1})
    assert moved(values, lambda p: p / "moved") is values


def test_a_file_in_memory_is_refused_as_storage() -> None:
    with pytest.raises(UsageError, match="one process's memory"):
        Storage("memory://sweeps").check()


def test_a_storage_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SearchError, match=r"storage file://.*file/inside"):
        Storage((tmp_path / "file" / "inside").as_uri()).check()


def test_a_storage_whose_package_is_not_installed_says_which() -> None:
    with pytest.raises(SearchError, match="s3fs"):
        Storage("s3://bucket/sweeps").check()


def test_a_half_written_file_is_not_fetched(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "panel.txt").write_text("prices")
    storage.push(tmp_path / "panel.txt")
    (stored,) = (tmp_path / "storage").rglob("panel.txt")
    stored.with_name("panel.txt.part").write_text("pri")
    storage.fetch(tmp_path, root=tmp_path / "scratch")
    assert [f.name for f in (tmp_path / "scratch").rglob("*.txt*")] == ["panel.txt"]


def test_what_a_task_reads_is_stored_once(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "panel.txt"
    source.write_text("prices")
    known: travelling.Known = {}
    task = Writer(source, tmp_path / "out")
    carried(storage, task, tmp_path / "log", known)
    (stored,) = (tmp_path / "storage").rglob("panel.txt")
    stored.write_text("not written again")
    carried(storage, task, tmp_path / "log", known)
    assert stored.read_text() == "not written again"
    source.write_text("newer prices")
    carried(storage, task, tmp_path / "log", known)
    assert stored.read_text() == "newer prices"


@pytest.mark.slow
def test_a_task_that_fails_brings_its_log_and_leaves_no_scratch(
    host: Host, storage: Storage, tmp_path: Path, scratch: Path
) -> None:
    task, log = Raise(ValueError("no")), tmp_path / "log"
    way = carried(storage, task, log, {})
    (message,) = host.start(order(7, task, log, way))
    assert isinstance(message, Failed)
    way.back()
    assert "ValueError: no" in log.read_text()
    assert not list(scratch.iterdir())
    assert not [f for f in (tmp_path / "storage").rglob("*") if f.is_file()]


def test_a_way_that_never_arrived_removes_nothing(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    way = Carried(storage, (), (tmp_path / "out", tmp_path / "log"))
    assert way.leave(Done(1)) == Done(1)
    assert (tmp_path / "kept").exists()


@pytest.mark.slow
def test_a_result_that_cannot_be_stored_is_no_result(
    host: Host, storage: Storage, tmp_path: Path
) -> None:
    source, out = tmp_path / "panel.txt", tmp_path / "out"
    source.write_text("prices")
    task = Writer(source, out, steps=1)
    way = carried(storage, task, out / "log", {})
    (hello,) = host.start(order(8, task, out / "log", way))
    assert isinstance(hello, Progress)
    (tmp_path / "storage").rename(tmp_path / "gone")
    (tmp_path / "storage").touch()
    host.reply(8, GO)
    (message,) = host.hear(8)
    assert isinstance(message, Failed)
    assert str(storage.url) in message.error
