"""The Ray engine on a cluster of two nodes on this machine, which are killed for real."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine_suite import EngineSuite, gone, is_over, pid_of, script, until
from foresweep.data.splits import Cut
from foresweep.data.tables import write_panel
from foresweep.errors import SearchError
from foresweep.search.engines.base import GO, Died, Engine, run_task
from foresweep.search.engines.local import LocalEngine
from foresweep.search.engines.ray import RayEngine
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal
from foresweep.search.trial import Ground, Prepare, RunSpec, RunTask
from panels import make_panel
from planted_model import plugin
from ray_nodes import Cluster, kill
from trial_tasks import Environment, Find, Hang, Writer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


LRS = (1e-3, 3e-3)
RAY_ON = "from foresweep.search.engines.ray import RayEngine\nengine = RayEngine({})\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of two CPUs, one of each for the engine of this module and one for those that the
    tests make; the second has a GPU, as it says."""
    with pytest.MonkeyPatch.context() as patch:
        cluster = Cluster(patch)
        try:
            cluster.add(cpus=2)
            cluster.add("--num-gpus=1", cpus=2)
            yield cluster
        finally:
            cluster.close()


@pytest.fixture(scope="module")
def engine(cluster: Cluster) -> Iterator[RayEngine]:
    engine = RayEngine(address=cluster.address)
    wait_for_slots(engine, 4)  # both nodes are there
    engine.workers = 2
    yield engine
    engine.close()


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
    cluster: Cluster, tmp_path: Path
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


