"""`from hparams_tracker import HyperparamTracker`: one tracker for all runs."""

from foresweep.compat import HyperparamTracker

__all__ = ["HyperparamTracker"]
