"""Resources that the discovery document lists, as a real cluster's does, but that the sandbox does not offer."""

from __future__ import annotations

from dataclasses import replace

from .call import Call
from .cluster import Cluster
from .endpoints import Endpoint, create_endpoint, delete_endpoint, get_endpoint, list_endpoint, update_endpoint
from .errors import ApiError, RailsError, path_not_found
from .resources import COLLECTIONS, COMMON, CONTAINERS, Resource, attributes

_AUTHORIZED_KEYS = Resource(
    "authorized_keys",
    "authorized_key",
    "fngyi",
    attributes(COMMON, "name:string key_type:string authorized_user_uuid:string public_key:text expires_at:datetime"),
)
_COMPUTED_PERMISSIONS = Resource(
    "computed_permissions",
    "computed_permission",
    "",
    attributes("user_uuid:string target_uuid:string perm_level:string"),
)
_CREDENTIALS = Resource(
    "credentials",
    "credential",
    "oss07",
    attributes(
        COMMON,
        "name:string description:text credential_class:string scopes:Array external_id:string expires_at:datetime",
    ),
)
_LOGS = Resource(
    "logs",
    "log",
    "57u5n",
    attributes(
        COMMON,
        "id:integer object_uuid:string event_at:datetime event_type:string summary:text properties:Hash",
        "object_owner_uuid:string",
    ),
)
_USER_AGREEMENTS = Resource("user_agreements", "user_agreement", "gv0sa", COLLECTIONS.attributes)
_VIRTUAL_MACHINES = Resource("virtual_machines", "virtual_machine", "2x53u", attributes(COMMON, "hostname:string"))

_WHOLE = (_AUTHORIZED_KEYS, _CREDENTIALS, _LOGS, _USER_AGREEMENTS, _VIRTUAL_MACHINES)
ADVERTISED = (*_WHOLE, _COMPUTED_PERMISSIONS)


def _refuse(cluster: Cluster, call: Call) -> None:
    call.caller  # noqa: B018 - without a login, that is refused first
    raise RailsError(422, f"{call.path.split('/')[3]}: not offered here")


def _no_container(cluster: Cluster, call: Call) -> None:
    call.caller  # noqa: B018
    raise path_not_found()


def _no_sweep(cluster: Cluster, call: Call) -> None:
    raise ApiError(404, "API endpoint not found")


def _all_methods(resource: Resource) -> tuple[Endpoint, ...]:
    return (
        replace(list_endpoint(resource), handler=_refuse),
        replace(get_endpoint(resource), handler=_refuse),
        create_endpoint(resource, _refuse),
        update_endpoint(resource, _refuse),
        delete_endpoint(resource, _refuse),
    )


ENDPOINTS: tuple[Endpoint, ...] = (
    *(endpoint for resource in _WHOLE for endpoint in _all_methods(resource)),
    replace(list_endpoint(_COMPUTED_PERMISSIONS), handler=_refuse),
    # arvados-cwl-runner looks whether there is the first, and asks which container it runs in.
    create_endpoint(CONTAINERS, _refuse),
    Endpoint(CONTAINERS.name, "current", "GET", "containers/current", _no_container, response="Container"),
    update_endpoint(CONTAINERS, _refuse),
    delete_endpoint(CONTAINERS, _refuse),
    # Advertised, but the real route is /sys/trash_sweep (measured on Arvados 3.2.1).
    Endpoint("sys", "get", "POST", "sys/trash_sweep", _no_sweep, needs_token=False),
)
