"""foresweep sweeps, tracks and judges fine-tuned time-series foundation models on market data."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from foresweep.compat import HyperparamTracker
    from foresweep.data.reading.sources import load_panel
    from foresweep.data.splits import Cut
    from foresweep.errors import ForesweepError
    from foresweep.evaluation.predict import predict_panel
    from foresweep.face import SweepResult, demo, load, resume, sweep, train
    from foresweep.lifecycle.inference import LoadedModel, load_champion
    from foresweep.models.checkpoint import read_checkpoint as load_checkpoint
    from foresweep.records import Run, Sweep, Trial, Verdict
    from foresweep.search.plan import SweepPlan
    from foresweep.search.sweep import Workers
    from foresweep.selection.verdict.runs import verdict
    from foresweep.tracker.tracker import Tracker

__all__ = [
    "Cut",
    "ForesweepError",
    "HyperparamTracker",
    "LoadedModel",
    "Run",
    "Sweep",
    "SweepPlan",
    "SweepResult",
    "Tracker",
    "Trial",
    "Verdict",
    "Workers",
    "demo",
    "load",
    "load_champion",
    "load_checkpoint",
    "load_panel",
    "predict_panel",
    "resume",
    "sweep",
    "train",
    "verdict",
]

_HOMES = {
    "Cut": "foresweep.data.splits",
    "ForesweepError": "foresweep.errors",
    "HyperparamTracker": "foresweep.compat",
    "LoadedModel": "foresweep.lifecycle.inference",
    "Run": "foresweep.records",
    "Sweep": "foresweep.records",
    "SweepPlan": "foresweep.search.plan",
    "SweepResult": "foresweep.face",
    "Tracker": "foresweep.tracker.tracker",
    "Trial": "foresweep.records",
    "Verdict": "foresweep.records",
    "Workers": "foresweep.search.sweep",
    "demo": "foresweep.face",
    "load": "foresweep.face",
    "load_champion": "foresweep.lifecycle.inference",
    "load_checkpoint": "foresweep.models.checkpoint",
    "load_panel": "foresweep.data.reading.sources",
    "predict_panel": "foresweep.evaluation.predict",
    "resume": "foresweep.face",
    "sweep": "foresweep.face",
    "train": "foresweep.face",
    "verdict": "foresweep.selection.verdict.runs",
}
_NAMES_THERE = {"load_checkpoint": "read_checkpoint"}


def __dir__() -> list[str]:
    """The face, for whoever completes a name with Tab in a notebook."""
    return sorted([*__all__, "__version__", "__doc__", "__name__", "__file__", "__path__"])


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is first used: `import foresweep` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'foresweep' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), _NAMES_THERE.get(name, name))
