"""Name -> model family, by the entry points `foresweep.models`; built-ins come the same way.

What a family has beside its class is found without importing it: its space file lies beside its
module as `spaces/NAME.toml`, and the package that brings it is named by its entry point.
"""

from __future__ import annotations

import inspect
from importlib import resources
from importlib.metadata import EntryPoint

from foresweep.errors import MissingExtra, ModelError, UnknownName
from foresweep.models.base import OURS, ForecastModel, brought_by, installed

BASELINES = ("last-value", "drift", "seasonal-naive", "random-walk", "har")
FAMILIES = ("toto", "kronos", "chronos2")
ENSEMBLE = "ensemble"
"""No entry point offers it to a sweep: it is made of runs, and loaded like any other model."""


def look_anew() -> None:
    """Forget which models are installed, and look again when next asked."""
    installed.cache_clear()


def _key(name: str) -> str:
    return name.strip().lower()


def model_names() -> tuple[str, ...]:
    """Every installed model, trained families and baselines, by name."""
    return tuple(sorted(installed()))


def get_model(name: str) -> ForecastModel:
    """The model of this name.

    Raises UnknownName (with the nearest), MissingExtra for a built-in whose packages are absent,
    ModelError for a plug-in that cannot be imported or takes other arguments to train, and for a
    name that two packages claim.
    """
    if _key(name) == ENSEMBLE:
        from foresweep.models.ensemble import Ensemble

        return Ensemble(get_model)
    point = _point(name)
    try:
        family = point.load()
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and brought_by(point) == OURS:
            raise MissingExtra(error.name or point.module, "models") from error
        raise ModelError(
            f"model {point.name!r} of the package {brought_by(point)} cannot be imported from "
            f"{point.value}: {error}; reinstall that package with what it depends on"
        ) from error
    model: ForecastModel = family()
    try:
        inspect.signature(model.train).bind(None)
    except TypeError as error:
        raise ModelError(
            f"model {point.name!r} of the package {brought_by(point)} has "
            f"train{inspect.signature(model.train)}, which must be train(job) with a TrainingJob "
            f"(docs/adding-a-model.md); install a version of it for this foresweep"
        ) from error
    return model


def module_of(name: str) -> str:
    """The module that defines a model, not imported: what a worker loads beforehand."""
    return _point(name).module


def space_text(name: str) -> str | None:
    """The space file beside a model's module, as written; None where it has none.

    Imports the package that holds the module, and not the module.
    """
    package = _point(name).module.rpartition(".")[0]
    if not package:
        return None
    file = resources.files(package) / "spaces" / f"{_key(name)}.toml"
    return file.read_text("utf-8") if file.is_file() else None


def demo_space_text() -> str:
    """The configs of the demo, one section a built-in family."""
    return (resources.files("foresweep.models") / "spaces" / "demo.toml").read_text("utf-8")


def _point(name: str) -> EntryPoint:
    points = installed().get(_key(name))
    if points is None:
        raise UnknownName("model", name, model_names())
    if len(points) > 1:
        claimed = " and ".join(sorted(f"{brought_by(p)} ({p.value})" for p in points))
        raise ModelError(f"model {name!r} is claimed by {claimed}; uninstall one of them")
    return points[0]
