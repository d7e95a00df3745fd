"""Users and their tokens, including those of a new cluster."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from . import lists, objects, timestamps
from .attributes import read_attributes
from .call import Call
from .cluster import Cluster
from .database import Database, Row
from .endpoints import (
    Endpoint,
    create_endpoint,
    delete_endpoint,
    get_endpoint,
    list_endpoint,
    update_endpoint,
)
from .errors import RailsError, path_not_found
from .rendering import render
from .resources import (
    ALL_USERS_GROUP,
    ANONYMOUS_GROUP,
    ANONYMOUS_USER,
    CLUSTER,
    GROUPS,
    LINKS,
    SYSTEM_GROUP,
    SYSTEM_USER,
    TOKENS,
    USERS,
    Resource,
)

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_GROUPS = {SYSTEM_GROUP: "System group", ALL_USERS_GROUP: "All users", ANONYMOUS_GROUP: "Anonymous users"}
# Name, UUID, is_admin, is_active.
_INITIAL = (
    ("root", SYSTEM_USER, True, True),
    ("admin", f"{CLUSTER}-tpzed-sandboxadmin000", True, True),
    ("active", f"{CLUSTER}-tpzed-sandboxactive00", False, True),
    ("spectator", f"{CLUSTER}-tpzed-sandboxspectato", False, True),
    ("inactive", f"{CLUSTER}-tpzed-sandboxinactive", False, False),
)


# The attributes of other users that are shown; the rest is absent.
_PUBLIC = frozenset(
    [
        "kind",
        "uuid",
        "is_active",
        "is_admin",
        "is_invited",
        "email",
        "first_name",
        "last_name",
        "username",
        "can_write",
        "can_manage",
    ]
)
_HIDDEN = {"created_at": None, "modified_at": None, "prefs": None}


def new_secret() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(50))


def _stamped(resource: Resource, owner: str, uuid: str | None = None, **values: Any) -> Row:
    now = timestamps.now()
    common = {"created_at": now, "modified_at": now, "modified_by_user_uuid": SYSTEM_USER, "owner_uuid": owner}
    return {**resource.defaults, **common, "uuid": uuid or resource.new_uuid(), **values}


def _permission(tail: str, level: str, head: str) -> Row:
    return _stamped(LINKS, SYSTEM_USER, link_class="permission", name=level, tail_uuid=tail, head_uuid=head)


def _visibility(user: str) -> Row:
    """The link by which others see a user; a user who is not active has it, too (measured on Arvados 3.2.1)."""
    return _permission(ALL_USERS_GROUP, "can_read", user)


def _membership(user: str) -> Row:
    """The link by which an active user belongs to All users."""
    return _permission(user, "can_write", ALL_USERS_GROUP)


def populate_groups(database: Database) -> None:
    """The groups that every cluster has; those that an older sandbox did not make are added to its directory."""
    for uuid, name in _GROUPS.items():
        if database.get(GROUPS, uuid) is None:
            database.insert(GROUPS, _stamped(GROUPS, SYSTEM_USER, uuid, name=name, group_class="role"))


def populate(database: Database) -> None:
    """The users and tokens of a new cluster."""
    anonymous = _stamped(USERS, SYSTEM_USER, ANONYMOUS_USER, username="anonymous", is_active=False)
    database.insert(USERS, anonymous)
    # The system user is seen by all: making it an owner is 403, not 422 (measured on Arvados 3.2.1).
    database.insert(LINKS, _permission(ALL_USERS_GROUP, "can_read", SYSTEM_USER))
    for name, uuid, is_admin, is_active in _INITIAL:
        values = {"username": name, "email": f"{name}@sandbox.invalid", "first_name": name.capitalize()}
        database.insert(
            USERS,
            _stamped(USERS, SYSTEM_USER, uuid, **values, last_name="User", is_admin=is_admin, is_active=is_active),
        )
        database.insert(TOKENS, _stamped(TOKENS, uuid, api_token=new_secret()))
        if uuid != SYSTEM_USER:
            database.insert_many(LINKS, [_visibility(uuid), *([_membership(uuid)] if is_active else [])])


def initial_tokens(database: Database) -> dict[str, dict[str, str]]:
    """The UUID and first token of each user that has one, by user name."""
    rows = database.rows(
        "SELECT u.username, u.uuid, a.uuid AS token_uuid, a.api_token FROM users u"
        " JOIN api_client_authorizations a ON a.owner_uuid = u.uuid WHERE u.username IS NOT NULL"
        " ORDER BY a.created_at DESC, a.rowid DESC"
    )
    return {r["username"]: {"uuid": r["uuid"], "token": f"v2/{r['token_uuid']}/{r['api_token']}"} for r in rows}


# Users


def _current(cluster: Cluster, call: Call) -> Row:
    row = cluster.database.get(USERS, call.caller.uuid)
    assert row is not None
    return render(cluster, call, USERS, row)


def _system(cluster: Cluster, call: Call) -> Row:
    row = cluster.database.get(USERS, SYSTEM_USER)
    assert row is not None
    return render(cluster, call, USERS, row)


def _validate(cluster: Cluster, call: Call, old: Row | None, row: Row) -> None:
    row["owner_uuid"] = SYSTEM_USER
    was_active = old is not None and old["is_active"]
    if old is None:
        cluster.database.insert(LINKS, _visibility(row["uuid"]))
    if row.get("is_active") and not was_active:
        cluster.database.insert(LINKS, _membership(row["uuid"]))
    if was_active and not row.get("is_active"):
        cluster.database.execute("DELETE FROM links WHERE link_class = 'permission' AND tail_uuid = ?", (row["uuid"],))


def _list(cluster: Cluster, call: Call) -> Row:
    if call.caller.is_admin:
        return lists.list_objects(cluster, call, USERS)
    answer = lists.list_objects(cluster, call, USERS, ("t.is_active", []))
    return {**answer, "items": [_as_others_see(item) for item in answer["items"]]}


def _get(cluster: Cluster, call: Call) -> Row:
    user = objects.get(cluster, call, USERS)
    if call.caller.is_admin or call.uuid == call.caller.uuid:
        return user
    if not cluster.permissions.find(USERS, call.caller, call.uuid)["is_active"]:
        raise path_not_found()
    return _as_others_see(user)


def _as_others_see(user: Row) -> Row:
    """A user as shown to a user who is not an administrator, in lists even their own (users_controller.rb)."""
    return {name: value if name in _PUBLIC else _HIDDEN.get(name, "") for name, value in user.items()}


def _create(cluster: Cluster, call: Call) -> Row:
    objects.require_admin(call)
    return objects.create(cluster, call, USERS, _validate)


def _update(cluster: Cluster, call: Call) -> Row:
    objects.require_admin(call)
    return objects.update(cluster, call, USERS, _validate)


# Tokens


def _current_token(cluster: Cluster, call: Call) -> Row:
    row = cluster.database.get(TOKENS, call.caller.token_uuid)
    if row is None:
        raise path_not_found()
    return render(cluster, call, TOKENS, row)


def _create_token(cluster: Cluster, call: Call) -> Row:
    """Make a token for the caller or, if the caller is an administrator, for any user."""
    given = read_attributes(call, TOKENS)
    owner = given.get("owner_uuid") or call.caller.uuid
    if owner != call.caller.uuid:
        objects.require_admin(call)
        if cluster.database.get(USERS, owner) is None:
            raise RailsError(422, f"Owner uuid '{owner}' not found")
    secret = given.get("api_token") or new_secret()
    values = {"scopes": given.get("scopes", ["all"]), "expires_at": given.get("expires_at")}
    row = _stamped(TOKENS, owner, api_token=secret, modified_by_user_uuid=call.caller.uuid, **values)
    cluster.database.insert(TOKENS, row)
    return render(cluster, call, TOKENS, row)


def _update_token(cluster: Cluster, call: Call) -> Row:
    return objects.update(cluster, call, TOKENS, lambda *_: None)


ENDPOINTS = (
    replace(list_endpoint(USERS), handler=_list),
    replace(get_endpoint(USERS), handler=_get),
    create_endpoint(USERS, _create),
    update_endpoint(USERS, _update),
    Endpoint("users", "current", "GET", "users/current", _current, response="User"),
    Endpoint("users", "system", "GET", "users/system", _system, response="User"),
    list_endpoint(TOKENS),
    get_endpoint(TOKENS),
    create_endpoint(TOKENS, _create_token),
    update_endpoint(TOKENS, _update_token),
    delete_endpoint(TOKENS, lambda cluster, call: objects.delete(cluster, call, TOKENS)),
    Endpoint(
        TOKENS.name,
        "current",
        "GET",
        f"{TOKENS.name}/current",
        _current_token,
        response="ApiClientAuthorization",
    ),
)
