"""Side by side with the program of the same name in arvados-python-client."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Any

import arvados.commands.keepdocker as upstream
import pytest

import arv_keepdocker
from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, Result, image_run_for, stored
from tests.engines import Engine, Registry
from tests.test_listing import HASH, NAME, Catalogue, listed


def link_names(cluster: Cluster, uuid: str) -> list[str]:
    """The names of the links to a collection, ids last."""
    items = cluster.api().links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]
    return sorted(link["name"] for link in items)


# Each other's images


def test_each_finds_what_the_other_stored(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, run_upstream: Command
) -> None:
    for first, second in ((run, run_upstream), (run_upstream, run)):
        image = images.build(engine.host)
        uuid = stored(first("--project-uuid", project, *image.name.split(":")))
        sandbox.clear_requests()
        assert stored(second("--project-uuid", project, *image.name.split(":"))) == uuid
        requests = sandbox.requests()
        assert requests
        assert {request["method"] for request in requests} == {"GET"}
        assert {request["service"] for request in requests} == {"api"}
        for program in (run, run_upstream):
            rows = [line.split()[:4] for line in program("images").stdout.splitlines()]
            assert [*image.name.split(":"), image.id[:12], uuid] in rows


def test_each_finds_what_the_other_stored_by_its_id(
    engine: Engine, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    for first, second in ((run, run_upstream), (run_upstream, run)):
        image = images.build(engine.host)
        # Cut in two for upstream, which takes the whole for the name of a file when it has to upload.
        uuid = stored(first("--project-uuid", project, *image.id.split(":")))
        assert stored(second("--project-uuid", project, image.id)) == uuid
        assert link_names(cluster, uuid) == [image.id]
        rows = [line.split()[:4] for line in run("images").stdout.splitlines()]
        assert ["<none>", "<none>", image.id[:12], uuid] in rows


def test_each_gives_the_others_image_to_another_project(
    engine: Engine, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    api = cluster.api()
    for first, second in ((run, run_upstream), (run_upstream, run)):
        image = images.build(engine.host)
        original = stored(first("--project-uuid", project, *image.name.split(":")))
        body = {"group": {"group_class": "project", "name": secrets.token_hex(8), "owner_uuid": project}}
        other = api.groups().create(body=body).execute()["uuid"]
        copy = stored(second("--project-uuid", other, *image.name.split(":")))
        assert copy != original
        assert stored(first("--project-uuid", other, *image.name.split(":"))) == copy
        assert link_names(cluster, copy) == link_names(cluster, original) == [image.name, image.id]


def test_both_drop_the_https_port(
    engine: Engine, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    path = f"akd/{secrets.token_hex(4)}"
    image = images.build(engine.host, f"reg.example/{path}:v1")
    words = ("--project-uuid", project, f"reg.example:443/{path}:v1")
    assert run_upstream(*words).status == 2  # takes the word for the name of a file when it has to upload
    uuid = stored(run(*words))
    for program in (run, run_upstream):
        assert stored(program(*words)) == uuid
    assert link_names(cluster, uuid) == [f"reg.example/{path}:v1", image.id]


def test_both_record_the_same(
    engine: Engine, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    image = images.build(engine.host)
    api = cluster.api()
    records = []
    for program, words in ((run, ()), (run, ("--via-arv-put",)), (run_upstream, ())):
        uuid = stored(program(*words, "--project-uuid", project, "--force", *image.name.split(":")))
        collection = api.collections().get(uuid=uuid).execute()
        links = api.links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]
        records.append(
            {
                "hash": collection["portable_data_hash"],
                "name": re.sub(r" \(\w{15}\)$", "", collection["name"]),
                "properties": collection["properties"],
                "links": sorted((link["link_class"], link["name"], str(link["properties"])) for link in links),
                "owners": {link["owner_uuid"] for link in links},
            }
        )
    assert records[1] == records[2]
    # What is streamed is the canonical archive, not the engine's.
    assert {**records[0], "hash": ""} == {**records[1], "hash": ""}


def test_the_same_table_for_a_catalogue_of_oddities(
    sandbox: Sandbox, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    """All but those where the server's order is another than upstream's: zones, times before 1970, several links."""
    catalogue = Catalogue(cluster.api(), project)
    catalogue.image("reg.example:5000/zone:1", "2020-04-01T00:00:00Z")
    catalogue.image(None, "2020-02-01T00:00:00Z")
    catalogue.image("no/tag", "2020-05-01T00:00:00.123Z")
    catalogue.image("naive:1", "2020-07-01T00:00:00")
    catalogue.image(f"digest@sha256:{'ab' * 32}", "2020-06-01T00:00:00Z")
    catalogue.image("a/repository/name/wider/than/its/column:and-a-tag-wider-than-its", "2019-01-01T00:00:00Z")
    catalogue.link(NAME, "nohash:1", catalogue.collection(), "2020-01-01T00:00:00Z")
    two = catalogue.image("two:1", "2020-03-01T00:00:00Z")
    catalogue.link(NAME, "two:2", two, "2020-03-01T00:00:00Z")
    catalogue.link(NAME, "two:2", two, "2020-03-01T00:00:00Z")
    catalogue.link(NAME, "reg.example:5000/no/tag", two, "2018-01-01T00:00:00Z")
    catalogue.image("none:1")
    catalogue.image("garbage:1", "garbage")
    trashed = catalogue.image("trashed:1", "2020-06-01T00:00:00Z")
    cluster.api().collections().delete(uuid=trashed).execute()
    catalogue.link(HASH, catalogue.new_id(), "junk")
    catalogue.link(HASH, catalogue.new_id(), "")
    ours, theirs = run("images"), run_upstream("images")
    assert theirs.status == 0
    assert ours.stdout == theirs.stdout
    assert len(ours.stdout.splitlines()) >= 13
    for words in (["two", "1"], ["two", "2"], ["nohash", "1"], ["none", "1"]):
        assert run("images", ":".join(words)).stdout.splitlines()[1:] == [
            line for line in theirs.stdout.splitlines() if line.split()[:2] == words
        ]


def measured_example(catalogue: Catalogue, name: str) -> dict[str, str]:
    """The images by which the order was measured on Arvados 3.2.1, all called `name`: letters by collection UUID."""
    api = catalogue.api
    uuids: dict[str, str] = {}

    def add(**times: Any) -> None:
        uuids.update({letter: catalogue.image(name, time) for letter, time in times.items()})

    def next_second() -> None:
        """The server compares the links' age in whole seconds of its clock."""
        body = {"link_class": "settle", "name": name, "owner_uuid": catalogue.project}
        second = api.links().create(body=body).execute()["created_at"][:19]
        while api.links().create(body=body).execute()["created_at"][:19] == second:
            time.sleep(0.1)

    add(A=None, B="2020-01-01T00:00:00Z", C="2021-06-01T00:00:00Z", J="2021-06-01T03:00:00+05:00")
    add(K="1960-01-01T00:00:00Z", L="0001-01-01T00:00:00Z", N="2020-06-01T00:00:00Z", P="2022-01-01T00:00:00Z")
    add(Q="2023-01-01T00:00:00.9Z", I="2019-01-01T00:00:00Z", O="2031-01-01T00:00:00Z")
    for letter, later in (("I", "2030-01-01T00:00:00Z"), ("O", None)):
        catalogue.link(NAME, name, uuids[letter], later)
        image_id = api.links().list(filters=[["head_uuid", "=", uuids[letter]], ["link_class", "=", HASH]])
        catalogue.link(HASH, image_id.execute()["items"][0]["name"], uuids[letter], later)
    next_second()
    add(D="garbage", E="2020-01-01T00:00:00Z", R="2023-01-01T00:00:00.1Z")
    next_second()
    add(F=None)
    next_second()
    add(M="")
    return {uuid: letter for letter, uuid in uuids.items()}


