"""Getting, creating, changing and deleting objects: the parts that all kinds have in common."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from . import timestamps, vocabulary
from .attributes import read_attributes
from .call import Call
from .cluster import Cluster
from .database import Row
from .errors import RailsError
from .permissions import require_active
from .rendering import render, selection
from .resources import CLUSTER, UUID, Resource

Validate = Callable[[Cluster, Call, "Row | None", Row], None]


def _new_uuid(call: Call, resource: Resource, given: Row) -> str:
    uuid = given.get("uuid")
    if not uuid:
        return resource.new_uuid()
    if not call.caller.is_admin:
        raise RailsError(422, "Uuid assignment not permitted")
    match = UUID.fullmatch(uuid)
    if match is None or match[1] != resource.infix or not uuid.startswith(CLUSTER):
        raise RailsError(422, f"Uuid type field '{uuid[6:11]}' is not valid")
    return str(uuid)


def store_named(cluster: Cluster, call: Call, resource: Resource, row: Row, store: Callable[[Row], None]) -> None:
    """Store an object; if its owner already has an object of that name, refuse or rename, as requested."""
    try:
        with cluster.database.savepoint():
            store(row)
            return
    except sqlite3.IntegrityError as error:
        if ".name" not in str(error):
            raise RailsError(422, "Uuid has already been taken") from None
        if not call.flag("ensure_unique_name"):
            key = f"Key (owner_uuid, name)=({row['owner_uuid']}, {row.get('name')}) already exists."
            index = f"index_{resource.name}_on_owner_uuid_and_name"
            text = f'ERROR:  duplicate key value violates unique constraint "{index}"\nDETAIL:  {key}\n'
            raise RailsError(422, f"#<ActiveRecord::RecordNotUnique: PG::UniqueViolation: {text}>") from None
    row["name"] = f"{row['name'][:237]} ({row['uuid'][-15:]})"
    store(row)


def create(
    cluster: Cluster, call: Call, resource: Resource, validate: Validate, *, require_active_last: bool = False
) -> Row:
    """Create an object from the request and render it."""
    caller = call.caller
    if not require_active_last:
        require_active(caller)
    given = read_attributes(call, resource)
    vocabulary.check(cluster.settings.vocabulary, given.get("properties"))
    uuid = _new_uuid(call, resource, given)
    owner = cluster.permissions.new_owner(caller, given.get("owner_uuid"))
    now = time.time_ns()
    row: Row = {
        **dict.fromkeys(resource.columns),
        **resource.defaults,
        **given,
        "uuid": uuid,
        "owner_uuid": owner,
        "created_at": now // 1000,
        "modified_at": now // 1000,
        "modified_by_user_uuid": caller.uuid,
    }
    validate(cluster, call, None, row)
    require_active(caller)
    store_named(cluster, call, resource, row, lambda r: cluster.database.insert(resource, r))
    # Only this first answer has the time more exactly than the database (measured on Arvados 3.2.1).
    return render(cluster, call, resource, row, selection(resource, call), nanoseconds=now % 1000)


def get(cluster: Cluster, call: Call, resource: Resource) -> Row:
    row = cluster.permissions.find(resource, call.caller, call.uuid, call.flag("include_trash"))
    return render(cluster, call, resource, row, selection(resource, call))


def update(cluster: Cluster, call: Call, resource: Resource, validate: Validate) -> Row:
    """Change an object as the request says and render it."""
    given = read_attributes(call, resource)
    vocabulary.check(cluster.settings.vocabulary, given.get("properties"))
    unfreeze = "frozen_by_uuid" in given and not given["frozen_by_uuid"]
    old = cluster.permissions.find_writable(resource, call.caller, call.uuid, call.flag("include_trash"), unfreeze)
    if given.get("uuid", old["uuid"]) != old["uuid"]:
        raise RailsError(422, "Uuid assignment not permitted")
    if given.get("owner_uuid", old["owner_uuid"]) != old["owner_uuid"]:
        given["owner_uuid"] = cluster.permissions.new_owner(call.caller, given["owner_uuid"])
    row = {**old, **given, "modified_at": timestamps.now(), "modified_by_user_uuid": call.caller.uuid}
    validate(cluster, call, old, row)
    return save(cluster, call, resource, old, row, ensure_unique_name=False)


def save(
    cluster: Cluster, call: Call, resource: Resource, old: Row, row: Row, *, ensure_unique_name: bool = True
) -> Row:
    """Write a changed object back and render it."""
    if not ensure_unique_name:
        # Ignored on update (measured on Arvados 3.2.1).
        call.params.pop("ensure_unique_name", None)

    def store(changed: Row) -> None:
        changes = {name: changed[name] for name in resource.columns if changed[name] != old[name]}
        cluster.database.update(resource, old["uuid"], changes)

    store_named(cluster, call, resource, row, store)
    return render(cluster, call, resource, row, selection(resource, call))


def delete(cluster: Cluster, call: Call, resource: Resource) -> Row:
    """Delete an object for good and render what it was."""
    row = cluster.permissions.find_writable(resource, call.caller, call.uuid)
    cluster.database.delete(resource, row["uuid"])
    return render(cluster, call, resource, row)


def require_admin(call: Call) -> None:
    if not call.caller.is_admin:
        raise RailsError(403, "Forbidden")
