"""The main job on real parts: an image from an engine to Arvados, and from there to another engine."""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, Result, image_run_for, stored
from tests.engines import Engine, Registry

WRITES = {"POST", "PUT", "PATCH", "DELETE"}


def links_to(cluster: Cluster, uuid: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    items = cluster.api().links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]
    return sorted((link["link_class"], link["name"], link["owner_uuid"], link["properties"]) for link in items)


def in_project(cluster: Cluster, project: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (
        cluster.api().collections().list(filters=[["owner_uuid", "=", project]]).execute()["items"]
    )
    return items


def test_an_image_is_stored_and_a_compute_node_finds_it(
    engine: Engine,
    other_engine: Engine,
    cluster: Cluster,
    project: str,
    run: Command,
    run_tool: Callable[..., Result],
    tmp_path: Path,
) -> None:
    image = images.build_runnable(engine.host)
    uuid = stored(run("--project-uuid", project, image.name))

    collection = cluster.api().collections().get(uuid=uuid).execute()
    repository = image.name.replace("/", " ")
    assert collection["name"] == f"Docker image {repository} {image.id[:12]}"
    assert collection["owner_uuid"] == project
    assert collection["properties"]["docker-image-repo-tag"] == image.name
    filename = f"{image.id}.tar"
    assert re.findall(r" \d+:\d+:(\S+)", collection["manifest_text"]) == [filename.replace(":", "\\072")]
    timestamp = {"image_timestamp": image.created}
    assert links_to(cluster, uuid) == [
        ("docker_image_hash", image.id, project, timestamp),
        ("docker_image_repo+tag", image.name, project, timestamp),
    ]

    assert run_tool("arv-get", f"{uuid}/{filename}", str(tmp_path)).status == 0
    other_engine.forget(image.id)
    other_engine.docker("load", "--input", str(tmp_path / filename))
    assert json.loads(other_engine.docker("image", "inspect", image.id))[0]["Id"] == image.id
    container = other_engine.docker("create", "--network", "none", image.id).strip()
    try:
        assert other_engine.docker("start", "--attach", container) == "hello\n"
    finally:
        other_engine.docker("rm", container)


def test_the_scheduler_resolves_the_name_to_our_collection(
    engine: Engine, small_image: images.Image, cluster: Cluster, project: str, run: Command
) -> None:
    uuid = stored(run("--project-uuid", project, small_image.name))
    api = cluster.api()
    assert (
        image_run_for(api, small_image.name, project)
        == api.collections().get(uuid=uuid).execute()["portable_data_hash"]
    )


def test_long_names(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    image = images.build(engine.host)
    tag = "t" * 120
    for length, status in ((134, 0), (136, 2)):
        name = f"{'r' * length}:{tag}"
        engine.docker("tag", image.id, name)
        result = run("--project-uuid", project, name)
        assert result.status == status
        if status:
            assert "Arvados takes 255" in result.stderr
        else:
            title = cluster.api().collections().get(uuid=stored(result)).execute()["name"]
            assert (len(title), title[-13:]) == (255, f" {image.id[:12]}")
        engine.docker("rmi", name)


def test_a_repeat_run_saves_and_writes_nothing(
    engine: Engine,
    small_image: images.Image,
    sandbox: Sandbox,
    project: str,
    run: Command,
    docker_that: Callable[[str], dict[str, str]],
    tmp_path: Path,
) -> None:
    uuid = stored(run("--project-uuid", project, small_image.name))
    sandbox.clear_requests()
    log = tmp_path / "docker.log"
    environment = docker_that(f'echo "$*" >>{log}; real "$@"')
    assert stored(run("--project-uuid", project, small_image.name, env=environment)) == uuid
    requests = sandbox.requests()
    assert requests
    assert not [request for request in requests if request["method"] in WRITES or request["service"] == "keep"]
    assert log.read_text() == f"image inspect {small_image.name}\n"


def test_another_name_of_the_image_is_one_link(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    image = images.build(engine.host)
    uuid = stored(run("--project-uuid", project, image.name))
    name = images.unique_name()
    engine.docker("tag", image.name, name)
    before = links_to(cluster, uuid)
    assert stored(run("--project-uuid", project, *name.split(":"))) == uuid
    timestamp = {"image_timestamp": image.created}
    assert links_to(cluster, uuid) == sorted([*before, ("docker_image_repo+tag", name, project, timestamp)])


def test_another_project_gets_a_copy_without_an_upload(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command
) -> None:
    image = images.build(engine.host)
    first = stored(run(image.name))  # in the user's home
    sandbox.clear_requests()
    second = stored(run("--project-uuid", project, image.name))
    assert second != first
    assert not [request for request in sandbox.requests() if request["service"] == "keep"]
    api = cluster.api()
    original, copy = (api.collections().get(uuid=uuid).execute() for uuid in (first, second))
    assert copy["portable_data_hash"] == original["portable_data_hash"]
    assert copy["owner_uuid"] == project
    assert copy["properties"] == {"docker-image-repo-tag": image.name}
    timestamp = {"image_timestamp": image.created}
    assert links_to(cluster, second) == [
        ("docker_image_hash", image.id, project, timestamp),
        ("docker_image_repo+tag", image.name, project, timestamp),
    ]
    assert stored(run("--project-uuid", project, image.name)) == second


def notes(result: Result) -> list[str]:
    return [line.removeprefix("arv-keepdocker: ") for line in result.stderr.splitlines()]


def test_a_repeat_run_says_what_it_found_and_did(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    image = images.build(engine.host)
    words = ("--project-uuid", project)
    uuid = stored(run(*words, image.name))
    assert notes(run(*words, image.name)) == [f"{image.name} is in Arvados already"]
    assert notes(run(*words, image.id)) == [f"{image.name} is in Arvados already"]
    assert notes(run(*words, "--silent", image.name)) == []
    name = images.unique_name()
    engine.docker("tag", image.name, name)
    assert notes(run(*words, name)) == [f"{image.name} is in Arvados already; added the name {name}"]
    assert notes(run(image.name)) == [f"{image.name} is in Arvados already; copied into your home project"]
    api = cluster.api()
    other = {"group_class": "project", "name": "Pipelines", "owner_uuid": project}
    inner = api.groups().create(body={"group": other}, ensure_unique_name=True).execute()["uuid"]
    assert notes(run("--project-uuid", inner, image.name)) == [
        f"{image.name} is in Arvados already; copied into Pipelines"
    ]
    for link in api.links().list(filters=[["owner_uuid", "=", inner]]).execute()["items"]:
        api.links().delete(uuid=link["uuid"]).execute()
    for one in (uuid, stored(run(image.name))):
        api.collections().delete(uuid=one).execute()
    [left] = in_project(cluster, inner)
    assert notes(run("--project-uuid", inner, image.name)) == [
        f"{image.name} was in Arvados in part; completed collection {left['uuid']}"
    ]


def test_a_tag_that_a_workflow_finds_another_image_by(
    engine: Engine, cluster: Cluster, project: str, run: Command, tmp_path: Path
) -> None:
    """A tag that was moved back to an older image: Arvados goes on to prefer the newer one."""
    api = cluster.api()
    words = ("--project-uuid", project)
    newer = images.build(engine.host, created="2024-05-01T12:00:00+02:00")
    name = newer.name
    preferred = stored(run(*words, name))
    older = images.build(engine.host, created="2023-05-01T12:00:00Z")
    engine.docker("tag", older.name, name)
    for _ in ("stored", "linked", "found"):
        result = run(*words, name)
        [warning] = [line for line in notes(result) if line.startswith("warning: a workflow")]
        content = api.collections().get(uuid=stored(result)).execute()["portable_data_hash"]
        for told in (name, newer.id, preferred, "2024-05-01T10:00:00Z", content, "another tag"):
            assert told in warning
        preferred_content = api.collections().get(uuid=preferred).execute()["portable_data_hash"]
        assert image_run_for(api, name, project) == preferred_content
    assert f"{name} gets" in run(*words, "--silent", name).stderr
    # What the warning says helps.
    assert image_run_for(api, content, project) == content
    assert "warning" not in run(*words, older.name).stderr
    assert image_run_for(api, older.name, project) == content
    # What cannot be read, or is the same image, is not preferred to it.
    api.collections().delete(uuid=preferred).execute()
    assert notes(run(*words, name)) == [f"{name} is in Arvados already"]
    assert "warning" not in run(name).stderr
    assert "warning" not in run(*words, name).stderr


def test_to_look_whether_a_name_leads_to_the_image_is_one_request(
    engine: Engine, sandbox: Sandbox, project: str, run: Command
) -> None:
    image = images.build(engine.host)
    stored(run(image.name))  # of another project, and of the same image
    stored(run("--project-uuid", project, image.name))
    sandbox.clear_requests()
    stored(run("--project-uuid", project, image.name))
    by_name = sum(request["service"] != "keep" for request in sandbox.requests())
    sandbox.clear_requests()
    stored(run("--project-uuid", project, image.id))
    assert by_name - sum(request["service"] != "keep" for request in sandbox.requests()) == 1


def test_force_stores_it_again(
    engine: Engine, small_image: images.Image, cluster: Cluster, project: str, run: Command
) -> None:
    first = stored(run("--project-uuid", project, small_image.name))
    second = stored(run("--project-uuid", project, "--force", small_image.name))
    assert second != first
    assert [link[:2] for link in links_to(cluster, second)] == [
        ("docker_image_hash", small_image.id),
        ("docker_image_repo+tag", small_image.name),
    ]
    names = {collection["name"] for collection in in_project(cluster, project)}
    base = f"Docker image {small_image.name.replace('/', ' ')} {small_image.id[:12]}"
    assert names == {base, f"{base} ({second[-15:]})"}


def test_a_name_for_the_collection(
    engine: Engine, small_image: images.Image, cluster: Cluster, project: str, run: Command
) -> None:
    uuid = stored(run("--project-uuid", project, "--name", "my own name", small_image.name))
    assert cluster.api().collections().get(uuid=uuid).execute()["name"] == "my own name"


def test_the_uuid_is_printed_even_when_silent(
    engine: Engine, small_image: images.Image, project: str, run: Command
) -> None:
    result = run("--project-uuid", project, "--silent", small_image.name)
    stored(result)
    assert result.stderr == ""


@pytest.mark.parametrize("written", ["{id}", "{hex}", "sha256:{short}", "{short}"])
def test_an_image_given_by_its_id_gets_no_name(
    engine: Engine, small_image: images.Image, cluster: Cluster, project: str, run: Command, written: str
) -> None:
    digits = small_image.id.removeprefix("sha256:")
    word = written.format(id=small_image.id, hex=digits, short=digits[:12])
    uuid = stored(run("--project-uuid", project, word))
    collection = cluster.api().collections().get(uuid=uuid).execute()
    assert collection["name"] == f"Docker image {small_image.id[:12]}"
    assert "docker-image-repo-tag" not in collection["properties"]
    assert [link[:2] for link in links_to(cluster, uuid)] == [("docker_image_hash", small_image.id)]


def test_a_name_that_could_be_an_id_is_a_name(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    name = f"abcdef{secrets.token_hex(3)}"
    image = images.build(engine.host, f"{name}:latest")
    uuid = stored(run("--project-uuid", project, name))
    assert ("docker_image_repo+tag", f"{name}:latest") in [link[:2] for link in links_to(cluster, uuid)]
    assert ("docker_image_hash", image.id) in [link[:2] for link in links_to(cluster, uuid)]


def test_an_image_named_like_the_word_that_lists(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    if engine.host is None:
        pytest.skip("the user's engine may have an image of that name")
    image = images.build(engine.host, "images:latest")
    uuid = stored(run("--project-uuid", project, "images:latest"))
    assert ("docker_image_repo+tag", "images:latest") in [link[:2] for link in links_to(cluster, uuid)]
    engine.forget(image.id)


def test_a_digest_is_recorded_as_the_scheduler_looks_it_up(
    engine: Engine, registry: Registry, cluster: Cluster, project: str, run: Command
) -> None:
    repository = f"{registry.host}/akd/{secrets.token_hex(4)}"
    image = images.build(engine.host, f"{repository}:v1")
    engine.docker("push", f"{repository}:v1")
    digest = json.loads(engine.docker("image", "inspect", image.id))[0]["RepoDigests"][0].partition("@")[2]
    engine.forget(image.id)

    missing = run("--project-uuid", project, f"{repository}@{digest}")
    assert missing.status == 3
    assert missing.stdout == ""
    uuid = stored(run("--project-uuid", project, "--pull", f"{repository}@{digest}"))
    assert [link[:2] for link in links_to(cluster, uuid)] == [
        ("docker_image_hash", image.id),
        ("docker_image_repo+tag", f"{repository}@{digest}"),
    ]
    # arvados-cwl-runner cuts at the colon.
    assert stored(run("--project-uuid", project, f"{repository}@sha256", digest.removeprefix("sha256:"))) == uuid
    engine.forget(image.id)


def test_pull_fetches_what_the_registry_has_now(
    engine: Engine, registry: Registry, cluster: Cluster, project: str, run: Command
) -> None:
    name = f"{registry.host}/akd/{secrets.token_hex(4)}:v1"
    new = images.build(engine.host, name)
    engine.docker("push", name)
    old = images.build(engine.host, name)  # takes the tag, here only

    uuid = stored(run("--project-uuid", project, name))
    assert ("docker_image_hash", old.id) in [link[:2] for link in links_to(cluster, uuid)]
    uuid = stored(run("--project-uuid", project, "--pull", name))
    assert ("docker_image_hash", new.id) in [link[:2] for link in links_to(cluster, uuid)]

    # An id that is local is not pulled, and need not be: there is no registry in it.
    assert stored(run("--project-uuid", project, "--pull", old.id)) != uuid

    refused = run("--project-uuid", project, "--pull", name.replace(":v1", ":nosuch"))
    assert refused.status == 4
    assert "could not pull" in refused.stderr
    assert "manifest unknown" in refused.stderr
    assert refused.stdout == ""
    for image in (old, new):
        engine.forget(image.id)


def test_the_progress_of_docker_pull_is_shown_on_a_terminal(
    engine: Engine, registry: Registry, project: str, run: Command
) -> None:
    name = f"{registry.host}/akd/{secrets.token_hex(4)}:v1"
    image = images.build(engine.host, name)
    engine.docker("push", name)
    engine.forget(image.id)
    shown = run("--via-arv-put", "--project-uuid", project, "--pull", name, tty=True)
    stored(shown)
    assert "Pull complete" in shown.stderr
    assert re.search(r"saving: \d+ / \d+ MiB", shown.stderr)
    assert re.search(r"\d+M / \d+M 100.0%", shown.stderr)  # arv-put's
    again = run("--via-arv-put", "--project-uuid", project, "--pull", "--no-progress", "--force", name, tty=True)
    stored(again)
    assert "Pull" not in again.stderr
    assert "MiB" not in again.stderr
    engine.forget(image.id)


def test_batch_progress_is_arv_puts(engine: Engine, project: str, run: Command) -> None:
    image = images.build(engine.host)
    result = run("--project-uuid", project, "--batch-progress", image.name, tty=True)
    stored(result)
    assert re.search(r" \d+: \d+ written \d+ total", result.stderr)
    assert "saving:" not in result.stderr


def test_a_container_of_the_same_name_is_not_the_image(
    engine: Engine, cluster: Cluster, project: str, run: Command
) -> None:
    name = f"akd{secrets.token_hex(4)}"
    other = images.build(engine.host)
    engine.docker("create", "--name", name, other.name)
    try:
        assert run("--project-uuid", project, name).status == 3
        image = images.build(engine.host, f"{name}:latest")
        uuid = stored(run("--project-uuid", project, name))
        assert ("docker_image_hash", image.id) in [link[:2] for link in links_to(cluster, uuid)]
    finally:
        engine.docker("rm", name)


def test_the_https_port_is_dropped_as_docker_does(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    path = f"akd/{secrets.token_hex(4)}"
    image = images.build(engine.host, f"reg.example/{path}:v1")
    uuid = stored(run("--project-uuid", project, f"reg.example:443/{path}:v1"))
    assert [link[:2] for link in links_to(cluster, uuid)] == [
        ("docker_image_hash", image.id),
        ("docker_image_repo+tag", f"reg.example/{path}:v1"),
    ]


def test_options_may_stand_anywhere_and_their_values_are_theirs(
    engine: Engine, cluster: Cluster, project: str, run: Command
) -> None:
    repository = f"akd{secrets.token_hex(4)}"
    images.build(engine.host, f"{repository}:v1")
    for words, name in (
        ([repository, "--name", repository, "v1"], repository),
        (["--name", "v1", repository, "v1"], "v1"),
        ([repository, "v1", "--name=--force"], "--force"),
    ):
        uuid = stored(run("--project-uuid", project, "--force", *words))
        assert cluster.api().collections().get(uuid=uuid).execute()["name"] == name


def test_completes_what_a_dead_run_has_left(
    engine: Engine, cluster: Cluster, project: str, run: Command, run_tool: Callable[..., Result], tmp_path: Path
) -> None:
    image = images.build(engine.host)
    engine.docker("save", "--output", str(tmp_path / "saved.tar"), image.id)
    put = run_tool(
        "arv-put",
        *("--project-uuid", project, "--name", "left by a run that was given a name"),
        *("--filename", f"{image.id}.tar", str(tmp_path / "saved.tar")),
    )
    left = stored(put)
    # What the server manages must survive.
    cluster.api().collections().update(uuid=left, body={"properties": {"managed": "by the server"}}).execute()

    assert stored(run("--project-uuid", project, image.name)) == left
    collection = cluster.api().collections().get(uuid=left).execute()
    assert collection["properties"] == {"managed": "by the server", "docker-image-repo-tag": image.name}
    timestamp = {"image_timestamp": image.created}
    complete = [
        ("docker_image_hash", image.id, project, timestamp),
        ("docker_image_repo+tag", image.name, project, timestamp),
    ]
    assert links_to(cluster, left) == complete
    assert len(in_project(cluster, project)) == 1

    # Died between the links.
    api = cluster.api()
    for link in api.links().list(filters=[["head_uuid", "=", left], ["name", "=", image.name]]).execute()["items"]:
        api.links().delete(uuid=link["uuid"]).execute()
    assert stored(run("--project-uuid", project, image.name)) == left
    assert links_to(cluster, left) == complete


def test_a_copy_whose_links_are_missing_is_completed(
    engine: Engine, cluster: Cluster, project: str, run: Command
) -> None:
    image = images.build(engine.host)
    first = stored(run(image.name))
    copy = stored(run("--project-uuid", project, image.name))
    api = cluster.api()
    for link in api.links().list(filters=[["head_uuid", "=", copy]]).execute()["items"]:
        api.links().delete(uuid=link["uuid"]).execute()
    assert stored(run("--project-uuid", project, image.name)) == copy
    assert len(links_to(cluster, copy)) == 2
    assert len(in_project(cluster, project)) == 1
    assert copy != first


def test_a_collection_that_is_no_image_does_not_count(
    engine: Engine, cluster: Cluster, project: str, run: Command
) -> None:
    image = images.build(engine.host)
    api = cluster.api()
    empty = api.collections().create(body={"name": "no image", "owner_uuid": project}).execute()["uuid"]
    link = {"link_class": "docker_image_hash", "name": image.id, "head_uuid": empty, "owner_uuid": project}
    api.links().create(body=link).execute()
    assert stored(run("--project-uuid", project, image.name)) != empty


@pytest.mark.parametrize("how", ["removed from the engine", "no daemon", "no docker"])
def test_an_image_only_in_arvados_is_used_with_a_warning(
    engine: Engine, cluster: Cluster, project: str, run: Command, tmp_path: Path, how: str
) -> None:
    image = images.build(engine.host)
    uuid = stored(run("--project-uuid", project, image.name))
    engine.forget(image.id)
    environment = {
        "removed from the engine": {},
        "no daemon": {"DOCKER_HOST": f"unix://{tmp_path}/nosuch.sock"},
        "no docker": {"PATH": str(tmp_path)},
    }[how]
    for word in (image.name, image.id, image.id[:19], image.id[7:19]):
        result = run("--project-uuid", project, word, env=environment)
        assert stored(result) == uuid
        assert "warning" in result.stderr
        assert uuid in result.stderr
    assert [link[:2] for link in links_to(cluster, uuid)] == [
        ("docker_image_hash", image.id),
        ("docker_image_repo+tag", image.name),
    ]
    home = stored(run(image.name, env=environment))
    assert home != uuid
    assert len(links_to(cluster, home)) == 2

    forced = run("--project-uuid", project, "--force", image.name, env=environment)
    assert forced.status == (3 if how == "removed from the engine" else 4)
    assert forced.stdout == ""


def test_an_id_prefix_of_two_images_is_refused(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    api = cluster.api()
    start = f"sha256:{secrets.token_hex(4)}"
    for digit in "01":
        image_id = f"{start}{digit * 56}"
        file = image_id.replace(":", "\\072")
        manifest = f". d41d8cd98f00b204e9800998ecf8427e+0 0:0:{file}.tar\n"
        body = {"name": image_id, "owner_uuid": project, "manifest_text": manifest}
        uuid = api.collections().create(body=body).execute()["uuid"]
        link = {"link_class": "docker_image_hash", "name": image_id, "head_uuid": uuid, "owner_uuid": project}
        api.links().create(body=link).execute()
    refused = run("--project-uuid", project, start)
    assert refused.status == 3
    assert "beginning of 2 ids" in refused.stderr
    assert run("--project-uuid", project, start + "1").status == 0


AS_THE_CWL_RUNNER = """
import sys
import arvados
import arv_keepdocker

api = arvados.api("v1")
project, name, tag = sys.argv[1:]
try:
    words = [f"--project-uuid={project}", name, tag]
    arv_keepdocker.main(words, stdout=sys.stderr, install_sig_handlers=False, api=api)
except SystemExit as end:
    if end.code:
        raise
for uuid, image in arv_keepdocker.list_images_in_arv(api, 3, image_name=name, image_tag=tag, project_uuid=project):
    print(uuid, image["dockerhash"])
"""


def test_main_takes_a_client_and_streams_as_the_cwl_runner_gives_them(
    engine: Engine, project: str, run: Command
) -> None:
    image = images.build(engine.host)
    script = replace(run, argv=[sys.executable, "-c", AS_THE_CWL_RUNNER])
    result = script(project, *image.name.split(":"))
    assert result.status == 0, result.stderr
    uuid, image_id = result.stdout.split()
    assert image_id == image.id
    assert f"{uuid}\n" in result.stderr
