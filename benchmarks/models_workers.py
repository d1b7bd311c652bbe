"""How long until a fresh process can begin a trial?

Ours: a task of the local engine, from the call to its result, in a process of its own that was
forked from a server with all three families' imports done. Beside it: a new Python that does the
same imports. The task itself does nothing but look that they are there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pairs import Row, paired, table

from foresweep.search.engines.base import run_task
from foresweep.search.engines.local import PRELOADED_MODELS, LocalEngine

MODELS = ("toto", "kronos", "chronos2")
MOST_MS = 300.0


def rows(quick: bool = False) -> list[Row]:
    """The table's line; `quick`: fewer rounds."""
    engine = LocalEngine(MODELS)
    engine.warm_up()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"

        def ours() -> object:
            return run_task(engine, ready, log=log)

        started = time.perf_counter()
        seen = {ours(), ours()}
        assert len(seen) == 2, "each task has a process of its own"
        assert os.getpid() not in seen
        first_s = time.perf_counter() - started
        found = paired(ours, cold, rounds=3 if quick else 5, warm_up=1)
    note = f"the server's own start, once a sweep: {first_s:.1f} s"
    return [Row("a fresh process ready for a trial", found, MOST_MS, bound="ours_ms", note=note)]


def ready(_: Any) -> int:
    """The process, after a look at what a trial needs."""
    from foresweep.models.registry import get_model

    for name in MODELS:
        get_model(name)
    for package in ("torch", "torch._dynamo", "toto.model.toto", "chronos"):
        assert package in sys.modules, f"{package} was not loaded beforehand"
    return os.getpid()


def cold() -> object:
    """The same imports in a new Python."""
    return subprocess.run(
        [sys.executable, "-c", "import foresweep.search.engines.preload"],
        env={**os.environ, PRELOADED_MODELS: ",".join(MODELS)},
        check=True,
        capture_output=True,
    )


if __name__ == "__main__":
    print(table(rows(quick="--quick" in sys.argv)))
