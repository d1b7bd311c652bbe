"""Revision 0004: verdicts are kept, and a look at test knows which verdict it was for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("test_looks", sa.Column("judging_id", _TEXT))
    op.add_column("test_looks", sa.Column("number", sa.Integer()))
    op.create_table(
        "verdicts",
        sa.Column("verdict_id", sa.Integer(), nullable=False),
        sa.Column("judging_id", _TEXT, nullable=False),
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("fingerprint", _TEXT, nullable=False),
        sa.Column("outcome", _TEXT, nullable=False),
        sa.Column("content", _TEXT, nullable=False),
        sa.Column("who", _TEXT, nullable=False),
        sa.Column("judged_at", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"]),
        sa.PrimaryKeyConstraint("verdict_id"),
    )
    op.create_index("ix_verdicts_run", "verdicts", ["run_id"], unique=False)
