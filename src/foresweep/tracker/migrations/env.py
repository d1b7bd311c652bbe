"""Where Alembic starts: the connection is handed in, already inside its transaction."""

from __future__ import annotations

from alembic import context

from foresweep.tracker.storage.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
