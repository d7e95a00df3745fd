"""Collections: answers, signatures, versions, and what the trash does."""

from __future__ import annotations

import hashlib
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from arv_keepdocker.sandbox import Sandbox

from .conftest import Http, unique

EMPTY = "d41d8cd98f00b204e9800998ecf8427e+0"
FOO = "acbd18db4cc2f85cedef654fccc4a4d8"
KEYS = (
    "created_at current_version_uuid delete_at description etag file_count file_size_total is_trashed kind"
    " manifest_text modified_at modified_by_user_uuid name owner_uuid portable_data_hash preserve_version properties"
    " replication_confirmed replication_confirmed_at replication_desired storage_classes_confirmed"
    " storage_classes_confirmed_at storage_classes_desired trash_at unsigned_manifest_text uuid version"
)


def test_keys(active: Http) -> None:
    made = active.create("collections", name=unique())
    assert sorted(made) == KEYS.split()
    assert sorted(active.good("GET", f"collections/{made['uuid']}")) == KEYS.split()
    expected = {
        "portable_data_hash": EMPTY,
        "manifest_text": "",
        "version": 1,
        "current_version_uuid": made["uuid"],
        "storage_classes_desired": ["default"],
        "storage_classes_confirmed": [],
        "file_count": 0,
        "is_trashed": False,
        "replication_desired": None,
    }
    assert {name: made[name] for name in expected} == expected


def test_any_searches_the_names_of_files(active: Http) -> None:
    file = unique().replace(" ", "-")
    uuid = active.create("collections", name=unique(), manifest_text=f". {EMPTY} 0:0:{file}.tar\n")["uuid"]
    found = active.list("collections", filters=[["any", "like", f"%{file}.tar%"]])["items"]
    assert [item["uuid"] for item in found] == [uuid]
    assert "file_names" not in found[0]
    active.good("PUT", f"collections/{uuid}", {"collection": {"manifest_text": ""}})
    assert active.list("collections", filters=[["any", "like", f"%{file}.tar%"]])["items"] == []


def test_select(active: Http) -> None:
    made = active.good("POST", 'collections?select=["uuid","name"]', {"collection": {"name": unique()}})
    assert sorted(made) == ["etag", "kind", "name", "uuid"]
    got = active.good("GET", f"collections/{made['uuid']}", params={"select": '["manifest_text"]'})
    assert sorted(got) == ["etag", "kind", "manifest_text"]


def test_contents(active: Http) -> None:
    block = active.put_block(b"foo")
    text = f"./b {block} 0:2:x\\072y 2:9:a/f\n. {block} {EMPTY} 0:3:z 0:1:z\n"
    made = active.create("collections", manifest_text=text, name=unique())
    stripped = re.sub(r"\+A[^ ]+", "", text)
    assert (made["file_count"], made["file_size_total"]) == (3, 15)
    assert made["unsigned_manifest_text"] == stripped
    assert made["portable_data_hash"].endswith(f"+{len(stripped)}")
    # The empty block needs no signature, but is given one.
    assert len(re.findall(rf"{re.escape(EMPTY)}\+A\w{{40}}@\w{{8}} ", made["manifest_text"])) == 1


def test_other_hints_stay(active: Http) -> None:
    block = active.put_block(b"foo")
    plain, signature = block.split("+A")
    made = active.create("collections", manifest_text=f". {plain}+Kxyz+A{signature}+Zabc 0:3:f\n")
    assert made["unsigned_manifest_text"] == f". {plain}+Kxyz+Zabc 0:3:f\n"
    assert re.fullmatch(rf"\. {re.escape(plain)}\+Kxyz\+Zabc\+A\w{{40}}@\w{{8}} 0:3:f\n", made["manifest_text"])
    hash_of_plain = hashlib.md5(f". {plain} 0:3:f\n".encode()).hexdigest()
    assert made["portable_data_hash"].startswith(hash_of_plain)
    path = f"collections/{made['uuid']}"
    unsigned = {"collection": {"manifest_text": made["unsigned_manifest_text"]}}
    assert active.good("PUT", path, unsigned)["portable_data_hash"] == made["portable_data_hash"]


def test_empty_directory(active: Http) -> None:
    made = active.create("collections", manifest_text=f"./a {EMPTY} 0:0:\\056\n. {EMPTY} 0:0:f\n")
    assert made["file_count"] == 1


