"""Which device has fast products in bfloat16, and what processes load beforehand."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from foresweep.models import registry
from foresweep.models.base import bf16_is_fast
from foresweep.search.engines.local import PRELOAD


@pytest.mark.parametrize(
    ("avx512", "amx", "fast"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_a_cpu_is_fast_in_bf16_with_avx512_or_amx_for_it(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert bf16_is_fast("cpu") == fast


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_cuda_device_is_fast_in_bf16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fast: bool
) -> None:
    asked = []
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability
    )
    assert bf16_is_fast("cuda:1") == fast
    assert asked == [torch.device("cuda:1")]


def test_a_device_that_was_not_tried_is_not_called_fast() -> None:
    assert not bf16_is_fast("mps")


def test_every_module_named_to_be_loaded_beforehand_is_there() -> None:
    """What cannot be imported is passed over in silence: a wrong name would only be slow."""
    names = [PRELOAD, *registry.ALWAYS, *registry.FIRST_STEP, *sum(registry.LATER.values(), ())]
    assert [name for name in names if find_spec(name) is None] == []


MAPPED = """
import ctypes
import numpy as np
from foresweep.models.base import keep_freed_memory

class Info(ctypes.Structure):  # struct mallinfo2 of malloc.h; its fourth field counts mapped blocks
    _fields_ = [(f"f{k}", ctypes.c_size_t) for k in range(10)]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info

def mapped_by_an_array():
    before = libc.mallinfo2().f3
    array = np.empty(2**20)
    return libc.mallinfo2().f3 - before

print(mapped_by_an_array(), end=" ")
keep_freed_memory()
print(mapped_by_an_array())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_arrays_of_eight_mebibytes_are_no_longer_mapped_anew_each_time() -> None:
    said = subprocess.run(
        [sys.executable, "-c", MAPPED], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["1", "0"]
