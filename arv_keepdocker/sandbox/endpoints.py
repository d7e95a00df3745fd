"""The shape of an API method, from which both routing and the discovery document are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import lists, objects
from .call import Call
from .cluster import Cluster
from .resources import Resource

Handler = Callable[[Cluster, Call], Any]

LIST_PARAMETERS = (
    "filters",
    "where",
    "order",
    "select",
    "distinct",
    "limit",
    "offset",
    "count",
    "cluster_id",
    "bypass_federation",
)


@dataclass(frozen=True)
class Endpoint:
    """One method: its name in the SDK, its path, and its handler."""

    resource: str
    name: str
    method: str
    path: str
    handler: Handler
    parameters: tuple[str, ...] = ()
    # Whether the request carries an object.
    has_body: bool = False
    # Which schema the answer has; none for plain JSON.
    response: str | None = None
    needs_token: bool = True
    # Whether the controller only forwards it to Rails.
    passed_through: bool = False
    advertised: bool = True


def list_endpoint(resource: Resource, extra: str = "") -> Endpoint:
    return Endpoint(
        resource.name,
        "list",
        "GET",
        resource.name,
        lambda cluster, call: lists.list_objects(cluster, call, resource),
        (*LIST_PARAMETERS, *extra.split()),
        response=f"{resource.class_name}List",
    )


def get_endpoint(resource: Resource, extra: str = "") -> Endpoint:
    return Endpoint(
        resource.name,
        "get",
        "GET",
        f"{resource.name}/{{uuid}}",
        lambda cluster, call: objects.get(cluster, call, resource),
        tuple(f"uuid select {extra}".split()),
        response=resource.class_name,
    )


def create_endpoint(resource: Resource, handler: Handler, extra: str = "") -> Endpoint:
    return Endpoint(
        resource.name,
        "create",
        "POST",
        resource.name,
        handler,
        tuple(f"select ensure_unique_name cluster_id {extra}".split()),
        has_body=True,
        response=resource.class_name,
    )


def update_endpoint(resource: Resource, handler: Handler, extra: str = "") -> Endpoint:
    return Endpoint(
        resource.name,
        "update",
        "PUT",
        f"{resource.name}/{{uuid}}",
        handler,
        tuple(f"uuid select {extra}".split()),
        has_body=True,
        response=resource.class_name,
    )


def delete_endpoint(resource: Resource, handler: Handler) -> Endpoint:
    path = f"{resource.name}/{{uuid}}"
    return Endpoint(resource.name, "delete", "DELETE", path, handler, ("uuid",), response=resource.class_name)


def action_endpoint(resource: Resource, name: str, handler: Handler) -> Endpoint:
    path = f"{resource.name}/{{uuid}}/{name}"
    return Endpoint(resource.name, name, "POST", path, handler, ("uuid",), response=resource.class_name)
