"""Collections: manifests and their signatures, versions, trash, and lookup by portable data hash."""

from __future__ import annotations

import re

from . import manifest, objects, replace_files, timestamps, trash
from .attributes import check_name
from .call import Call
from .cluster import Cluster
from .database import Row, decode
from .endpoints import (
    Endpoint,
    action_endpoint,
    create_endpoint,
    delete_endpoint,
    list_endpoint,
    update_endpoint,
)
from .errors import ApiError, RailsError
from .rendering import render, selection
from .resources import COLLECTIONS, UUID

PORTABLE_DATA_HASH = re.compile(r"([0-9a-f]{32}\+\d+)(\+[A-Z][A-Za-z0-9@_-]*)*")
# An update after this long makes a version (PreserveVersionIfIdle).
_IDLE = 10_000_000
_VERSIONED = ("name", "description", "properties", "manifest_text", "owner_uuid", "storage_classes_desired")


def _accept_manifest(cluster: Cluster, call: Call, old: Row | None, row: Row) -> None:
    """Check a new manifest, syntax before signatures, and set the attributes that are derived from it."""
    text = row.get("manifest_text") or ""
    contents = _parse(text)
    unsigned = manifest.unsigned(text)
    unchanged = old is not None and old["manifest_text"] == unsigned
    # Administrators' signatures are not looked at (measured on Arvados 3.2.1).
    if not unchanged and not call.caller.is_admin and not cluster.signer.verifies(text, call.caller.token):
        raise RailsError(403, "#<ArvadosModel::PermissionDeniedError: ArvadosModel::PermissionDeniedError>")
    row["manifest_text"] = unsigned
    row["file_count"], row["file_size_total"] = len(contents.files), contents.size
    row["file_names"] = "\n".join(contents.files)


def _accept_hash(given: str | None, row: Row) -> None:
    computed = manifest.portable_data_hash(manifest.strip(row["manifest_text"]))
    match = PORTABLE_DATA_HASH.fullmatch(given or computed)
    if match is None or match[1] != computed:
        reason = f"Portable data hash '{given}' does not match computed hash '{computed}'"
        raise RailsError(422, reason)
    row["portable_data_hash"] = computed


def _replace_files(cluster: Cluster, call: Call, old: Row | None, row: Row) -> None:
    replacements = call.decoded("replace_files")
    if not isinstance(replacements, dict) or not all(isinstance(value, str) for value in replacements.values()):
        raise ApiError(500, "transcode: cannot decode replace_files")
    provided = str(call.attributes(COLLECTIONS).get("manifest_text") or "")

    def signed(found: Row | None) -> str:
        return cluster.signer.sign(found["manifest_text"], call.caller.token) if found else ""

    def read(portable_data_hash: str) -> str:
        found = readable_by_hash(cluster, call, portable_data_hash)
        if found is None:
            raise ApiError(404, "not found")
        return signed(found)

    _parse(provided)
    row["manifest_text"] = replace_files.replace_files(signed(old), provided, replacements, read)


def _parse(text: str) -> manifest.Contents:
    try:
        return manifest.parse(text)
    except ValueError as error:
        raise RailsError(422, f"Manifest text {error}") from None


def _validate(cluster: Cluster, call: Call, old: Row | None, row: Row) -> None:
    if call.params.get("replace_segments"):
        raise RailsError(422, "replace_segments is not offered here")
    if call.params.get("replace_files"):
        _replace_files(cluster, call, old, row)
    row["name"] = row.get("name") or None
    check_name(cluster, row["name"])
    row["storage_classes_desired"] = row["storage_classes_desired"] or ["default"]
    _accept_manifest(cluster, call, old, row)
    same_hash = old is not None and row.get("portable_data_hash") == old["portable_data_hash"]
    _accept_hash(None if same_hash else row.get("portable_data_hash"), row)
    trash.settle(row)
    if old is None:
        row["current_version_uuid"] = row["uuid"]


def _create(cluster: Cluster, call: Call) -> Row:
    return objects.create(cluster, call, COLLECTIONS, _validate)


def _update(cluster: Cluster, call: Call) -> Row:
    def validate(cluster: Cluster, call: Call, old: Row | None, row: Row) -> None:
        _validate(cluster, call, old, row)
        if old is not None and any(row[name] != old[name] for name in _VERSIONED):
            _keep_version(cluster, old, row)

    return objects.update(cluster, call, COLLECTIONS, validate)


def _keep_version(cluster: Cluster, old: Row, row: Row) -> None:
    """Keep the old state as a hidden object of its own if it has existed for long enough."""
    idle = timestamps.now() - old["modified_at"] > _IDLE
    if idle or old["preserve_version"]:
        cluster.database.insert(COLLECTIONS, {**old, "uuid": COLLECTIONS.new_uuid()})
        row["version"] = old["version"] + 1
        row["preserve_version"] = False


def _get(cluster: Cluster, call: Call) -> Row:
    match = PORTABLE_DATA_HASH.fullmatch(call.uuid)
    if match:
        return _by_hash(cluster, call, match[1])
    if not UUID.fullmatch(call.uuid):
        raise ApiError(404, f'invalid UUID or PDH "{call.uuid}"')
    return objects.get(cluster, call, COLLECTIONS)


def readable_by_hash(cluster: Cluster, call: Call, portable_data_hash: str) -> Row | None:
    """Some collection of that content that the caller may see."""
    condition, values = cluster.permissions.readable(COLLECTIONS, call.caller)
    rows = cluster.database.rows(
        f"SELECT * FROM collections t WHERE t.portable_data_hash = ? AND {condition} ORDER BY t.created_at LIMIT 1",
        [portable_data_hash, *values],
    )
    return decode(COLLECTIONS, rows[0]) if rows else None


def _by_hash(cluster: Cluster, call: Call, portable_data_hash: str) -> Row:
    row = readable_by_hash(cluster, call, portable_data_hash)
    if row is None:
        raise ApiError(404, "not found")
    # Only the content is shown, not its owner (measured on Arvados 3.2.1).
    reduced = {"uuid": portable_data_hash, "portable_data_hash": portable_data_hash}
    content = {"manifest_text": row["manifest_text"], "trash_at": row["trash_at"]}
    rendered = render(cluster, call, COLLECTIONS, {**reduced, **content}, selection(COLLECTIONS, call))
    blank = {"trash_at": None, "properties": None, "unsigned_manifest_text": "", "etag": ""}
    blank.update(storage_classes_desired=None, storage_classes_confirmed=None)
    return {name: blank.get(name, value) for name, value in rendered.items()}


ENDPOINTS = (
    list_endpoint(COLLECTIONS, "include_trash include_old_versions"),
    Endpoint(
        "collections",
        "get",
        "GET",
        "collections/{uuid}",
        _get,
        ("uuid", "select", "include_trash"),
        response="Collection",
    ),
    create_endpoint(COLLECTIONS, _create, "replace_files replace_segments"),
    update_endpoint(COLLECTIONS, _update, "replace_files replace_segments"),
    delete_endpoint(COLLECTIONS, lambda cluster, call: trash.trash(cluster, call, COLLECTIONS)),
    action_endpoint(COLLECTIONS, "trash", lambda cluster, call: trash.trash(cluster, call, COLLECTIONS)),
    action_endpoint(COLLECTIONS, "untrash", lambda cluster, call: trash.untrash(cluster, call, COLLECTIONS)),
)
