"""What a process imports once, so that the trials forked from it need not."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Iterable

from foresweep.errors import UsageError
from foresweep.models.registry import BASELINES, look_anew, module_of

# A cold start of a family costs seconds: torch itself, its compiler (imported by the first step of
# any optimiser) and the authors' packages, which the families import where they first need them.


logger = logging.getLogger(__name__)

ALWAYS = ("foresweep.models.baselines.naive", "scipy.special")  # scoring needs the latter
FIRST_STEP = ("torch._dynamo", "safetensors.torch", "foresweep.models.training.loop")
"""Imported by the first optimiser step and the first checkpoint, whatever the family."""
LATER = {
    "toto": ("toto.model.toto",),
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
    wanted = [*ALWAYS, "torch"] if trained else list(ALWAYS)  # preparing any config asks torch
    for model in trained:
        try:
            wanted += (module_of(model), *LATER.get(model, ()))
        except UsageError as error:  # not installed: the sweep has refused it, or will
            logger.debug("nothing to load for %s: %s", model, error)
    for name in wanted:
        _import(name)
    if trained and "torch" in sys.modules:
        for name in FIRST_STEP:
            _import(name)
    look_anew()  # a trial has the path of its head, which may hold more models than the server's


def _import(name: str) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):  # nobody reads what a server says
            importlib.import_module(name)
    except Exception as error:  # a plug-in may raise anything, and must not take the server down
        logger.debug("%s was not loaded beforehand: %s", name, error)
