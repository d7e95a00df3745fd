"""The listing: which images, in which order, in which columns."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

import arv_keepdocker
from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, stored
from tests.engines import Engine

HASH = "docker_image_hash"
NAME = "docker_image_repo+tag"
HEADER = f"{'REPOSITORY':30}  {'TAG':10}  {'IMAGE ID':12}  {'COLLECTION':29}  {'CREATED':20}"


class Catalogue:
    """Makes collections and links in a project, without an engine."""

    def __init__(self, api: Any, project: str) -> None:
        self.api = api
        self.project = project
        self.prefix = f"akd{secrets.token_hex(3)}"

    def new_id(self) -> str:
        return f"sha256:{secrets.token_hex(32)}"

    def collection(self, image_id: str | None = None) -> str:
        file = (image_id or self.new_id()).replace(":", "\\072")
        manifest = f". d41d8cd98f00b204e9800998ecf8427e+0 0:0:{file}.tar\n"
        body = {"name": secrets.token_hex(8), "owner_uuid": self.project, "manifest_text": manifest}
        return str(self.api.collections().create(body=body).execute()["uuid"])

    def link(self, link_class: str, name: str, head: str, time: Any = None, owner: str | None = None) -> None:
        properties = {} if time is None else {"image_timestamp": time}
        body = {"link_class": link_class, "name": name, "head_uuid": head, "properties": properties}
        self.api.links().create(body={**body, "owner_uuid": owner or self.project}).execute()

    def image(self, name: str | None, time: Any = None, image_id: str | None = None) -> str:
        image_id = image_id or self.new_id()
        uuid = self.collection(image_id)
        self.link(HASH, image_id, uuid, time)
        if name is not None:
            self.link(NAME, name, uuid, time)
        return uuid


@pytest.fixture
def catalogue(cluster: Cluster, project: str) -> Catalogue:
    return Catalogue(cluster.api(), project)


def rows(run: Command, catalogue: Catalogue, *words: str) -> list[list[str]]:
    """The cells of the table of the catalogue's project."""
    result = run("images", "--project-uuid", catalogue.project, *words)
    assert result.status == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == HEADER
    return [line.split(maxsplit=4) if line[12:13] else [] for line in lines[1:]]


def listed(run: Command, catalogue: Catalogue, *words: str) -> list[str]:
    return [row[3] for row in rows(run, catalogue, *words)]


def test_the_table(catalogue: Catalogue, run: Command) -> None:
    image_id = catalogue.new_id()
    uuid = catalogue.image("bio/tool:1.2", "2024-03-01T12:00:00.123456789Z", image_id)
    long = catalogue.image("reg.example:5000/a/very/long/repository/name:and-a-long-tag", "2024-02-01T00:00:00Z")
    result = run("--project-uuid", catalogue.project)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == HEADER
    assert lines[1] == f"{'bio/tool':30}  {'1.2':10}  {image_id[:12]}  {uuid:29}  Fri Mar  1 12:00:00 2024"
    assert lines[2].startswith("reg.example:5000/a/very/long/repository/name  and-a-long-tag  sha256:")
    assert long in lines[2]
    assert run("images", "--project-uuid", catalogue.project).stdout == result.stdout


def test_what_is_not_known(catalogue: Catalogue, run: Command) -> None:
    no_name = catalogue.image(None, "2024-01-03T00:00:00Z")
    no_hash = catalogue.collection()
    catalogue.link(NAME, "nohash:1", no_hash, "2024-01-02T00:00:00Z")
    no_tag = catalogue.image("notag", "2024-01-01T00:00:00Z")
    found = rows(run, catalogue)
    assert [row[3] for row in found] == [no_name, no_hash, no_tag]
    assert found[0][:2] == ["<none>", "<none>"]
    assert found[1][:3] == ["nohash", "1", "<unknown>"]
    assert found[2][:2] == ["notag", "<none>"]


