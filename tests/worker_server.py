"""The server that all processes of a test session are forked from, whoever starts one first: a
worker without torch would import it for every trial."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from foresweep.search.engines.local import PRELOAD, PRELOADED_MODELS

IMPORTED = (PRELOAD, "foresweep.tracker.tracker", "alembic.command")


def context(_: tuple[str, ...] = ()) -> Any:
    """In place of the local engine's own, which has what its sweep needs imported."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(IMPORTED))
    os.environ[PRELOADED_MODELS] = "toto,kronos,chronos2"
    return found
