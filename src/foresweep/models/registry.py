"""Name -> model family, by the entry points `foresweep.models`; built-ins come the same way.

What a family has beside its class is found without importing it: its space file lies beside its
module as `spaces/NAME.toml`, and the package that brings it is named by its entry point.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from typing import Any

from foresweep.errors import ForesweepError, MissingExtra, ModelError, UnknownName, UsageError
from foresweep.models.base import OURS, Facts, ForecastModel, brought_by, installed

BASELINES = ("last-value", "drift", "seasonal-naive", "random-walk", "har")
FAMILIES = ("toto", "kronos", "chronos2")
NEEDS = {
    "toto": ("torch", "toto"),
    "kronos": ("torch", "kronos_finance"),
    "chronos2": ("torch", "chronos", "peft"),
}
"""Packages that the built-in families import where they are used."""
_VALUE = re.compile(r"[\w.]+\s*:\s*[\w.]+(\s*\[.*\])?")
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


def require_packages(names: Iterable[str]) -> None:
    """Raises MissingExtra for the first package that a built-in family lacks, importing none."""
    for name in names:
        for package in NEEDS.get(_key(name), ()):
            if find_spec(package) is None:
                raise MissingExtra(package, "models")


def get_model(name: str) -> ForecastModel:
    """The model of this name.

    Raises UnknownName (with the nearest), MissingExtra for a built-in whose packages are absent,
    ModelError for a plug-in that cannot be imported or takes other arguments to train, and for a
    name that two packages claim.
    """
    if _key(name) == ENSEMBLE:
        from foresweep.models.ensemble import Ensemble

        return Ensemble(get_model)
    require_packages((name,))
    point = _point(name)
    who = f"model {point.name!r} of the package {brought_by(point)}"
    try:
        family = point.load()
    except (Exception, SystemExit) as error:  # whatever its module does when it is imported
        if isinstance(error, ModuleNotFoundError) and brought_by(point) == OURS:
            raise MissingExtra(error.name or point.module, "models") from error
        raise ModelError(
            f"{who} cannot be imported from {point.value}: {_said(error)}; reinstall that package "
            f"with what it depends on"
        ) from error
    try:
        model: ForecastModel = family()
        missing = [n for n in PROMISED if not hasattr(model, n)]
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{who} cannot be made from {point.value}: {_said(error)}; it must be a class that "
            f"takes nothing (docs/adding-a-model.md)"
        ) from error
    if missing:
        raise ModelError(
            f"{who} has no {', '.join(missing)}; a model has {', '.join(PROMISED)} "
            f"(docs/adding-a-model.md)"
        )
    if not isinstance(model.name, str) or _key(model.name) != _key(name):
        raise ModelError(
            f"{who} calls itself {model.name!r:.60}; its class and its entry point must have one "
            f"name (docs/adding-a-model.md)"
        )
    _require_train(model, who)
    return model


PROMISED = ("name", "Config", "resolve", "weights_hash", "train", "load")
"""What every model has: the attributes of ForecastModel."""


def _require_train(model: ForecastModel, who: str) -> None:
    """Raises ModelError where it does not take a job."""
    try:
        inspect.signature(model.train).bind(None)
    except (TypeError, ValueError) as error:
        try:
            takes = str(inspect.signature(model.train))
        except (TypeError, ValueError):
            takes = f", which is {type(model.train).__name__}"
        raise ModelError(
            f"{who} has train{takes}, which must be train(job) with a TrainingJob "
            f"(docs/adding-a-model.md); install a version of it for this foresweep"
        ) from error


def _said(error: BaseException) -> str:
    """What somebody else's error says, in a line; it may fail to say anything."""
    try:
        said = " ".join(str(error).split())
    except Exception:  # a plug-in's own class, whose text may raise anything
        said = ""
    kind = type(error).__name__
    return said if isinstance(error, ImportError | AttributeError) and said else f"{kind}: {said}"


@contextmanager
def answering(model: ForecastModel) -> Iterator[None]:
    """Around asking a family about a config. Raises ModelError for what is no error of ours: a
    plug-in's own ends neither the sweep nor another family's configs."""
    try:
        yield
    except ForesweepError:
        raise
    except (Exception, SystemExit) as error:  # whatever a plug-in's code raises
        raise ModelError(
            f"model {model.name!r} cannot say what this config comes to: {_said(error)}; that is "
            f"an error in the model's own code, to be told to those who made it"
        ) from error