def test_the_order_is_the_servers(catalogue: Catalogue, run: Command) -> None:
    """The example that was measured on Arvados 3.2.1, oldest link first."""
    times: dict[str, Any] = {
        "A": None,
        "B": "2020-01-01T00:00:00Z",
        "C": "2021-06-01T00:00:00Z",
        "D": "garbage",
        "K": "1960-01-01T00:00:00Z",
        "L": "0001-01-01T00:00:00Z",
        "J": "2021-06-01T03:00:00+05:00",
        "I": "2019-01-01T00:00:00Z",
        "N": "2020-06-01T00:00:00Z",
        "P": "2022-01-01T00:00:00Z",
        "Q": "2023-01-01T00:00:00.9Z",
        "F": None,
        "M": "",
    }
    name = f"{catalogue.prefix}/order:1"
    uuids = {key: catalogue.image(name, time) for key, time in times.items()}
    catalogue.link(NAME, name, uuids["I"], "2030-01-01T00:00:00Z")  # the oldest link decides
    api = catalogue.api

    def settle() -> None:
        """The server compares the links' age in whole seconds."""
        newest = api.links().list(filters=[["name", "=", name]], order="created_at desc", limit=1).execute()["items"][0]
        body = {"link_class": "settle", "name": name, "owner_uuid": catalogue.project, "head_uuid": uuids["A"]}
        while (made := api.links().create(body=body).execute())["created_at"][:19] == newest["created_at"][:19]:
            pass
        assert made["created_at"] > newest["created_at"]

    settle()
    uuids["E"] = catalogue.image(name, "2020-01-01T00:00:00Z")
    settle()
    uuids["R"] = catalogue.image(name, "2023-01-01T00:00:00.1Z")
    keys = {uuid: key for key, uuid in uuids.items()}
    expected = "R Q P C J N E B I"
    tail = {"M", "F", "D", "A"}  # of the same age in whole seconds
    for order in (
        [keys[uuid] for uuid in listed(run, catalogue)],
        [keys[uuid] for uuid, _ in arv_keepdocker.list_images_in_arv(api, 3, f"{catalogue.prefix}/order", "1")],
    ):
        assert " ".join(order[:9]) == expected
        assert set(order[9:-2]) == tail
        assert order[-2:] == ["K", "L"]


def test_several_links_that_say_the_same_are_one_row(catalogue: Catalogue, run: Command) -> None:
    uuid = catalogue.image("same:1", "2024-01-01T00:00:00Z")
    catalogue.link(NAME, "same:1", uuid, "2024-01-01T00:00:00Z")
    catalogue.link(NAME, "other:1", uuid, "2024-01-02T00:00:00Z")
    assert sorted(row[:2] for row in rows(run, catalogue)) == [["other", "1"], ["same", "1"]]


def test_by_name(catalogue: Catalogue, run: Command) -> None:
    one = catalogue.image("bio/tool:1", "2024-01-01T00:00:00Z")
    latest = catalogue.image("bio/tool:latest", "2024-01-02T00:00:00Z")
    newer = catalogue.image("bio/tool:1", "2024-01-03T00:00:00Z")
    assert listed(run, catalogue, "bio/tool:1") == [newer, one]
    assert listed(run, catalogue, "bio/tool") == [latest]
    for nothing in ("bio/tool:2", "bio", "bio/too%", "bio/tool:_"):
        result = run("images", "--project-uuid", catalogue.project, nothing)
        assert result.status == 3
        assert result.stdout == ""
        assert nothing in result.stderr


def test_by_id(catalogue: Catalogue, run: Command) -> None:
    first, second = catalogue.new_id(), catalogue.new_id()
    older = catalogue.image("one:1", "2023-01-01T00:00:00Z", first)
    catalogue.image("two:1", "2024-01-01T00:00:00Z", second)
    digits = first.removeprefix("sha256:")
    for word in (first, digits, digits[:12], f"sha256:{digits[:12]}", digits[:12].upper()):
        found = rows(run, catalogue, word)
        assert [row[3] for row in found] == [older]
        assert found[0][:2] == ["one", "1"]
    for nothing in ("sha256:" + "0" * 64, "sha256:%", "sha256", "%", "_" * 12, digits[:11] + "_"):
        assert run("images", "--project-uuid", catalogue.project, nothing).status == 3


def test_a_name_goes_before_an_id(catalogue: Catalogue, run: Command) -> None:
    image_id = f"sha256:cafe{secrets.token_hex(30)}"
    catalogue.image("by-id:1", None, image_id)
    named = catalogue.image("cafe:latest")
    assert listed(run, catalogue, "cafe") == [named]


def test_an_empty_project(catalogue: Catalogue, run: Command) -> None:
    assert rows(run, catalogue) == []


