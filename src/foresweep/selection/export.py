"""Hand a chosen run over to inference: the seed's one-line path file and a card beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from foresweep.data.files import write_bytes_atomic, write_json_atomic
from foresweep.errors import CheckpointError, NotFound
from foresweep.models.checkpoint import read_checkpoint
from foresweep.records import Run
from foresweep.selection.leaderboard import Row

PATH_FILE = ".best_model_path"
CARD_FILE = ".best_model.json"


def export_best(row: Row, *, metric: str, folder: Path) -> tuple[Path, Path]:
    """Write `.best_model_path` (the checkpoint folder, one line) and `.best_model.json`.

    The checkpoint is read and its hashes are verified first. Raises CheckpointError when the run
    has none or its files are gone or altered.
    """
    run = row.run
    if run.checkpoint_path is None:
        raise CheckpointError(f"run {run.run_id} has no checkpoint to export")
    checkpoint = read_checkpoint(Path(run.checkpoint_path))
    card = best_card(row, metric=metric) | {"checkpoint_card": dict(checkpoint.card)}
    path_file, card_file = folder / PATH_FILE, folder / CARD_FILE
    write_json_atomic(card_file, card)
    write_bytes_atomic(path_file, str(checkpoint.path.resolve()).encode())
    return path_file, card_file


def export_run(run: Run, checkpoint: Path, *, folder: Path) -> tuple[Path, Path]:
    """The same for a run that is no line of a leaderboard: the champion. Raises CheckpointError."""
    here = replace(run, checkpoint_path=str(checkpoint))
    metric = "val_pct_mae"
    row = Row(None, here, here.score(metric), here.score("val_skill"))
    return export_best(row, metric=metric, folder=folder)


def best_card(row: Row, *, metric: str) -> dict[str, Any]:
    """What a consumer must know of the chosen run, as plain JSON; no test score."""
    run = row.run
    return {
        "run_id": run.run_id,
        "model": run.model_name,
        "checkpoint_path": str(Path(str(run.checkpoint_path)).resolve()),
        "selected_by": metric,
        "score": row.score,
        "skill_vs_last_value": row.skill,
        "beats_naive": bool(row.skill is not None and row.skill > 0),
        "hyperparams": dict(run.hyperparams),
        "metrics": run.json_metrics,
        "sweep_id": run.sweep_id,
        "fingerprint": run.fingerprint,
        "seed": run.seed,
        "git_commit": run.git_commit,
        "trained_at": run.timestamp,
    }


def read_exported_path(folder: Path) -> Path:
    """The checkpoint that `.best_model_path` names. Raises NotFound where there is none."""
    file = folder / PATH_FILE
    if not file.is_file():
        raise NotFound(
            f"no {PATH_FILE} in {folder.resolve()}; choose a model with: "
            f"foresweep best --export-path, or give one with --checkpoint FOLDER"
        )
    return Path(file.read_text(encoding="utf-8").strip())
