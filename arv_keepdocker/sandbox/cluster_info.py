"""What the cluster tells about itself: configuration, Keep services, vocabulary; and workflows, which are only kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import lists, objects, timestamps
from .call import Call
from .cluster import DEFAULT_TRASH_LIFETIME, Cluster
from .database import Row, decode
from .endpoints import Endpoint, create_endpoint, delete_endpoint, get_endpoint, list_endpoint, update_endpoint
from .rendering import render
from .resources import CLUSTER, KEEP_SERVICES, SYSTEM_USER, WORKFLOWS

# The services that a configuration names, here most of them without an address.
_SERVICES = """
    Composer ContainerWebServices Controller DispatchCloud DispatchLSF DispatchSLURM Health Keepbalance Keepproxy
    Keepstore RailsAPI WebDAV WebDAVDownload WebShell Websocket Workbench1 Workbench2
"""


def _duration(seconds: int) -> str:
    """As Go writes it, but without the zeros at its end: 336h, 16m40s."""
    hours, rest = divmod(abs(seconds), 3600)
    parts = [(hours, "h"), (rest // 60, "m"), (rest % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    while len(parts) > 1 and not parts[-1][0]:
        parts.pop()
    return "-" * (seconds < 0) + "".join(f"{number}{unit}" for number, unit in parts)


def _vocabulary(cluster: Cluster, call: Call) -> Row:
    return {"kind": "arvados#vocabulary", **cluster.settings.vocabulary}


def _config(cluster: Cluster, call: Call) -> Any:
    urls = {"Controller": cluster.root_url, "Workbench2": cluster.settings.workbench2_url}
    return {
        "ClusterID": CLUSTER,
        "API": {
            "FreezeProjectRequiresDescription": False,
            "FreezeProjectRequiresProperties": {},
            "MaxItemsPerResponse": lists.MAXIMUM_LIMIT,
            "MaxRequestSize": 134217728,
            "RequestTimeout": "5m",
            "UnfreezeProjectRequiresAdmin": cluster.settings.unfreeze_requires_admin,
        },
        "Collections": {
            "BlobSigning": True,
            "BlobSigningTTL": _duration(cluster.signer.ttl),
            "DefaultReplication": 2,
            "DefaultTrashLifetime": _duration(DEFAULT_TRASH_LIFETIME),
            "ForwardSlashNameSubstitution": cluster.settings.forward_slash_name_substitution,
            "PreserveVersionIfIdle": "10s",
        },
        "Containers": {"SupportedDockerImageFormats": {name: {} for name in cluster.settings.docker_image_formats}},
        "RemoteClusters": {prefix: {"Host": host} for prefix, host in cluster.remote_hosts.items()},
        "Services": {name: {"ExternalURL": urls.get(name, "")} for name in _SERVICES.split()},
        "StorageClasses": {"default": {"Default": True, "Priority": 0}},
    }


def describe_keep_services(cluster: Cluster) -> None:
    """Record the running Keep services as objects, replacing those of an earlier run."""
    database = cluster.database
    known = {row["uuid"]: row["created_at"] for row in database.rows("SELECT uuid, created_at FROM keep_services")}
    database.execute("DELETE FROM keep_services")
    for number, port in enumerate(cluster.keep_ports):
        uuid = f"{CLUSTER}-bi6l4-sandboxkeep{number:05d}"
        now = timestamps.now()
        row = {"created_at": known.get(uuid, now), "modified_at": now, "modified_by_user_uuid": SYSTEM_USER}
        service = {
            "service_type": "disk",
            "service_host": "127.0.0.1",
            "service_port": port,
        }
        database.insert(KEEP_SERVICES, {"uuid": uuid, "owner_uuid": SYSTEM_USER, **row, **service})


def _accessible(cluster: Cluster, call: Call) -> Row:
    """Rails' own list, which has more keys than the controller's (measured on Arvados 3.2.1)."""
    rows = cluster.database.rows("SELECT * FROM keep_services ORDER BY uuid")
    items = [render(cluster, call, KEEP_SERVICES, decode(KEEP_SERVICES, row)) for row in rows]
    if cluster.settings.keep_proxy:
        items = [{**item, "service_type": "proxy"} for item in items]
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
    Endpoint("vocabularies", "get", "GET", "vocabulary", _vocabulary, needs_token=False),
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
    update_endpoint(WORKFLOWS, lambda cluster, call: objects.update(cluster, call, WORKFLOWS, lambda *_: None)),
    delete_endpoint(WORKFLOWS, lambda cluster, call: objects.delete(cluster, call, WORKFLOWS)),
)
