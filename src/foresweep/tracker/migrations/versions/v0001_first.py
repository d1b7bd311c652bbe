"""Revision 0001: datasets, sweeps, trials, runs, scores, curves, looks and notes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _curve_points()
    _curves()
    _datasets()
    _environments()
    _imports()
    _leases()
    _sweeps()
    _runs()
    _trials()
    _notes()
    _scores()
    _test_looks()


def _curve_points() -> None:
    op.create_table(
        "curve_points",
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("logged_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "name", "step"),
        sqlite_with_rowid=False,
    )


def _curves() -> None:
    op.create_table(
        "curves",
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("num_points", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.Float()),
        sa.Column("lowest", sa.Float()),
        sa.Column("lowest_step", sa.BigInteger()),
        sa.Column("highest", sa.Float()),
        sa.Column("highest_step", sa.BigInteger()),
        sa.PrimaryKeyConstraint("run_id", "name"),
        sqlite_with_rowid=False,
    )


def _datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("dataset_id", _TEXT, nullable=False),
        sa.Column("panel_hash", _TEXT, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("num_items", sa.Integer(), nullable=False),
        sa.Column("num_rows", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", _TEXT, nullable=False),
        sa.Column("ends_at", _TEXT, nullable=False),
        sa.Column("findings", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("dataset_id"),
    )


def _environments() -> None:
    op.create_table(
        "environments",
        sa.Column("environment_id", _TEXT, nullable=False),
        sa.Column("content", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("environment_id"),
    )


def _imports() -> None:
    op.create_table(
        "imports",
        sa.Column("content_hash", _TEXT, nullable=False),
        sa.Column("path", _TEXT, nullable=False),
        sa.Column("num_runs", sa.Integer(), nullable=False),
        sa.Column("imported_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("content_hash"),
    )


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("sweep_id", _TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("taken_at", _TEXT, nullable=False),
        sa.Column("host", _TEXT),
        sa.Column("machine", _TEXT),
        sa.Column("pid", sa.Integer()),
        sa.Column("pid_start", _TEXT),
        sa.Column("heartbeat_at", _TEXT),
        sa.PrimaryKeyConstraint("sweep_id", "number"),
    )


def _sweeps() -> None:
    op.create_table(
        "sweeps",
        sa.Column("sweep_id", _TEXT, nullable=False),
        sa.Column("name", _TEXT),
        sa.Column("models", _TEXT, nullable=False),
        sa.Column("mode", _TEXT, nullable=False),
        sa.Column("objective", _TEXT, nullable=False),
        sa.Column("horizon", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("panel_hash", _TEXT, nullable=False),
        sa.Column("task_hash", _TEXT, nullable=False),
        sa.Column("fingerprints", _TEXT, nullable=False),
        sa.Column("plan", _TEXT, nullable=False),
        sa.Column("dataset_id", _TEXT),
        sa.Column("environment_id", _TEXT),
        sa.Column("num_trials", sa.Integer(), nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("started_at", _TEXT, nullable=False),
        sa.Column("finished_at", _TEXT),
        sa.Column("host", _TEXT),
        sa.Column("machine", _TEXT),
        sa.Column("pid", sa.Integer()),
        sa.Column("pid_start", _TEXT),
        sa.Column("heartbeat_at", _TEXT),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.dataset_id"],
        ),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.environment_id"],
        ),
        sa.PrimaryKeyConstraint("sweep_id"),
    )
    op.create_index("ix_sweeps_started", "sweeps", ["started_at"], unique=False)
    op.create_index("ix_sweeps_state", "sweeps", ["state"], unique=False)


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("model_name", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("hyperparams", _TEXT, nullable=False),
        sa.Column("metrics", _TEXT, nullable=False),
        sa.Column("checkpoint_path", _TEXT),
        sa.Column("training_time_seconds", sa.Float()),
        sa.Column("duration_seconds", sa.Float()),
        sa.Column("notes", _TEXT),
        sa.Column("git_commit", _TEXT),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("is_baseline", sa.Boolean(), nullable=False),
        sa.Column("sweep_id", _TEXT),
        sa.Column("trial_number", sa.Integer()),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("config_hash", _TEXT, nullable=False),
        sa.Column("train_hash", _TEXT, nullable=False),
        sa.Column("panel_hash", _TEXT, nullable=False),
        sa.Column("task_hash", _TEXT, nullable=False),
        sa.Column("fingerprints", _TEXT, nullable=False),
        sa.Column("fingerprint", _TEXT, nullable=False),
        sa.Column("objective_score", sa.Float()),
        sa.Column("started_at", _TEXT),
        sa.Column("finished_at", _TEXT),
        sa.Column("error", _TEXT),
        sa.Column("tags", _TEXT, nullable=False),
        sa.Column("resources", _TEXT, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("forecasts_path", _TEXT),
        sa.Column("peak_memory_mb", sa.Float()),
        sa.Column("environment_id", _TEXT),
        sa.Column("host", _TEXT),
        sa.Column("machine", _TEXT),
        sa.Column("pid", sa.Integer()),
        sa.Column("pid_start", _TEXT),
        sa.Column("heartbeat_at", _TEXT),
        sa.Column("worker_pid", sa.Integer()),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.environment_id"],
        ),
        sa.ForeignKeyConstraint(
            ["sweep_id"],
            ["sweeps.sweep_id"],
        ),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("ix_runs_created", "runs", ["created_at"], unique=False)
    op.create_index("ix_runs_model", "runs", ["model_name", "created_at"], unique=False)
    op.create_index("ix_runs_state", "runs", ["state"], unique=False)
    op.create_index(
        "ix_runs_sweep", "runs", ["sweep_id", "model_name", "trial_number"], unique=False
    )
    op.create_index("ix_runs_trained", "runs", ["train_hash", "seed"], unique=False)


def _trials() -> None:
    op.create_table(
        "trials",
        sa.Column("sweep_id", _TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("model_name", _TEXT, nullable=False),
        sa.Column("config", _TEXT, nullable=False),
        sa.Column("config_hash", _TEXT, nullable=False),
        sa.Column("train_hash", _TEXT, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep_id"],
            ["sweeps.sweep_id"],
        ),
        sa.PrimaryKeyConstraint("sweep_id", "number"),
    )


def _notes() -> None:
    op.create_table(
        "notes",
        sa.Column("note_id", sa.Integer(), nullable=False),
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("text", _TEXT, nullable=False),
        sa.Column("who", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.run_id"],
        ),
        sa.PrimaryKeyConstraint("note_id"),
    )
    op.create_index("ix_notes_run", "notes", ["run_id"], unique=False)


def _scores() -> None:
    op.create_table(
        "scores",
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("part", _TEXT, nullable=False),
        sa.Column("metric", _TEXT, nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("model_name", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("is_baseline", sa.Boolean(), nullable=False),
        sa.Column("has_checkpoint", sa.Boolean(), nullable=False),
        sa.Column("fingerprint", _TEXT, nullable=False),
        sa.Column("sweep_id", _TEXT),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.run_id"],
        ),
        sa.PrimaryKeyConstraint("run_id", "part", "metric"),
    )
    op.create_index(
        "ix_scores_all",
        "scores",
        [
            "metric",
            "part",
            "fingerprint",
            "state",
            "is_baseline",
            "has_checkpoint",
            "value",
            "run_id",
        ],
        unique=False,
    )
    op.create_index(
        "ix_scores_model",
        "scores",
        [
            "metric",
            "part",
            "fingerprint",
            "model_name",
            "state",
            "is_baseline",
            "has_checkpoint",
            "value",
            "run_id",
        ],
        unique=False,
    )


def _test_looks() -> None:
    op.create_table(
        "test_looks",
        sa.Column("look_id", sa.Integer(), nullable=False),
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("fingerprint", _TEXT, nullable=False),
        sa.Column("panel_hash", _TEXT, nullable=False),
        sa.Column("who", _TEXT, nullable=False),
        sa.Column("why", _TEXT, nullable=False),
        sa.Column("looked_at", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.run_id"],
        ),
        sa.PrimaryKeyConstraint("look_id"),
    )
    op.create_index("ix_test_looks_fingerprint", "test_looks", ["fingerprint"], unique=False)
