"""What the names of `--where` and `--sort` mean in the database.

Every name is looked up here and every value is bound, so nothing that is typed becomes SQL. SQLite
and PostgreSQL differ only in how they look into a JSON text: `_hyperparam`, `_listed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, func, literal, select

from foresweep.errors import UnknownName, UsageError
from foresweep.records import is_sealed, split_name
from foresweep.tracker.storage import schema

runs, scores, curves = schema.runs, schema.scores, schema.curves
Column: TypeAlias = ColumnElement[Any]
Condition: TypeAlias = ColumnElement[bool]

NUMBERS = {
    "seed": runs.c.seed,
    "attempt": runs.c.attempt,
    "trial": runs.c.trial_number,
    "trial_number": runs.c.trial_number,
    "training_time_seconds": runs.c.training_time_seconds,
    "duration_seconds": runs.c.duration_seconds,
    "peak_memory_mb": runs.c.peak_memory_mb,
    "objective_score": runs.c.objective_score,
}
TEXTS = {
    "run": runs.c.run_id,
    "run_id": runs.c.run_id,
    "model": runs.c.model_name,
    "model_name": runs.c.model_name,
    "state": runs.c.state,
    "sweep": runs.c.sweep_id,
    "sweep_id": runs.c.sweep_id,
    "source": runs.c.source,
    "notes": runs.c.notes,
    "error": runs.c.error,
    "git_commit": runs.c.git_commit,
    "checkpoint_path": runs.c.checkpoint_path,
    "fingerprint": runs.c.fingerprint,
}
MOMENTS = {name: runs.c[name] for name in ("created_at", "started_at", "finished_at")}
CURVES = ("best", "lowest", "highest", "last")
CALLS = (*CURVES, "hp", "score")
RECENT = 500
"""Runs whose names are offered where a name is unknown."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name; with `call` it was written CALL(name), `call` in lower case."""

    name: str
    at: int
    call: str = ""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name stands for: the SQL of its value, once for each kind that it can have."""

    kind: str  # for people: "a number", "a text" ...
    number: Column | None = None
    text: Column | None = None
    flag: Column | None = None
    moment: Column | None = None
    given: Condition | None = None  # has the run a value at all, of whatever kind?
    listed: Column | None = None  # the value column of a list's rows, to be used inside EXISTS

    @property
    def columns(self) -> list[Column]:
        kinds = (self.number, self.text, self.flag, self.moment)
        return [column for column in kinds if column is not None]


class Terms:
    """The meanings of the names of one expression."""

    def __init__(self, connection: Connection, text: str) -> None:
        self.connection, self.text = connection, text

    def meaning(self, name: Name) -> Meaning:
        """What a name stands for. Raises UnknownName, UsageError for a score of test."""
        if name.call:
            return self._called(name)
        if known := _column(self.connection, name.name):
            return known
        self._refuse_sealed(name)
        if self._is_score(name.name):
            return _score(name.name)
        if self._is_hyperparam(name.name):
            return _hyperparam(self.connection, name.name)
        if self._has_curve(name.name):
            raise self.wrong(
                name.at, f"{name.name} is a curve; say best({name.name}), lowest, highest or last"
            )
        raise self._unknown("name", name, known_names(self.connection))

    def _called(self, name: Name) -> Meaning:
        if name.call not in CALLS:
            raise UnknownName("function", name.call, CALLS, where=self._place(name.at))
        if name.call == "hp":
            return _hyperparam(self.connection, name.name)
        self._refuse_sealed(name)
        if name.call == "score":
            return _score(name.name)
        if not self._has_curve(name.name) and not self._is_empty():
            raise self._unknown("curve", name, _curves_in_use(self.connection))
        return Meaning("a number", number=_curve(self._side(name), name.name))

    def _side(self, name: Name) -> Column:
        """The column of curves that a function means."""
        if name.call != "best":
            side: Column = curves.c[name.call]
            return side
        from foresweep.metrics import METRICS

        metric = METRICS.get(split_name(name.name)[1])
        unknown = not name.name.endswith("loss") if metric is None else metric.target is not None
        if unknown:
            raise self.wrong(
                name.at, f"which way {name.name} is better is not known; say lowest or highest"
            )
        return curves.c.highest if metric and metric.higher_is_better else curves.c.lowest

    def _refuse_sealed(self, name: Name) -> None:
        if is_sealed(name.name):
            raise self.wrong(
                name.at,
                f"{name.name!r}: test scores are sealed, nothing is chosen or listed by them; "
                f"use {'val_' + split_name(name.name)[1]!r}",
            )

    def _is_score(self, name: str) -> bool:
        from foresweep.metrics import METRICS

        part, metric = split_name(name)
        return bool(part and metric in METRICS) or self._there(
            scores.c.run_id, scores.c.metric == metric, scores.c.part == part
        )

    def _is_hyperparam(self, name: str) -> bool:
        return self._there(runs.c.run_id, _has_key(self.connection, name)) or self._is_empty()

    def _has_curve(self, name: str) -> bool:
        return self._there(curves.c.run_id, curves.c.name == name)

    def _is_empty(self) -> bool:
        return self.connection.execute(select(runs.c.run_id).limit(1)).first() is None

    def _there(self, column: Column, *conditions: Condition) -> bool:
        query = select(column).where(*conditions).limit(1)
        return self.connection.execute(query).first() is not None

    def _unknown(self, kind: str, name: Name, known: Sequence[str]) -> UnknownName:
        return UnknownName(kind, name.name, known, where=self._place(name.at))

    def _place(self, at: int) -> str:
        return f"at character {at + 1} of {self.text.strip()[:80]!r}"

    def wrong(self, at: int, problem: str) -> UsageError:
        return pointed(self.text, at, problem)


def _column(connection: Connection, name: str) -> Meaning | None:
    """The meaning of a name that every run has."""
    if name in NUMBERS:
        return Meaning("a number", number=NUMBERS[name])
    if name in TEXTS:
        return Meaning("a text", text=TEXTS[name])
    if name in MOMENTS:
        return Meaning("a moment", moment=MOMENTS[name])
    if name == "is_baseline":
        return Meaning("true or false", flag=runs.c.is_baseline)
    if name == "has_checkpoint":
        return Meaning("true or false", flag=runs.c.checkpoint_path.is_not(None))
    if name in ("tag", "tags"):
        return Meaning("a list of texts", listed=_listed(connection, runs.c.tags))
    return None


def known_names(connection: Connection) -> list[str]:
    """Names to offer: what every run has, scores, and the hyperparameters of recent runs."""
    from foresweep.metrics import METRICS

    usual = [f"{part}_{metric}" for part in ("tune", "val") for metric in METRICS]
    fixed = (*NUMBERS, *TEXTS, *MOMENTS, "is_baseline", "has_checkpoint", "tag")
    return [*fixed, *usual, *hyperparams_in_use(connection), *_scores_in_use(connection)]


def hyperparams_in_use(connection: Connection, model_name: str | None = None) -> list[str]:
    """The hyperparameters of recent runs (of a model)."""
    query = select(runs.c.hyperparams).order_by(runs.c.created_at.desc()).limit(RECENT)
    if model_name is not None:
        query = query.where(runs.c.model_name == model_name)
    return list(dict.fromkeys(n for held in connection.execute(query).scalars() for n in held))


def _scores_in_use(connection: Connection) -> list[str]:
    """The full names of the open scores of recent runs."""
    chosen = select(scores.c.part, scores.c.metric).where(scores.c.run_id.in_(_recent(connection)))
    rows = connection.execute(chosen.where(scores.c.part != "test").distinct())
    return [f"{part}_{metric}" if part else metric for part, metric in rows]


def _curves_in_use(connection: Connection) -> list[str]:
    chosen = select(curves.c.name).where(curves.c.run_id.in_(_recent(connection)))
    return list(connection.execute(chosen.distinct()).scalars())


def _recent(connection: Connection) -> list[str]:
    query = select(runs.c.run_id).order_by(runs.c.created_at.desc()).limit(RECENT)
    return list(connection.execute(query).scalars())


def _score(full_name: str) -> Meaning:
    part, metric = split_name(full_name)
    value = select(scores.c.value).where(
        scores.c.run_id == runs.c.run_id, scores.c.part == part, scores.c.metric == metric
    )
    return Meaning("a number", number=value.correlate(runs).scalar_subquery())


def _curve(side: Column, name: str) -> Column:
    value = select(side).where(curves.c.run_id == runs.c.run_id, curves.c.name == name)
    return value.correlate(runs).scalar_subquery()


def _hyperparam(connection: Connection, name: str) -> Meaning:
    """A hyperparameter as number, text and truth value; each is NULL where it is another kind."""
    if connection.dialect.name == "postgresql":
        kind = func.json_typeof(_json(runs.c.hyperparams).op("->")(literal(name, sa.Text())))
        text = _json(runs.c.hyperparams).op("->>", return_type=sa.Text())(literal(name, sa.Text()))
        return Meaning(
            "a hyperparameter",
            number=sa.case((kind == "number", sa.cast(text, sa.Double()))),
            text=sa.case((kind == "string", text)),
            flag=sa.case((kind == "boolean", sa.cast(text, sa.Boolean()))),
            given=sa.and_(kind.is_not(None), kind != "null"),
        )
    row = func.json_each(runs.c.hyperparams).table_valued("key", "value", "type")
    entry = select(row.c.value).where(row.c.key == literal(name, sa.Text()))

    def of_kind(*kinds: str) -> Column:
        return entry.where(row.c.type.in_(kinds)).scalar_subquery()

    return Meaning(
        "a hyperparameter",
        number=sa.type_coerce(of_kind("integer", "real"), sa.Double()),
        text=sa.type_coerce(of_kind("text"), sa.Text()),
        flag=sa.type_coerce(of_kind("true", "false"), sa.Boolean()),
        given=sa.exists(entry.where(row.c.type != "null")),
    )


def _has_key(connection: Connection, name: str) -> Condition:
    """Is the hyperparameter named at all, if only with null?"""
    if connection.dialect.name == "postgresql":
        there = _json(runs.c.hyperparams).op("->")(literal(name, sa.Text()))
        return there.is_not(None)
    row = func.json_each(runs.c.hyperparams).table_valued("key")
    return sa.exists(select(row.c.key).where(row.c.key == literal(name, sa.Text())))


def _json(column: Column) -> Column:
    """A text column as PostgreSQL's json. Its texts cannot hold the character NUL, and one such
    row would fail the whole query: there it reads as the replacement character."""
    text = func.replace(sa.type_coerce(column, sa.Text()), r"\u0000", r"\ufffd")
    return sa.cast(text, sa.JSON())


def _listed(connection: Connection, column: Column) -> Column:
    """The values of a JSON list, as the column of a table inside EXISTS."""
    if connection.dialect.name == "postgresql":
        rows = func.json_array_elements_text(_json(column)).table_valued("value")
    else:
        rows = func.json_each(column).table_valued("value")
    return sa.type_coerce(rows.c.value, sa.Text())


def pointed(text: str, at: int, problem: str) -> UsageError:
    """The error, with the place in the text shown: `lr <> [<<] 3`."""
    before, after = text[max(0, at - 24) : at], text[at : at + 24]
    shown = f"{before} >>> {after}" if after else f"{before} >>> (the end)"
    return UsageError(f"character {at + 1}: {problem}; at: {shown.strip()}")
