"""A line to the database below SQLAlchemy: what the paths that must be fast are written in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar


class Line:
    """The driver's connection; statements mark their values with `?` on every database."""

    is_postgres: ClassVar[bool]
    for_update: ClassVar[str]
    """Put after a SELECT: keeps the row from changing until the unit of work ends. SQLite needs
    no word for that: its writers take turns."""

    execute: Callable[..., Any]
    """(sql, values=()) -> the driver's cursor."""
    executemany: Callable[[str, Sequence[Sequence[Any]]], Any]

    def transact(self, do: Callable[[Line], Any], *, together: bool = True) -> Any:
        """What `do` gives, in one unit of work: all of it durable, or on any error nothing.

        `insert_many` needs `together` to be False: such statements cannot share a way.
        """
        raise NotImplementedError

    def insert_many(
        self, table: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]
    ) -> None:
        """Many rows of one table, the fastest way there is."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
