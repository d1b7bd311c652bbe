"""Revision 0005: a sweep can be asked to stop, and its trials are looked up by config."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("stop_asked_at", _TEXT))
    op.create_index("ix_trials_config", "trials", ["sweep_id", "config_hash"], unique=False)
