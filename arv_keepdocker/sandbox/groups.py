"""Groups: projects, roles and filter groups, and what a project contains."""

from __future__ import annotations

from typing import Any

from . import filters, lists, objects, trash
from .attributes import check_name
from .call import Call
from .cluster import Cluster
from .database import Row
from .endpoints import (
    LIST_PARAMETERS,
    Endpoint,
    action_endpoint,
    create_endpoint,
    delete_endpoint,
    get_endpoint,
    list_endpoint,
    update_endpoint,
)
from .errors import RailsError, path_not_found
from .permissions import MANAGE, Condition
from .resources import (
    BY_KIND,
    COLLECTIONS,
    CONTAINER_REQUESTS,
    GROUPS,
    LINKS,
    SYSTEM_USER,
    WORKFLOWS,
    Resource,
    resource_of,
)

_CLASSES = ("project", "role", "filter")
# What a project contains, in the order in which it is listed.
_CONTENTS = (GROUPS, CONTAINER_REQUESTS, WORKFLOWS, COLLECTIONS)
_BELOW = (
    "t.owner_uuid IN (WITH RECURSIVE below(uuid) AS (SELECT ? UNION"
    " SELECT g.uuid FROM groups g JOIN below ON g.owner_uuid = below.uuid) SELECT uuid FROM below)"
)


def _validate(cluster: Cluster, call: Call, old: Row | None, row: Row) -> None:
    if row.get("group_class") not in _CLASSES:
        raise RailsError(422, f"Group class '{row.get('group_class')}' is not one of {', '.join(_CLASSES)}")
    row["name"] = row.get("name") or None
    if row["group_class"] != "role":
        check_name(cluster, row["name"])
    _check_loop(cluster, row)
    _check_freezing(cluster, call, old, row)
    trash.settle(row)


def _check_loop(cluster: Cluster, row: Row) -> None:
    above: str | None = row["owner_uuid"]
    while above:
        if above == row["uuid"]:
            raise RailsError(422, "Owner uuid cannot be a loop")
        found = cluster.database.get(GROUPS, above)
        above = found["owner_uuid"] if found else None


def _check_freezing(cluster: Cluster, call: Call, old: Row | None, row: Row) -> None:
    """Only a user who manages a project may freeze it, and only in the user's own name (models/group.rb)."""
    row["frozen_by_uuid"] = row.get("frozen_by_uuid") or None
    before = old["frozen_by_uuid"] if old else None
    if row["frozen_by_uuid"] == before:
        return
    if row["group_class"] != "project":
        raise RailsError(422, "Frozen by uuid cannot be modified on a non-project group")
    if before and cluster.settings.unfreeze_requires_admin and not call.caller.is_admin:
        raise RailsError(422, "Frozen by uuid can only be changed by an admin user, once set")
    if row["frozen_by_uuid"] not in (None, call.caller.uuid):
        raise RailsError(422, "Frozen by uuid can only be set to the current user's UUID")
    if old and cluster.permissions.level(call.caller, GROUPS, old) < MANAGE:
        raise RailsError(403, "#<ArvadosModel::PermissionDeniedError: ArvadosModel::PermissionDeniedError>")
    if row["frozen_by_uuid"]:
        _check_for_containers(cluster, row["uuid"])


def _check_for_containers(cluster: Cluster, project: str) -> None:
    """A project with committed container requests cannot be frozen (models/group.rb)."""
    found = cluster.database.rows(
        f"SELECT t.uuid, t.state FROM container_requests t WHERE t.state = 'Committed' AND {_BELOW} LIMIT 1", (project,)
    )
    for row in found:
        reason = f"cannot freeze project containing container request {row['uuid']} with state = {row['state']}"
        raise RailsError(422, f"#<ArgumentError: {reason}>")


def _create(cluster: Cluster, call: Call) -> Row:
    def validate(cluster: Cluster, call: Call, old: Row | None, row: Row) -> None:
        _validate(cluster, call, old, row)
        if row["group_class"] == "role":
            _give_role(cluster, call, row)

    return objects.create(cluster, call, GROUPS, validate)


def _give_role(cluster: Cluster, call: Call, row: Row) -> None:
    """A role belongs to the system; its maker manages it."""
    row["owner_uuid"] = SYSTEM_USER
    common = {name: row[name] for name in ("created_at", "modified_at")}
    ends = {"tail_uuid": call.caller.uuid, "head_uuid": row["uuid"]}
    owner = {"owner_uuid": SYSTEM_USER, "modified_by_user_uuid": SYSTEM_USER, "properties": {}}
    link = {"uuid": LINKS.new_uuid(), "link_class": "permission", "name": "can_manage", **common, **ends, **owner}
    cluster.database.insert(LINKS, link)


def _update(cluster: Cluster, call: Call) -> Row:
    return objects.update(cluster, call, GROUPS, _validate)


