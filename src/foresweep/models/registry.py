"""Name -> model family, by the entry points `foresweep.models`; built-ins come the same way.

What a family has beside its class is found without importing it: its space file lies beside its
module as `spaces/NAME.toml`, and the package that brings it is named by its entry point.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version

from foresweep.errors import MissingExtra, ModelError, UnknownName
from foresweep.models.base import ForecastModel

GROUP = "foresweep.models"
OURS = "foresweep"
BASELINES = ("last-value", "drift", "seasonal-naive", "random-walk", "har")
FAMILIES = ("toto", "kronos", "chronos2")
ENSEMBLE = "ensemble"
"""No entry point offers it to a sweep: it is made of runs, and loaded like any other model."""


@cache
def _points() -> dict[str, tuple[EntryPoint, ...]]:
    """Entry points by the name of the model: more than one is a clash."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=GROUP):
        key = _key(point.name)
        found[key] = (*found.get(key, ()), point)
    return found


def look_anew() -> None:
    """Forget which models are installed, and look again when next asked."""
    _points.cache_clear()


def _key(name: str) -> str:
    return name.strip().lower()


def model_names() -> tuple[str, ...]:
    """Every installed model, trained families and baselines, by name."""
    return tuple(sorted(_points()))


def get_model(name: str) -> ForecastModel:
    """The model of this name.

    Raises UnknownName (with the nearest), MissingExtra for a built-in whose packages are absent,
    ModelError for a plug-in that cannot be imported, and for a name that two packages claim.
    """
    if _key(name) == ENSEMBLE:
        from foresweep.models.ensemble import Ensemble

        return Ensemble()
    point = _point(name)
    try:
        family = point.load()
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and _brought_by(point) == OURS:
            raise MissingExtra(error.name or point.module, "models") from error
        raise ModelError(
            f"model {point.name!r} of the package {_brought_by(point)} cannot be imported from "
            f"{point.value}: {error}; reinstall that package with what it depends on"
        ) from error
    model: ForecastModel = family()
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


def plugin_versions(name: str) -> dict[str, str]:
    """Versions of the package that brings a plug-in and of those it names as its own needs; {} for
    what foresweep brings itself, and for a model that is not installed."""
    point = _points().get(_key(name), (None,))[0]
    if point is None or point.dist is None or _brought_by(point) == OURS:
        return {}
    wanted = [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in point.dist.requires or ()]
    found = {point.dist.name: point.dist.version}
    for package in wanted:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # an extra that nobody asked for
            continue
    return found


def _point(name: str) -> EntryPoint:
    points = _points().get(_key(name))
    if points is None:
        raise UnknownName("model", name, model_names())
    if len(points) > 1:
        claimed = " and ".join(sorted(f"{_brought_by(p)} ({p.value})" for p in points))
        raise ModelError(f"model {name!r} is claimed by {claimed}; uninstall one of them")
    return points[0]


def _brought_by(point: EntryPoint) -> str:
    """The package that an entry point comes from."""
    return point.dist.name if point.dist else "an unnamed package"
