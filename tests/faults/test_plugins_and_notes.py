"""Hostile plug-ins and notes: one line that names them, and nothing else is the worse for it."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import broken
from foresweep.data.splits import Cut
from foresweep.models import registry
from foresweep.models.base import Facts
from foresweep.models.registry import get_model, model_names
from foresweep.records import RunState
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal, load_space
from foresweep.search.sweep import sweep
from foresweep.search.trial import prepare
from foresweep.tracker.tracker import Tracker
from planted_model import announced
from shells import Shell

PLAIN = """from foresweep.models.baselines.naive import Drift
class Guest(Drift):
    name = 'guest'
"""
RAISED = (
    "RuntimeError('two\\nlines')", "KeyError('x')", "SystemExit(3)", "ValueError()",
    "type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})()", "RecursionError('deep')",
    "OSError(5, 'disk')", "Exception('\\x1b[2J\\x1b[31mred')", "MemoryError()", "StopIteration()",
    "UnicodeDecodeError('utf-8', b'\\xff', 0, 1, 'no')", "AssertionError()", "EOFError('[red]')",
)  # fmt: skip
AT_IMPORT = (
    *(f"raise {error}\n" for error in RAISED),
    "import nothing_like_this\n", "def f(:\n", "x = 1\n", "\x00", "f = lambda: f()\nf()\n",
    "import sys\nsys.exit('good bye')\n", "Guest = None\n", "Guest = 3\n", "Guest = 'Guest'\n",
    "Guest = lambda: None\n", "Guest = lambda x: x\n", "Guest = dict\n", "Guest = type\n",
    "class Guest: pass\n", "class Guest:\n    def __init__(self, x): pass\n",
    "class Guest:\n    name = 'guest'\n    def __getattr__(self, n): raise KeyError(n)\n",
    f"{PLAIN}    name = 'other'\n", f"{PLAIN}    name = None\n", f"{PLAIN}    train = None\n",
    f"{PLAIN}    Config = property(lambda self: 1 / 0)\n", f"{PLAIN}    train = 3\n",
    f"{PLAIN}    def train(self): pass\n", f"{PLAIN}    def train(self, job, more): pass\n",
)  # fmt: skip
MADE = tuple(
    f"{PLAIN}    def __init__(self):\n        raise {error}\n" for error in RAISED
)  # fmt: skip
SPACES = (
    b"\xff\xfe", b"", b"model = 3", b"model = 'guest'\nfull = 3", b"model = 'guest'\n[[space]]",
    b"model = 'guest'\n[space.x]\nlow = 1\nhigh = 2", b"[" * 9000, b"\x00", b"model = 'other'\n",
)  # fmt: skip
POINTS = (
    "guest = nowhere:Guest\n", "guest = guest_package.model\n", "guest = \n", "guest = :::\n",
    "guest = guest_package.model:Guest.Inner\n", "guest = guest package:Guest\n", "guest\n",
    "= guest_package.model:Guest\n", "guest = guest_package:\n",
    "drift = guest_package.model:Guest\n",
    "\x1b[2J = guest_package.model:Guest\n", "guest = ../model:Guest\n",
)  # fmt: skip


@contextmanager
def package(
    folder: Path, module: str = PLAIN, space: bytes | None = None, points: str | None = None
) -> Iterator[None]:
    """The model `guest` in a package whose module, space or entry point is hostile; its name is
    its own each time, for Python keeps modules."""
    name = f"guest_{folder.name}"
    at = folder / name
    at.mkdir(parents=True)
    (at / "__init__.py").touch()
    (at / "model.py").write_text(module)
    if space is not None:
        (at / "spaces").mkdir()
        (at / "spaces" / "guest.toml").write_bytes(space)
    told = (points or "guest = guest_package.model:Guest\n").replace("guest_package", name)
    with announced(folder, f"plugin-{folder.name}", told):
        yield


def import_cases() -> Iterator[tuple[str, dict[str, object]]]:
    for module in (*AT_IMPORT, *MADE):
        yield repr(module), {"module": module}
    for space in SPACES:
        yield repr(space), {"space": space}
    for points in POINTS:
        yield repr(points), {"points": points}


def asked(name: str) -> str:
    """What asking for a hostile model comes to; the others are as they were."""
    try:
        names = [n for n in model_names() if n.startswith(("guest", "\x1b", "drift"))]
        for one in names or [name]:
            get_model(one)
        load_space(name, "scratch")
        outcome = "read: nothing is wrong with it"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome = broken.refusal(error)
    return outcome


def campaign(folder: Path, cases: list[tuple[str, dict[str, object]]]) -> broken.Seen:
    seen = broken.Seen()
    for number, (what, given) in enumerate(cases):
        with package(folder / f"p{number}", **given):  # type: ignore[arg-type]
            seen.add(asked("guest"), what)
            if "drift = " not in what and what != repr("guest\n"):
                assert get_model("drift").name == "drift"
    registry.look_anew()
    return seen


def test_a_hostile_plugin_is_refused_in_a_line_that_names_it(tmp_path: Path) -> None:
    cases = list(import_cases())
    seen = campaign(tmp_path, random.Random(0).sample(cases, 25))
    seen.require_none_wrong()
    assert seen.outcomes["refused"] >= 15, seen.outcomes


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_every_hostile_plugin_is_refused_in_a_line_that_names_it(tmp_path: Path) -> None:
    campaign(tmp_path, list(import_cases())).require_none_wrong()


LOADS = """
import os, sys, numpy as np
from foresweep.models.base import Forecast
from foresweep.models.baselines.naive import Drift
class Walk:
    context_length = 32
    def __init__(self, how): self.how = how
    def predict(self, context, *, horizon, levels, seed):
        N, shape = len(context.values), (len(context.values), horizon, len(levels))
        values = np.ones(shape) * context.values[:, -1, 3][:, None, None]
        return eval(self.how)
