"""Rows chained by hashes: none can be changed, removed or inserted without the later ones telling.

Each carries the hash of the one before.
Who may write the whole table can also compute the whole chain anew: a hash that was handed to
somebody else before (`head`) is what no rewriting can meet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from foresweep.tracker.storage import schema

GENESIS = "0" * 64
"""What stands before the first entry."""
OWN = ("previous", "hash")
"""Columns of the chain itself."""


def link(previous: str, content: Mapping[str, Any]) -> str:
    """The hash of an entry: sha256 over the hash before it and its content, JSON's own values, in
    the order of their names."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


def head(connection: Connection, chain: str) -> tuple[int, str]:
    """(number of entries, hash of the last) as the writers left them; (0, GENESIS) of none."""
    table = schema.chains
    query = select(table.c.length, table.c.hash).where(table.c.chain == chain)
    row = connection.execute(query).first()
    return (0, GENESIS) if row is None else (int(row.length), str(row.hash))


def set_head(connection: Connection, chain: str, length: int, last: str) -> None:
    """In the transaction that added the entries."""
    table, values = schema.chains, {"length": length, "hash": last}
    done = connection.execute(update(table).where(table.c.chain == chain).values(values))
    if not done.rowcount:
        connection.execute(insert(table), {"chain": chain, **values})


def faults(
    entries: Iterable[Mapping[str, Any]],
    end: tuple[int, str],
    noted: tuple[int, str] | None = None,
    *,
    noun: str = "entry",
) -> list[str]:
    """What is wrong with a chain, in words; [] of a sound one.

    `entries`: mappings with number (1, 2, 3, ...), previous, hash and the content, in order; `end`:
    (length, hash) as `head` gives it; `noted`: such a pair that somebody wrote down earlier.
    """
    found: list[str] = []
    number, last = 0, GENESIS
    seen = {(0, GENESIS)}
    for entry in entries:
        mine = int(entry["number"])
        if mine > number + 1:
            gone = f"{noun} {number + 1} is" if mine == number + 2 else (
                f"{noun} {number + 1} to {mine - 1} are"
            )  # fmt: skip
            found.append(f"{gone} missing: removed after it was written")
        elif entry["previous"] != last:
            found.append(f"{noun} {mine} does not follow {noun} {number}: inserted or replaced")
        content = {k: v for k, v in entry.items() if k not in OWN}
        if link(str(entry["previous"]), content) != entry["hash"]:
            found.append(f"{noun} {mine} is not what was written: changed")
        number, last = mine, str(entry["hash"])
        seen.add((number, last))
    if number < end[0]:
        found.append(f"the last {noun} is {number}, but {end[0]} were written: removed at the end")
    elif number > end[0]:
        found.append(f"{noun} {end[0] + 1} and later were added past the writer: inserted")
    elif last != end[1] and not found:
        found.append(f"{noun} {number} has another hash than its writer noted: replaced")
    if noted is not None and noted not in seen:
        found.append(f"no {noun} {noted[0]} has the hash that was noted: the chain was rewritten")
    return found
