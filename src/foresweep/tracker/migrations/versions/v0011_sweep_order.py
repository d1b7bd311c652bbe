"""Revision 0011: which sweep is the latest is read from the chain, by an index of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    kind: sa.Column[str] = sa.Column("kind", sa.Text())
    only = kind == sa.literal_column("'sweep'")
    op.create_index(
        "ix_record_chain_sweeps",
        "record_chain",
        ["key", "position"],
        sqlite_where=only,
        postgresql_where=only,
    )
