"""The listing: which images, in which order, in which columns."""

from __future__ import annotations

import io
import itertools
import os
import secrets
import shlex
import signal
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from time import sleep
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


def test_a_link_without_a_time_shows_its_own(catalogue: Catalogue, run: Command) -> None:
    for time in (None, "yesterday"):
        catalogue.image("dated-by-its-link:1", time)
    links = catalogue.api.links().list(filters=[["owner_uuid", "=", catalogue.project], ["link_class", "=", NAME]])
    created = [datetime.fromisoformat(link["created_at"][:19]) for link in links.execute()["items"]]
    assert [row[4] for row in rows(run, catalogue)] == [f"{time:%c}" for time in sorted(created, reverse=True)]


def test_times_are_compared_and_shown_in_utc(catalogue: Catalogue, run: Command) -> None:
    east = catalogue.image("east:1", "2024-03-01T12:00:00+05:00")  # 07:00 UTC
    utc = catalogue.image("utc:1", "2024-03-01T08:00:00Z")
    west = catalogue.image("west:1", "20240301T040000-0800")  # 12:00 UTC
    found = rows(run, catalogue)
    assert [row[3] for row in found] == [west, utc, east]
    assert [row[4] for row in found] == [f"Fri Mar  1 {hour}:00:00 2024" for hour in ("12", "08", "07")]


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
    name = f"{catalogue.prefix}:1"
    catalogue.link(NAME, name, private["uuid"])
    # And the other way round.
    catalogue.link(NAME, f"{catalogue.prefix}:2", kept, owner=home)
    assert listed(run, catalogue) == [kept]
    assert private["uuid"] in run("images", name).stdout
    assert kept in run("images", f"{catalogue.prefix}:2").stdout
    environment = {"ARVADOS_API_TOKEN": spectator.token}
    visible = catalogue.api.links().list(filters=[["name", "=", name]]).execute()["items"]
    assert visible
    seen = run("images", env=environment)
    assert kept in seen.stdout
    assert trashed not in seen.stdout
    assert private["uuid"] not in seen.stdout
    for nothing in (name, f"{catalogue.prefix}:2"):
        assert run("images", nothing, env=environment).status == 3
    catalogue.api.collections().delete(uuid=private["uuid"]).execute()


def test_a_project_lists_what_it_owns(catalogue: Catalogue, run: Command) -> None:
    """arvados-cwl-runner makes a copy in a project unless the image is there, links and collection."""
    name = f"{catalogue.prefix}/tool:1"
    groups = catalogue.api.groups()
    body = {"group": {"group_class": "project", "name": catalogue.prefix, "owner_uuid": catalogue.project}}
    inner = groups.create(body=body).execute()["uuid"]
    here = catalogue.image(name, "2024-01-01T00:00:00Z")
    there = Catalogue(catalogue.api, inner).image(name, "2024-01-02T00:00:00Z")
    assert listed(run, catalogue) == [here]  # not what its subprojects have
    assert [line.split()[3] for line in run("images", name).stdout.splitlines()[1:]] == [there, here]
    catalogue.api.collections().update(uuid=here, body={"owner_uuid": inner}).execute()
    repository, tag = name.split(":")
    assert arv_keepdocker.list_images_in_arv(catalogue.api, 3, repository, tag, catalogue.project) == []
    assert rows(run, catalogue) == []
    assert run("images", "--project-uuid", catalogue.project, name).status == 3


def test_the_word_that_lists_and_an_image_of_that_name(catalogue: Catalogue, run: Command, tmp_path: Path) -> None:
    uuid = catalogue.image("images:latest", "2024-01-01T00:00:00Z")
    other = catalogue.image("other:latest", "2024-01-02T00:00:00Z")
    no_engine = {"DOCKER_HOST": f"unix://{tmp_path}/nosuch.sock"}
    assert listed(run, catalogue) == [other, uuid]
    assert listed(run, catalogue, "images") == [uuid]
    assert listed(run, catalogue, "images:latest") == [uuid]
    assert stored(run("--project-uuid", catalogue.project, "images:latest", env=no_engine)) == uuid


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


class Federated:
    """The SDK's client, as of a cluster that has one link more: no API lets one link to another cluster's."""

    def __init__(self, api: Any, link: dict[str, Any]) -> None:
        self._api = api
        self._link = link

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def links(self) -> Any:
        return self

    def list(self, **parameters: Any) -> Any:
        self._request = self._api.links().list(**parameters)
        return self

    def execute(self, num_retries: int) -> dict[str, Any]:
        page: dict[str, Any] = self._request.execute(num_retries=num_retries)
        page["items"].append(self._link)
        return page


