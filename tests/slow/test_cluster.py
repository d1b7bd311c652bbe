"""The Ray engine on a cluster of two nodes on this machine, which are killed for real."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine_suite import EngineSuite, is_over, pid_of, script, until
from foresweep.search.channel import GO, Died
from foresweep.search.cluster import RayEngine
from foresweep.search.engine import run_task
from ray_nodes import Cluster, kill
from trial_tasks import Environment, Hang, SayPid, Writer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


RAY_ON = "from foresweep.search.cluster import RayEngine\nengine = RayEngine({})\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of two CPUs: one for the engine of this module, one for what the tests make."""
    with pytest.MonkeyPatch.context() as patch:
        cluster = Cluster(patch)
        cluster.add(cpus=2)
        cluster.add(cpus=2)
        yield cluster
        cluster.close()


@pytest.fixture(scope="module")
def engine(cluster: Cluster) -> Iterator[RayEngine]:
    engine = RayEngine(address=cluster.address)
    wait_for_slots(engine, 4)  # both nodes are there
    engine.workers = 2
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def big_nodes(cluster: Cluster, engine: RayEngine) -> list[subprocess.Popen[bytes]]:
    """Two more that alone can take a task of three CPUs; one has a GPU, as it says."""
    return [cluster.add("--num-gpus=1", cpus=3), cluster.add(cpus=3)]


@pytest.fixture(scope="module")
def making(cluster: Cluster) -> str:
    return RAY_ON.format(f"address={cluster.address!r}, workers=2")


class TestRayEngine(EngineSuite):
    """What every engine does."""


def wait_for_slots(engine: RayEngine, count: int) -> None:
    deadline = time.monotonic() + 60
    while engine.slots != count:
        assert time.monotonic() < deadline, f"{engine.slots} slots"
        time.sleep(0.2)


def test_the_places_of_a_killed_head_are_free_again(
    cluster: Cluster, making: str, tmp_path: Path, engine: RayEngine
) -> None:
    everybody = RayEngine(address=cluster.address)
    before = everybody.slots
    body = """
        from trial_tasks import Hang
        jobs = [engine.start(Hang(), log=log) for _ in range(2)]
        heard = [engine.poll(30, (job,)) for job in jobs]
        print(len(heard), flush=True)
        input()
        """
    with script(tmp_path, making, body) as head:
        assert head.stdout.readline() == "2\n"
        wait_for_slots(everybody, before - 2)
    wait_for_slots(everybody, before)


def test_shares_of_a_gpu_are_given_out_and_each_task_sees_its_own(
    cluster: Cluster, big_nodes: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    engine = RayEngine(address=cluster.address, cpus=0.5, gpus=0.5)
    wait_for_slots(engine, 2)
    try:
        for beside in (False, True):
            seen = run_task(
                engine,
                Environment(("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")),
                log=tmp_path / "log",
                beside=beside,
            )
            assert seen == ("0", "1")
    finally:
        engine.close()


def test_a_lost_node_takes_its_own_task_along_and_no_other(
    cluster: Cluster,
    big_nodes: list[subprocess.Popen[bytes]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = RayEngine(address=cluster.address, cpus=3)
    log = tmp_path / "log"
    try:
        wait_for_slots(engine, 2)
        jobs = [engine.start(Hang(), log=log) for _ in big_nodes]
        on = {node_of(pid_of(until(engine, j, bool)), big_nodes): j for j in jobs}
        assert set(on) == {0, 1}, "one on each node"
        kill(big_nodes[0])
        started = time.monotonic()
        ((job, message),) = engine.poll(30)
        assert time.monotonic() - started < 10
        assert job == on[0]
        assert isinstance(message, Died)
        assert not message.for_memory
        assert "node" in message.how
        assert engine.slots == 1
        assert engine.free == 0
        assert engine.poll(0.5) == [], "the other task goes on"
        engine.end(on[1])
        pid = run_task(engine, SayPid(), log=log, beside=False)
        assert isinstance(pid, int)
        again = engine.start(Hang(), log=log)
        assert node_of(pid_of(until(engine, again, bool)), big_nodes) == 1
    finally:
        engine.close()
    assert capsys.readouterr().out == ""


def node_of(pid: int, nodes: list[subprocess.Popen[bytes]]) -> int | None:
    """The node that a worker runs on."""
    above = {p.pid for p in psutil.Process(pid).parents()}
    return next((i for i, node in enumerate(nodes) if node.pid in above), None)


class TestFilesByWayOfAStorage:
    """The head's folder is of no use to the workers; a scratch folder of theirs is gone in the
    end."""

    @pytest.fixture(scope="class")
    @classmethod
    def storage(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("storage")

    @pytest.fixture
    def far(self, cluster: Cluster, storage: Path) -> Iterator[RayEngine]:
        engine = RayEngine(address=cluster.address, workers=1, storage=storage.as_uri())
        yield engine
        engine.close()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        (tmp_path / "panel.txt").write_text("prices")
        return tmp_path / "panel.txt"

    def test_what_a_task_reads_and_writes_travels(
        self, far: RayEngine, storage: Path, source: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "runs" / "a"
        done = run_task(far, Writer(source, out), log=out / "training.log")
        assert done.path == out / "checkpoint"
        assert (out / "checkpoint" / "result.txt").read_text() == "prices"
        assert "printed by the writer" in (out / "training.log").read_text()
        assert not (out / "checkpoint.state").exists()
        there = Path(done.source)
        assert there.name == source.name
        assert there != source
        assert not there.exists(), "the scratch folder is left behind"
        assert [f.name for f in storage.rglob("*") if f.is_file()] == ["panel.txt"]

    @pytest.mark.parametrize("lost", ["task", "host"])
    def test_another_attempt_elsewhere_goes_on_from_the_state_of_one_that_died(
        self, lost: str, far: RayEngine, source: Path, tmp_path: Path
    ) -> None:
        first, second = tmp_path / "runs" / "b", tmp_path / "runs" / "c"
        job = far.start(Writer(source, first), log=first / "training.log")
        for _ in (1, 2):
            until(far, job, bool)
            far.reply(job, GO)
        task = psutil.Process(pid_of(until(far, job, bool)))  # of the third scoring
        time.sleep(1.0)
        killed = task if lost == "task" else task.parents()[1]
        killed.kill()
        (message,) = until(far, job, is_over)
        assert isinstance(message, Died)
        assert str(first / "training.log") in message.how, "by its name on the head"
        assert (first / "checkpoint.state" / "0.txt").read_text() == "2"
        done = run_task(far, Writer(source, second, (first,)), log=second / "training.log")
        assert done.resumed_from == 2