def test_raw_colon_has_another_hash(active: Http) -> None:
    raw, escaped = (active.file(name) for name in ("sha256:x.tar", "sha256\\072x.tar"))
    assert raw["portable_data_hash"] != escaped["portable_data_hash"]


# Signatures


def _reject(http: Http, locator: str) -> None:
    status, text = http.bad("POST", "collections", {"collection": {"manifest_text": f". {locator} 0:3:f\n"}})
    assert status == 403
    assert "#<ArvadosModel::PermissionDeniedError: ArvadosModel::PermissionDeniedError>" in text


def _accept(http: Http, locator: str) -> None:
    assert http.create("collections", manifest_text=f". {locator} 0:3:f\n")["file_count"] == 1


def test_signatures(active: Http, admin: Http, spectator: Http, clean: Sandbox) -> None:
    good = active.put_block(b"foo")
    _accept(active, good)
    _accept(active, EMPTY)
    _accept(active, good.replace("+3+", "+4+Kxyz+"))
    # Signed for the secret alone it would be good only for whoever sends the secret alone.
    secret = active.token.split("/")[2]
    short = active("PUT", _keep(active) + FOO, data=b"foo", token=secret).text.strip()
    clean.settings(signature_ttl=1000)
    other_ttl = active.put_block(b"foo")
    clean.settings(signature_ttl=-10)
    expired = active.put_block(b"foo")
    clean.settings(signature_ttl=1209600)
    bad = [
        f"{FOO}+3",
        good.replace("+A", "+A0")[:-10] + good[-9:],
        spectator.put_block(b"foo"),
        short,
        other_ttl,
        expired,
    ]
    for locator in bad:
        _reject(active, locator)
        _accept(admin, locator)


def _keep(http: Http) -> str:
    service = http.good("GET", "keep_services/accessible")["items"][0]
    return f"http://127.0.0.1:{service['service_port']}/"


def test_answers_are_signed_for_the_caller(active: Http, spectator: Http) -> None:
    made = active.file()
    active.share(made["uuid"], spectator.uuid)
    texts = [http.good("GET", f"collections/{made['uuid']}")["manifest_text"] for http in (active, spectator)]
    for http, text in zip((active, spectator), texts, strict=True):
        http.create("collections", manifest_text=text)
    assert spectator.bad("POST", "collections", {"collection": {"manifest_text": texts[0]}})[0] == 403


def test_updating(active: Http) -> None:
    made = active.file()
    path = f"collections/{made['uuid']}"
    same = {"collection": {"manifest_text": made["unsigned_manifest_text"]}}
    changed = {"collection": {"manifest_text": made["unsigned_manifest_text"].replace(":f", ":g")}}
    assert active.good("PUT", path, same)["manifest_text"] != made["unsigned_manifest_text"]
    assert active.bad("PUT", path, changed)[0] == 403
    signed = {"collection": {"manifest_text": made["manifest_text"].replace(":f", ":g")}}
    assert active.good("PATCH", path, signed)["portable_data_hash"] != made["portable_data_hash"]


def test_by_hash(active: Http, spectator: Http) -> None:
    made = active.file("f", unique().encode())
    path = f"collections/{made['portable_data_hash']}"
    got = active.good("GET", path)
    assert got["uuid"] == got["portable_data_hash"] == made["portable_data_hash"]
    assert (got["name"], got["owner_uuid"], got["properties"], got["created_at"]) == ("", "", None, None)
    assert got["etag"] == got["unsigned_manifest_text"] == ""
    assert [value for name, value in got.items() if name.startswith("storage_classes")] == [None] * 3
    active.create("collections", manifest_text=got["manifest_text"])
    assert active.good("GET", path + "+Kxyz")["uuid"] == made["portable_data_hash"]
    assert spectator.bad("GET", path) == (404, "not found")
    active.share(made["uuid"], spectator.uuid)
    assert spectator.good("GET", path)["uuid"] == made["portable_data_hash"]


def test_not_offered(active: Http) -> None:
    assert active.bad("POST", "collections", {"collection": {}, "replace_segments": {"x": "y"}})[0] == 422


# Files taken from other collections


