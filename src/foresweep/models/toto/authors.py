"""The authors' network as a module, imported without the trainer that comes with gluonts.

Of gluonts the network uses a few distributions. `gluonts/torch/__init__.py` loads every estimator
of that package, and with them Lightning, torchmetrics and matplotlib: two to three seconds of each
process that forecasts. That file is therefore left out while the network is imported, and whoever
imports `gluonts.torch` afterwards has it whole.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

TRAINER = "gluonts.torch"


@contextmanager
def bare(package: str) -> Iterator[None]:
    """`package`'s modules can be imported, its `__init__` is not run, and all of it is forgotten
    in the end. Nothing is changed for a package that is loaded already."""
    spec = None if package in sys.modules else find_spec(package)
    if spec is None:
        yield
        return
    empty = ModuleType(package)
    empty.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[package] = empty
    try:
        yield
    finally:
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            del sys.modules[name]


with warnings.catch_warnings(), bare(TRAINER):
    # what the package and gluonts say about optional packages (xFormers, orjson)
    warnings.simplefilter("ignore", ImportWarning)
    warnings.filterwarnings("ignore", message="Using `json`-module", category=UserWarning)
    import toto.model.toto as _module

network: ModuleType = _module