def test_a_link_to_another_cluster_is_no_image_here(catalogue: Catalogue) -> None:
    kept = catalogue.image(f"{catalogue.prefix}:1")
    own = [["owner_uuid", "=", catalogue.project], ["link_class", "=", NAME]]
    link = catalogue.api.links().list(filters=own).execute()["items"][0]
    foreign = {**link, "head_uuid": f"xxxxx{link['head_uuid'][5:]}", "uuid": f"{link['uuid'][:-5]}other"}
    api = Federated(catalogue.api, foreign)
    found = arv_keepdocker.list_images_in_arv(api, 3, catalogue.prefix, "1", catalogue.project)
    assert [uuid for uuid, _ in found] == [kept]


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


def test_the_library_call_with_an_id_cut_at_the_colon(catalogue: Catalogue) -> None:
    """arvados-cwl-runner does that to every dockerImageId; the halves must not mean any image whatsoever."""
    image_id = catalogue.new_id()
    older = catalogue.image("older:1", "2020-01-01T00:00:00Z", image_id)
    catalogue.image("newer:1", "2021-01-01T00:00:00Z")
    found = arv_keepdocker.list_images_in_arv(catalogue.api, 3, *image_id.split(":"))
    assert [(uuid, image["dockerhash"], image["repo"]) for uuid, image in found] == [(older, image_id, "older")]
    assert arv_keepdocker.list_images_in_arv(catalogue.api, 3, *catalogue.new_id().split(":")) == []
    assert arv_keepdocker.list_images_in_arv(catalogue.api, 3, "sha256", "nonsense") == []


def test_the_first_is_what_arv_copy_copies(catalogue: Catalogue) -> None:
    name, tag = f"{catalogue.prefix}/tool", "1"
    catalogue.image(f"{name}:{tag}", "2023-01-01T00:00:00Z")
    newest = catalogue.image(f"{name}:{tag}", "2024-01-01T00:00:00Z")
    uuid, image = arv_keepdocker.list_images_in_arv(catalogue.api, 3, name, tag)[0]
    assert uuid == newest
    held = catalogue.api.collections().get(uuid=uuid).execute()["manifest_text"]
    assert image["dockerhash"].replace(":", "\\072") in held
    assert (image["repo"], image["tag"], image["collection"]) == (name, tag, newest)


class Ends:
    """What `main` gives its caller: the code of its SystemExit, and what it wrote."""

    def __init__(self, api: Any, *words: str) -> None:
        out, err = io.StringIO(), io.StringIO()
        with pytest.raises(SystemExit) as end:
            arv_keepdocker.main(list(words), stdout=out, stderr=err, install_sig_handlers=False, api=api)
        self.code = end.value.code or 0
        self.out, self.err = out.getvalue(), err.getvalue()


