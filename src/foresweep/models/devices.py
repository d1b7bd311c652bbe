"""Which device a run takes, and what a process imports before it trains."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace

from foresweep.errors import ConfigError, MissingExtra, UsageError
from foresweep.models.base import Resources
from foresweep.models.registry import BASELINES, look_anew, module_of

KINDS = ("auto", "cpu", "cuda", "mps")


def pick_device(asked: str) -> str:
    """The torch device for `auto`, cpu, cuda, cuda:N or mps; auto is cuda where there is one.

    Raises ConfigError for a device that this machine does not have, MissingExtra without torch.
    """
    if asked == "cpu":  # always there: a baseline's process need not load torch to hear it
        return asked
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra("torch", "models") from error

    kind = asked.partition(":")[0]
    if kind not in KINDS:
        raise ConfigError(f"--device {asked}: give one of {', '.join(KINDS)} or cuda:N")
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(kind, False):
        raise ConfigError(f"--device {asked}: this machine has no {kind}; use --device auto")
    return asked


def on_device(resources: Resources) -> Resources:
    """The resources with `auto` spelt out."""
    return replace(resources, device=pick_device(resources.device))


def bf16_is_fast(device: str) -> bool:
    """Has this torch device units for products in bfloat16? Without them they are slower than in
    float32. CPUs with AVX512_BF16 or AMX, CUDA from compute capability 8.0; not tried on mps."""
    import torch

    kind = device.partition(":")[0]
    if kind == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    if kind == "cuda":
        return torch.cuda.get_device_capability(torch.device(device)) >= (8, 0)
    return False


# What a process imports once, so that the trials forked from it need not.
#
# A cold start of a family costs seconds: torch itself, its compiler (imported by the first step of
# any optimiser) and the authors' packages, which the families import where they first need them.


logger = logging.getLogger(__name__)

ALWAYS = ("foresweep.models.baselines.naive", "scipy.special")  # scoring needs the latter
FIRST_STEP = ("torch._dynamo", "safetensors.torch", "foresweep.models.training.loop")
"""Imported by the first optimiser step and the first checkpoint, whatever the family."""
LATER = {
    "toto": ("toto.model.toto",),
    "kronos": (
        "foresweep.models.kronos.learners",
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
