"""Which device a run takes."""

from __future__ import annotations

from dataclasses import replace

from foresweep.errors import ConfigError, MissingExtra
from foresweep.models.base import Resources

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