def _trash(cluster: Cluster, call: Call) -> Row:
    """Put a project into the trash, unless a frozen one is in it (models/group.rb)."""
    for uuid in _frozen_below(cluster, call.uuid):
        raise RailsError(422, f"#<ArgumentError: cannot trash project containing frozen project {uuid}>")
    return trash.trash(cluster, call, GROUPS)


def _frozen_below(cluster: Cluster, project: str) -> list[str]:
    rows = cluster.database.rows(
        f"SELECT t.uuid FROM groups t WHERE t.frozen_by_uuid IS NOT NULL AND {_BELOW}", (project,)
    )
    return [row["uuid"] for row in rows]


def _delete(cluster: Cluster, call: Call) -> Row:
    row = cluster.permissions.find(GROUPS, call.caller, call.uuid, include_trash=True)
    if row["group_class"] != "role":
        return _trash(cluster, call)
    deleted = objects.delete(cluster, call, GROUPS)
    cluster.database.execute("DELETE FROM links WHERE ? IN (head_uuid, tail_uuid)", (row["uuid"],))
    return deleted


# Contents


def _within(call: Call, project: str) -> Condition:
    return (_BELOW if call.flag("recursive") else "t.owner_uuid = ?"), [project]


def _contents(cluster: Cluster, call: Call) -> Row:
    """The objects in a project, or all visible objects, kind by kind."""
    project = call.groups[0] if call.groups else str(call.params.get("uuid") or "")
    if project:
        resource = resource_of(project)
        if resource is None:
            raise path_not_found()
        cluster.permissions.find(resource, call.caller, project, call.flag("include_trash"))
    within = _within(call, project) if project else None
    wanted = filters.check_structure(call.decoded("filters"))
    limit, offset = lists.limit_of(call), lists.offset_of(call)
    items: list[Any] = []
    available = 0
    for resource in _wanted_kinds(wanted):
        part = dict(call.params)
        part.update(limit=limit - len(items), offset=max(0, offset - available), count="exact")
        part["filters"] = _filters_for(resource, wanted)
        answer = lists.list_objects(cluster, call.with_params(part), resource, _not_roles(resource, within))
        items += answer["items"]
        available += answer["items_available"]
    answer = {"items": items, "kind": "arvados#objectList", "limit": limit, "offset": offset, "included": []}
    if call.params.get("count") != "none":
        answer["items_available"] = available
    return answer


def _not_roles(resource: Resource, within: Condition | None) -> Condition | None:
    condition, values = within or ("1", [])
    return (f"{condition} AND t.group_class != 'role'", values) if resource is GROUPS else within


def _wanted_kinds(wanted: list[list[Any]]) -> list[Resource]:
    kinds = list(_CONTENTS)
    for attribute, operator, operand in wanted:
        if attribute == "uuid" and operator == "is_a":
            named = [BY_KIND.get(kind) for kind in (operand if isinstance(operand, list) else [operand])]
            kinds = [kind for kind in kinds if kind in named]
    return kinds


def _filters_for(resource: Resource, wanted: list[list[Any]]) -> list[list[Any]]:
    """The filters that concern one kind: "collections.name" is for collections only."""
    chosen = []
    for attribute, operator, operand in wanted:
        table, dot, name = attribute.partition(".")
        is_table = dot and table in {kind.name for kind in _CONTENTS}
        if not is_table or table == resource.name:
            chosen.append([name if is_table else attribute, operator, operand])
    return chosen


def _shared(cluster: Cluster, call: Call) -> Row:
    """The visible projects that are in nothing else that the caller may see."""
    cluster.permissions.refresh()
    visible = "SELECT target FROM grants WHERE user = ? AND traverse"
    outside = f"t.group_class != 'role' AND t.owner_uuid NOT IN ({visible})"
    return lists.list_objects(cluster, call, GROUPS, (outside, [call.caller.uuid]))


_LISTING = (*LIST_PARAMETERS, "include_trash", "include")

ENDPOINTS = (
    list_endpoint(GROUPS, "include_trash"),
    get_endpoint(GROUPS, "include_trash"),
    create_endpoint(GROUPS, _create, "async"),
    update_endpoint(GROUPS, _update, "async"),
    delete_endpoint(GROUPS, _delete),
    action_endpoint(GROUPS, "trash", _trash),
    action_endpoint(GROUPS, "untrash", lambda cluster, call: trash.untrash(cluster, call, GROUPS)),
    Endpoint(
        "groups",
        "contents",
        "GET",
        "groups/contents",
        _contents,
        (*_LISTING, "recursive", "uuid", "include_old_versions", "exclude_home_project"),
        response="Group",
    ),
    Endpoint("groups", "contents_of", "GET", "groups/{uuid}/contents", _contents, advertised=False),
    Endpoint("groups", "shared", "GET", "groups/shared", _shared, _LISTING, response="Group"),
)
