"""Who may see and change what: tokens, and the permission graph kept as a table that SQL can join."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import timestamps
from .call import Caller
from .database import Database, Row, decode
from .errors import RailsError, path_not_found
from .resources import (
    CONTAINERS,
    GROUPS,
    KEEP_SERVICES,
    LINKS,
    SYSTEM_USER,
    TOKENS,
    USERS,
    UUID,
    Resource,
    resource_of,
)

READ, WRITE, MANAGE = 1, 2, 3
LEVELS = {"can_read": READ, "can_write": WRITE, "can_manage": MANAGE}

Condition = tuple[str, list[Any]]

_TRAVERSED = "SELECT target FROM grants WHERE user = ? AND traverse"
_GRANTED = "SELECT target FROM grants WHERE user = ?"
_MANAGED = "SELECT target FROM grants WHERE user = ? AND level >= 3"
_TELL = "SELECT permissions_changed()"
_FREEZE = (
    "INSERT INTO frozen WITH RECURSIVE below(uuid) AS (SELECT uuid FROM groups WHERE frozen_by_uuid IS NOT NULL UNION"
    " SELECT g.uuid FROM groups g JOIN below ON g.owner_uuid = below.uuid) SELECT uuid FROM below"
)
# Per kind of object, the condition under which a user who is no administrator sees it. Each ? is that user.
_READABLE = {
    LINKS.name: f"(t.owner_uuid IN ({_TRAVERSED}) OR (t.link_class = 'permission'"
    f" AND (t.tail_uuid = ? OR t.head_uuid = ? OR t.head_uuid IN ({_MANAGED}))))",
    KEEP_SERVICES.name: "1",
    CONTAINERS.name: f"t.uuid IN (SELECT container_uuid FROM container_requests WHERE owner_uuid IN ({_TRAVERSED}))",
}
_READABLE_OTHERS = f"(t.owner_uuid IN ({_TRAVERSED}) OR t.uuid IN ({_GRANTED}))"


def _triggers() -> Iterator[str]:
    """The triggers by which the database calls permissions_changed()."""
    for table in ("users", "groups", "links"):
        for event, versions in (("INSERT", ["NEW"]), ("DELETE", ["OLD"]), ("UPDATE", ["OLD", "NEW"])):
            classes = ", ".join(f"{version}.link_class" for version in versions)
            condition = f"WHEN 'permission' IN ({classes})" if table == "links" else ""
            name = f"{table}_{event.lower()}"
            yield f"CREATE TEMP TRIGGER {name} AFTER {event} ON main.{table} {condition} BEGIN {_TELL}; END"


@dataclass(frozen=True)
class _Edge:
    """A user with a level on the source has at most this level on the target."""

    target: str
    level: int
    # Objects that a user owns are reached only through can_manage on the user.
    needs_manage: bool


class Permissions:
    """The permission graph of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stale = True
        database.execute(
            "CREATE TEMP TABLE grants (user TEXT, target TEXT, level INTEGER, traverse INTEGER,"
            " PRIMARY KEY (user, target)) WITHOUT ROWID"
        )
        database.execute("CREATE TEMP TABLE trashed (uuid TEXT PRIMARY KEY, at INTEGER) WITHOUT ROWID")
        # The frozen projects and all projects in them, at any depth.
        database.execute("CREATE TEMP TABLE frozen (uuid TEXT PRIMARY KEY) WITHOUT ROWID")
        database.define("permissions_changed", self.changed)
        for trigger in _triggers():
            database.execute(trigger)

    def changed(self) -> None:
        """Called by the database when users, groups or permission links change, and when a change is undone."""
        self._stale = True

    def refresh(self) -> None:
        if not self._stale:
            return
        for table in ("grants", "trashed", "frozen"):
            self._database.execute(f"DELETE FROM {table}")
        edges = self._edges()
        users = self._database.rows("SELECT uuid FROM users")
        self._database.execute_many(
            "INSERT INTO grants VALUES (?, ?, ?, ?)",
            (grant for user in users for grant in _reachable(user["uuid"], edges)),
        )
        self._database.execute_many("INSERT INTO trashed VALUES (?, ?)", self._trashed())
        self._database.execute(_FREEZE)
        self._stale = False

    def _edges(self) -> dict[str, list[_Edge]]:
        edges: dict[str, list[_Edge]] = defaultdict(list)
        for group in self._database.rows("SELECT uuid, owner_uuid FROM groups"):
            edges[group["owner_uuid"]].append(_Edge(group["uuid"], MANAGE, False))
        for link in self._database.rows(
            "SELECT tail_uuid, head_uuid, name FROM links WHERE link_class = 'permission' AND head_uuid IS NOT NULL"
        ):
            level = LEVELS.get(link["name"])
            if level:
                is_user = resource_of(link["head_uuid"]) is USERS
                edges[link["tail_uuid"]].append(_Edge(link["head_uuid"], level, is_user))
        return edges

    def _trashed(self) -> Iterator[tuple[str, int]]:
        """Each group that is in the trash, itself or with what contains it, and since when."""
        groups = {g["uuid"]: g for g in self._database.rows("SELECT uuid, owner_uuid, trash_at FROM groups")}
        for uuid in groups:
            times = []
            above: str | None = uuid
            for _ in groups:
                group = groups.get(above or "")
                if group is None:
                    break
                if group["trash_at"] is not None:
                    times.append(group["trash_at"])
                above = group["owner_uuid"]
            if times:
                yield uuid, min(times)

    # Reading

    def readable(self, resource: Resource, caller: Caller, include_trash: bool = False) -> Condition:
        """The SQL condition on the table, under the alias t, for what the caller may see."""
        self.refresh()
        conditions = []
        values: list[Any] = []
        if resource is TOKENS:
            if caller.uuid != SYSTEM_USER:
                conditions.append("t.owner_uuid = ?")
                values.append(caller.uuid)
        elif not caller.is_admin:
            condition = _READABLE.get(resource.name, _READABLE_OTHERS)
            if resource is GROUPS and caller.is_active:
                # Roles are seen by all: owning by another's role is 403, not 422 (measured on Arvados 3.2.1).
                condition = f"({condition} OR t.group_class = 'role')"
            conditions.append(condition)
            values += [caller.uuid] * condition.count("?")
        if not include_trash:
            now = timestamps.now()
            conditions.append("t.owner_uuid NOT IN (SELECT uuid FROM trashed WHERE at <= ?)")
            values.append(now)
            if resource.has_trash:
                conditions.append("(t.trash_at IS NULL OR t.trash_at > ?)")
                values.append(now)
        return " AND ".join(conditions) or "1", values

    def find(self, resource: Resource, caller: Caller, uuid: str, include_trash: bool = False) -> Row:
        """An object that the caller may see."""
        condition, values = self.readable(resource, caller, include_trash)
        rows = self._database.rows(f"SELECT * FROM {resource.name} t WHERE t.uuid = ? AND {condition}", [uuid, *values])
        # Old versions are found in lists only.
        if not rows or rows[0].get("current_version_uuid", uuid) != uuid:
            raise path_not_found()
        return decode(resource, rows[0])

    def can_read(self, caller: Caller, uuid: str) -> bool:
        """Whether something of this UUID exists, is not in the trash, and may be seen."""
        resource = resource_of(uuid)
        if resource is None:
            return False
        try:
            self.find(resource, caller, uuid)
        except RailsError:
            return False
        return True

    # Writing

    def level(self, caller: Caller, resource: Resource, row: Row) -> int:
        """What the caller may do with an object."""
        if caller.is_admin or (resource is TOKENS and row["owner_uuid"] == caller.uuid):
            return MANAGE
        self.refresh()
        found = self._database.rows(
            "SELECT MAX(level) AS level FROM grants WHERE user = ? AND (target = ? OR (target = ? AND traverse))",
            (caller.uuid, row["uuid"], row["owner_uuid"]),
        )
        return found[0]["level"] or 0

    def is_frozen(self, *uuids: str) -> bool:
        """Whether one of these is a frozen project or inside one."""
        self.refresh()
        marks = ", ".join("?" * len(uuids))
        return bool(self._database.rows(f"SELECT 1 FROM frozen WHERE uuid IN ({marks}) LIMIT 1", uuids))

    def may_write(self, caller: Caller, resource: Resource, row: Row) -> bool:
        """Whether the caller may write to it. If it is frozen, not even an administrator may (Arvados 3.2.1)."""
        return self.level(caller, resource, row) >= WRITE and not self.is_frozen(row["uuid"], row["owner_uuid"])

    def find_writable(
        self, resource: Resource, caller: Caller, uuid: str, include_trash: bool = False, unfreeze: bool = False
    ) -> Row:
        """An object that the caller may change; with `unfreeze` it may be a frozen project, but not inside one."""
        row = self.find(resource, caller, uuid, include_trash)
        require_active(caller)
        allowed = self.level(caller, resource, row) >= WRITE
        if allowed and row.get("frozen_by_uuid") and not unfreeze:
            raise RailsError(403, f"Uuid {uuid} is frozen and cannot be modified")
        frozen = self.is_frozen(row["owner_uuid"]) if unfreeze else self.is_frozen(uuid, row["owner_uuid"])
        if not allowed or frozen:
            raise RailsError(403, f"Uuid  {uuid} is not writable by {caller.uuid}")
        return row

    def new_owner(self, caller: Caller, wanted: Any) -> str:
        """The owner for something new or moved; the refusals are as measured on Arvados 3.2.1."""
        if wanted is None:
            return caller.uuid
        if not isinstance(wanted, str) or not UUID.fullmatch(wanted):
            raise RailsError(403, "Owner uuid must be set to User or Group")
        resource = resource_of(wanted)
        if resource not in (USERS, GROUPS) or not self.can_read(caller, wanted):
            raise RailsError(422, f"Owner uuid '{wanted}' not found")
        if self.is_frozen(wanted):
            raise RailsError(403, "Owner uuid cannot be set or changed because new owner is frozen")
        owner = self.find(resource, caller, wanted)
        level = self.level(caller, resource, owner)
        if resource is USERS and not caller.is_admin:
            # Permission to see or write a user does not extend to what the user owns.
            level = MANAGE if wanted == caller.uuid or level == MANAGE else READ
        if level < WRITE:
            reason = "Owner uuid cannot be set or changed without write permission on new owner"
            raise RailsError(403, reason)
        if resource is GROUPS and owner["group_class"] != "project":
            raise RailsError(403, "Owner uuid must be a project")
        return wanted


def _reachable(user: str, edges: dict[str, list[_Edge]]) -> Iterator[tuple[str, str, int, bool]]:
    """Everything a user has some level on, the highest level first, as rows of the table of grants."""
    done: set[str] = set()
    queue: list[tuple[int, str, bool]] = [(-MANAGE, user, True)]
    while queue:
        negative, target, traverse = heapq.heappop(queue)
        if target in done:
            continue
        done.add(target)
        yield user, target, -negative, traverse
        if not traverse:
            continue
        for edge in edges.get(target, ()):
            level = min(-negative, edge.level)
            heapq.heappush(queue, (-level, edge.target, level == MANAGE or not edge.needs_manage))


def require_active(caller: Caller) -> None:
    if not caller.is_active:
        raise RailsError(403, "#<ArvadosModel::PermissionDeniedError: ArvadosModel::PermissionDeniedError>")