def test_what_cannot_be_read_is_not_listed(sandbox: Sandbox, catalogue: Catalogue, run: Command) -> None:
    kept = catalogue.image("kept:1")
    trashed = catalogue.image("trashed:1")
    catalogue.api.collections().delete(uuid=trashed).execute()
    spectator = sandbox.users["spectator"]
    share = {
        "link_class": "permission",
        "name": "can_read",
        "tail_uuid": spectator.uuid,
        "head_uuid": catalogue.project,
    }
    catalogue.api.links().create(body=share).execute()
    # A link that is seen, to a collection that is not.
    home = catalogue.api.users().current().execute()["uuid"]
    private = catalogue.api.collections().create(body={"name": secrets.token_hex(8), "owner_uuid": home}).execute()
    catalogue.link(NAME, "private:1", private["uuid"])
    assert set(listed(run, catalogue)) == {kept, private["uuid"]}
    environment = {"ARVADOS_API_TOKEN": spectator.token}
    seen = run("images", "--project-uuid", catalogue.project, env=environment)
    assert kept in seen.stdout
    assert private["uuid"] not in seen.stdout
    assert run("images", "private:1", env=environment).status == 3
    catalogue.api.collections().delete(uuid=private["uuid"]).execute()


@pytest.mark.parametrize("time", [None, 5, ["x"], {"x": 1}, True, "yesterday", ""])
def test_a_strange_time_is_none(catalogue: Catalogue, run: Command, time: Any) -> None:
    uuid = catalogue.collection()
    body = {"link_class": HASH, "name": catalogue.new_id(), "head_uuid": uuid, "owner_uuid": catalogue.project}
    catalogue.api.links().create(body={**body, "properties": {"image_timestamp": time}}).execute()
    dated = catalogue.image("dated:1", "2001-01-01T00:00:00Z")
    assert listed(run, catalogue) == [dated, uuid]


@pytest.mark.parametrize("head", ["", "junk", "d41d8cd98f00b204e9800998ecf8427e+0"])
def test_a_link_to_something_else_is_no_image(catalogue: Catalogue, run: Command, head: str) -> None:
    catalogue.link(HASH, catalogue.new_id(), head)
    kept = catalogue.image("kept:1")
    assert listed(run, catalogue) == [kept]


def test_no_token_no_header(run: Command) -> None:
    result = run("images", env={"ARVADOS_API_TOKEN": "x" * 50})
    assert (result.status, result.stdout) == (6, "")


def test_the_library_call(catalogue: Catalogue) -> None:
    image_id = catalogue.new_id()
    uuid = catalogue.image(f"{catalogue.prefix}/tool:1", "2024-03-01T12:00:00Z", image_id)
    found = arv_keepdocker.list_images_in_arv(catalogue.api, 3, f"{catalogue.prefix}/tool", "1")
    assert len(found) == 1
    assert found[0][0] == uuid
    image = dict(found[0][1])
    assert image.pop("_sort_key")
    assert image.pop("timestamp").isoformat() == "2024-03-01T12:00:00"
    assert image == {"dockerhash": image_id, "repo": f"{catalogue.prefix}/tool", "tag": "1", "collection": uuid}
    by_id = arv_keepdocker.list_images_in_arv(catalogue.api, 3, image_id)
    assert [item[0] for item in by_id] == [uuid]
    assert arv_keepdocker.list_images_in_arv(catalogue.api, 3, f"{catalogue.prefix}/tool") == []
    narrowed = arv_keepdocker.list_images_in_arv(catalogue.api, 3, project_uuid=catalogue.project)
    assert [item[0] for item in narrowed] == [uuid]
    assert uuid in [item[0] for item in arv_keepdocker.list_images_in_arv(catalogue.api, 3)]


@pytest.fixture(scope="module")
def crowded() -> Iterator[Sandbox]:
    with Sandbox(seed_images=1500) as sandbox:
        yield sandbox


def test_more_images_than_a_page_and_a_pipe_that_is_closed(crowded: Sandbox, run: Command) -> None:
    environment = dict(crowded.environment())
    result = run("images", env=environment)
    collections = {line.split()[3] for line in result.stdout.splitlines()[1:]}
    assert len(collections) == 1500
    # The shell's own exit status is head's; ours is printed.
    command = f"{{ {shlex.join(run.argv)} images; echo status $? >&2; }} | head -1"
    piped = Command(["bash", "-c", command], run.directory, run.environment, run.processes)(env=environment)
    assert piped.stdout == result.stdout.splitlines(keepends=True)[0]
    assert piped.stderr == "status 0\n"


def test_what_was_stored_is_listed(engine: Engine, project: str, run: Command) -> None:
    image = images.build(engine.host)
    uuid = stored(run("--project-uuid", project, image.name))
    result = run("images", image.name)
    repository, tag = image.name.split(":")
    assert result.stdout.splitlines()[1].split()[:4] == [repository, tag, image.id[:12], uuid]
