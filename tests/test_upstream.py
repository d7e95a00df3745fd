"""Side by side with the program of the same name in arvados-python-client."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine
from tests.test_listing import HASH, NAME, Catalogue


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


def test_both_record_the_same(
    engine: Engine, cluster: Cluster, project: str, run: Command, run_upstream: Command
) -> None:
    image = images.build(engine.host)
    api = cluster.api()
    records = []
    for program in (run, run_upstream):
        uuid = stored(program("--project-uuid", project, "--force", *image.name.split(":")))
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
    assert records[0] == records[1]


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


def test_the_id_of_an_older_image_is_not_the_newest_image(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, run_upstream: Command
) -> None:
    old = images.build(engine.host, created="2020-01-01T00:00:00Z")
    new = images.build(engine.host)
    old_uuid, new_uuid = (stored(run("--project-uuid", project, image.name)) for image in (old, new))
    engine.forget(old.id)
    assert stored(run("--project-uuid", project, old.id)) == old_uuid
    assert old_uuid not in run_upstream("--project-uuid", project, old.id).stdout
    assert new_uuid != old_uuid


def test_pull_of_a_new_tag_of_an_image_that_is_local(
    engine: Engine, cluster: Cluster, project: str, run: Command, docker_that: Callable[[str], dict[str, str]]
) -> None:
    """Upstream asks no registry when any tag of the repository is local; that docker is told to pull is what counts."""
    repository = f"akd{secrets.token_hex(4)}"
    images.build(engine.host, f"{repository}:old")
    pulls = docker_that('[ "$2" != pull ] || { echo "asked for $*" >&2; exit 1; }; real "$@"')
    result: Result = run("--project-uuid", project, "--pull", f"{repository}:new", env=pulls)
    assert result.status == 4
    assert re.search(rf"asked for image pull .*{repository}:new", result.stderr)