def test_the_order_is_the_servers(cluster: Cluster, project: str, run: Command) -> None:
    catalogue = Catalogue(cluster.api(), project)
    repository = f"{catalogue.prefix}/order"
    letters = measured_example(catalogue, f"{repository}:latest")
    expected = "ORQPCJNEBIMFDAKL"

    def in_order(uuids: list[str]) -> str:
        return "".join(letters[uuid] for uuid in uuids)

    table = [line for line in run("images").stdout.splitlines() if repository in line]
    assert in_order([line.split()[3] for line in table]) == expected
    assert in_order(listed(run, catalogue)) == expected
    api = cluster.api()
    ours, theirs = (
        [(uuid, image["dockerhash"], image["repo"], image["tag"], image["timestamp"]) for uuid, image in found]
        for found in (
            arv_keepdocker.list_images_in_arv(api, 3, repository),
            upstream.list_images_in_arv(api, 3, repository),
        )
    )
    assert in_order([row[0] for row in ours]) == expected
    # Upstream has the same in another order; it shows the time of another link of I.
    assert len(theirs) == len(ours)
    assert {row for row in ours if letters[row[0]] != "I"} < set(theirs)
    assert in_order([row[0] for row in theirs]) != expected

    # What is listed first is what runs.
    for rest in range(len(expected)):
        content = image_run_for(api, repository, project)
        left = [uuid for uuid, _ in arv_keepdocker.list_images_in_arv(api, 3, repository)]
        assert in_order(left) == expected[rest:]
        assert api.collections().get(uuid=left[0]).execute()["portable_data_hash"] == content
        api.collections().delete(uuid=left[0]).execute()


