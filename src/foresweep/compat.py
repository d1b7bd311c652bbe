"""The seed's tracker API: `from hparams_tracker import HyperparamTracker`.

    tracker = HyperparamTracker()
    best = tracker.get_best_model(metric="val_pct_mae", model_name="toto")
    print(f"Best: {best.checkpoint_path}, MAE: {best.metrics['val_pct_mae']:.4f}")

Everything but the report is the tracker's own; the report stands two floors above it.
"""

from __future__ import annotations

from pathlib import Path

from foresweep.data.files import write_bytes_atomic
from foresweep.reporting.report import sweep_report
from foresweep.tracker import jsonfile


class HyperparamTracker(jsonfile.JsonTracker):
    """One database of every run. A `.json` path stands for the SQLite database beside it."""

    def generate_report(
        self,
        output_path: str | Path | None = None,
        *,
        metric: str = "val_pct_mae",
        sweep_id: str | None = None,
    ) -> str:
        """The Markdown report of a sweep (default: the latest; without one, of the runs logged by
        hand); also written to `output_path`. Raises NotFound, UnknownName, UsageError."""
        sweep = self.get_sweep(sweep_id or "latest") if sweep_id or self.list_sweeps() else None
        text = sweep_report(self, sweep, metric)
        if output_path is not None:
            write_bytes_atomic(output_path, text.encode())
        return text