def test_main_for_a_program_that_has_a_client(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As arvados-cwl-runner has it: is the image in the project? If not, main() is to put it there."""
    for variable in ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN"):  # the client is all that it needs
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nosuch.sock")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    api, project = catalogue.api, catalogue.project
    name, tag = f"{catalogue.prefix}/tool", "1"
    body = {"group": {"group_class": "project", "name": catalogue.prefix, "owner_uuid": project}}
    elsewhere = api.groups().create(body=body).execute()["uuid"]
    image_id = catalogue.new_id()
    original = Catalogue(api, elsewhere).image(f"{name}:{tag}", "2024-01-01T00:00:00Z", image_id)

    assert arv_keepdocker.list_images_in_arv(api, 3, image_name=name, image_tag=tag, project_uuid=project) == []
    missing = Ends(api, f"--project-uuid={project}", name, "nosuch")
    assert (missing.code, missing.out) == (4, "")  # no engine
    assert f"{name}:nosuch" in missing.err
    copied = Ends(api, f"--project-uuid={project}", name, tag)
    assert copied.code == 0, copied.err
    uuid, image = arv_keepdocker.list_images_in_arv(api, 3, name, tag, project)[0]
    assert copied.out == f"{uuid}\n"
    assert uuid != original
    assert image["dockerhash"] == image_id
    assert Ends(api, f"--project-uuid={project}", name, tag).out == copied.out

    table = Ends(api, "images", f"--project-uuid={project}")
    assert table.code == 0
    assert [line.split()[3] for line in table.out.splitlines()[1:]] == [uuid]
    assert Ends(api, "images", f"{name}:nosuch").code == 3
    assert Ends(api, "images", "--nosuch").code == 2
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert capfd.readouterr().out == ""  # sys.stdout is the caller's


@pytest.fixture(scope="module")
def crowded() -> Iterator[Sandbox]:
    with Sandbox(seed_images=1500) as sandbox:
        yield sandbox


def test_more_images_than_a_page_and_a_pipe_that_is_closed(
    crowded: Sandbox, run: Command, run_upstream: Command
) -> None:
    environment = dict(crowded.environment())
    result = run("images", env=environment)
    lines = result.stdout.splitlines()[1:]
    assert len({line.split()[3] for line in lines}) == 1500
    assert len(result.stdout) > 65536  # more than a pipe holds
    assert run_upstream("images", env=environment).stdout == result.stdout
    # What is asked of one page's images is true for all.
    for line in (lines[0], lines[-1]):
        repository, tag, _, uuid, _ = line.split(maxsplit=4)
        narrowed = run("images", f"{repository}:{tag}", env=environment).stdout.splitlines()[1:]
        assert narrowed == [other for other in lines if other.split()[:2] == [repository, tag]]
        assert uuid in [row.split()[3] for row in narrowed]
    by_id = run("images", "sha256:a", env=environment).stdout.splitlines()[1:]
    assert by_id == [line for line in lines if " sha256:a" in line]
    assert by_id
    # The shell's own exit status is head's; ours is printed.
    command = f"{{ {shlex.join(run.argv)} images; echo status $? >&2; }} | head -1"
    shell = Command(["bash", "-c", command], run.directory, run.environment, run.processes)
    # Unbuffered, Python forgets what a short write has left, and never meets the closed pipe.
    for unbuffered in (None, "1"):
        piped = shell(env={**environment, "PYTHONUNBUFFERED": unbuffered})
        assert piped.stdout == result.stdout.splitlines(keepends=True)[0]
        assert piped.stderr == "status 0\n"


def test_the_cost_of_many(crowded: Sandbox, run: Command, run_upstream: Command) -> None:
    environment = dict(crowded.environment())
    crowded.settings(latency_ms=50)

    def cost(program: Command, *words: str) -> tuple[list[dict[str, Any]], int, int]:
        crowded.clear_requests()
        assert program("images", *words, env=environment).status == 0
        requests = crowded.requests()
        sent = sum(request["query_size"] + request["request_size"] for request in requests)
        return requests, sent, sum(request["response_size"] for request in requests)

    requests, sent, received = cost(run)
    _, upstream_sent, upstream_received = cost(run_upstream)
    name = ":".join(run("images", env=environment).stdout.splitlines()[1].split()[:2])
    by_name, _, _ = cost(run, name)
    crowded.settings(latency_ms=0)
    # How many requests there are at the beginning of each.
    begins = [request["time"] for request in requests]
    ends = [request["time"] + request["seconds"] for request in requests]
    at_once = [sum(begin <= time < end for begin, end in zip(begins, ends, strict=True)) for time in begins]
    assert 2 < max(at_once) <= 8
    assert sent < upstream_sent / 3  # which grows with the square
    assert received < upstream_received / 1.7
    assert len(by_name) <= 5


def test_rows_of_collections_are_read_only_where_some_are_missing(crowded: Sandbox, run: Command) -> None:
    environment = dict(crowded.environment())

    def rows(*words: str) -> tuple[list[Any], str]:
        crowded.clear_requests()
        result = run("images", *words, env=environment)
        assert result.status == 0, result.stderr
        asked = [request["query"] for request in crowded.requests() if request["path"].endswith("/collections")]
        return [query for query in asked if query["limit"] != "0"], result.stdout

    listed, everything = rows()
    assert listed == []
    assert rows("-q")[0] == []
    assert rows("--format", "jsonl", "--limit", "1")[0]
    # One that is gone is found to be missing, and so is not shown.
    cluster = Cluster(crowded)
    lost = everything.splitlines()[700].split()[3]
    cluster.api().collections().delete(uuid=lost).execute()
    listed, left = rows()
    assert len(listed) == 1  # of two portions
    assert left.splitlines() == [line for line in everything.splitlines() if lost not in line]
    cluster.api().collections().untrash(uuid=lost).execute()
    cluster.close()


def test_nothing_is_missed_or_doubled_while_images_are_stored(crowded: Sandbox) -> None:
    cluster = Cluster(crowded)
    api = cluster.api()
    home = api.users().current().execute()["uuid"]
    before = [uuid for uuid, _ in arv_keepdocker.list_images_in_arv(api, 3)]
    stored: list[str] = []
    enough = threading.Event()

    def store() -> None:
        own = Cluster(crowded)
        catalogue = Catalogue(own.api(), home)
        while not enough.is_set():
            stored.append(catalogue.image(f"{catalogue.prefix}:{len(stored)}"))
        own.close()

    other = threading.Thread(target=store)
    other.start()
    try:
        for _ in range(5):
            known = list(stored)
            found = arv_keepdocker.list_images_in_arv(api, 3)
            rows = [(uuid, image["repo"], image["tag"]) for uuid, image in found]
            assert len(set(rows)) == len(rows)
            uuids = {uuid for uuid, _ in found}
            assert uuids >= {*before, *known}
            assert "<unknown>" not in {image["dockerhash"] for _, image in found}
    finally:
        enough.set()
        other.join()
        for uuid in stored:
            api.collections().delete(uuid=uuid).execute()
        cluster.close()
    assert stored


def test_a_crowd_of_oddities(crowded: Sandbox, run: Command) -> None:
    """Of many images, most links with ids are read in part; what shows must not depend on that."""
    cluster = Cluster(crowded)
    api = cluster.api()
    body = {"group": {"group_class": "project", "name": secrets.token_hex(4)}}
    project = api.groups().create(body=body).execute()["uuid"]
    catalogue = Catalogue(api, project)
    environment = dict(crowded.environment())
    for number in range(5):
        catalogue.image(None, f"2024-01-0{number + 1}T00:00:00Z")
        catalogue.link(NAME, f"nohash:{number}", catalogue.collection(), f"2024-02-0{number + 1}T00:00:00Z")
        two = catalogue.image(None if number % 2 else f"two:{number}", f"2024-03-0{number + 1}T00:00:00Z")
        catalogue.link(HASH, catalogue.new_id(), two, f"2024-04-0{number + 1}T00:00:00Z")
        catalogue.link(NAME, f"of-nothing:{number}", "junk")
    alone = run("images", "--project-uuid", project, env=environment).stdout.splitlines()
    assert len(alone) == 16
    everything = run("images", env=environment).stdout.splitlines()
    assert [line for line in everything if line in alone] == alone
    assert not [line for line in everything if "of-nothing" in line]
    api.groups().delete(uuid=project).execute()
    cluster.close()


def test_a_client_that_threads_must_not_share(crowded: Sandbox) -> None:
    import arvados.api

    safe = Cluster(crowded)
    plain = arvados.api.api_client(**arvados.api.api_kwargs_from_config("v1", crowded.environment()), cache=False)
    crowded.settings(latency_ms=20)
    expected = arv_keepdocker.list_images_in_arv(safe.api(), 3)
    crowded.clear_requests()
    assert arv_keepdocker.list_images_in_arv(plain, 3) == expected
    requests = crowded.requests()
    crowded.settings(latency_ms=0)
    assert all(a["time"] + a["seconds"] <= b["time"] for a, b in itertools.pairwise(requests))
    safe.close()
    plain.close_connections()


def test_one_of_many_requests_is_refused(crowded: Sandbox, run: Command) -> None:
    refused = ["Invalid something: 422"]
    crowded.fault("status", path="/links.*uuid.*>", skip=2, times=None, status=422, errors=refused)
    result = run("images", env=dict(crowded.environment()))
    crowded.clear_faults()
    assert (result.status, result.stdout) == (6, "")
    assert refused[0] in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_one_of_many_requests_fails_for_a_moment(crowded: Sandbox, run: Command) -> None:
    environment = dict(crowded.environment())
    expected = run("images", env=environment).stdout
    crowded.fault("status", path="/links.*uuid.*>", skip=1, times=1, status=503)
    crowded.fault("drop", path="/collections", times=1)
    assert run("images", env=environment).stdout == expected
    assert not [fault for fault in crowded.faults() if not fault["struck"]]
    crowded.clear_faults()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_while_many_requests_wait(crowded: Sandbox, run: Command, number: int, status: int) -> None:
    crowded.clear_requests()
    crowded.fault("delay", path="/links.*uuid.*>", times=None, seconds=60)
    process = run.start("images", env=dict(crowded.environment()))
    while sum("uuid" in request["query"].get("filters", "") for request in crowded.requests()) < 2:
        sleep(0.05)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=10)
    crowded.clear_faults()
    assert (process.returncode, out) == (status, "")
    assert "Traceback" not in err


def test_what_was_stored_is_listed(engine: Engine, project: str, run: Command) -> None:
    image = images.build(engine.host)
    uuid = stored(run("--project-uuid", project, image.name))
    result = run("images", image.name)
    repository, tag = image.name.split(":")
    assert result.stdout.splitlines()[1].split()[:4] == [repository, tag, image.id[:12], uuid]


def test_a_name_that_the_terminal_cannot_show_is_escaped(catalogue: Catalogue, run: Command) -> None:
    catalogue.image("caf\u00e9:1")
    result = run("images", "--project-uuid", catalogue.project, env={"PYTHONIOENCODING": "ascii"})
    assert result.status == 0
    assert result.stdout.splitlines()[1].startswith("caf\\xe9 ")