# Where upstream goes wrong


@pytest.mark.parametrize("time", [5, ["2020-01-01T00:00:00Z"]])
def test_a_strange_time_does_not_end_the_listing(
    sandbox: Sandbox, cluster: Cluster, project: str, run: Command, run_upstream: Command, time: Any
) -> None:
    catalogue = Catalogue(cluster.api(), project)
    uuid = catalogue.image(f"{catalogue.prefix}:1", time)
    result = run("images")
    assert uuid in result.stdout
    assert (result.status, result.stderr) == (0, "")
    theirs = run_upstream("images")
    assert theirs.status != 0
    assert "TypeError" in theirs.stderr


def test_a_wrong_token_gives_no_table(sandbox: Sandbox, run: Command, run_upstream: Command) -> None:
    wrong = {"ARVADOS_API_TOKEN": sandbox.users["active"].token[:-1]}
    assert run_upstream("images", env=wrong).stdout.startswith("REPOSITORY")
    result = run("images", env=wrong)
    assert (result.status, result.stdout) == (6, "")
    assert "Not logged in" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("environment", "status", "words"),
    [
        ({"DOCKER_HOST": "unix:///nosuch/docker.sock"}, 4, "docker daemon"),
        ({"PATH": "/nosuch"}, 4, "no program 'docker' or 'podman' on PATH"),
        ({"ARVADOS_API_HOST": None}, 6, "ARVADOS_API_HOST not set"),
        ({"ARVADOS_API_TOKEN": None}, 6, "ARVADOS_API_TOKEN not set"),
    ],
)
def test_what_is_missing_has_a_status_of_its_own(
    run: Command, run_upstream: Command, environment: dict[str, str | None], status: int, words: str
) -> None:
    name = f"akd{secrets.token_hex(4)}"
    assert run_upstream(name, env=environment).status == 1
    result = run(name, env=environment)
    assert (result.status, result.stdout) == (status, "")
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_two_tags_are_both_named(sandbox: Sandbox, run: Command) -> None:
    sandbox.clear_requests()
    result = run("reg.example:5000/tool:1.2", "3.4")
    assert (result.status, result.stdout) == (2, "")
    assert "'1.2'" in result.stderr
    assert "'3.4'" in result.stderr
    assert sandbox.requests() == []