def test_replace_files(active: Http) -> None:
    foo, bar = active.put_block(b"foo"), active.put_block(b"barbar")
    source = active.create("collections", manifest_text=f". {foo} 0:3:f\n./d\\040e {foo} {bar} 1:5:g 3:6:h\n")
    by_hash = source["portable_data_hash"]

    def text(method: str, path: str, files: dict[str, str], **attributes: str) -> str:
        answer = active.good(method, path, {"collection": attributes, "replace_files": files})
        return re.sub(r"\+A[^ ]+", "", str(answer["manifest_text"]))

    foo, bar = foo.split("+A")[0], bar.split("+A")[0]
    assert text("POST", "collections", {"/": by_hash}) == source["unsigned_manifest_text"]
    files = {"/x/y": f"{by_hash}/f", "/g": f"{by_hash}/d e/g", "/all": f"{by_hash}/d e/"}
    both = f"{foo} {bar}"
    expected = f". {both} 1:5:g\n./all {both} 1:5:g 3:6:h\n./x {foo} 0:3:y\n"
    assert text("POST", "collections", files) == expected
    made = active.good("POST", "collections", {"collection": {}, "replace_files": files})
    path = f"collections/{made['uuid']}"
    swapped = {"/g": "current/x/y", "/x/y": "current/g"}
    assert text("PUT", path, swapped) == f". {foo} 0:3:g\n./all {both} 1:5:g 3:6:h\n./x {both} 1:5:y\n"
    assert text("PUT", path, {"/all": "", "/x/y": ""}) == f". {foo} 0:3:g\n./x {EMPTY} 0:0:\\056\n"
    new = f". {active.put_block(b'foo')} 0:2:n\n"
    assert text("PUT", path, {"/m": "manifest_text/n", "/x": ""}, manifest_text=new) == f". {foo} 0:3:g 0:2:m\n"


@pytest.mark.parametrize(
    ("files", "status", "message"),
    [
        ({"x": ""}, 400, 'invalid replace_files target: "x"'),
        ({"/x/": ""}, 400, 'invalid replace_files target: "/x/"'),
        ({"/../x": ""}, 400, 'invalid replace_files target: "/../x"'),
        ({"/x": "current/nosuch"}, 400, 'nonexistent source "current/nosuch"'),
        ({"/x": "zzzzz-4zz18-000000000000000/f"}, 400, "invalid source"),
        ({"/x": f"{EMPTY}9/f"}, 404, "not found"),
        ({"/f/x": "current/f"}, 400, "not a directory"),
        ({"/x": "current/f", "/x/y": "current/f"}, 400, 'target "/x/y" inside non-empty target "/x"'),
        ({"/x": 5}, 500, "transcode"),
        (["/x"], 500, "transcode"),
    ],
)
def test_bad_replace_files(active: Http, files: object, status: int, message: str) -> None:
    path = f"collections/{active.file()['uuid']}"
    got, text = active.bad("PUT", path, {"collection": {}, "replace_files": files})
    assert got == status
    assert message in text


def test_replace_files_of_others(active: Http, spectator: Http) -> None:
    made = active.file("f", unique().encode())
    body = {"collection": {}, "replace_files": {"/x": f"{made['portable_data_hash']}/f"}}
    assert spectator.bad("POST", "collections", body)[0] == 404
    active.share(made["uuid"], spectator.uuid)
    assert spectator.good("POST", "collections", body)["file_count"] == 1
    unsigned = {"collection": {"manifest_text": made["unsigned_manifest_text"]}}
    assert active.bad("POST", "collections", {**unsigned, "replace_files": {"/x": "manifest_text/f"}})[0] == 403
    assert active.bad("POST", "collections", {**unsigned, "replace_files": {"/x": f"{EMPTY}/f"}})[0] == 400


# Trash


