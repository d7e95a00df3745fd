"""What kinds of object there are and which attributes each has: the one table for schema, filters and answers."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

CLUSTER = "zzzzz"
SYSTEM_USER = f"{CLUSTER}-tpzed-000000000000000"
ANONYMOUS_USER = f"{CLUSTER}-tpzed-anonymouspublic"
SYSTEM_GROUP = f"{CLUSTER}-j7d0g-000000000000000"
ALL_USERS_GROUP = f"{CLUSTER}-j7d0g-fffffffffffffff"
ANONYMOUS_GROUP = f"{CLUSTER}-j7d0g-anonymouspublic"

UUID = re.compile(r"[0-9a-z]{5}-([0-9a-z]{5})-[0-9a-z]{15}")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"

# Absent values are null for these; every other absent string is rendered as "" (measured on Arvados 3.2.1).
_NULLABLE = frozenset(
    [
        "description",
        "replication_desired",
        "replication_confirmed",
        "container_count_max",
        "exit_code",
        "frozen_by_uuid",
        "container_uuid",
    ]
)


@dataclass(frozen=True)
class Attribute:
    """One attribute: its advertised type, and whether it is a column that filters may name."""

    name: str
    type: str
    stored: bool = True
    searchable: bool = True

    @property
    def nullable(self) -> bool:
        return self.type == "datetime" or self.name in _NULLABLE

    @property
    def is_json(self) -> bool:
        return self.type in ("Hash", "Array")

    @property
    def is_text(self) -> bool:
        return self.type in ("string", "text")


@dataclass(frozen=True)
class Resource:
    """One kind of object."""

    name: str
    singular: str
    infix: str
    attributes: Mapping[str, Attribute]
    defaults: Mapping[str, object] = field(default_factory=dict)
    # Attributes that a client may not set.
    fixed: frozenset[str] = frozenset()
    # SQL for indexes beyond the common ones.
    indexes: tuple[str, ...] = ()
    # Text columns that no answer shows but filters on "any" search.
    hidden: tuple[str, ...] = ()

    @functools.cached_property
    def class_name(self) -> str:
        return "".join(part.capitalize() for part in self.singular.split("_"))

    @functools.cached_property
    def kind(self) -> str:
        return "arvados#" + self.class_name[0].lower() + self.class_name[1:]

    @property
    def has_trash(self) -> bool:
        return "trash_at" in self.attributes

    @property
    def columns(self) -> list[str]:
        return list(self.stored)

    @functools.cached_property
    def stored(self) -> dict[str, Attribute]:
        """The columns of the table, the hidden ones too."""
        hidden = {name: Attribute(name, "text") for name in self.hidden}
        return {name: a for name, a in self.attributes.items() if a.stored} | hidden

    @functools.cached_property
    def encoded(self) -> list[Attribute]:
        """The columns that hold something other than the attribute's value."""
        return [a for a in self.stored.values() if a.is_json or a.type == "boolean"]

    def new_uuid(self) -> str:
        return f"{CLUSTER}-{self.infix}-" + "".join(secrets.choice(_ALPHABET) for _ in range(15))


COMMON = (
    "etag:string! uuid:string owner_uuid:string created_at:datetime modified_by_user_uuid:string modified_at:datetime"
)
_COMMON_FIXED = frozenset({"etag", "kind", "created_at", "modified_at", "modified_by_user_uuid", "href"})


def attributes(*lines: str) -> dict[str, Attribute]:
    """Read "name:type"; "!" after the type marks a computed one, "-" one that filters may not name."""
    found = {}
    for word in " ".join(lines).split():
        name, kind = word.split(":")
        found[name] = Attribute(name, kind.rstrip("!-"), stored="!" not in kind, searchable=kind[-1] not in "!-")
    return found


