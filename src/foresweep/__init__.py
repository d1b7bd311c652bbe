"""foresweep sweeps, tracks and judges fine-tuned time-series foundation models on market data."""

from __future__ import annotations

__version__ = "0.1.0"
