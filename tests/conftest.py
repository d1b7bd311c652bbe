"""What every test shares: one hypothesis profile, one torch thread, no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

settings.register_profile("house", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("house")


@pytest.fixture(scope="session", autouse=True)
def one_server_for_all_workers() -> Iterator[None]:
    import worker_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foresweep.search.engines.local._context", worker_server.context)
        yield


@pytest.fixture(scope="session", autouse=True)
def the_demo_is_read_once() -> Iterator[None]:
    """Its files, in the process of the tests; what is checked and made of them is made anew."""
    from foresweep.data.reading import sources

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "demo_items", cache(sources.demo_items))
        yield
