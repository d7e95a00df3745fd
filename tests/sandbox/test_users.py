"""Users and tokens as tests make them."""

from __future__ import annotations

from arv_keepdocker.sandbox import Sandbox

from .conftest import Http, unique


def test_current(active: Http, inactive: Http, admin: Http) -> None:
    for http, is_active, is_admin in ((active, True, False), (inactive, False, False), (admin, True, True)):
        user = http.good("GET", "users/current")
        assert (user["uuid"], user["is_active"], user["is_admin"]) == (http.uuid, is_active, is_admin)


def test_new_users(sandbox: Sandbox) -> None:
    asleep = sandbox.add_user("asleep", is_active=False)
    boss = sandbox.add_user("boss", is_admin=True)
    for name, user, flags in (("asleep", asleep, (False, False)), ("boss", boss, (True, True))):
        assert sandbox.users[name] == user
        assert sandbox.environment(name)["ARVADOS_API_TOKEN"] == user.token
        current = sandbox.api("GET", "users/current", user=name)
        assert (current["uuid"], current["is_active"], current["is_admin"]) == (user.uuid, *flags)


def test_scoped_token(sandbox: Sandbox, active: Http) -> None:
    scopes = ["GET /arvados/v1/api_client_authorizations/current", "GET /arvados/v1/users/current"]
    token = sandbox.token("active", scopes=scopes)
    assert sandbox.environment(token=token)["ARVADOS_API_TOKEN"] == token
    assert active.good("GET", "api_client_authorizations/current", token=token)["scopes"] == scopes
    assert active.good("GET", "users/current", token=token)["uuid"] == active.uuid
    status, text = active.bad("GET", "links", token=token)
    assert status == 403
    assert "403 Forbidden: Forbidden" in text
    assert active.good("GET", "api_client_authorizations/current")["scopes"] == ["all"]


def test_expired_token(sandbox: Sandbox, active: Http) -> None:
    token = sandbox.token("active", expires_at="2020-01-01T00:00:00Z")
    assert active.bad("GET", "users/current", token=token)[0] == 401


def test_administrator_in_another_home(admin: Http, active: Http, spectator: Http) -> None:
    for kind in ("collections", "links"):
        made = admin.create(kind, name=unique(), owner_uuid=active.uuid)
        assert (made["owner_uuid"], made["modified_by_user_uuid"]) == (active.uuid, admin.uuid)
        assert active.good("GET", f"{kind}/{made['uuid']}")["uuid"] == made["uuid"]
        assert spectator.bad("GET", f"{kind}/{made['uuid']}")[0] == 404


def test_what_is_told_of_others(active: Http, spectator: Http, inactive: Http, admin: Http) -> None:
    users = {user["uuid"]: user for user in active.list("users", limit=1000)["items"]}
    other = users[spectator.uuid]
    assert (other["username"], other["email"], other["is_active"]) == ("spectator", "spectator@sandbox.invalid", True)
    hidden = ("created_at", "modified_at", "prefs", "etag", "full_name", "owner_uuid")
    assert [other[name] for name in hidden] == [None, None, None, "", "", ""]
    assert active.good("GET", f"users/{spectator.uuid}") == other
    assert inactive.uuid not in users
    assert active.bad("GET", f"users/{inactive.uuid}")[0] == 404
    own = active.good("GET", f"users/{active.uuid}")
    assert own == active.good("GET", "users/current")
    assert own["full_name"] == "Active User"
    assert admin.good("GET", f"users/{spectator.uuid}")["created_at"]


def test_system_groups(active: Http, admin: Http, inactive: Http) -> None:
    names = {
        "zzzzz-j7d0g-000000000000000": "System group",
        "zzzzz-j7d0g-fffffffffffffff": "All users",
        "zzzzz-j7d0g-anonymouspublic": "Anonymous users",
    }
    for uuid, name in names.items():
        for http in (active, admin):
            group = http.good("GET", f"groups/{uuid}")
            assert (group["name"], group["group_class"]) == (name, "role")
