"""What the cluster says about itself: configuration, Keep services, vocabulary; and workflows, which are only kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import lists, objects, timestamps
from .call import Call
from .cluster import DEFAULT_TRASH_LIFETIME, Cluster
from .database import Row, decode
from .endpoints import Endpoint, create_endpoint, get_endpoint, list_endpoint
from .rendering import render
from .resources import CLUSTER, KEEP_SERVICES, SYSTEM_USER, WORKFLOWS


def _config(cluster: Cluster, call: Call) -> Any:
    url = cluster.root_url
    return {
        "ClusterID": CLUSTER,
        "API": {"MaxItemsPerResponse": lists.MAXIMUM_LIMIT, "MaxRequestSize": 134217728},
        "Collections": {
            "BlobSigning": True,
            "BlobSigningTTL": f"{cluster.signer.ttl}s",
            "DefaultReplication": 2,
            "DefaultTrashLifetime": f"{DEFAULT_TRASH_LIFETIME}s",
            "PreserveVersionIfIdle": "10s",
        },
        "Containers": {"SupportedDockerImageFormats": {"v2": {}}},
        "RemoteClusters": {},
        "Services": {"Controller": {"ExternalURL": url}, "Keepproxy": {"ExternalURL": ""}},
        "StorageClasses": {"default": {"Default": True, "Priority": 0}},
    }


def describe_keep_services(cluster: Cluster) -> None:
    """Write the running Keep services down as objects, in place of those of an earlier run."""
    database = cluster.database
    known = {row["uuid"]: row["created_at"] for row in database.rows("SELECT uuid, created_at FROM keep_services")}
    database.execute("DELETE FROM keep_services")
    for number, port in enumerate(cluster.keep_ports):
        uuid = f"{CLUSTER}-bi6l4-sandboxkeep{number:05d}"
        now = timestamps.now()
        row = {"created_at": known.get(uuid, now), "modified_at": now, "modified_by_user_uuid": SYSTEM_USER}
        service = {"service_host": "127.0.0.1", "service_port": port, "service_type": "disk"}
        database.insert(KEEP_SERVICES, {"uuid": uuid, "owner_uuid": SYSTEM_USER, **row, **service})


def _accessible(cluster: Cluster, call: Call) -> Row:
    """Rails' own list, which has more keys than the controller's (measured on Arvados 3.2.1)."""
    rows = cluster.database.rows("SELECT * FROM keep_services ORDER BY uuid")
    items = [render(cluster, call, KEEP_SERVICES, decode(KEEP_SERVICES, row)) for row in rows]
    return {
        "kind": "arvados#keepServiceList",
        "etag": "",
        "self_link": "",
        "offset": None,
        "limit": None,
        "items": items,
        "items_available": len(items),
    }


def _list(cluster: Cluster, call: Call) -> Row:
    return {**lists.list_objects(cluster, call, KEEP_SERVICES), "etag": "", "self_link": ""}


def _create_workflow(cluster: Cluster, call: Call) -> Row:
    return objects.create(cluster, call, WORKFLOWS, lambda *_: None)


ENDPOINTS = (
    Endpoint("configs", "get", "GET", "config", _config, needs_token=False),
    Endpoint("vocabularies", "get", "GET", "vocabulary", lambda _, __: {}, needs_token=False),
    Endpoint(
        "keep_services",
        "accessible",
        "GET",
        "keep_services/accessible",
        _accessible,
        response="KeepService",
        needs_token=False,
        passed_through=True,
    ),
    replace(list_endpoint(KEEP_SERVICES), handler=_list, passed_through=True),
    replace(get_endpoint(KEEP_SERVICES), passed_through=True),
    list_endpoint(WORKFLOWS),
    get_endpoint(WORKFLOWS),
    create_endpoint(WORKFLOWS, _create_workflow),
)