class Guest(Drift):
    name = "guest"
"""
AT_WORK = {
    "train raises": "    def train(self, job): raise KeyError('in\\nlines \\x1b[2J [red]')\n",
    "train raises what says nothing": (
        "    def train(self, job):\n"
        "        raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})()\n"
    ),
    "train leaves": "    def train(self, job): sys.exit(0)\n",
    "train ends its process": "    def train(self, job): os._exit(0)\n",
    "train gives nothing": "    def train(self, job): return None\n",
    "train writes nothing": (
        "    def train(self, job):\n"
        "        from foresweep.models.base import Checkpoint\n"
        "        return Checkpoint(job.out, 'guest', {})\n"
    ),
    "train raises what cannot be pickled": (
        "    def train(self, job):\n"
        "        class Odd(Exception):\n"
        "            def __reduce__(self): raise TypeError('no')\n"
        "        raise Odd(lambda: 1)\n"
    ),
    "train reports nonsense": (
        "    def train(self, job):\n"
        "        job.report('x', {'tune_pct_mae': 'y'}, None)\n"
        "        return super().train(job)\n"
    ),
    "resolve raises": "    def resolve(self, config, facts): raise KeyError('no such thing')\n",
    "resolve gives nothing": "    def resolve(self, config, facts): return None\n",
    "load raises": "    def load(self, checkpoint, resources): raise ZeroDivisionError('load')\n",
    "load gives nothing": "    def load(self, checkpoint, resources): return None\n",
}
FORECASTS = (
    "None", "values", "Forecast(values * np.nan, levels)", "Forecast(values[:1], levels)",
    "Forecast(-values, levels)", "Forecast(values, levels[:3])", "1 / 0", "Forecast('x', levels)",
    "Forecast(values * 1e400, levels)", "Forecast(values[..., ::-1] * np.arange(1, 10), levels)",
)  # fmt: skip


def at_work() -> Iterator[tuple[str, str]]:
    for what, body in AT_WORK.items():
        yield what, LOADS + body
    for how in FORECASTS:
        yield (
            f"predict gives {how}",
            f"{LOADS}    def train(self, job):\n"
            f"        return self.scored(job, Walk({how!r}))\n"
            f"    def load(self, checkpoint, resources): return Walk({how!r})\n",
        )


def swept(folder: Path, number: int, module: str) -> str:
    """A sweep of drift and of a hostile model comes to its end; the latter is on record with a
    cause, or was refused in a line."""
    db = folder / f"{number}.db"
    with package(folder / f"w{number}", module):
        plan = SweepPlan(
            models=("guest",), cut=Cut(stride=60, max_context=64), max_runs=1,
            proposals=(Proposal("guest", {}, "by hand"),),
        )  # fmt: skip
        try:
            done = sweep(plan.checked(), db=db, runs=folder / f"runs{number}")
        except BaseException as error:
            return broken.refusal(error)
    with Tracker(db) as tracker:
        mine = tracker.get_runs("guest", sweep_id=done.sweep_id)
        others = tracker.get_runs("drift", sweep_id=done.sweep_id)
        left = [r for r in tracker.get_runs() if not r.state.is_final]
    if left or not others or others[0].state is not RunState.COMPLETE:
        return f"wrong: {left} are left and {others} took harm"
    if any(r.state is RunState.COMPLETE for r in mine):
        return "complete: it was scored"
    if mine and not all(r.error for r in mine):
        return "wrong: failed without a cause"
    return f"refused: {[r.error for r in mine]}"


def work_campaign(folder: Path, cases: list[tuple[str, str]]) -> broken.Seen:
    seen = broken.Seen()
    for number, (what, module) in enumerate(cases):
        seen.add(swept(folder, number, module), what)
    registry.look_anew()
    return seen


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("resolve(self, config, facts): raise KeyError('no such thing')", "KeyError: 'no such"),
        ("resolve(self, config, facts): sys.exit('good bye')", "SystemExit: good bye"),
        ("resolve(self, config, facts): return None", "to NoneType, which must be its"),
        ("weights_hash(self, config): return 1 / 0", "ZeroDivisionError: division by zero"),
        ("weights_hash(self, config): return {1}", "TypeError: .*set"),
    ],
)
def test_a_config_that_a_plugin_cannot_answer_for_is_refused_alone(
    method: str, says: str, tmp_path: Path
) -> None:
    facts, plan = Facts(5, 64, 1000), SweepPlan(models=("guest",))
    with package(tmp_path, f"{LOADS}    def {method}\n"):
        mine = prepare(Proposal("guest", {}, "by hand"), facts, plan)
        other = prepare(Proposal("drift", {}, "by hand"), facts, plan)
    assert re.fullmatch(f"model 'guest' .*{says}.*", mine.refused or "")
    assert other.refused is None


@pytest.mark.slow
def test_a_plugin_that_turns_hostile_at_work_fails_alone(tmp_path: Path) -> None:
    cases = [c for c in at_work() if c[0] in ("train raises", "predict gives None")]
    seen = work_campaign(tmp_path, cases)
    seen.require_none_wrong()
    assert seen.outcomes == {"refused": 2}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_every_plugin_that_turns_hostile_at_work_fails_alone(tmp_path: Path) -> None:
    seen = work_campaign(tmp_path, list(at_work()))
    seen.require_none_wrong()


TEXTS = (
    "\x1b[2J\x1b[31mred", "\x9b2J", "\x07\x08\x08", "[red]not red[/red] [/]",
    "<script>alert(1)</script>",
    "'; DROP TABLE runs; --", '"quoted"', "a\nb\r\nc\td", "\u202egnp.exe", "=cmd|' /C calc'!A0",
    "é 名 😀", "%s %n {0} ${HOME} $(id) `id`", "x" * 100_000, "\ud7ff\ue000", "a|b|c", "--help",
    "</title><img src=x onerror=alert(1)>", "](javascript:alert(1))", "\\x1b", "| a | b |\n|---|",
)  # fmt: skip
NEVER_SHOWN = ("\x1b", "\x9b", "\x07", "\x08", "\u202e")


def noted(db: Path, text: str, shell: Shell) -> str:
    """A text as a run's note, tag, hyperparameter, error and model's name: stored as it is said,
    shown by every command and page without steering what shows it."""
    with Tracker(db) as tracker:
        run = tracker.start_run(model="guest", hyperparams={"what": text, "n": 1})
        tracker.finish_run(run.run_id, "failed", error=text)
        tracker.add_note(run.run_id, text)
        kept = [t for _, _, t in tracker.get_notes(run.run_id)]
        stored = tracker.get_run(run.run_id)
    places = ("--db", str(db))
    if kept != [text] or stored.hyperparams["what"] != text or stored.error != text:
        return f"wrong: stored as {kept!r:.60}"
    for command in (["show", run.run_id], ["runs"], ["compare", run.run_id, run.run_id]):
        try:
            said = shell(*command, *places)
        except AssertionError:  # ended with an error: that is told in a line
            said = shell.err
            if len(said.strip().splitlines()) != 1:
                return f"wrong: {command[0]}: {said!r:.200}"
        if any(c in said for c in NEVER_SHOWN):
            return f"wrong: {command[0]} steers the terminal: {said!r:.200}"
    return "read: shown"


def note_cases() -> Iterator[str]:
    yield from TEXTS
    for one, other in itertools.permutations(TEXTS, 2):
        yield f"{one:.300}{other:.300}"


def note_campaign(folder: Path, texts: list[str], shell: Shell) -> broken.Seen:
    seen = broken.Seen()
    for text in texts:
        seen.add(noted(folder / "notes.db", text, shell), repr(text)[:80])
    return seen


def test_a_hostile_text_is_kept_as_it_is_and_steers_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note_campaign(tmp_path, list(TEXTS), Shell(capsys)).require_none_wrong()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_hostile_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = random.Random(1).sample(list(note_cases()), 100)
    note_campaign(tmp_path, texts, Shell(capsys)).require_none_wrong()
