"""The trash: putting collections and projects there, restoring them, and deleting them when they are due."""

from __future__ import annotations

from . import objects, timestamps
from .call import Call
from .cluster import DEFAULT_TRASH_LIFETIME, Cluster
from .database import Row
from .errors import RailsError
from .resources import COLLECTIONS, GROUPS, Resource

_DUE = "SELECT uuid FROM {} WHERE delete_at <= ?"
_LIFETIME = DEFAULT_TRASH_LIFETIME * 1_000_000


def settle(row: Row) -> None:
    """Make is_trashed and delete_at agree with trash_at."""
    trash_at = row.get("trash_at")
    if trash_at is None:
        row["delete_at"] = None
        row["is_trashed"] = False
        return
    if row.get("delete_at") is None:
        row["delete_at"] = max(trash_at, timestamps.now()) + _LIFETIME
    row["delete_at"] = max(row["delete_at"], trash_at)
    row["is_trashed"] = trash_at <= timestamps.now()


def trash(cluster: Cluster, call: Call, resource: Resource) -> Row:
    """Put an object into the trash; one that is there stays there."""
    old = cluster.permissions.find_writable(resource, call.caller, call.uuid, include_trash=True)
    row = dict(old)
    if old["is_trashed"]:
        answer = objects.save(cluster, call, resource, old, row)
        # The second time this one is left out (measured on Arvados 3.2.1).
        return answer | ({"unsigned_manifest_text": ""} if resource is COLLECTIONS else {})
    row.update(trash_at=timestamps.now(), delete_at=None, modified_at=timestamps.now())
    settle(row)
    return objects.save(cluster, call, resource, old, row)


def untrash(cluster: Cluster, call: Call, resource: Resource) -> Row:
    """Restore an object from the trash, under another name if its own is taken and the request allows that."""
    old = cluster.permissions.find_writable(resource, call.caller, call.uuid, include_trash=True)
    if old["trash_at"] is None:
        raise RailsError(422, "#<ArvadosModel::InvalidStateTransitionError: Item is not trashed, cannot untrash>")
    row = {**old, "trash_at": None, "delete_at": None, "is_trashed": False, "modified_at": timestamps.now()}
    return objects.save(cluster, call, resource, old, row)


def sweep(cluster: Cluster) -> None:
    """Delete all objects that are due, and all links to them, whoever owns them."""
    database, now = cluster.database, timestamps.now()
    # A project's contents are deleted with it, down to the last subproject.
    while sum(_condemn_contents(cluster, resource, now) for resource in (COLLECTIONS, GROUPS)):
        pass
    database.execute(f"DELETE FROM links WHERE owner_uuid IN ({_DUE.format('groups')})", (now,))
    for resource in (COLLECTIONS, GROUPS):
        due = _DUE.format(resource.name)
        database.execute(f"DELETE FROM links WHERE head_uuid IN ({due}) OR tail_uuid IN ({due})", (now, now))
        database.execute(f"DELETE FROM {resource.name} WHERE delete_at <= ?", (now,))
        database.execute(f"UPDATE {resource.name} SET is_trashed = 1 WHERE trash_at <= ? AND NOT is_trashed", (now,))


def _condemn_contents(cluster: Cluster, resource: Resource, now: int) -> int:
    """Make the contents of projects that are due also due. Returns the number of these objects."""
    changed = cluster.database.execute(
        f"UPDATE {resource.name} SET trash_at = ?, delete_at = ?, is_trashed = 1"
        f" WHERE owner_uuid IN ({_DUE.format('groups')}) AND (delete_at IS NULL OR delete_at > ?)",
        (now, now, now, now),
    )
    return changed.rowcount
