"""Links: heads that must exist, and permission links, which change who may see what."""

from __future__ import annotations

from . import objects
from .call import Call
from .cluster import Cluster
from .database import Row
from .endpoints import create_endpoint, delete_endpoint, get_endpoint, list_endpoint, update_endpoint
from .errors import RailsError
from .permissions import LEVELS, MANAGE
from .rendering import render
from .resources import GROUPS, LINKS, SYSTEM_USER, USERS, UUID, resource_of


def _check_end(cluster: Cluster, call: Call, end: str, row: Row, old: Row | None) -> None:
    """A well-formed UUID must name something visible; anything else is accepted (measured on Arvados 3.2.1)."""
    uuid = row.get(end)
    if not uuid or not UUID.fullmatch(uuid) or (old is not None and old[end] == uuid):
        return
    if not cluster.permissions.can_read(call.caller, uuid):
        raise RailsError(422, f"{end.capitalize().replace('_', ' ')} '{uuid}' not found")


def _check_permission(cluster: Cluster, call: Call, row: Row) -> None:
    """Only a user who manages its head may make a permission link; the system owns it."""
    head = resource_of(row.get("head_uuid"))
    tail = resource_of(row.get("tail_uuid"))
    if head is None or tail not in (USERS, GROUPS):
        raise RailsError(422, "Permission link needs a user or group as tail and an object as head")
    if row.get("name") not in {*LEVELS, "can_login"}:
        raise RailsError(422, f"Permission name '{row.get('name')}' is not valid")
    found = cluster.permissions.find(head, call.caller, row["head_uuid"])
    if cluster.permissions.level(call.caller, head, found) < MANAGE:
        raise RailsError(403, "#<ArvadosModel::PermissionDeniedError: ArvadosModel::PermissionDeniedError>")
    row["owner_uuid"] = SYSTEM_USER


def _validate(cluster: Cluster, call: Call, old: Row | None, row: Row) -> None:
    if row.get("link_class") == "name":
        raise RailsError(422, "Link class 'name' is no longer supported")
    for end in ("head_uuid", "tail_uuid"):
        _check_end(cluster, call, end, row, old)
    if row.get("link_class") == "permission":
        _check_permission(cluster, call, row)


def _create(cluster: Cluster, call: Call) -> Row:
    return objects.create(cluster, call, LINKS, _validate)


def _manages_head(cluster: Cluster, call: Call, link: Row) -> bool:
    head = resource_of(link["head_uuid"])
    if link["link_class"] != "permission" or head is None:
        return False
    found = cluster.database.get(head, link["head_uuid"])
    return found is not None and cluster.permissions.level(call.caller, head, found) >= MANAGE


def _update(cluster: Cluster, call: Call) -> Row:
    return objects.update(cluster, call, LINKS, _validate)


def _delete(cluster: Cluster, call: Call) -> Row:
    row = cluster.permissions.find(LINKS, call.caller, call.uuid)
    if _manages_head(cluster, call, row):
        cluster.database.delete(LINKS, row["uuid"])
        return render(cluster, call, LINKS, row)
    return objects.delete(cluster, call, LINKS)


ENDPOINTS = (
    list_endpoint(LINKS),
    get_endpoint(LINKS),
    create_endpoint(LINKS, _create),
    update_endpoint(LINKS, _update),
    delete_endpoint(LINKS, _delete),
)
