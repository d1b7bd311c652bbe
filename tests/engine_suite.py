"""What every engine must do, as a suite: a test module inherits it and says how one is made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from foresweep.errors import DataError, SearchError, WorkerDied
from foresweep.models.base import TrialPruned
from foresweep.search.engines.base import (
    GO,
    STOP,
    Died,
    Done,
    Engine,
    Failed,
    Job,
    Message,
    Progress,
    TaskFailed,
    run_task,
)
from trial_tasks import Chatter, Hang, KillItself, Raise, Report, SayPid, Scored, Twice

TESTS = Path(__file__).parent
WAIT_S = 60.0


class EngineSuite:
    """The module has two fixtures: `engine`, with two slots or more, and `making`, two lines that
    make such an engine in a script of its own. Each test leaves the engine as it was: no job, every
    slot free."""

    @pytest.fixture
    def log(self, tmp_path: Path, engine: Engine) -> Iterator[Path]:
        yield tmp_path / "run" / "training.log"
        assert engine.free == engine.slots, "the test left a job running"

    def test_the_result_and_every_scored_step_come_back_in_order(
        self, engine: Engine, log: Path
    ) -> None:
        heard: list[Progress] = []
        assert run_task(engine, Report(), log=log, on_progress=heard.append) == 42
        assert [(p.step, p.scores) for p in heard] == [
            (n, {"tune_pct_mae": n / 10}) for n in (1, 2, 3)
        ]

    def test_losses_come_as_means_by_origin(self, engine: Engine, log: Path) -> None:
        heard: list[Progress] = []
        run_task(engine, Scored(1), log=log, on_progress=heard.append)
        assert heard[0].losses == {"pct_mae": (2.0, 2.0)}

    def test_the_last_step_is_heard_before_the_result(self, engine: Engine, log: Path) -> None:
        messages = listen(engine, engine.start(Chatter(), log=log))
        assert isinstance(messages[-1], Done)
        steps = [m.step for m in messages if isinstance(m, Progress)]
        assert steps == sorted(set(steps))
        assert len(steps) < 10, "thinned out"
        assert isinstance(messages[-2], Progress)
        assert messages[-2].losses == {}

    def test_what_a_task_prints_is_in_its_log(self, engine: Engine, log: Path) -> None:
        run_task(engine, Report(), log=log)
        assert "printed by the trial" in log.read_text()

    def test_a_scored_task_waits_for_its_answer(self, engine: Engine, log: Path) -> None:
        job = engine.start(Scored(2), log=log)
        first = until(engine, job, lambda ms: len(ms) == 1)
        assert engine.poll(0.5, (job,)) == [], "it went on without being told to"
        engine.reply(job, GO)
        second = until(engine, job, lambda ms: len(ms) == 1)
        assert [m.step for m in first + second if isinstance(m, Progress)] == [1, 2]
        engine.reply(job, GO)
        assert until(engine, job, is_over)[-1] == Done(2)

    def test_a_task_that_is_told_to_stop_is_pruned(self, engine: Engine, log: Path) -> None:
        job = engine.start(Scored(100), log=log)
        until(engine, job, lambda ms: len(ms) == 1)
        engine.reply(job, STOP)
        (message,) = until(engine, job, is_over)
        assert isinstance(message, Failed)
        assert message.kind == TrialPruned.__name__
        assert "Traceback" not in log.read_text()

    def test_an_error_keeps_its_words_and_its_traceback(self, engine: Engine, log: Path) -> None:
        with pytest.raises(TaskFailed, match="the price is text") as caught:
            run_task(engine, Raise(DataError("the price is text")), log=log)
        assert caught.value.failed.kind == "DataError"
        assert "in __call__" in caught.value.failed.traceback
        assert "the price is text" in log.read_text()

    def test_any_exception_of_a_package_fails_the_task_only(
        self, engine: Engine, log: Path
    ) -> None:
        with pytest.raises(TaskFailed, match="ZeroDivisionError"):
            run_task(engine, Raise(ZeroDivisionError("by zero")), log=log)

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
    def test_a_killed_worker_fails_its_task_and_names_the_signal(
        self, how: int, engine: Engine, log: Path
    ) -> None:
        with pytest.raises(WorkerDied, match=signal.Signals(how).name):
            run_task(engine, KillItself(how), log=log, beside=False)
        assert run_task(engine, Report(), log=log, beside=False) == 42

    def test_a_worker_killed_from_outside_has_died_and_its_slot_is_free(
        self, engine: Engine, log: Path
    ) -> None:
        job = engine.start(Hang(), log=log)
        psutil.Process(pid_of(until(engine, job, lambda ms: len(ms) == 1))).kill()
        (message,) = until(engine, job, is_over)
        assert isinstance(message, Died)
        assert str(log) in message.how
        assert engine.free == engine.slots

    def test_a_task_that_is_ended_is_gone_and_nothing_more_is_heard(
        self, engine: Engine, log: Path
    ) -> None:
        job = engine.start(Hang(), log=log)
        worker = psutil.Process(pid_of(until(engine, job, lambda ms: len(ms) == 1)))
        engine.end(job)
        assert engine.free == engine.slots
        assert gone([worker])
        assert engine.poll(0.0) == []
        engine.end(job)  # once more does no harm
        engine.reply(job, GO)

    def test_a_task_that_is_ended_at_once_is_never_heard(self, engine: Engine, log: Path) -> None:
        job = engine.start(Report(), log=log)
        engine.end(job)
        assert engine.poll(0.5) == []

    def test_each_task_has_a_process_of_its_own_which_leaves(
        self, engine: Engine, log: Path
    ) -> None:
        pids = [run_task(engine, SayPid(), log=log) for _ in range(2)]
        assert len({*pids, os.getpid()}) == 3
        assert not any(psutil.pid_exists(p) for p in pids)

    def test_as_many_tasks_as_slots_run_at_once_and_all_are_heard(
        self, engine: Engine, log: Path
    ) -> None:
        assert engine.slots >= 2
        jobs = [engine.start(Scored(2), log=log) for _ in range(engine.slots)]
        assert engine.free == 0
        with pytest.raises(SearchError, match="busy"):
            engine.start(Report(), log=log)
        heard: dict[Job, list[Message]] = {job: [] for job in jobs}
        deadline = time.monotonic() + WAIT_S
        while not all(is_over(ms) for ms in heard.values()) and time.monotonic() < deadline:
            for job, message in engine.poll(1.0):
                heard[job].append(message)
                if all(heard.values()):  # every task has scored before any goes on
                    for waiting in jobs:
                        if len(heard[waiting]) < 3:
                            engine.reply(waiting, GO)
        for messages in heard.values():
            assert [getattr(m, "step", None) for m in messages] == [1, 2, None]
            assert messages[-1] == Done(2)
        assert len({pid_of(ms) for ms in heard.values()}) == len(jobs)

    def test_a_task_beside_the_others_takes_no_slot(self, engine: Engine, log: Path) -> None:
        jobs = [engine.start(Scored(1), log=log) for _ in range(engine.slots)]
        assert run_task(engine, Twice(21), log=log.with_name("beside.log")) == 42
        for job in jobs:
            until(engine, job, lambda ms: len(ms) == 1)
            engine.reply(job, GO)
            assert until(engine, job, is_over) == [Done(1)]

    def test_who_listens_to_one_job_leaves_the_others_messages_for_later(
        self, engine: Engine, log: Path
    ) -> None:
        first, second = (engine.start(Twice(n), log=log) for n in (1, 2))
        assert until(engine, second, is_over) == [Done(4)]
        assert until(engine, first, is_over) == [Done(2)]

    def test_a_poll_that_hears_nothing_ends_in_time(self, engine: Engine, log: Path) -> None:
        job = engine.start(Hang(), log=log)
        until(engine, job, lambda ms: len(ms) == 1)
        started = time.monotonic()
        assert engine.poll(0.3) == []
        assert 0.25 < time.monotonic() - started < 10
        engine.end(job)

    def test_a_poll_of_an_engine_without_jobs_ends_in_time(self, engine: Engine, log: Path) -> None:
        assert engine.poll(0.01) == []

    def test_a_head_that_waits_is_idle(self, engine: Engine, log: Path) -> None:
        job = engine.start(Hang(), log=log)
        until(engine, job, lambda ms: len(ms) == 1)
        used = time.process_time()
        engine.poll(1.0)
        assert time.process_time() - used < 0.3
        engine.end(job)

    def test_a_message_is_heard_at_once(self, engine: Engine, log: Path) -> None:
        run_task(engine, Twice(1), log=log)
        started = time.monotonic()
        run_task(engine, Scored(20), log=log)
        assert time.monotonic() - started < 10, "20 scorings and their answers: no second each"

    def test_a_head_that_is_killed_leaves_no_worker(self, making: str, tmp_path: Path) -> None:
        """Not even one that is in a long step, and so never notices that its pipe is closed."""
        body = """
            from trial_tasks import Endless, Hang
            for task in (Endless(), Hang()):
                job = engine.start(task, log=log)
                while not (heard := engine.poll(30, (job,))):
                    pass
                print(int(heard[0][1].scores["pid"]), flush=True)
            input()
            """
        with script(tmp_path, making, body) as head:
            workers = [psutil.Process(int(head.stdout.readline())) for _ in range(2)]
            head.kill()
            assert gone(workers)

    def test_close_leaves_no_process(self, making: str, tmp_path: Path) -> None:
        body = """
            from trial_tasks import Hang
            jobs = [engine.start(Hang(), log=log) for _ in range(2)]
            pids = set()
            while len(pids) < 2:
                pids |= {int(m.scores["pid"]) for _, m in engine.poll(30)}
            engine.close()
            print(*pids, flush=True)
            input()
            """
        with script(tmp_path, making, body) as head:
            pids = head.stdout.readline().split()
            assert len(pids) == 2
            assert not any(psutil.pid_exists(int(p)) for p in pids)
            _, err = head.communicate("\n", timeout=WAIT_S)
        assert err == ""

    def test_a_script_without_a_main_guard_can_run_tasks(self, making: str, tmp_path: Path) -> None:
        """It must run once, not once more in every worker."""
        body = """
            from trial_tasks import Twice
            print("script", flush=True)
            print(run_task(engine, Twice(21), log=log))
            engine.close()
            """
        with script(tmp_path, making, body) as head:
            out, err = head.communicate(timeout=WAIT_S)
        assert out.split() == ["script", "42"], err
        assert err == ""


@contextmanager
def script(folder: Path, making: str, body: str) -> Iterator[Any]:
    """A head of its own, without a `__main__` guard, that has `engine`, `log` and `run_task`. It is
    killed in the end."""
    opening = f"""
        import sys
        sys.path.insert(0, {str(TESTS)!r})
        from pathlib import Path
        from foresweep.search.engines.base import run_task
        log = Path({str(folder)!r}) / "run" / "training.log"
        """
    file = folder / "head.py"
    file.write_text("".join(map(textwrap.dedent, (opening, making, body))))
    pipe = subprocess.PIPE
    command = [sys.executable, str(file)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as head:
        try:
            yield head
        finally:
            head.kill()


def is_over(messages: list[Message]) -> bool:
    return bool(messages) and not isinstance(messages[-1], Progress)


def until(engine: Engine, job: Job, enough: Callable[[list[Message]], bool]) -> list[Message]:
    """What comes from a job until it is enough."""
    heard: list[Message] = []
    deadline = time.monotonic() + WAIT_S
    while not enough(heard):
        assert time.monotonic() < deadline, f"only heard {heard}"
        heard += [message for _, message in engine.poll(1.0, (job,))]
    return heard


def listen(engine: Engine, job: Job) -> list[Message]:
    """Everything a job says; each scoring is answered with go."""
    heard: list[Message] = []
    while not is_over(heard):
        heard += until(engine, job, bool)
        if isinstance(heard[-1], Progress) and heard[-1].losses is not None:
            engine.reply(job, GO)
    return heard


def pid_of(messages: list[Message]) -> int:
    return int(next(m.scores["pid"] for m in messages if isinstance(m, Progress)))


def gone(processes: list[Any], within_s: float = 30.0) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    return not alive