def test_trash(active: Http) -> None:
    name = unique()
    made = active.file(name=name)
    path = f"collections/{made['uuid']}"
    for unsigned in (made["unsigned_manifest_text"], ""):
        gone = active.good("DELETE", path)
        assert gone["unsigned_manifest_text"] == unsigned
        assert gone["is_trashed"]
        assert gone["trash_at"]
        assert gone["delete_at"] > gone["trash_at"]
        assert gone["manifest_text"] == made["unsigned_manifest_text"]
    assert active.bad("GET", path)[0] == 404
    filters = [["uuid", "=", made["uuid"]]]
    assert active.list("collections", filters=filters)["items"] == []
    assert len(active.list("collections", filters=filters, include_trash="true")["items"]) == 1
    assert active.good("GET", path, params={"include_trash": "true"})["uuid"] == made["uuid"]

    other = active.file(name=name)
    assert active.bad("POST", path + "/untrash")[0] == 422
    back = active.good("POST", path + "/untrash?ensure_unique_name=true")
    assert back["name"] == f"{name} ({made['uuid'][-15:]})"
    assert back["trash_at"] is None
    assert active.good("GET", path)["uuid"] == made["uuid"]
    active.good("POST", f"collections/{other['uuid']}/trash")


def test_trash_by_update(active: Http) -> None:
    made = active.file()
    body = {"collection": {"trash_at": "2020-01-01T00:00:00Z"}}
    assert active.good("PUT", f"collections/{made['uuid']}", body)["is_trashed"]
    assert active.bad("GET", f"collections/{made['uuid']}")[0] == 404


def test_trash_in_the_future(active: Http) -> None:
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 100))
    made = active.file(trash_at=until)
    assert not made["is_trashed"]
    expiry = int(re.findall(r"@(\w+) ", made["manifest_text"])[0], 16)
    assert abs(expiry - time.time() - 100) < 5
    active.good("GET", f"collections/{made['uuid']}")


def test_sweep(active: Http, spectator: Http, root: Http) -> None:
    made = active.file()
    active.share(made["uuid"], spectator.uuid)
    links = [http.create("links", link_class="x", head_uuid=made["uuid"]) for http in (active, spectator)]
    active.good("DELETE", f"collections/{made['uuid']}")
    root("POST", "/sys/trash_sweep")
    assert active.good("GET", f"links/{links[0]['uuid']}")["head_uuid"] == made["uuid"]
    body = {"collection": {"delete_at": "2020-01-01T00:00:00Z"}}
    active.good("PUT", f"collections/{made['uuid']}?include_trash=true", body)
    root("POST", "/sys/trash_sweep")
    for http, link in zip((active, spectator), links, strict=True):
        assert http.bad("GET", f"links/{link['uuid']}")[0] == 404
    assert active.list("collections", filters=[["uuid", "=", made["uuid"]]], include_trash="true")["items"] == []


def test_sweep_of_a_project(active: Http, root: Http) -> None:
    top = active.project()
    below = active.project(owner_uuid=top)
    made = active.file(owner_uuid=below)
    link = active.create("links", link_class="x", head_uuid=active.file()["uuid"], owner_uuid=below)
    active.good("DELETE", f"groups/{top}")
    active.good("PUT", f"groups/{top}?include_trash=true", {"group": {"delete_at": "2020-01-01T00:00:00Z"}})
    root("POST", "/sys/trash_sweep")
    for path in (f"groups/{below}", f"collections/{made['uuid']}", f"links/{link['uuid']}"):
        assert active.bad("GET", f"{path}?include_trash=true")[0] == 404


def test_at_the_same_time(active: Http) -> None:
    """Requests in parallel neither fail nor share a name."""
    project = active.project()
    body = {"collection": {"name": "same", "owner_uuid": project}, "ensure_unique_name": True}

    def make(_: int) -> str:
        made = active.good("POST", "collections", body)
        active.create("links", link_class="x", head_uuid=made["uuid"], owner_uuid=project)
        return str(made["name"])

    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(make, range(80)))
    assert len(names) == 80
    assert active.list("links", filters=[["owner_uuid", "=", project]])["items_available"] == 80


# Versions


def test_versions(active: Http) -> None:
    made = active.create("collections", name=unique(), preserve_version=True)
    path = f"collections/{made['uuid']}"
    assert active.good("PUT", path, {"collection": {"name": unique()}})["version"] == 2
    assert active.good("PUT", path, {"collection": {"name": unique()}})["version"] == 2
    filters = [["current_version_uuid", "=", made["uuid"]]]
    assert [c["version"] for c in active.list("collections", filters=filters)["items"]] == [2]
    every = active.list("collections", filters=filters, include_old_versions="true", order="version")["items"]
    assert [(c["version"], c["name"] == made["name"]) for c in every] == [(1, True), (2, False)]