COLLECTIONS = Resource(
    "collections",
    "collection",
    "4zz18",
    attributes(
        COMMON,
        "name:string description:text properties:Hash portable_data_hash:string manifest_text:text-",
        "unsigned_manifest_text:text! replication_desired:integer replication_confirmed:integer",
        "replication_confirmed_at:datetime storage_classes_desired:Array storage_classes_confirmed:Array",
        "storage_classes_confirmed_at:datetime trash_at:datetime delete_at:datetime is_trashed:boolean",
        "version:integer current_version_uuid:string preserve_version:boolean file_count:integer",
        "file_size_total:integer",
    ),
    defaults={"properties": {}, "storage_classes_desired": ["default"], "storage_classes_confirmed": [], "version": 1},
    fixed=_COMMON_FIXED
    | {"is_trashed", "version", "current_version_uuid", "file_count", "file_size_total", "unsigned_manifest_text"},
    indexes=(
        "CREATE UNIQUE INDEX IF NOT EXISTS collections_name ON collections (owner_uuid, name)"
        " WHERE name IS NOT NULL AND NOT is_trashed AND uuid = current_version_uuid",
        "CREATE INDEX IF NOT EXISTS collections_hash ON collections (portable_data_hash)",
        "CREATE INDEX IF NOT EXISTS collections_current ON collections (current_version_uuid)",
        "CREATE INDEX IF NOT EXISTS collections_delete ON collections (delete_at) WHERE delete_at IS NOT NULL",
    ),
    # As the API server has them, for searches (services/api/app/models/collection.rb).
    hidden=("file_names",),
)
LINKS = Resource(
    "links",
    "link",
    "o0j2j",
    attributes(
        COMMON,
        "tail_uuid:string link_class:string name:string head_uuid:string properties:Hash",
        "head_kind:string! tail_kind:string!",
    ),
    defaults={"properties": {}},
    fixed=_COMMON_FIXED | {"head_kind", "tail_kind"},
    indexes=(
        "CREATE INDEX IF NOT EXISTS links_class ON links (link_class, created_at, uuid)",
        "CREATE INDEX IF NOT EXISTS links_class_uuid ON links (link_class, uuid)",
        "CREATE INDEX IF NOT EXISTS links_name ON links (name, link_class)",
        "CREATE INDEX IF NOT EXISTS links_head ON links (head_uuid, link_class)",
        "CREATE INDEX IF NOT EXISTS links_tail ON links (tail_uuid)",
    ),
)
GROUPS = Resource(
    "groups",
    "group",
    "j7d0g",
    attributes(
        COMMON,
        "name:string description:text group_class:string properties:Hash trash_at:datetime delete_at:datetime",
        "is_trashed:boolean frozen_by_uuid:string can_write:boolean! can_manage:boolean!",
    ),
    defaults={"properties": {}},
    fixed=_COMMON_FIXED | {"is_trashed", "can_write", "can_manage"},
    indexes=(
        "CREATE UNIQUE INDEX IF NOT EXISTS groups_name ON groups (owner_uuid, name)"
        " WHERE name IS NOT NULL AND NOT is_trashed AND group_class IN ('project', 'filter')",
    ),
)
USERS = Resource(
    "users",
    "user",
    "tpzed",
    attributes(
        COMMON,
        "email:string first_name:string last_name:string identity_url:string is_admin:boolean prefs:Hash",
        "is_active:boolean username:string full_name:string! is_invited:boolean!",
        "can_write:boolean! can_manage:boolean!",
    ),
    defaults={"prefs": {}},
    fixed=_COMMON_FIXED | {"full_name", "is_invited", "can_write", "can_manage"},
)
TOKENS = Resource(
    "api_client_authorizations",
    "api_client_authorization",
    "gj3su",
    attributes(
        COMMON,
        "api_token:string- created_by_ip_address:string last_used_by_ip_address:string last_used_at:datetime",
        "expires_at:datetime scopes:Array",
    ),
    defaults={"scopes": ["all"]},
    fixed=_COMMON_FIXED | {"created_by_ip_address", "last_used_by_ip_address", "last_used_at"},
    indexes=("CREATE UNIQUE INDEX IF NOT EXISTS tokens_secret ON api_client_authorizations (api_token)",),
)
CONTAINERS = Resource(
    "containers",
    "container",
    "dz642",
    attributes(
        COMMON,
        "state:string command:Array container_image:string cwd:string environment:Hash mounts:Hash",
        "output_path:string runtime_constraints:Hash priority:integer exit_code:integer output:string log:string",
    ),
    fixed=_COMMON_FIXED,
)
CONTAINER_REQUESTS = Resource(
    "container_requests",
    "container_request",
    "xvhdp",
    attributes(
        COMMON,
        "name:string description:text properties:Hash state:string container_uuid:string container_image:string",
        "command:Array cwd:string environment:Hash mounts:Hash output_path:string output_name:string",
        "runtime_constraints:Hash scheduling_parameters:Hash priority:integer use_existing:boolean",
        "container_count_max:integer expires_at:datetime output_uuid:string log_uuid:string",
        "requesting_container_uuid:string filters:text container_count:integer output_ttl:integer",
        "output_storage_classes:Array output_properties:Hash output_glob:Array service:boolean published_ports:Hash",
    ),
    defaults={
        "properties": {},
        "environment": {},
        "mounts": {},
        "runtime_constraints": {},
        "scheduling_parameters": {},
        "command": [],
        "state": "Uncommitted",
        "priority": 0,
        "use_existing": True,
    },
    fixed=_COMMON_FIXED
    | {"container_uuid", "output_uuid", "log_uuid", "requesting_container_uuid", "container_count"}
    # These can be set but are never shown; the sandbox does not use them.
    | {"secret_mounts", "runtime_token"},
)
KEEP_SERVICES = Resource(
    "keep_services",
    "keep_service",
    "bi6l4",
    attributes(
        COMMON,
        "service_host:string service_port:integer service_ssl_flag:boolean service_type:string read_only:boolean",
    ),
    fixed=_COMMON_FIXED,
)
WORKFLOWS = Resource(
    "workflows",
    "workflow",
    "7fd4e",
    attributes(COMMON, "name:string description:text definition:text collection_uuid:string"),
    fixed=_COMMON_FIXED,
)

RESOURCES: Mapping[str, Resource] = {
    r.name: r
    for r in (
        COLLECTIONS,
        LINKS,
        GROUPS,
        USERS,
        TOKENS,
        CONTAINERS,
        CONTAINER_REQUESTS,
        KEEP_SERVICES,
        WORKFLOWS,
    )
}
BY_INFIX: Mapping[str, Resource] = {r.infix: r for r in RESOURCES.values()}
BY_KIND: Mapping[str, Resource] = {r.kind: r for r in RESOURCES.values()}


def resource_of(uuid: object) -> Resource | None:
    """The kind of object that a UUID names, by its infix."""
    match = UUID.fullmatch(uuid) if isinstance(uuid, str) else None
    return BY_INFIX.get(match[1]) if match else None


def kind_of(uuid: object) -> str:
    """What head_kind and tail_kind say, whether or not the object exists."""
    resource = resource_of(uuid)
    return resource.kind if resource else ""
