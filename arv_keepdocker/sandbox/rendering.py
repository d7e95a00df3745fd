"""Objects as the API shows them: computed attributes, zero values, and only what was selected."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from . import timestamps
from .call import Call
from .cluster import Cluster
from .database import Row
from .errors import argument_error
from .permissions import MANAGE
from .resources import COLLECTIONS, GROUPS, LINKS, USERS, Attribute, Resource, kind_of

_ZERO: Mapping[str, Any] = {"integer": 0, "boolean": False}


def _signed_manifest(cluster: Cluster, call: Call, row: Row) -> str:
    """The manifest signed for the caller; in the trash, it is unsigned (measured on Arvados 3.2.1)."""
    text, trash_at = row.get("manifest_text") or "", row.get("trash_at")
    if trash_at is not None and trash_at <= timestamps.now():
        return str(text)
    return cluster.signer.sign(text, call.caller.token, None if trash_at is None else trash_at // 1_000_000)


def _can_write(cluster: Cluster, call: Call, row: Row) -> bool:
    return cluster.permissions.may_write(call.caller, GROUPS, row)


def _can_manage(cluster: Cluster, call: Call, row: Row) -> bool:
    return cluster.permissions.level(call.caller, GROUPS, row) >= MANAGE


def _is_invited(cluster: Cluster, call: Call, row: Row) -> bool:
    return bool(row.get("is_active"))


_COMPUTED: Mapping[tuple[str, str], Callable[[Cluster, Call, Row], Any]] = {
    (COLLECTIONS.name, "manifest_text"): _signed_manifest,
    (COLLECTIONS.name, "unsigned_manifest_text"): lambda _, __, row: row.get("manifest_text") or "",
    (LINKS.name, "head_kind"): lambda _, __, row: kind_of(row.get("head_uuid")),
    (LINKS.name, "tail_kind"): lambda _, __, row: kind_of(row.get("tail_uuid")),
    (USERS.name, "full_name"): lambda _, __, row: f"{row.get('first_name') or ''} {row.get('last_name') or ''}".strip(),
    (USERS.name, "is_invited"): _is_invited,
    **{(r.name, "can_write"): _can_write for r in (USERS, GROUPS)},
    **{(r.name, "can_manage"): _can_manage for r in (USERS, GROUPS)},
}
# The columns that rendering a computed attribute needs.
COMPUTED_FROM: Mapping[tuple[str, str], tuple[str, ...]] = {
    (COLLECTIONS.name, "manifest_text"): ("manifest_text", "trash_at"),
    (COLLECTIONS.name, "unsigned_manifest_text"): ("manifest_text",),
    (LINKS.name, "head_kind"): ("head_uuid",),
    (LINKS.name, "tail_kind"): ("tail_uuid",),
    (USERS.name, "full_name"): ("first_name", "last_name"),
    (USERS.name, "is_invited"): ("is_active",),
    **{(r.name, f"can_{what}"): ("uuid", "owner_uuid") for r in (USERS, GROUPS) for what in ("write", "manage")},
}


_COMPUTED_OF: dict[str, dict[str, Callable[[Cluster, Call, Row], Any]]] = {}
for (_resource, _attribute), _function in _COMPUTED.items():
    _COMPUTED_OF.setdefault(_resource, {})[_attribute] = _function


def _etag(row: Row) -> str:
    return hashlib.md5(f"{row.get('uuid')}{row.get('modified_at')}".encode()).hexdigest()[:25]


def _rendered(attribute: Attribute, value: Any, nanoseconds: int) -> Any:
    if attribute.type == "datetime" and value is not None:
        return timestamps.render(value, nanoseconds)
    if value is not None or attribute.nullable:
        return value
    if attribute.is_json:
        return {} if attribute.type == "Hash" else []
    return _ZERO.get(attribute.type, "")


def render(
    cluster: Cluster, call: Call, resource: Resource, row: Row, selected: list[str] | None = None, nanoseconds: int = 0
) -> Row:
    """An object as the API returns it: all of it, or the selected attributes."""
    rendered: Row = {"kind": resource.kind, "etag": "" if selected is not None else _etag(row)}
    computed = _COMPUTED_OF.get(resource.name, {})
    for name in resource.attributes if selected is None else selected:
        # A list without selection has not loaded the manifest; it is shown as "".
        if name in computed and all(column in row for column in COMPUTED_FROM[resource.name, name]):
            rendered[name] = computed[name](cluster, call, row)
        elif name != "etag":
            value = row.get(name)
            attribute = resource.attributes[name]
            if value is None or attribute.type == "datetime":
                value = _rendered(attribute, value, nanoseconds if name == "created_at" else 0)
            rendered[name] = value
    return rendered


def selection(resource: Resource, call: Call) -> list[str] | None:
    """The attributes asked for, None for all."""
    select = call.array("select")
    if select is None:
        return None
    if not select:
        raise argument_error("Attribute selection list cannot be empty")
    for name in select:
        if name != "kind" and name not in resource.attributes:
            raise argument_error(f"Invalid attribute '{name}' of {resource.class_name} in select parameter")
    return [name for name in select if name not in ("kind", "etag")]
