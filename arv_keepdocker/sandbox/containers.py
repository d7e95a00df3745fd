"""Container requests, as far as finding the image: with all the peculiarities of the real lookup."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from . import manifest, objects, timestamps
from .call import Call
from .cluster import Cluster
from .collections import PORTABLE_DATA_HASH, readable_by_hash
from .database import Row, decode
from .endpoints import create_endpoint, delete_endpoint, get_endpoint, list_endpoint, update_endpoint
from .errors import RailsError
from .filter_operands import glob
from .resources import COLLECTIONS, CONTAINER_REQUESTS, CONTAINERS, LINKS, SYSTEM_USER

_IMAGE_FILE = re.compile(r"sha256:[0-9A-Fa-f]{64}\.tar")


class _Incompatible(Exception):
    """Images were found, but none in a format that the cluster accepts."""


@dataclass(frozen=True)
class _Candidate:
    """A collection that links name, and the values that rank it."""

    collection: Row
    image_timestamp: int
    link_created_at: int


def _is_image(collection: Row) -> bool:
    name = manifest.single_file(collection["manifest_text"])
    return name is not None and _IMAGE_FILE.fullmatch(name) is not None


def _image_timestamp(link: Row) -> int:
    """Whole seconds since 1970; anything that is not a time counts as 0 (measured on Arvados 3.2.1)."""
    given = (link["properties"] or {}).get("image_timestamp")
    try:
        return timestamps.parse(given) // 1_000_000 if isinstance(given, str) else 0
    except ValueError:
        return 0


def _links(cluster: Cluster, call: Call, link_class: str, condition: str, value: str) -> list[Row]:
    """The matching links that the caller may see, oldest first."""
    readable, values = cluster.permissions.readable(LINKS, call.caller)
    rows = cluster.database.rows(
        f"SELECT * FROM links t WHERE t.link_class = ? AND {condition} AND {readable} ORDER BY t.created_at, t.uuid",
        [link_class, value, *values],
    )
    return [decode(LINKS, row) for row in rows]


def _candidates(cluster: Cluster, call: Call, links: list[Row]) -> list[_Candidate]:
    """The links' collections that the caller may see, the preferred one first."""
    found: dict[str, _Candidate] = {}
    readable, values = cluster.permissions.readable(COLLECTIONS, call.caller)
    for link in links:
        # Of several links to one collection the oldest decides (measured on Arvados 3.2.1).
        if link["head_uuid"] in found:
            continue
        rows = cluster.database.rows(
            f"SELECT * FROM collections t WHERE t.uuid = ? AND t.uuid = t.current_version_uuid AND {readable}",
            [link["head_uuid"], *values],
        )
        if rows:
            rank = _image_timestamp(link), link["created_at"] // 1_000_000
            found[link["head_uuid"]] = _Candidate(decode(COLLECTIONS, rows[0]), *rank)
    return sorted(found.values(), key=lambda c: (-c.image_timestamp, -c.link_created_at))


def find_image(cluster: Cluster, call: Call, term: str) -> Row | None:
    """The collection that a container_image means."""
    match = PORTABLE_DATA_HASH.fullmatch(term)
    if match:
        collection = readable_by_hash(cluster, call, match[1])
        return collection if collection and _is_image(collection) else None
    # Split at the first colon, so a registry's port is taken for a tag (measured on Arvados 3.2.1).
    name, _, tag = term.partition(":")
    links = _links(cluster, call, "docker_image_repo+tag", "t.name = ?", f"{name}:{tag or 'latest'}")
    if not links:
        # A pattern that is not escaped: "sha256:<any>" finds every image (measured on Arvados 3.2.1).
        links = _links(cluster, call, "docker_image_hash", "t.name GLOB ?", glob(f"{name}%"))
    candidates = _candidates(cluster, call, links)
    for candidate in candidates:
        if _is_image(candidate.collection):
            return candidate.collection
    if candidates:
        raise _Incompatible
    return None


def _resolve(cluster: Cluster, call: Call, image: str) -> str:
    try:
        collection = find_image(cluster, call, image)
    except _Incompatible:
        reason = "Matching Docker image is incompatible with 'docker_image_formats' configuration."
        raise RailsError(422, f"#<ArvadosModel::UnresolvableContainerError: {reason}>") from None
    if collection is None:
        error = f'docker image "{image}" not found'
        raise RailsError(422, f"#<ArvadosModel::UnresolvableContainerError: {error}>")
    return str(collection["portable_data_hash"])


def _validate(cluster: Cluster, call: Call, old: Row | None, row: Row) -> None:
    if old is not None and old["state"] != "Uncommitted":
        raise RailsError(422, "Changing a request that is committed is not offered here")
    if not row.get("container_image"):
        raise RailsError(422, "Container image can't be blank")
    if row["state"] not in ("Uncommitted", "Committed"):
        raise RailsError(422, f"State '{row['state']}' is not offered here")
    if row["state"] == "Committed":
        row["container_uuid"] = _make_container(cluster, call, row)


_SHARED = ("command", "cwd", "environment", "mounts", "output_path", "runtime_constraints", "priority")


def _make_container(cluster: Cluster, call: Call, request: Row) -> str:
    """The container of a committed request; it stays queued, for nothing runs it."""
    container: dict[str, Any] = {name: request.get(name) for name in _SHARED}
    container.update({name: request[name] for name in ("created_at", "modified_at", "modified_by_user_uuid")})
    container.update(
        uuid=CONTAINERS.new_uuid(),
        owner_uuid=SYSTEM_USER,
        state="Queued",
        container_image=_resolve(cluster, call, request["container_image"]),
    )
    cluster.database.insert(CONTAINERS, container)
    return str(container["uuid"])


ENDPOINTS = (
    list_endpoint(CONTAINERS),
    get_endpoint(CONTAINERS),
    list_endpoint(CONTAINER_REQUESTS, "include_trash"),
    get_endpoint(CONTAINER_REQUESTS, "include_trash"),
    create_endpoint(
        CONTAINER_REQUESTS,
        # The image is looked for before it is asked whether the user is active (measured on Arvados 3.2.1).
        lambda cluster, call: objects.create(cluster, call, CONTAINER_REQUESTS, _validate, require_active_last=True),
    ),
    update_endpoint(
        CONTAINER_REQUESTS, lambda cluster, call: objects.update(cluster, call, CONTAINER_REQUESTS, _validate)
    ),
    delete_endpoint(CONTAINER_REQUESTS, lambda cluster, call: objects.delete(cluster, call, CONTAINER_REQUESTS)),
)