def resolved(model: ForecastModel, config: Any, facts: Facts) -> Any:
    """The config as its family fills it in (`ForecastModel.resolve`). Raises as it does;
    ModelError where it raises anything else or gives back no config."""
    with answering(model):
        whole = model.resolve(config, facts)
    if not isinstance(whole, model.Config):
        raise ModelError(
            f"model {model.name!r} resolves a config to {type(whole).__name__}, which must be its "
            f"{model.Config.__name__} (docs/adding-a-model.md)"
        )
    return whole


def module_of(name: str) -> str:
    """The module that defines a model, not imported: what a worker loads beforehand."""
    return _point(name).module


def space_text(name: str) -> str | None:
    """The space file beside a model's module, as written; None where it has none.

    Imports the package that holds the module, and not the module.
    """
    point = _point(name)
    package = point.module.rpartition(".")[0]
    if not package:
        return None
    try:
        file = resources.files(package) / "spaces" / f"{_key(name)}.toml"
        return file.read_text("utf-8") if file.is_file() else None
    except (Exception, SystemExit) as error:  # whatever the package does when it is imported
        raise ModelError(
            f"the space of model {point.name!r} of the package {brought_by(point)} cannot be read: "
            f"{_said(error)}; reinstall that package with what it depends on"
        ) from error


def demo_space_text() -> str:
    """The configs of the demo, one section a built-in family."""
    return (resources.files("foresweep.models") / "spaces" / "demo.toml").read_text("utf-8")


def _point(name: str) -> EntryPoint:
    points = installed().get(_key(name))
    if points is None:
        raise UnknownName("model", name, model_names())
    if len(points) == 1 and not _VALUE.fullmatch(points[0].value):
        raise ModelError(
            f"model {name!r} of the package {brought_by(points[0])} stands at "
            f"{points[0].value!r:.60}, which is no package.module:Class; reinstall that package"
        )
    if len(points) > 1:
        claimed = " and ".join(sorted(f"{brought_by(p)} ({p.value})" for p in points))
        raise ModelError(f"model {name!r} is claimed by {claimed}; uninstall one of them")
    return points[0]


# What a process imports once, so that the trials forked from it need not.


# A cold start of a family costs seconds: torch itself, its compiler (imported by the first step of
# any optimiser) and the authors' packages, which the families import where they first need them.


logger = logging.getLogger(__name__)

ALWAYS = ("foresweep.models.baselines.naive", "scipy.special")  # scoring needs the latter
FIRST_STEP = ("torch._dynamo", "safetensors.torch", "foresweep.models.training.loop")
"""Imported by the first optimiser step and the first checkpoint of any family of torch."""
LATER = {
    "toto": ("foresweep.models.toto.authors", "foresweep.models.toto.decoding"),
    "kronos": (
        "foresweep.models.kronos.sampling",
        "kronos_finance._vendor.kronos_model.kronos",
    ),
    "chronos2": ("foresweep.models.chronos2.network", "peft.tuners.lora"),
}
"""What a built-in family imports only when it trains. A plug-in imports at the top of its module
what it wants loaded beforehand."""


def preload(models: Iterable[str]) -> None:
    """Import what trials of these models will need. Touches no device and starts no thread.

    What cannot be imported is left for the trial to meet: there it is told as the trial's failure.
    """
    trained = [m for m in models if m not in BASELINES]
    wanted = list(ALWAYS)
    for model in trained:
        try:
            wanted += (module_of(model), *LATER.get(model, ()))
        except UsageError as error:  # not installed: the sweep has refused it, or will
            logger.debug("nothing to load for %s: %s", model, error)
    for name in wanted:
        _import(name)
    last = FIRST_STEP if "torch" in sys.modules else ("torch",)  # preparing any config asks torch
    for name in last if trained else ():
        _import(name)
    look_anew()  # a trial has the path of its head, which may hold more models than the server's


def _import(name: str) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):  # nobody reads what a server says
            importlib.import_module(name)
    except Exception as error:  # a plug-in may raise anything, and must not take the server down
        logger.debug("%s was not loaded beforehand: %s", name, error)
