"""Lists: filters, order, selection and paging, divided between controller and Rails as in Arvados."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from . import federation, filters
from .call import Call
from .cluster import Cluster
from .database import Row, decode
from .errors import ApiError, argument_error
from .permissions import Condition
from .rendering import COMPUTED_FROM, render, selection
from .resources import COLLECTIONS, GROUPS, Resource

DEFAULT_LIMIT = 100
MAXIMUM_LIMIT = 1000
_DEFAULT_ORDER = (("modified_at", "desc"), ("uuid", "desc"))
# Left out of lists unless selected, however small (measured on Arvados 3.2.1).
_UNLOADED = frozenset(["manifest_text", "unsigned_manifest_text"])


def _integer(call: Call, name: str, default: int) -> int:
    value = call.params.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value)
    if not isinstance(value, str) or not re.fullmatch(r"[+-]?\d+", value):
        raise ApiError(500, f"strconv.ParseInt: parsing {json.dumps(value)}: invalid syntax")
    return int(value)


def limit_of(call: Call) -> int:
    limit = _integer(call, "limit", DEFAULT_LIMIT)
    return DEFAULT_LIMIT if limit < 0 else min(limit, MAXIMUM_LIMIT)


def offset_of(call: Call) -> int:
    return _integer(call, "offset", 0)


def _order(resource: Resource, call: Call, selected: Iterable[str]) -> str:
    """The ORDER BY clause; unknown attributes in the order are ignored (measured on Arvados 3.2.1)."""
    value = call.params.get("order")
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = call.decoded("order")
    if isinstance(value, str):
        value = value.split(",")
    if value is not None and not (isinstance(value, list) and all(isinstance(part, str) for part in value)):
        raise ApiError(500, "transcode: cannot decode order")
    wanted = []
    for part in ",".join(value or []).split(","):
        name, _, direction = part.strip().partition(" ")
        direction = direction.strip().lower() or "asc"
        attribute = resource.attributes.get(name)
        if attribute and attribute.searchable and direction in ("asc", "desc"):
            wanted.append((name, direction))
    clause: dict[str, str] = {}
    for name, direction in (*wanted, *_DEFAULT_ORDER):
        if name in selected:
            clause.setdefault(name, direction)
    return ", ".join(f"t.{name} {direction}" for name, direction in clause.items())


def _columns(resource: Resource, selected: list[str] | None) -> list[str]:
    """The table's columns that are needed for the attributes asked for."""
    if selected is None:
        return [name for name in resource.columns if name not in _UNLOADED]
    columns = dict.fromkeys(name for name in selected if resource.attributes[name].stored)
    for name in selected:
        columns.update(dict.fromkeys(COMPUTED_FROM.get((resource.name, name), ())))
    return list(columns)


def _empty_list(resource: Resource, count: str) -> Row:
    """The controller's own answer if it need not ask Rails; its limit is always 0."""
    answer: Row = {"items": [], "kind": f"{resource.kind}List", "limit": 0, "offset": 0}
    return answer if count == "none" else {**answer, "items_available": 0}


def _conditions(
    cluster: Cluster, call: Call, resource: Resource, wanted: list[list[Any]], extra: Condition
) -> Condition:
    """The SQL condition for listed objects: the filters, the caller's permissions, and an extra condition."""
    conditions = [
        filters.compile_filters(resource, [*_where(call), *wanted]),
        cluster.permissions.readable(resource, call.caller, call.flag("include_trash")),
        extra,
    ]
    if resource is COLLECTIONS and not call.flag("include_old_versions"):
        conditions.append(("t.uuid = t.current_version_uuid", []))
    where = " AND ".join(f"({condition})" for condition, _ in conditions)
    return where, [value for _, more in conditions for value in more]


def list_objects(cluster: Cluster, call: Call, resource: Resource, extra: Condition | None = None) -> Row:
    """Answer a list request, for objects that also meet the extra condition, if there is one."""
    count = call.params.get("count") or "exact"
    wanted = filters.check_structure(call.decoded("filters"))
    limit, offset = limit_of(call), offset_of(call)
    selected = selection(resource, call)
    clusters = filters.clusters_of(wanted)
    if clusters is not None:
        federation.check_list(cluster, clusters, count)
    if clusters == set():
        return _empty_list(resource, count)
    if count not in ("none", "exact"):
        raise argument_error("count parameter must be 'exact' or 'none'")
    if offset < 0:
        raise argument_error("offset must not be negative")

    where, values = _conditions(cluster, call, resource, wanted, extra or ("1", []))
    columns = _columns(resource, selected)
    order = _order(resource, call, columns if selected is not None else resource.attributes)
    select = f"SELECT {'DISTINCT ' if call.flag('distinct') else ''}{', '.join(f't.{c}' for c in columns) or '1'}"
    rows = cluster.database.rows(
        f"{select} FROM {resource.name} t WHERE {where}{' ORDER BY ' + order if order else ''} LIMIT ? OFFSET ?",
        [*values, limit, offset],
    )
    answer: Row = {
        "items": [_item(cluster, call, resource, row, selected) for row in rows],
        "kind": f"{resource.kind}List",
        "limit": limit,
        "offset": offset,
    }
    if resource is GROUPS:
        answer["included"] = []
    if count == "exact":
        found = cluster.database.rows(f"SELECT COUNT(*) AS n FROM {resource.name} t WHERE {where}", values)
        answer["items_available"] = found[0]["n"]
    return answer


def _where(call: Call) -> list[list[Any]]:
    """The old "where" parameter: each member is a filter for equality, or for membership."""
    where = call.decoded("where") or {}
    if not isinstance(where, dict):
        raise ApiError(500, "transcode: cannot decode where")
    return [[name, "in" if isinstance(value, list) else "=", value] for name, value in where.items()]


def _item(cluster: Cluster, call: Call, resource: Resource, row: Row, selected: list[str] | None) -> Row:
    row.pop("1", None)
    return render(cluster, call, resource, decode(resource, row), selected)
