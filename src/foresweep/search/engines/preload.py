"""Imported by the server that trials are forked from: does the imports named in its environment."""

from __future__ import annotations

import os

import foresweep.search.trial  # noqa: F401  what every worker runs
from foresweep.models.registry import preload
from foresweep.search.engines.local import PRELOADED_MODELS

preload(name for name in os.environ.get(PRELOADED_MODELS, "").split(",") if name)
