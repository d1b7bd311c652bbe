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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests are shared out (xdist's loadgroup), a file goes to one process, so that what it
    makes once is made once; so do all that ask a PostgreSQL server. What takes long comes first:
    no process is left alone with it in the end."""
    for item in items:
        if "[postgresql" in item.name:
            item.add_marker(pytest.mark.xdist_group("postgresql"), append=False)
        elif item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: (item.path.parent.name != "slow", "[postgresql" not in item.name))


@pytest.fixture(scope="session", autouse=True)
def one_server_for_all_workers() -> Iterator[None]:
    import worker_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foresweep.search.engines.local._context", worker_server.context)
        worker_server.context()  # whoever starts it first
        yield


@pytest.fixture(scope="session", autouse=True)
def the_demo_is_read_once() -> Iterator[None]:
    """Its files, in the process of the tests; what is checked and made of them is made anew."""
    from foresweep.data.reading import sources

    with pytest.MonkeyPatch.context() as patch:
        read = cache(sources.demo_items)
        # a list of its own each time: the gate empties it
        patch.setattr(sources, "demo_items", lambda: list(read()))
        yield
