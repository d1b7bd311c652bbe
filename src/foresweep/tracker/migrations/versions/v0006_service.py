"""Revision 0006: champions, the forecasts they made, and the heads of chained tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "champions",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("entry_key", _TEXT, nullable=False),
        sa.Column("slot", _TEXT, nullable=False),
        sa.Column("action", _TEXT, nullable=False),
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("checkpoint_path", _TEXT, nullable=False),
        sa.Column("manifest", _TEXT, nullable=False),
        sa.Column("verdict_id", sa.Integer()),
        sa.Column("reason", _TEXT),
        sa.Column("content", _TEXT, nullable=False),
        sa.Column("who", _TEXT, nullable=False),
        sa.Column("made_at", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"]),
        sa.PrimaryKeyConstraint("entry_id"),
    )
    op.create_index("ix_champions_key", "champions", ["entry_key"], unique=True)
    op.create_index("ix_champions_slot", "champions", ["slot"], unique=False)
    op.create_table(
        "forecasts_made",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("slot", _TEXT, nullable=False),
        sa.Column("role", _TEXT, nullable=False),
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("manifest", _TEXT, nullable=False),
        sa.Column("item_id", _TEXT, nullable=False),
        sa.Column("origin", _TEXT, nullable=False),
        sa.Column("horizon", sa.Integer(), nullable=False),
        sa.Column("last_close", sa.Float(), nullable=False),
        sa.Column("times", _TEXT, nullable=False),
        sa.Column("levels", _TEXT, nullable=False),
        sa.Column("quantiles", _TEXT, nullable=False),
        sa.Column("input_hash", _TEXT, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("made_at", _TEXT, nullable=False),
        sa.Column("previous", _TEXT, nullable=False),
        sa.Column("hash", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"]),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index(
        "ix_forecasts_once",
        "forecasts_made",
        ["slot", "role", "manifest", "item_id", "origin", "horizon", "input_hash"],
        unique=True,
    )
    op.create_index("ix_forecasts_origin", "forecasts_made", ["slot", "origin"], unique=False)
    op.create_table(
        "chains",
        sa.Column("chain", _TEXT, nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("hash", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("chain"),
    )
