"""Revision 0008: what became of forecasts, and what a monitor found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "live_scores",
        sa.Column("score_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("slot", _TEXT, nullable=False),
        sa.Column("role", _TEXT, nullable=False),
        sa.Column("manifest", _TEXT, nullable=False),
        sa.Column("item_id", _TEXT, nullable=False),
        sa.Column("origin", _TEXT, nullable=False),
        sa.Column("horizon", sa.Integer(), nullable=False),
        sa.Column("metric", _TEXT, nullable=False),
        sa.Column("loss", sa.Float()),
        sa.Column("last_value_loss", sa.Float()),
        sa.Column("benchmark", _TEXT, nullable=False),
        sa.Column("benchmark_loss", sa.Float()),
        sa.Column("scale", sa.Float()),
        sa.Column("covered", sa.Float()),
        sa.Column("note", _TEXT, nullable=False),
        sa.Column("scored_at", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["number"], ["forecasts_made.number"]),
        sa.PrimaryKeyConstraint("score_id"),
    )
    op.create_index("ix_live_scores_number", "live_scores", ["number"], unique=True)
    op.create_index("ix_live_scores_slot", "live_scores", ["slot", "role"], unique=False)
    op.create_table(
        "live_checks",
        sa.Column("check_id", sa.Integer(), nullable=False),
        sa.Column("check_key", _TEXT, nullable=False),
        sa.Column("slot", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("content", _TEXT, nullable=False),
        sa.Column("checked_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("check_id"),
    )
    op.create_index("ix_live_checks_key", "live_checks", ["check_key"], unique=True)
    op.create_index("ix_live_checks_slot", "live_checks", ["slot"], unique=False)
