"""Refusals: who is asking, what is asked for, and what is written."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests.conftest import container_request

from .conftest import Http, unique

NOWHERE = "zzzzz-j7d0g-nosuchproject00"


def test_wrapping(active: Http) -> None:
    status, text = active.bad("GET", f'groups/{NOWHERE}?select=["uuid"]', headers={"X-Request-Id": "req-ours"})
    path = f"/arvados/v1/groups/{NOWHERE}"
    assert status == 404
    assert text == f"//railsapi.internal{path}?select=%5B%22uuid%22%5D: 404 Not Found: Path not found (req-ours)"
    response = active("GET", "users/current", headers={"X-Request-Id": "req-ours"})
    assert response.headers["X-Request-Id"] == "req-ours"


def test_the_query_that_is_reported_is_the_controllers(active: Http) -> None:
    _, text = active.bad("GET", 'links?nosuch=1&limit=7&filters=[["name","~","x"]]')
    query = (
        "cluster_id=&count=&filters=%5B%5B%22name%22%2C%22~%22%2C%22x%22%5D%5D&forwarded_for=zzzzz-&limit=7&offset=0"
    )
    assert text.startswith(f"//railsapi.internal/arvados/v1/links?{query}: 422 Unprocessable Entity: #<ArgumentError: ")
    # Long ones are sent in a body, like those of what changes something.
    _, text = active.bad("GET", "links", params={"filters": f'[["name","~","{"x" * 1000}"]]'})
    assert text.startswith("//railsapi.internal/arvados/v1/links: 422")
    _, text = active.bad("POST", "links?ensure_unique_name=true", {"nosuch": 1})
    assert text.startswith("//railsapi.internal/arvados/v1/links: 422")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ('links?filters=[["name","~","x"]]', "#<ArgumentError: Invalid operator '~'>"),
        ('links?filters=[["nosuch","=","x"]]', "#<ArgumentError: Invalid attribute 'nosuch' in filter>"),
        ("links?count=some", "#<ArgumentError: count parameter must be 'exact' or 'none'>"),
        ("links?select=[]", "#<ArgumentError: Attribute selection list cannot be empty>"),
    ],
)
def test_argument_errors(active: Http, path: str, message: str) -> None:
    assert message in active.bad("GET", path)[1]


def test_members_are_in_alphabetical_order(active: Http) -> None:
    made = active.create("collections", name=unique(), properties={"b": 1, "a": 2})
    for answer in (made, active.good("GET", f"collections/{made['uuid']}"), active.list("links"), made["properties"]):
        assert list(answer) == sorted(answer)


def test_head_and_options(active: Http, nobody: Http) -> None:
    assert nobody("HEAD", "users/current").status_code == 401
    for path in ("users/current", "links", f"users/{active.uuid}"):
        head = active("HEAD", path)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["Content-Length"]) > 10
    assert active("HEAD", "links/nosuch").status_code == 404
    for path in ("links", "users/current", "nosuch/x"):
        options = nobody("OPTIONS", path)
        assert options.status_code == 200
        assert options.headers["Access-Control-Allow-Origin"] == "*"
        assert "X-Http-Method-Override" in options.headers["Access-Control-Allow-Headers"]


# Tokens


def _secret(http: Http) -> str:
    return http.token.split("/")[2]


def test_ways_to_give_a_token(active: Http, nobody: Http) -> None:
    for token in (active.token, _secret(active)):
        for scheme in ("Bearer", "OAuth2"):
            header = {"Authorization": f"{scheme} {token}"}
            assert nobody.good("GET", "users/current", headers=header)["uuid"] == active.uuid
        assert nobody.good("GET", "users/current", params={"api_token": token})["uuid"] == active.uuid


def test_bad_tokens(active: Http, spectator: Http, nobody: Http, admin: Http) -> None:
    expired = admin.create("api_client_authorizations", owner_uuid=active.uuid, expires_at="2020-01-01T00:00:00Z")
    other = spectator.token.split("/")[1]
    for token in (
        "",
        "nonsense",
        "v2/x",
        f"v2/{other}/{_secret(active)}",
        active.token[:-1] + "#",
        f"v2/{expired['uuid']}/{expired['api_token']}",
    ):
        status, text = nobody.bad("GET", "users/current", token=token)
        assert status == 401
        assert ": 401 Unauthorized: Not logged in (req-" in text


def test_scopes(active: Http, admin: Http) -> None:
    scopes = ["GET /arvados/v1/users/current", "GET /arvados/v1/collections/"]
    made = admin.create("api_client_authorizations", owner_uuid=active.uuid, scopes=scopes)
    token = f"v2/{made['uuid']}/{made['api_token']}"
    assert active.good("GET", "users/current", token=token)["uuid"] == active.uuid
    assert active.bad("GET", "links", token=token)[0] == 403
    assert active.bad("GET", "collections/junk", token=token)[0] == 404


def test_inactive(inactive: Http, active: Http) -> None:
    assert inactive.good("GET", "users/current")["is_active"] is False
    active.file()
    assert inactive.list("collections")["items"] == []
    status, text = inactive.bad("POST", "links", {"link_class": "x"})
    assert status == 403
    assert "PermissionDeniedError" in text
    (link,) = inactive.list("links")["items"]
    assert (link["link_class"], link["name"]) == ("permission", "can_read")
    assert (link["tail_uuid"], link["head_uuid"]) == ("zzzzz-j7d0g-fffffffffffffff", inactive.uuid)


def test_request_for_a_container_by_an_inactive_user(inactive: Http, active: Http, admin: Http) -> None:
    """The image is looked for first."""
    made = container_request("nosuch")
    assert inactive.bad("POST", "container_requests", made)[0] == 422
    image = active.image("c")
    active.share(image["uuid"], inactive.uuid)
    status, text = inactive.bad("POST", "container_requests", container_request(image["portable_data_hash"]))
    assert status == 403
    assert "PermissionDeniedError" in text


def test_activation(inactive: Http, admin: Http) -> None:
    user = admin.create("users", username="later", email="later@sandbox.invalid")
    token = admin.create("api_client_authorizations", owner_uuid=user["uuid"])
    full = f"v2/{token['uuid']}/{token['api_token']}"
    assert inactive.bad("POST", "links", {}, token=full)[0] == 403
    admin.good("PUT", f"users/{user['uuid']}", {"user": {"is_active": True}})
    assert inactive.good("POST", "links", {}, token=full)["owner_uuid"] == user["uuid"]
    assert inactive.bad("PUT", f"users/{user['uuid']}", {"user": {"is_admin": True}}, token=full)[0] == 403


# Paths


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "collections/junk", 404, 'invalid UUID or PDH "junk"'),
        ("GET", "collections/00000000000000000000000000000000+5", 404, "not found"),
        ("GET", "collections/00000000000000000000000000000000", 404, "invalid UUID or PDH"),
        ("GET", "collections/zzzzz-4zz18-000000000000000", 404, "Path not found"),
        ("PUT", "links/zzzzz-o0j2j-000000000000000", 404, "Path not found"),
        ("DELETE", "links/zzzzz-o0j2j-000000000000000", 404, "Path not found"),
        ("GET", "nosuch", 404, "Path not found"),
        ("GET", "collections/zzzzz-4zz18-000000000000000/nosuch", 404, "API endpoint not found"),
        ("PUT", "collections", 405, ""),
        ("GET", "links/", 404, "API endpoint not found"),
        ("GET", "links/zzzzz-o0j2j-000000000000000/", 404, "API endpoint not found"),
        ("POST", "collections/", 404, "API endpoint not found"),
        ("POST", "sys/trash_sweep", 404, ""),
    ],
)
def test_paths(active: Http, method: str, path: str, status: int, message: str) -> None:
    got, text = active.bad(method, path)
    assert got == status
    assert message in text


def test_passed_through(nobody: Http) -> None:
    for path in ("nosuch", "keep_services"):
        body = nobody("GET", path).json()
        assert re.fullmatch(r"Not logged in \(req-\w{20}\)", body["errors"][0])
        assert "error_token" in body


def test_sweep_is_for_root(root: Http, admin: Http) -> None:
    assert root("POST", "/sys/trash_sweep").status_code == 204
    assert admin("POST", "/sys/trash_sweep").status_code == 403


# Owners


@pytest.fixture(scope="module")
def places(active: Http, spectator: Http) -> dict[str, Any]:
    trashed = active.project()
    active.good("DELETE", f"groups/{trashed}")
    readable = spectator.project()
    spectator.share(readable, active.uuid)
    writable = spectator.project()
    spectator.share(writable, active.uuid, "can_write")
    return {
        "invisible": spectator.project(),
        "nonexistent": NOWHERE,
        "trashed": trashed,
        "collection": active.file()["uuid"],
        "readable": readable,
        "writable": writable,
        "own": active.project(),
        "other home": spectator.uuid,
        "system": "zzzzz-tpzed-000000000000000",
        "system group": "zzzzz-j7d0g-000000000000000",
        "own role": active.create("groups", group_class="role", name=unique("role"))["uuid"],
        "other role": spectator.create("groups", group_class="role", name=unique("role"))["uuid"],
        "filter group": active.create("groups", group_class="filter", name=unique("filter"))["uuid"],
        "all users": "zzzzz-j7d0g-fffffffffffffff",
        "junk": "junk",
        "empty": "",
        "number": 5,
        "null": None,
    }


@pytest.mark.parametrize(
    ("place", "status", "message"),
    [
        ("invisible", 422, "Owner uuid '.*' not found"),
        ("nonexistent", 422, f"Owner uuid '{NOWHERE}' not found"),
        ("trashed", 422, "Owner uuid '.*' not found"),
        ("collection", 422, "Owner uuid '.*' not found"),
        ("readable", 403, "Owner uuid cannot be set or changed without write permission on new owner"),
        ("other home", 403, "Owner uuid cannot be set or changed without write permission on new owner"),
        ("system", 403, "Owner uuid cannot be set or changed without write permission on new owner"),
        ("system group", 403, "Owner uuid cannot be set or changed without write permission on new owner"),
        ("other role", 403, "Owner uuid cannot be set or changed without write permission on new owner"),
        ("own role", 403, "Owner uuid must be a project"),
        ("filter group", 403, "Owner uuid must be a project"),
        ("all users", 403, "Owner uuid must be a project"),
        ("junk", 403, "Owner uuid must be set to User or Group"),
        ("empty", 403, "Owner uuid must be set to User or Group"),
        ("number", 403, "Owner uuid must be set to User or Group"),
        ("writable", 200, ""),
        ("own", 200, ""),
        ("null", 200, ""),
    ],
)
def test_owner(active: Http, places: dict[str, Any], place: str, status: int, message: str) -> None:
    body = {"collection": {"owner_uuid": places[place]}}
    response = active("POST", "collections", body)
    assert response.status_code == status, response.text
    if status == 200:
        assert response.json()["owner_uuid"] == (places[place] or active.uuid)
        return
    assert re.search(message, response.json()["errors"][0])
    moving = active.create("collections")
    assert active.bad("PUT", f"collections/{moving['uuid']}", body)[0] == status


def test_unwritable_object(active: Http, spectator: Http) -> None:
    made = spectator.file()
    assert active.bad("PUT", f"collections/{made['uuid']}", {})[0] == 404
    spectator.share(made["uuid"], active.uuid)
    for method in ("PUT", "DELETE"):
        status, text = active.bad(method, f"collections/{made['uuid']}", {})
        assert status == 403
        assert f"Uuid  {made['uuid']} is not writable by {active.uuid}" in text


# What is written

LOCATOR = "acbd18db4cc2f85cedef654fccc4a4d8+3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f". {LOCATOR} 0:3:f", "Manifest text Invalid manifest: does not end with newline"),
        (". 0:0:f\n", 'Manifest text Manifest invalid for stream 1: missing or invalid locator "0:0:f"'),
        (f". {LOCATOR}\n", "Manifest text Manifest invalid for stream 1: no file tokens"),
        (f". {LOCATOR} 0:3\n", 'Manifest text Manifest invalid for stream 1: invalid file token "0:3"'),
        (
            f". {LOCATOR} 0:3:f\nx {LOCATOR} 0:3:f\n",
            'Manifest text Manifest invalid for stream 2: missing or invalid stream name "x"',
        ),
        *(
            (
                f". {LOCATOR} 0:3:{name}\n",
                f'Manifest text Manifest invalid for stream 1: invalid file token "0:3:{shown}"',
            )
            for name, shown in [
                ("../f", "../f"),
                ("a/../f", "a/../f"),
                ("a/..", "a/.."),
                ("./f", "./f"),
                (".", "."),
                ("/f", "/f"),
                ("a//f", "a//f"),
                ("a/", "a/"),
                ("\\056\\056/f", "\\\\056\\\\056/f"),
                ("a\\057\\057f", "a\\\\057\\\\057f"),
                ("a\\b", "a\\\\b"),
            ]
        ),
        (
            f"./.. {LOCATOR} 0:3:f\n",
            'Manifest text Manifest invalid for stream 1: missing or invalid stream name "./.."',
        ),
        (f"./a/./b {LOCATOR} 0:3:f\n", "Manifest text Manifest invalid for stream 1: missing or invalid stream name"),
        (f". {LOCATOR} 0:3:a\\777\n", "Manifest text Manifest invalid for stream 1: >8-bit encoded chars not allowed"),
        (f". {LOCATOR} 0:3:f \n", "Manifest text Manifest invalid for stream 1: trailing space"),
    ],
)
def test_manifest_syntax(active: Http, admin: Http, text: str, message: str) -> None:
    for http in (active, admin):
        status, got = http.bad("POST", "collections", {"collection": {"manifest_text": text}})
        assert status == 422
        assert message in got


@pytest.mark.parametrize(
    ("attributes", "status", "message"),
    [
        ({"name": "a/b"}, 422, "Name cannot contain a '/' character"),
        ({"name": "."}, 422, "Name cannot be '.' or '..'"),
        ({"name": "x" * 256}, 422, "value too long for type character varying(255)"),
        ({"name": "a\0b"}, 422, "string contains null byte"),
        ({"properties": ["x"]}, 500, "unexpected properties type []interface {}"),
        ({"properties": {"a": "x\0"}}, 422, "cannot be converted to text"),
        ({"properties": {"a": [{"\0": 1}]}}, 422, "cannot be converted to text"),
        ({"properties": 5}, 500, "unexpected properties type float64"),
        ({"properties": "xyz"}, 500, "invalid character 'x' looking for beginning of value"),
        ({"nosuch": 1}, 422, "unknown attribute 'nosuch' for Collection."),
        ({"uuid": "zzzzz-4zz18-000000000000001"}, 422, "Uuid assignment not permitted"),
        (
            {"portable_data_hash": "00000000000000000000000000000000+0"},
            422,
            "Portable data hash '00000000000000000000000000000000+0' does not match computed hash"
            " 'd41d8cd98f00b204e9800998ecf8427e+0'",
        ),
    ],
)
def test_attributes(active: Http, attributes: dict[str, Any], status: int, message: str) -> None:
    got, text = active.bad("POST", "collections", {"collection": attributes})
    assert got == status
    assert message in text


def test_good_attributes(active: Http) -> None:
    assert active.create("collections", name=["a"])["name"] == '["a"]'
    assert active.create("collections", storage_classes_desired=[])["storage_classes_desired"] == ["default"]
    assert active.create("collections", properties={"x": "\\u0000"})["properties"] == {"x": "\\u0000"}
    made = active.create("collections", name=unique("a: b"), properties='{"x": 1}')
    assert made["properties"] == {"x": 1}
    assert active.create("collections", properties=None)["properties"] == {}
    assert active.create("collections", name="")["name"] == active.create("collections", name=None)["name"] == ""
    changed = active.good("PUT", f"collections/{made['uuid']}", {"collection": {"properties": {"y": 2}}})
    assert changed["properties"] == {"y": 2}
    assert active.create("collections", replication_desired="x")["replication_desired"] == 0


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ('{"collection": "x"}', "application/json", 500),
        ("{}", "application/json", 200),
        ("anything", "text/plain", 200),
    ],
)
def test_bodies(active: Http, data: str, content_type: str, status: int) -> None:
    response = active("POST", "collections", data=data, headers={"Content-Type": content_type})
    assert response.status_code == status


def test_slashes_in_names(active: Http, clean: Sandbox) -> None:
    clean.settings(forward_slash_name_substitution="___")
    assert active.good("GET", "config")["Collections"]["ForwardSlashNameSubstitution"] == "___"
    name = unique("a/b")
    assert active.create("collections", name=name)["name"] == name
    assert active.bad("POST", "collections", {"collection": {"name": ".."}})[0] == 422


def test_duplicate_name(active: Http) -> None:
    name = unique("dup")
    active.create("collections", name=name)
    status, text = active.bad("POST", "collections", {"collection": {"name": name}})
    assert status == 422
    assert "#<ActiveRecord::RecordNotUnique: PG::UniqueViolation: ERROR:  duplicate key value violates" in text
    assert 'constraint "index_collections_on_owner_uuid_and_name"\nDETAIL:  Key (owner_uuid, name)=(' in text
    for path, extra in (
        ("collections?ensure_unique_name=true", {}),
        ("collections", {"ensure_unique_name": True}),
    ):
        made = active.good("POST", path, {"collection": {"name": name}, **extra})
        assert made["name"] == f"{name} ({made['uuid'][-15:]})"
    body = {"collection": {"name": name}, "ensure_unique_name": True}
    assert active.bad("PUT", f"collections/{made['uuid']}", body)[0] == 422


def test_long_name_is_cut(active: Http) -> None:
    name = ("x" * 255)[len(stamp := str(time.time_ns())) :] + stamp
    active.create("collections", name=name)
    made = active.good("POST", "collections?ensure_unique_name=true", {"collection": {"name": name}})
    assert made["name"] == f"{name[:237]} ({made['uuid'][-15:]})"
    assert len(made["name"]) == 255


# Links


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"head_uuid": "zzzzz-4zz18-000000000000000"}, 422),
        ({"head_uuid": "xxxxx-4zz18-000000000000000"}, 422),
        ({"tail_uuid": "zzzzz-4zz18-000000000000000"}, 422),
        ({"head_uuid": "junk"}, 200),
        ({"head_uuid": "d41d8cd98f00b204e9800998ecf8427e+0"}, 200),
        ({"head_uuid": ""}, 200),
        ({}, 200),
        ({"name": "x" * 256}, 422),
        ({"link_class": "name"}, 422),
    ],
)
def test_links(active: Http, attributes: dict[str, Any], status: int) -> None:
    for body in (attributes, {"link": attributes}):
        response = active("POST", "links", body)
        assert response.status_code == status, response.text
        if status == 422 and "-" in str(attributes):
            end, uuid = next(iter(attributes.items()))
            assert f"{end.capitalize().replace('_', ' ')} '{uuid}' not found" in response.text


def test_duplicate_links(active: Http) -> None:
    body = {"link_class": "x", "name": "y", "head_uuid": active.file()["uuid"]}
    assert active.good("POST", "links", body)["uuid"] != active.good("POST", "links", body)["uuid"]
