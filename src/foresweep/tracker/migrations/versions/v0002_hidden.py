"""Revision 0002: a run can be hidden, and brought back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("runs", sa.Column("hidden_at", sa.Text()))
