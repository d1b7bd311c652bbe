"""A mirror can be slow, broken or away: the runs never feel it, and no test score reaches it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foresweep.errors import MissingExtra, TrackerError, UnknownName, UsageError
from foresweep.integrations.mirror import Mirrored, copy_runs, open_mirror
from foresweep.records import Run
from runs import make_run

RUN = replace(make_run("toto", 1, 1.0), metrics={"val_pct_mae": 1.0, "val_r2": float("nan")})
LOGGED = {"train_loss": 1.0, "test_loss": 7.0, "Test/mae": 7.0, "tune_r2": float("inf")}


class Fake:
    """Writes down what it is told; `fails` names the method that raises."""

    def __init__(self, fails: str = "", error: BaseException | None = None) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.fails, self.error = fails, error or RuntimeError("no route to host")
        self.gate = threading.Event()
        self.gate.set()

    def _note(self, name: str, *said: Any) -> None:
        self.gate.wait()
        self.told.append((name, *said))
        if name == self.fails:
            raise self.error

    def has(self, run: Run) -> bool:
        return run.run_id.endswith("_009")

    def start(self, run: Run) -> None:
        self._note("start", run.run_id)

    def log(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        self._note("log", step, dict(scores))

    def finish(self, run: Run) -> None:
        self._note("finish", run.run_id)

    def close(self) -> None:
        self._note("close")


def mirrored(fake: Fake) -> tuple[Mirrored, list[str]]:
    said: list[str] = []
    return Mirrored("fake", lambda: fake, said.append), said


def play(mirror: Mirrored) -> None:
    """One run from start to end."""
    mirror.start(RUN)
    mirror.log(RUN, 1, LOGGED)
    mirror.finish(RUN)


def test_a_mirror_is_told_everything_in_order_but_the_sealed_and_the_failed() -> None:
    fake = Fake()
    mirror, said = mirrored(fake)
    play(mirror)
    mirror.log(RUN, 2, {"test_loss": 7.0})  # nothing is left to say
    mirror.close()
    assert fake.told == [
        ("start", RUN.run_id),
        ("log", 1, {"train_loss": 1.0}),
        ("finish", RUN.run_id),
        ("close",),
    ]
    assert said == []


@pytest.mark.parametrize("error", [RuntimeError("no route"), SystemExit("1"), OSError("no route")])
@pytest.mark.parametrize("fails", ["start", "log", "finish", "close"])
def test_a_mirror_that_fails_warns_once_and_is_left_alone(fails: str, error: BaseException) -> None:
    fake = Fake(fails, error)
    mirror, said = mirrored(fake)
    play(mirror)
    play(mirror)
    mirror.close()
    (warning,) = said
    assert "the mirror fake stopped" in warning
    assert str(error) in warning
    assert "foresweep export fake" in warning
    assert [t[0] for t in fake.told].count(fails) == 1
    assert fake.told[-1][0] == fails  # nothing is told to it afterwards


def test_a_mirror_that_cannot_be_opened_warns_once() -> None:
    said: list[str] = []

    def opener() -> Fake:
        raise ConnectionError("refused")

    mirror = Mirrored("fake", opener, said.append)
    play(mirror)
    mirror.close()
    assert len(said) == 1
    assert "refused" in said[0]


def test_a_slow_mirror_keeps_nobody_waiting() -> None:
    fake = Fake()
    fake.gate.clear()
    mirror, said = mirrored(fake)
    play(mirror)  # returns though the mirror hangs
    mirror.close(within_s=0.05)
    fake.gate.set()
    assert "were not sent" in said[0]


def test_finished_runs_are_copied_with_their_curves_and_known_ones_are_not() -> None:
    fake = Fake()
    known = replace(RUN, run_id="toto_009")
    assert copy_runs("fake", lambda: fake, [known, RUN], lambda _: {3: LOGGED}) == 1
    assert fake.told == [
        ("start", RUN.run_id),
        ("log", 3, {"train_loss": 1.0}),
        ("finish", RUN.run_id),
        ("close",),
    ]


def test_a_copy_that_fails_is_an_error_of_ours() -> None:
    with pytest.raises(TrackerError, match="fake failed with RuntimeError: no route to host"):
        copy_runs("fake", lambda: Fake("start"), [RUN], lambda _: {})


def test_an_unknown_mirror_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mlflow'"):
        open_mirror("mlfow")
    with pytest.raises(UnknownName, match="did you mean 'offline'"):
        open_mirror_with(lambda name: object())("wandb:ofline")


def test_a_package_that_is_not_there_names_its_extra() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'foresweep\[wandb\]'"):
        open_mirror_with(lambda name: None)("wandb")


def open_mirror_with(find_spec: Callable[[str], object]) -> Callable[[str], object]:
    """`open_mirror` where packages are found as `find_spec` says."""

    def opened(wanted: str) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("foresweep.integrations.mirror.find_spec", find_spec)
            return open_mirror(wanted)

    return opened


def test_wandb_without_a_key_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would ask in the terminal, in the middle of a sweep."""
    opened = open_mirror_with(lambda name: object())
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UsageError, match="wandb login"):
        opened("wandb")
    opened("wandb:offline")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password k")
    opened("wandb")
