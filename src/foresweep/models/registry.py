"""Name -> model family, by the entry points `foresweep.models`; built-ins come the same way."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from foresweep.errors import MissingExtra, UnknownName
from foresweep.models.base import ForecastModel

GROUP = "foresweep.models"
BASELINES = ("last-value", "drift", "seasonal-naive", "random-walk")
FAMILIES = ("toto", "kronos", "chronos2")


@cache
def _points() -> dict[str, EntryPoint]:
    return {_key(p.name): p for p in entry_points(group=GROUP)}


def _key(name: str) -> str:
    return name.strip().lower()


def model_names() -> tuple[str, ...]:
    """Every installed model, trained families and baselines, by name."""
    return tuple(sorted(_points()))


def get_model(name: str) -> ForecastModel:
    """The model of this name. Raises UnknownName (with the nearest), MissingExtra."""
    point = _points().get(_key(name))
    if point is None:
        raise UnknownName("model", name, model_names())
    try:
        family = point.load()
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or point.module, "models") from error
    model: ForecastModel = family()
    return model
