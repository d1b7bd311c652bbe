"""Revision 0007: the hash chain, whose first entry names the rows that were there before it."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_BEFORE = {
    "run": "SELECT run_id FROM runs WHERE state IN ('complete', 'pruned', 'failed', 'cancelled')",
    "hidden": "SELECT run_id FROM runs WHERE hidden_at IS NOT NULL",
    "trial": "SELECT sweep_id || ' ' || number FROM trials",
    "sweep": "SELECT sweep_id FROM sweeps",
    "verdict": "SELECT judging_id || ' ' || run_id FROM verdicts",
    "look": "SELECT cast(look_id AS text) FROM test_looks",
}


def upgrade() -> None:
    op.create_table(
        "record_chain",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("previous", _TEXT, nullable=False),
        sa.Column("hash", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("covers", _TEXT, nullable=False),
        sa.Column("at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("position"),
    )
    connection = op.get_bind()
    found = {
        kind: sorted(connection.execute(sa.text(query)).scalars())
        for kind, query in _BEFORE.items()
    }
    before = json.dumps({kind: keys for kind, keys in found.items() if keys})
    key, at = secrets.token_hex(8), datetime.now(UTC).isoformat(timespec="microseconds")
    body = sha256(json.dumps(["birth", key, "", before, at]).encode()).hexdigest()
    connection.execute(
        sa.text(
            "INSERT INTO record_chain (position, previous, hash, kind, key, digest, covers, at)"
            " VALUES (0, '', :hash, 'birth', :key, '', :before, :at)"
        ),
        {"hash": sha256(f" 0 {body}".encode()).hexdigest(), "key": key, "before": before, "at": at},
    )