def test_a_value_that_is_the_images_name(
    engine: Engine, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    repository = f"akd{secrets.token_hex(4)}"
    images.build(engine.host, f"{repository}:latest")
    words = ("--project-uuid", project, "--name", repository, repository)
    assert run_upstream(*words).status != 0
    uuid = stored(run(*words))
    assert cluster.api().collections().get(uuid=uuid).execute()["name"] == repository


def test_silent_prints_the_uuid_and_nothing_else(
    engine: Engine, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    words = ("--project-uuid", project, "--silent")
    assert run_upstream(*words, images.build(engine.host).name).stdout == ""
    image = images.build(engine.host)
    result = run(*words, image.name)
    assert link_names(cluster, stored(result)) == [image.name, image.id]
    assert result.stderr == ""


@pytest.mark.parametrize("word", ["{hex}", "{short}"])
def test_an_id_without_its_algorithm(
    engine: Engine, cluster: Cluster, project: str, run: Command, run_upstream: Command, word: str
) -> None:
    image = images.build(engine.host)
    digits = image.id.removeprefix("sha256:")
    written = word.format(hex=digits, short=digits[:12])
    assert run_upstream("--project-uuid", project, written).status != 0  # asks docker for that repository's latest
    assert link_names(cluster, stored(run("--project-uuid", project, written))) == [image.id]


def test_the_id_of_an_older_image_is_not_the_newest_image(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    old = images.build(engine.host, created="2020-01-01T00:00:00Z")
    new = images.build(engine.host)
    old_uuid, new_uuid = (stored(run("--project-uuid", project, image.name)) for image in (old, new))
    assert new_uuid != old_uuid
    engine.forget(old.id)
    for word in (old.id, old.id[:31], old.id.removeprefix("sha256:")):
        assert stored(run("--project-uuid", project, word)) == old_uuid
    assert [line.split()[3] for line in run("images", old.id).stdout.splitlines()[1:]] == [old_uuid]
    unknown = run("--project-uuid", project, f"sha256:{secrets.token_hex(32)}")
    assert (unknown.status, unknown.stdout) == (3, "")
    assert link_names(cluster, old_uuid) == [old.name, old.id]
    assert old_uuid not in run_upstream("--project-uuid", project, old.id).stdout


def test_pull_of_a_new_tag_of_an_image_that_is_local(
    engine: Engine, registry: Registry, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    repository = f"{registry.host}/akd/{secrets.token_hex(4)}"
    image = images.build(engine.host, f"{repository}:latest")
    engine.docker("tag", f"{repository}:latest", f"{repository}:new")
    engine.docker("push", f"{repository}:new")
    engine.docker("rmi", f"{repository}:new")  # the image stays, as latest
    words = ("--project-uuid", project, "--pull", f"{repository}:new")
    assert run_upstream(*words).status != 0  # asks for latest, which is local, and so does not pull
    assert link_names(cluster, stored(run(*words))) == [f"{repository}:new", image.id]
    engine.forget(image.id)


def test_pull_of_a_tag_that_has_moved(
    engine: Engine, registry: Registry, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    name = f"{registry.host}/akd/{secrets.token_hex(4)}:latest"
    new = images.build(engine.host, name)
    engine.docker("push", name)
    engine.forget(new.id)
    old = images.build(engine.host, name)
    words = ("--project-uuid", project, "--pull", name)
    assert link_names(cluster, stored(run_upstream(*words))) == [name, old.id]
    assert link_names(cluster, stored(run(*words))) == [name, new.id]
    for image in (old, new):
        engine.forget(image.id)


def test_pull_of_what_no_registry_has(
    engine: Engine, cluster: Cluster, project: str, run: Command, docker_that: Callable[[str], dict[str, str]]
) -> None:
    """Another tag of it is local, and the registry is not there: docker is asked to pull, and says so."""
    repository = f"akd{secrets.token_hex(4)}"
    images.build(engine.host, f"{repository}:old")
    pulls = docker_that('[ "$2" != pull ] || { echo "asked for $*" >&2; exit 1; }; real "$@"')
    result: Result = run("--project-uuid", project, "--pull", f"{repository}:new", env=pulls)
    assert result.status == 4
    assert re.search(rf"asked for image pull .*{repository}:new", result.stderr)
