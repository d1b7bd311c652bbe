"""Revision 0010: what is put in service is chained from here on; an entry names what was before."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_LAST = "SELECT position, hash FROM record_chain ORDER BY position DESC LIMIT 1"
_APPEND = (
    "INSERT INTO record_chain (position, previous, hash, kind, key, digest, covers, at)"
    " VALUES (:position, :previous, :hash, 'before', 'champion', '', :covers, :at)"
)


def upgrade() -> None:
    connection = op.get_bind()
    query = sa.text("SELECT entry_id FROM champions ORDER BY entry_id")
    keys = [str(key) for key in connection.execute(query).scalars()]
    if not keys:
        return
    before, last = connection.execute(sa.text(_LAST)).one()
    covers, at = (
        json.dumps({"champion": keys}),
        datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    body = sha256(json.dumps(["before", "champion", "", covers, at]).encode()).hexdigest()
    row = {"position": before + 1, "previous": last, "covers": covers, "at": at}
    row["hash"] = sha256(f"{last} {before + 1} {body}".encode()).hexdigest()
    connection.execute(sa.text(_APPEND), row)
