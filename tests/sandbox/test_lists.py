"""Lists: limits, order, selection, filters, paging, and the ways to ask for them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from arvados.api import api_from_config
from arvados.util import keyset_list_all

from arv_keepdocker.sandbox import Sandbox

from .conftest import Http, encoded

COUNT = 120
OURS = ["link_class", "=", "probe"]


@pytest.fixture(scope="module", autouse=True)
def probes(active: Http) -> list[Any]:
    """Links n000 to n119, with some properties."""
    heads = [active.file(name=f"probe {n}")["uuid"] for n in range(2)]
    return [
        active.create(
            "links",
            link_class="probe",
            name=f"n{number:03d}",
            head_uuid=heads[number % 2],
            properties={"number": str(number % 3), "tags": ["x", f"t{number % 2}"]} if number < 60 else {},
        )
        for number in range(COUNT)
    ]


def test_shape(active: Http) -> None:
    answer = active.list("links", filters=[OURS])
    assert sorted(answer) == ["items", "items_available", "kind", "limit", "offset"]
    assert (answer["items_available"], answer["kind"], answer["limit"]) == (COUNT, "arvados#linkList", 100)
    assert active.list("groups")["included"] == []


@pytest.mark.parametrize(
    ("parameters", "limit", "number"),
    [
        ({}, 100, 100),
        ({"limit": 5}, 5, 5),
        ({"limit": 5000}, 1000, 120),
        ({"limit": 0}, 0, 0),
        ({"limit": -1}, 100, 100),
        ({"limit": 1000, "offset": 118}, 1000, 2),
        ({"limit": 1000, "offset": 500}, 1000, 0),
        ({"nosuchparameter": "x"}, 100, 100),
    ],
)
def test_limit(active: Http, parameters: dict[str, Any], limit: int, number: int) -> None:
    answer = active.list("links", filters=[OURS], **parameters)
    assert (answer["limit"], len(answer["items"]), answer["items_available"]) == (limit, number, COUNT)


@pytest.mark.parametrize(
    ("parameters", "status", "message"),
    [
        ({"limit": "abc"}, 500, r'^strconv.ParseInt: parsing "abc": invalid syntax$'),
        ({"offset": "-1"}, 422, "422 Unprocessable Entity"),
        ({"count": "some"}, 422, "count parameter must be 'exact' or 'none'"),
        ({"order": '{"a":1}'}, 500, "order"),
        ({"select": '"name"'}, 500, "transcode"),
        ({"select": "[]"}, 422, "Attribute selection list cannot be empty"),
        ({"select": '["nosuch"]'}, 422, "Invalid attribute 'nosuch' of Link in select parameter"),
    ],
)
def test_bad_parameters(active: Http, parameters: dict[str, str], status: int, message: str) -> None:
    got, text = active.bad("GET", "links", params=parameters)
    assert got == status
    assert re.search(message, text)


def test_count_none(active: Http) -> None:
    assert "items_available" not in active.list("links", filters=[OURS], count="none")


def test_distinct_counts_all(active: Http) -> None:
    answer = active.list("links", filters=[OURS], select=["link_class"], distinct="true")
    assert len(answer["items"]) == 1
    assert answer["items_available"] == COUNT


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("name desc", "n119"),
        ("name", "n000"),
        (["link_class desc", "name asc"], "n000"),
        ("link_class asc, name desc", "n119"),
        ("nosuch desc, name asc", "n000"),
        ("name sideways", "n119"),
        (None, "n119"),
    ],
)
def test_order(active: Http, order: object, first: str) -> None:
    extra = {} if order is None else {"order": order}
    assert active.list("links", filters=[OURS], limit=1, **extra)["items"][0]["name"] == first


def test_order_by_what_is_not_selected_is_dropped(active: Http) -> None:
    items = active.list("links", filters=[OURS], select=["uuid"], order="name", limit=1000)["items"]
    uuids = [item["uuid"] for item in items]
    assert uuids == sorted(uuids, reverse=True)


def test_select(active: Http) -> None:
    (item,) = active.list("links", filters=[OURS], select=["name"], order="name desc", limit=1)["items"]
    assert item == {"kind": "arvados#link", "etag": "", "name": "n119"}


def test_zero_values(active: Http) -> None:
    link = active.create("links", link_class="zero")
    (item,) = active.list("links", filters=[["uuid", "=", link["uuid"]]])["items"]
    assert [item[k] for k in ("tail_uuid", "name", "head_kind", "head_uuid")] == [""] * 4
    (item,) = active.list("collections", filters=[["name", "=", "probe 0"]])["items"]
    assert item["manifest_text"] == item["unsigned_manifest_text"] == ""
    assert item["description"] is item["replication_desired"] is item["trash_at"] is None
    options = {"filters": [["name", "=", "probe 0"]], "select": ["manifest_text"]}
    assert re.fullmatch(
        r"\. acbd18db\S+\+3\+A\S+@\w{8} 0:3:f\n", active.list("collections", **options)["items"][0]["manifest_text"]
    )


def test_time_has_nanoseconds_only_when_made(active: Http) -> None:
    for _ in range(20):
        made = active.create("links", link_class="time")
        got = active.good("GET", f"links/{made['uuid']}")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", made["created_at"])
        assert got["created_at"] == made["created_at"][:26] + "000Z"
        found = active.list("links", filters=[["created_at", "=", made["created_at"]], ["uuid", "=", made["uuid"]]])
        assert len(found["items"]) == 1
        if made["created_at"] != got["created_at"]:
            return
    pytest.fail("never any nanoseconds")


# Filters


@pytest.mark.parametrize(
    ("filter", "number"),
    [
        (["name", "=", "n007"], 1),
        (["name", "!=", "n007"], 119),
        (["name", "<", "n010"], 10),
        (["name", ">=", "n110"], 10),
        (["name", "in", ["n001", "n002", "nosuch"]], 2),
        (["name", "in", []], 0),
        (["name", "in", [None]], 0),
        (["name", "not in", ["n001"]], 119),
        (["name", "like", "n00%"], 10),
        (["name", "like", "N00%"], 0),
        (["name", "ilike", "N00%"], 10),
        (["name", "ILIKE", "N00%"], 10),
        (["name", "like", "n00_"], 10),
        (["name", "like", "n00"], 0),
        (["name", "like", "n00\\_"], 0),
        (["name", "like", "n0*"], 0),
        (["tail_uuid", "=", None], 120),
        (["tail_uuid", "!=", None], 0),
        (["tail_uuid", "!=", "x"], 120),
        (["tail_uuid", "not in", ["x"]], 120),
        (["created_at", ">", "2020-01-01T00:00:00Z"], 120),
        (["created_at", "<", "2020-01-01"], 0),
        (["properties", "exists", "number"], 60),
        (["properties.number", "exists", True], 60),
        (["properties.number", "exists", False], 60),
        (["properties.number", "=", "0"], 20),
        (["properties.number", "!=", "0"], 100),
        (["properties.number", "in", ["0", "1"]], 40),
        (["properties.number", "not in", ["0"]], 100),
        (["properties.number", "<", "1"], 20),
        (["properties.number", "like", "%"], 60),
        (["properties.tags", "contains", "t1"], 30),
        (["properties", "contains", "number"], 60),
        (["head_uuid", "is_a", "arvados#collection"], 120),
        (["head_uuid", "is_a", "arvados#group"], 0),
        (["any", "like", "n00_"], 10),  # a uuid is longer
        (["head_kind", "=", "arvados#collection"], 120),
        (["head_kind", "=", "arvados#group"], 0),
        (["tail_kind", "=", "arvados#collection"], 0),
        (["head_uuid", "in", []], 0),
    ],
)
def test_filter(active: Http, filter: list[Any], number: int) -> None:
    answer = active.list("links", filters=[OURS, filter], limit=5)
    assert (answer["items_available"], answer["limit"]) == (number, 5)
    assert len(answer["items"]) == min(5, number)


@pytest.mark.parametrize(
    ("filters", "status", "message"),
    [
        ([["name", "<>", "x"]], 422, "Invalid operator '<>'"),
        ([["name", "~", "x"]], 422, "Invalid operator '~'"),
        ([["any", "@@", "x"]], 422, "Full text search operator is no longer supported"),
        ([["name", "in", "x"]], 422, "Invalid operand type 'String' for 'in' operator in filters"),
        ([["name", "=", 5]], 422, "Invalid operand type 'Integer' for '=' operator in filters"),
        ([["name", "=", ["x"]]], 422, "Invalid operand type 'Array' for '=' operator in filters"),
        (["name"], 422, "Invalid operand type 'TrueClass' for '=' operator in filters"),
        ([["nosuch", "=", "x"]], 422, "Invalid attribute 'nosuch' in filter"),
        ([["name", "exists", "x"]], 422, "Invalid attribute 'name' for operator 'exists' in filter"),
        ([["properties.a", "exists", "x"]], 422, "Invalid operand 'x' for 'exists' must be true or false"),
        ([["created_at", ">", "yesterdayish"]], 422, 'no time information in "yesterdayish"'),
        ([["any", "=", "x"]], 422, ""),
        ([["head_kind", "like", "arvados%"]], 422, "Invalid attribute 'head_kind' in filter"),
        ([["name", "="]], 500, r'transcode: invalid filter "[\"name\",\"=\"]": must have 3 decoded'),
        ([["name", "=", "x", "y"]], 500, "must have 3 decoded"),
        ({"name": "x"}, 500, "transcode: "),
        ([5], 500, "transcode: "),
        ([["name", None, "x"]], 500, "transcode: "),
        ([["name", "=", {}]], 500, "transcode: "),
        ([["uuid", "in", "x"]], 400, ""),
        ([["uuid", "=", None]], 400, ""),
        (
            [["uuid", "=", "xxxxx-o0j2j-012345678901234"]],
            400,
            'cannot execute federated list query unless count=="none"',
        ),
    ],
)
def test_bad_filter(active: Http, filters: object, status: int, message: str) -> None:
    got, text = active.bad("GET", "links", params=encoded({"filters": filters}))
    assert got == status
    assert message in text
    # What the controller finds itself, it says without telling the request's id.
    assert ("(req-" in text) == (status == 422)


@pytest.mark.parametrize(
    ("filter", "number"),
    [
        (["is_trashed", "=", False], 2),
        (["is_trashed", "=", "f"], 2),
        (["is_trashed", "=", "No"], 2),
        (["is_trashed", "=", "t"], 0),
        (["is_trashed", "!=", "1"], 2),
        (["version", "=", 1], 2),
        (["version", "=", "1"], 2),
        (["version", ">", "1"], 0),
        (["file_names", "like", "%f%"], 2),
        (["file_names", "ilike", "%F"], 2),
        (["file_names", "like", "f%"], 0),
        (["(file_count <= file_size_total)", "=", True], 2),
        (["( file_count>file_size_total )", "=", "true"], 0),
    ],
)
def test_filter_of_collections(active: Http, filter: list[Any], number: int) -> None:
    answer = active.list("collections", filters=[["name", "in", ["probe 0", "probe 1"]], filter])
    assert answer["items_available"] == len(answer["items"]) == number


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        (["is_trashed", "=", "maybe"], "Invalid operand 'maybe' for boolean attribute 'is_trashed'"),
        (["is_trashed", "<", "t"], "Invalid operator '<' for boolean attribute 'is_trashed'"),
        (["version", "=", "one"], 'invalid input syntax for type integer: "one"'),
        (["version", "=", True], "Invalid operand type 'TrueClass'"),
        (["file_names", "=", "f"], "Invalid attribute 'file_names' in filter"),
        (["(file_count < nosuch)", "=", True], "Invalid attribute in expression: 'nosuch'"),
        (["(file_count < name)", "=", True], "Non-numeric attribute in expression: 'name'"),
        (["(file_count < version)", "!=", True], "Invalid expression filter '(file_count < version)'"),
        (["(file_count < version)", "=", 1.5], "Invalid expression filter '(file_count < version)'"),
    ],
)
def test_bad_filter_of_collections(active: Http, filter: list[Any], message: str) -> None:
    status, text = active.bad("GET", "collections", params=encoded({"filters": [filter]}))
    assert status == 422
    assert message in text


def test_only_the_number(active: Http, spectator: Http, clean: Sandbox) -> None:
    """With limit 0 and an exact count nothing but the number of what is readable is told."""
    shared = active.file()["uuid"]
    active.share(shared, spectator.uuid)
    hidden = active.file()["uuid"]
    trashed = active.file()["uuid"]
    active.share(trashed, spectator.uuid)
    active.good("DELETE", f"collections/{trashed}")
    wanted = [["uuid", "in", [shared, hidden, trashed, "zzzzz-4zz18-nosuchcollectio"]]]
    for http, number in ((active, 2), (spectator, 1)):
        answer = http.list("collections", filters=wanted, limit=0, count="exact", select=["uuid"])
        assert answer == {
            "items": [],
            "items_available": number,
            "kind": "arvados#collectionList",
            "limit": 0,
            "offset": 0,
        }


def test_manifest_text_is_no_filter(active: Http) -> None:
    got, text = active.bad("GET", "collections", params=encoded({"filters": [["manifest_text", "like", "%"]]}))
    assert got == 422
    assert "Invalid attribute 'manifest_text' in filter" in text


@pytest.mark.parametrize("filter", [["uuid", "in", []], ["uuid", "=", "junk"]])
def test_lists_that_the_controller_answers_itself(active: Http, filter: object) -> None:
    answer = active.list("collections", filters=[filter], limit=7)
    assert answer == {"items": [], "items_available": 0, "kind": "arvados#collectionList", "limit": 0, "offset": 0}
    answer = active.list("collections", filters=[filter], count="none")
    assert answer == {"items": [], "kind": "arvados#collectionList", "limit": 0, "offset": 0}


def test_paging_of_the_sdk(sandbox: Sandbox, active: Http, probes: list[Any]) -> None:
    api = api_from_config("v1", sandbox.environment(), cache=False)
    try:
        for page in (1000, 7):
            sandbox.clear_requests()
            found = list(keyset_list_all(api.links().list, filters=[OURS], limit=page))
            assert [item["uuid"] for item in found] == [link["uuid"] for link in probes]
        sandbox.clear_requests()
        assert len(list(keyset_list_all(api.links().list, filters=[OURS, ["name", "=", "n003"]]))) == 1
        assert len(sandbox.requests()) == 3
    finally:
        api.close()


# POST as GET

FORM = encoded({"filters": [OURS], "limit": 3})


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("links", {"data": {**FORM, "_method": "GET"}}),
        ("links?_method=GET", {"data": FORM}),
        ("links?_method=GET", {"json": {"filters": [OURS], "limit": 3}}),
        ("links", {"data": FORM, "headers": {"X-Http-Method-Override": "GET"}}),
    ],
)
def test_post_as_get(active: Http, path: str, options: dict[str, Any]) -> None:
    answer = active.good("POST", path, **options)
    assert len(answer["items"]) == 3
    assert answer["items_available"] == COUNT


def test_method_in_json_is_an_attribute(active: Http) -> None:
    status, text = active.bad("POST", "links", {"_method": "GET"})
    assert status == 422
    assert "unknown attribute '_method' for Link" in text


def test_form_without_override_makes_an_empty_link(active: Http) -> None:
    link = active.good("POST", "links", data=FORM)
    assert link["link_class"] == link["name"] == link["head_uuid"] == ""


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_other_methods_by_post(active: Http, method: str) -> None:
    link = active.create("links", name="before")
    answer = active.good("POST", f"links/{link['uuid']}?_method={method}", {"name": "after"})
    assert answer["name"] == ("before" if method == "DELETE" else "after")


def test_many_uuids(active: Http, probes: list[Any], clean: Sandbox) -> None:
    """The SDK switches to POST; the log shows what was meant."""
    api = api_from_config("v1", clean.environment(), cache=False)
    try:
        uuids = [link["uuid"] for link in probes] * 3
        assert api.links().list(filters=[["uuid", "in", uuids]]).execute()["items_available"] == COUNT
    finally:
        api.close()
    entry = clean.requests()[-1]
    assert (entry["method"], json.loads(entry["query"]["filters"])[0][0]) == ("GET", "uuid")


@pytest.mark.parametrize(("size", "status"), [(600_000, 200), (1_500_000, 431)])
def test_long_urls(active: Http, size: int, status: int) -> None:
    value = "x" * size
    assert active("GET", "links", params=encoded({"filters": [["name", "=", value]]})).status_code == status
    form = {"filters": json.dumps([["name", "=", value]]), "_method": "GET"}
    assert active("POST", "links", data=form).status_code == 200