def test_a_machine_s_token_is_shown_to_the_cluster_of_an_address(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray looks for it by itself only where the address is auto."""
    monkeypatch.delenv("RAY_AUTH_MODE")
    with script(
        tmp_path,
        RAY_ON.format(f"address={cluster.address!r}"),
        "engine.slots\nprint(engine._most())",
    ) as head:
        out, err = head.communicate(timeout=60)
    assert (out, err) == ("4\n", "")


def test_ray_does_not_speak_into_the_head_s_output(
    engine: RayEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints what befalls its nodes, whatever was said to ray.init."""
    from ray._private.worker import print_to_stdstream

    assert engine.slots
    said = {"lines": ["a node has been marked dead"], "pid": "raylet", "is_err": False}
    print_to_stdstream(said, ignore_prefix=False)
    assert capsys.readouterr().out == ""


def test_a_plug_in_of_the_head_is_found_by_its_workers(cluster: Cluster, tmp_path: Path) -> None:
    with plugin(tmp_path):
        engine = RayEngine(address=cluster.address, workers=1)
        try:
            assert run_task(engine, Find("guest"), log=tmp_path / "log") == "guest_package.model"
        finally:
            engine.close()


def test_both_engines_give_the_same_trials_bit_for_bit(cluster: Cluster, tmp_path: Path) -> None:
    """Over a storage, too, where nothing has the same path."""
    panel = tmp_path / "panel.npz"
    write_panel(panel, make_panel(num_bars=300))
    far = RayEngine(("chronos2",), cluster.address, workers=1, storage=(tmp_path / "s").as_uri())
    found = {}
    for name, engine, lrs in (("local", LocalEngine(("chronos2",)), LRS), ("ray", far, LRS[:1])):
        try:
            engine.warm_up()
            found[name] = [trial(engine, panel, tmp_path / name / str(lr), lr) for lr in lrs]
        finally:
            engine.close()
    assert found["local"][:1] == found["ray"]
    assert found["local"][0] != found["local"][1], "another config, other scores"


def trial(engine: Engine, panel: Path, out: Path, lr: float) -> tuple[Any, bytes]:
    """Scores and weights of a short training."""
    ground = Ground(panel, Cut(horizon=3, stride=6, max_context=32))
    asked = {"size": "tiny", "max_steps": 4, "context_length": 32, "batch_size": 4, "lr": lr}
    proposal = Proposal("chronos2", asked, "by hand")
    plan = SweepPlan(models=("chronos2",))
    (made,) = run_task(engine, Prepare(ground, (proposal,), plan), log=out / "prepare.log")
    assert made.refused is None
    task = RunTask(RunSpec(ground, made, 7), "run", out)
    result = run_task(engine, task, log=out / "training.log", beside=False)
    assert result.checkpoint_path == out / "checkpoint"
    return result.scores, (out / "checkpoint" / "model.safetensors").read_bytes()


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
        self,
        far: RayEngine,
        storage: Path,
        source: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        out = Path("runs") / "a"  # as a user says it
        task = Writer(source.relative_to(tmp_path), out)
        done = run_task(far, task, log=out / "training.log")
        assert done.path == out.absolute() / "checkpoint"
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
        assert gone([task])
        assert isinstance(message, Died)
        assert str(first / "training.log") in message.how, "by its name on the head"
        assert (first / "checkpoint.state" / "0.txt").read_text() == "2"
        done = run_task(far, Writer(source, second, (first,)), log=second / "training.log")
        assert done.resumed_from == 2


@pytest.mark.usefixtures("cluster")  # for its token: none is made in the home folder
class TestClusterOfItsOwn:
    """Without an address Ray is started on this machine, for the engine alone."""

    def test_both_signals_reach_the_head_alone_and_close_stops_everything(
        self, tmp_path: Path
    ) -> None:
        """Ray puts answers of its own in the place of the caller's to SIGTERM."""
        body = """
            import psutil
            import signal
            from trial_tasks import Hang
            signal.signal(signal.SIGTERM, lambda *_: print("terminated", flush=True))
            job = engine.start(Hang(), log=log)
            engine.poll(60, (job,))
            signal.raise_signal(signal.SIGTERM)
            try:
                print("running", flush=True)  # the signal may come from here on
                engine.poll(float("inf"))
            except KeyboardInterrupt:
                print("stopped", engine.poll(0.5))
            engine.close()
            print(psutil.Process().children(recursive=True))
            """
        with script(tmp_path, RAY_ON.format("workers=1"), body) as head:
            assert [head.stdout.readline() for _ in range(2)] == ["terminated\n", "running\n"]
            for process in psutil.Process(head.pid).children(recursive=True):
                if os.getpgid(process.pid) == os.getpgid(head.pid):
                    process.send_signal(signal.SIGINT)  # as a terminal does
            head.send_signal(signal.SIGINT)
            out, err = head.communicate(timeout=60)
        assert (out, err) == ("stopped []\n[]\n", "")

    def test_it_goes_with_a_head_that_is_killed(self, tmp_path: Path) -> None:
        body = """
            from trial_tasks import Hang
            job = engine.start(Hang(), log=log)
            engine.poll(60, (job,))
            print("running", flush=True)
            engine.poll(float("inf"))
            """
        with script(tmp_path, RAY_ON.format("workers=1"), body) as head:
            assert head.stdout.readline() == "running\n"
            everyone = psutil.Process(head.pid).children(recursive=True)
            agents = [p for p in everyone if "Agent" in p.name()]  # of Ray: they take a minute
            head.kill()
            assert gone([p for p in everyone if p not in agents])
            for agent in agents:
                agent.kill()


def test_a_task_that_waits_for_a_node_has_died_where_none_is_left(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foresweep.search.engines.ray.PATIENCE_S", 0.5)
    engine = RayEngine(address=cluster.address, cpus=50)
    try:
        with pytest.raises(SearchError, match="no node of the cluster has 50 CPUs"):
            engine.start(Hang(), log=tmp_path / "log")
        engine._room, engine._looked_at = 1, math.inf  # as if there had been one just now
        job = engine.start(Hang(), log=tmp_path / "log")
        (message,) = until(engine, job, is_over)
        assert isinstance(message, Died)
        assert str(job.log) in message.how
    finally:
        engine.close()


def test_a_lost_node_takes_its_own_task_along_and_no_other(
    cluster: Cluster, engine: RayEngine, tmp_path: Path
) -> None:
    """The last test: there is one node less afterwards."""
    engine.close()  # room for tasks that fill a node
    engine = RayEngine(address=cluster.address, cpus=2)
    log = tmp_path / "log"
    try:
        wait_for_slots(engine, 2)
        jobs = [engine.start(Hang(), log=log) for _ in range(2)]
        on = {cluster.index_of(pid_of(until(engine, job, bool))): job for job in jobs}
        assert set(on) == {0, 1}, "one on each node"
        kill(cluster.nodes[1])
        started = time.monotonic()
        ((job, message),) = engine.poll(60)
        assert time.monotonic() - started < 10
        assert job == on[1]
        assert isinstance(message, Died)
        assert not message.for_memory
        assert "node" in message.how
        assert (engine.slots, engine.free) == (1, 0)
        assert engine.poll(0.5) == [], "the other task goes on"
        engine.end(on[0])
        again = engine.start(Hang(), log=log)
        assert cluster.index_of(pid_of(until(engine, again, bool))) == 0
    finally:
        engine.close()
