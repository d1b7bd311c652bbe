"""Revision 0009: what a search set out to do, declared before anything is trained."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "declarations",
        sa.Column("declaration_id", _TEXT, nullable=False),
        sa.Column("question", _TEXT, nullable=False),
        sa.Column("models", _TEXT, nullable=False),
        sa.Column("objective", _TEXT, nullable=False),
        sa.Column("horizons", _TEXT, nullable=False),
        sa.Column("max_trials", sa.Integer(), nullable=False),
        sa.Column("smallest_skill", sa.Float()),
        sa.Column("who", _TEXT, nullable=False),
        sa.Column("declared_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("declaration_id"),
    )
