"""The SQLite database: one connection, and one transaction for each request."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .resources import RESOURCES, Attribute, Resource

Row = dict[str, Any]

_SQL_TYPES = {"datetime": "INTEGER", "integer": "INTEGER", "boolean": "INTEGER NOT NULL DEFAULT 0"}


def _table(resource: Resource) -> Iterator[str]:
    columns = ", ".join(
        f"{a.name} {'TEXT PRIMARY KEY' if a.name == 'uuid' else _SQL_TYPES.get(a.type, 'TEXT')}"
        for a in resource.stored.values()
    )
    name = resource.name
    yield f"CREATE TABLE IF NOT EXISTS {name} ({columns})"
    # The orders in which lists are read: the SDK's paging, and the default.
    yield f"CREATE INDEX IF NOT EXISTS {name}_created ON {name} (created_at, uuid)"
    yield f"CREATE INDEX IF NOT EXISTS {name}_modified ON {name} (modified_at, uuid)"
    yield f"CREATE INDEX IF NOT EXISTS {name}_owner ON {name} (owner_uuid)"
    yield from resource.indexes


def _contains(whole: Any, part: Any) -> bool:
    """PostgreSQL's jsonb containment, whole @> part."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and _contains(whole[k], v) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(_contains(w, p) for w in whole) for p in part)
    return type(whole) is type(part) and bool(whole == part)


def _json_contains(document: str | None, part: str) -> bool:
    return document is not None and _contains(json.loads(document), json.loads(part))


def encode(attribute: Attribute, value: Any) -> Any:
    """A value as its column holds it."""
    if attribute.is_json and value is not None:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if attribute.type == "boolean":
        return int(bool(value))
    return value


def decode(resource: Resource, row: Mapping[str, Any]) -> Row:
    """A row's values as Python has them."""
    decoded = dict(row)
    for attribute in resource.encoded:
        value = decoded.get(attribute.name)
        if value is not None:
            decoded[attribute.name] = json.loads(value) if attribute.is_json else bool(value)
    return decoded


class Database:
    """The objects of the cluster and a few facts about the cluster itself."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.create_function("json_contains", 2, _json_contains, deterministic=True)
        self._connection.create_function("unicode_lower", 1, lambda s: s and s.lower(), deterministic=True)
        for pragma in ("journal_mode = WAL", "synchronous = OFF", "temp_store = MEMORY", "cache_size = -65536"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT)")
        for resource in RESOURCES.values():
            for statement in _table(resource):
                self._connection.execute(statement)
            self._add_columns(resource)

    def _add_columns(self, resource: Resource) -> None:
        """Give the table of an older sandbox the columns that it lacks."""
        present = {row["name"] for row in self._connection.execute(f"PRAGMA table_info({resource.name})")}
        for name, attribute in resource.stored.items():
            if name not in present:
                kind = _SQL_TYPES.get(attribute.type, "TEXT")
                self._connection.execute(f"ALTER TABLE {resource.name} ADD COLUMN {name} {kind}")

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what the block did if it fails, and nothing else of the transaction."""
        self._connection.execute("SAVEPOINT attempt")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK TO attempt")
            raise
        finally:
            self._connection.execute("RELEASE attempt")

    def execute(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(sql, values)

    def execute_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(sql, values)

    def define(self, name: str, function: Callable[[], None]) -> None:
        """Make a function callable from SQL triggers."""
        self._connection.create_function(name, 0, function)

    def rows(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        return [dict(row) for row in self._connection.execute(sql, values)]

    def get(self, resource: Resource, uuid: str) -> Row | None:
        """One object by its UUID, regardless of permissions."""
        rows = self.rows(f"SELECT * FROM {resource.name} WHERE uuid = ?", (uuid,))
        return decode(resource, rows[0]) if rows else None

    def insert(self, resource: Resource, values: Row) -> None:
        self.insert_many(resource, [values])

    def insert_many(self, resource: Resource, objects: Iterable[Row]) -> None:
        """Insert objects; stored attributes that they lack are None."""
        stored = list(resource.stored.values())
        marks = ", ".join("?" * len(stored))
        self._connection.executemany(
            f"INSERT INTO {resource.name} ({', '.join(a.name for a in stored)}) VALUES ({marks})",
            ([encode(a, values.get(a.name)) for a in stored] for values in objects),
        )

    def update(self, resource: Resource, uuid: str, changes: Row) -> None:
        if changes:
            sets = ", ".join(f"{name} = ?" for name in changes)
            values = [encode(resource.stored[name], value) for name, value in changes.items()]
            self._connection.execute(f"UPDATE {resource.name} SET {sets} WHERE uuid = ?", (*values, uuid))

    def delete(self, resource: Resource, uuid: str) -> None:
        self._connection.execute(f"DELETE FROM {resource.name} WHERE uuid = ?", (uuid,))

    def fact(self, name: str) -> str | None:
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, name: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
