"""Models with a planted fault, for tests that see whether a sweep notices."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from foresweep.data.panel import CLOSE
from foresweep.data.windows import Context
from foresweep.models import registry
from foresweep.models.base import Checkpoint, Forecast, Levels, Predictor, Resources, TrainingJob
from foresweep.models.baselines.naive import Drift

GUEST = """from foresweep.models.baselines.naive import Drift


class Guest(Drift):
    name = "guest"
"""


@dataclass(frozen=True)
class Gossip:
    """Windows of one call see each other, so an early one learns of later bars."""

    context_length: int = 32

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        close = context.values[:, -1, CLOSE]
        heard = close * (1 + 1e-6 * np.log(close).mean())
        spread = 1 + 0.01 * (np.asarray(levels) - 0.5)
        return Forecast(heard[:, None, None] * np.ones((1, horizon, 1)) * spread, levels)


class Leaky(Drift):
    """Trains like drift and forecasts by gossip."""

    name = "leaky"

    def load(self, checkpoint: Checkpoint, resources: Resources) -> Predictor:
        return Gossip()


class Killed(Drift):
    """Its process is killed while it trains."""

    name = "killed"

    def train(self, job: TrainingJob) -> Checkpoint:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")


@contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Both models, found by entry point as a plug-in's are, in this process and its workers."""
    points = "leaky = planted_model:Leaky\nkilled = planted_model:Killed\n"
    with announced(folder, "planted", points):
        yield


@contextmanager
def plugin(folder: Path, *, module: str = GUEST, space: str = "") -> Iterator[None]:
    """The model `guest` in a package of its own, `guest_package`, with a space file or without."""
    package = folder / "guest_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.py").write_text(module)
    if space:
        (package / "spaces").mkdir()
        (package / "spaces" / "guest.toml").write_text(space)
    with announced(folder, "guest-plugin", "guest = guest_package.model:Guest\n", needs="numpy>=2"):
        yield
    for name in ("guest_package", "guest_package.model"):
        sys.modules.pop(name, None)


@contextmanager
def announced(folder: Path, name: str, points: str, *, needs: str = "") -> Iterator[None]:
    """Entry points of a package that is installed, as far as anybody can tell, in `folder`."""
    info = folder / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir()
    wanted = f"Requires-Dist: {needs}\n" if needs else ""
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n{wanted}")
    (info / "entry_points.txt").write_text(f"[foresweep.models]\n{points}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        registry.look_anew()
        yield
    registry.look_anew()
