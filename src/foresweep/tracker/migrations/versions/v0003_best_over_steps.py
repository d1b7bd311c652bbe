"""Revision 0003: the best over steps of ended runs is found by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    final: sa.Column[bool] = sa.Column(
        "is_final", sa.Boolean(), nullable=False, server_default=sa.false()
    )
    op.add_column("curves", final)
    op.execute(
        "UPDATE curves SET is_final = true WHERE run_id IN (SELECT run_id FROM runs"
        " WHERE state IN ('complete', 'pruned', 'failed', 'cancelled'))"
    )
    for best in ("lowest", "highest"):
        op.create_index(
            f"ix_curves_{best}",
            "curves",
            ["name", best, "run_id"],
            sqlite_where=final.is_(True),
            postgresql_where=final.is_(True),
        )
