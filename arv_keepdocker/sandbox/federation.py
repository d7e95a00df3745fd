"""Objects of federated clusters: which cluster is asked for them, and what it answers."""

from __future__ import annotations

from .call import Call
from .cluster import Cluster
from .database import Row
from .errors import ApiError
from .resources import CLUSTER, UUID


def _is_down(cluster: Cluster, prefix: str, path: str) -> ApiError:
    """A cluster that cannot be reached is 500, not 502 or 503 (measured on Arvados 3.2.1)."""
    url = f"https://{cluster.remote_hosts[prefix]}{path}"
    return ApiError(500, f"request failed: {url}: dial tcp 127.0.0.2:443: connect: connection refused")


def is_remote(cluster: Cluster, uuid: str) -> bool:
    """Whether the controller asks another cluster for this object; for unknown clusters it asks its own."""
    return UUID.fullmatch(uuid) is not None and uuid[:5] in cluster.settings.remote_clusters


def answer(cluster: Cluster, call: Call) -> Row:
    """The answer of an object's cluster; the sandbox lets objects of other clusters only be read."""
    prefix = call.uuid[:5]
    call.caller  # noqa: B018 - without a login, that is refused first
    objects = cluster.settings.remote_clusters[prefix]
    if objects is None:
        raise _is_down(cluster, prefix, call.path)
    for found in objects:
        if found.get("uuid") == call.uuid and call.method in ("GET", "HEAD"):
            return found
    url = f"https://{cluster.remote_hosts[prefix]}{call.path}"
    raise ApiError(404, f"request failed: {url}: 404 Not Found: Path not found ({call.request_id})")


def check_list(cluster: Cluster, prefixes: set[str], count: str) -> None:
    """Refuse a list of other clusters' objects."""
    others = prefixes - {CLUSTER}
    if others and count != "none":
        raise ApiError(400, 'cannot execute federated list query unless count=="none"')
    for prefix in sorted(others):
        if prefix not in cluster.settings.remote_clusters:
            reason = f'cannot execute federated list query: no proxy available for cluster "{prefix}"'
            raise ApiError(404, reason)
        if cluster.settings.remote_clusters[prefix] is None:
            raise _is_down(cluster, prefix, "/arvados/v1/")
        raise ApiError(422, "lists of other clusters' objects are not offered here")
