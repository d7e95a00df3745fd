"""The discovery document, from which the SDK builds its client: it is made from the endpoints that exist."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from .cluster import DEFAULT_TRASH_LIFETIME, Cluster
from .endpoints import Endpoint
from .resources import CLUSTER, RESOURCES, Resource
from .unsupported import ADVERTISED

_DESCRIBED = {**RESOURCES, **{resource.name: resource for resource in ADVERTISED}}
_SCOPES = ["https://api.arvados.org/auth/arvados"]
# Type and default of each parameter; defaults are strings.
_PARAMETERS: Mapping[str, tuple[str, str | None]] = {
    "async": ("boolean", "false"),
    "bypass_federation": ("boolean", "false"),
    "cluster_id": ("string", None),
    "count": ("string", "exact"),
    "distinct": ("boolean", "false"),
    "ensure_unique_name": ("boolean", "false"),
    "exclude_home_project": ("boolean", "false"),
    "filters": ("array", None),
    "include": ("array", None),
    "include_old_versions": ("boolean", "false"),
    "include_trash": ("boolean", "false"),
    "limit": ("integer", "100"),
    "offset": ("integer", "0"),
    "order": ("array", None),
    "recursive": ("boolean", "false"),
    "replace_files": ("object", None),
    "replace_segments": ("object", None),
    "select": ("array", None),
    "uuid": ("string", ""),
    "where": ("object", None),
}


def _parameter(name: str, in_path: bool) -> dict[str, Any]:
    kind, default = _PARAMETERS[name]
    described: dict[str, Any] = {
        "type": kind,
        "description": f"The {name.replace('_', ' ')} of the request.",
        "location": "path" if in_path else "query",
        "required": in_path,
    }
    if default is not None and not in_path:
        described["default"] = default
    return described


def _method(endpoint: Endpoint) -> dict[str, Any]:
    method: dict[str, Any] = {
        "id": f"arvados.{endpoint.resource}.{endpoint.name}",
        "path": endpoint.path,
        "httpMethod": endpoint.method,
        "description": f"{endpoint.name} {endpoint.resource}".replace("_", " ").capitalize() + ".",
        "parameters": {name: _parameter(name, f"{{{name}}}" in endpoint.path) for name in endpoint.parameters},
        "response": {"$ref": endpoint.response} if endpoint.response else {},
        "scopes": _SCOPES,
    }
    if endpoint.has_body:
        resource = _DESCRIBED[endpoint.resource]
        method["request"] = {"required": True, "properties": {resource.singular: {"$ref": resource.class_name}}}
    return method


def _schemas(resource: Resource) -> dict[str, Any]:
    properties = {
        a.name: {"type": a.type, "description": f"The {a.name.replace('_', ' ')} of the object."}
        for a in resource.attributes.values()
    }
    prefix = {"uuidPrefix": resource.infix} if resource.infix else {}
    name = resource.class_name
    listing = {
        "kind": {"type": "string", "description": "The kind of list.", "default": f"{resource.kind}List"},
        "etag": {"type": "string", "description": "Unused."},
        "items": {"type": "array", "description": "The objects.", "items": {"$ref": name}},
    }
    return {
        name: {
            "id": name,
            "description": f"One {resource.singular.replace('_', ' ')}.",
            "type": "object",
            **prefix,
            "properties": properties,
        },
        f"{name}List": {
            "id": f"{name}List",
            "description": f"A list of {resource.name.replace('_', ' ')}.",
            "type": "object",
            "properties": listing,
        },
    }


def _resources(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    for endpoint in endpoints:
        if endpoint.advertised:
            methods = resources.setdefault(endpoint.resource, {"methods": {}})["methods"]
            methods[endpoint.name] = _method(endpoint)
    return resources


_CONSTANT = {
    "kind": "discovery#restDescription",
    "discoveryVersion": "v1",
    "id": "arvados:v1",
    "name": "arvados",
    "version": "v1",
    "revision": "20250402",
    "source_version": "sandbox",
    "sourceVersion": "sandbox",
    "packageVersion": "3.2.1-1",
}
_COMMON_PARAMETERS = {
    "alt": {"type": "string", "description": "Data format.", "default": "json", "location": "query"},
    "fields": {"type": "string", "description": "Selector of fields.", "location": "query"},
    "key": {"type": "string", "description": "API key.", "location": "query"},
    "oauth_token": {"type": "string", "description": "OAuth 2.0 token.", "location": "query"},
}
_SCOPES_DESCRIBED = {
    _SCOPES[0]: {"description": "View and manage objects"},
    f"{_SCOPES[0]}.readonly": {"description": "View objects"},
}


def document(cluster: Cluster, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The whole document, with the real port in its URLs."""
    root = cluster.root_url
    schemas: dict[str, Any] = {}
    for resource in _DESCRIBED.values():
        schemas.update(_schemas(resource))
    return {
        **_CONSTANT,
        "generatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "title": "Arvados API",
        "description": "The API to interact with Arvados.",
        "documentationLink": "http://doc.arvados.org/api/index.html",
        "defaultCollectionReplication": 2,
        "protocol": "rest",
        "baseUrl": f"{root}arvados/v1/",
        "basePath": "/arvados/v1/",
        "rootUrl": root,
        "servicePath": "arvados/v1/",
        "batchPath": "batch",
        "uuidPrefix": CLUSTER,
        "defaultTrashLifetime": DEFAULT_TRASH_LIFETIME,
        "blobSignatureTtl": cluster.signer.ttl,
        "maxRequestSize": 134217728,
        "maxItemsPerResponse": 1000,
        "dockerImageFormats": cluster.settings.docker_image_formats,
        "crunchLogUpdatePeriod": 1800,
        "crunchLogUpdateSize": 33554432,
        "remoteHosts": cluster.remote_hosts,
        "remoteHostsViaDNS": False,
        "websocketUrl": "",
        "workbenchUrl": "",
        "workbench2Url": cluster.settings.workbench2_url,
        "keepWebServiceUrl": "",
        "parameters": _COMMON_PARAMETERS,
        "auth": {"oauth2": {"scopes": _SCOPES_DESCRIBED}},
        "schemas": schemas,
        "resources": _resources(endpoints),
    }
