"""Random numbers of a forecast: a function of seed, item and origin alone.

Every window has its own counter-based stream (Philox, Salmon et al. 2011), keyed by a hash of what
the window is, so that no batch size, no order and no neighbour changes a forecast.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from foresweep.data.windows import Context

Array = NDArray[np.float64]


def uniforms(context: Context, *, seed: int, shape: tuple[int, ...]) -> Array:
    """[N, *shape] numbers in [0, 1), each window's own.

    Put the samples first in `shape`: then a forecast with more samples begins with the same ones.
    """
    out = np.empty((len(context), *shape))
    for n, key in enumerate(_keys(context, seed)):
        np.random.Generator(np.random.Philox(key=key)).random(out=out[n])
    return out


def _keys(context: Context, seed: int) -> list[int]:
    """[N] 128-bit keys."""
    origins = context.timestamps[:, -1].astype("datetime64[ns]").astype(np.int64)
    return [
        int.from_bytes(hashlib.sha256(f"{seed}\0{item}\0{at}".encode()).digest()[:16], "big")
        for item, at in zip(context.item_ids, origins, strict=True)
    ]
