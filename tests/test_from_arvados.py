"""--from-arvados: images that Arvados has get names, are copied, and are stored anew as they should be."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.canonical import archive_of
from tests.conftest import Cluster, Command, container_request, image_run_for, stored
from tests.recorded import PROFILES, RecordedEngine
from tests.test_archive import FACTS, FIXTURES

ARCHIVES = FIXTURES / "archives"
HASH, NAME = "docker_image_hash", "docker_image_repo+tag"


def archive(path: Path, **words: Any) -> images.Image:
    """An image in an archive at `path`."""
    with path.open("wb") as file:
        return images.write_archive(file, **words)


def links_to(cluster: Cluster, uuid: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.api().links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]
    return found


def names_of(cluster: Cluster, uuid: str, owner: str | None = None) -> set[str]:
    return {link["name"] for link in links_to(cluster, uuid) if owner in (None, link["owner_uuid"])}


def collection(cluster: Cluster, uuid: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.api().collections().get(uuid=uuid).execute()
    return found


def content(cluster: Cluster, uuid: str) -> str:
    return str(collection(cluster, uuid)["portable_data_hash"])


def keep_requests(sandbox: Sandbox) -> list[str]:
    """What was asked of Keep, its blocks' hashes."""
    return [request["path"][1:33] for request in sandbox.requests() if request["service"] == "keep"]


def new_project(cluster: Cluster, project: str) -> str:
    body = {"group": {"group_class": "project", "name": "another", "owner_uuid": project}}
    return str(cluster.api().groups().create(body=body, ensure_unique_name=True).execute()["uuid"])


@pytest.fixture
def image(tmp_path: Path) -> images.Image:
    return archive(tmp_path / "image.tar")


@pytest.fixture
def there(image: images.Image, project: str, run: Command) -> str:
    """The UUID of the collection of the image, which is canonical and in the project."""
    return stored(run("--project-uuid", project, "--from-archive", "image.tar"))


@pytest.mark.parametrize("how", ["name", "id", "short id", "uuid", "content"])
def test_a_name_is_added(
    image: images.Image, there: str, project: str, run: Command, cluster: Cluster, how: str
) -> None:
    hash_ = content(cluster, there)
    source = {
        "name": image.name,
        "id": image.id,
        "short id": image.id[:19],
        "uuid": there,
        "content": hash_,
    }[how]
    name = images.unique_name()
    result = run("--project-uuid", project, "--from-arvados", source, name)
    assert stored(result) == there
    assert f"added the name {name}" in result.stderr
    assert names_of(cluster, there) == {image.id, image.name, name}
    again = run("--project-uuid", project, "--from-arvados", source, name)
    assert stored(again) == there
    assert len(links_to(cluster, there)) == 3


def test_a_name_costs_a_few_requests(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox
) -> None:
    stored(run("--from-arvados", image.name))
    for words in (("--project-uuid", project), ()):
        sandbox.clear_requests()
        stored(run(*words, "--from-arvados", image.name, images.unique_name()))
        asked = sandbox.requests()
        assert len(asked) <= 8, "\n".join(f"{request['method']} {request['path']}" for request in asked)
        assert keep_requests(sandbox) == []


def test_a_copy_in_another_project(
    image: images.Image, there: str, project: str, run: Command, cluster: Cluster
) -> None:
    other = new_project(cluster, project)
    more = images.unique_name()
    stored(run("--project-uuid", project, "--from-arvados", there, more))
    result = run("--project-uuid", other, "--from-arvados", image.name)
    copy = stored(result)
    assert copy != there
    assert "copied into another" in result.stderr
    assert content(cluster, copy) == content(cluster, there)
    assert names_of(cluster, copy) == {image.id, image.name, more}
    assert {link["owner_uuid"] for link in links_to(cluster, copy)} == {other}
    old = {json.dumps(link["properties"]) for link in links_to(cluster, there)}
    assert {json.dumps(link["properties"]) for link in links_to(cluster, copy)} == old
    assert stored(run("--project-uuid", other, "--from-arvados", there)) == copy
    # One that is in both projects gets a name in the one that is meant.
    name = images.unique_name()
    assert stored(run("--project-uuid", other, "--from-arvados", content(cluster, there), name)) == copy
    assert name not in names_of(cluster, there)


# Upstream asks `docker inspect`, which also looks at containers, and there are none.
AS_UPSTREAM_ASKS = """
case "$1 $2" in
inspect\\ --format=*) real image inspect "$3" | sed -n 's/^ *"Id": "\\(.*\\)",/\\1/p' | head -n 1 ;;
inspect\\ *) real image "$@" ;;
*) real "$@" ;;
esac
"""

Upstream = Callable[..., tuple[str, str]]


@pytest.fixture
def upstream_stored(
    run_upstream: Command, docker_that: Callable[[str], dict[str, str]], project: str, tmp_path: Path
) -> Upstream:
    """Stores a recorded image with upstream's program, and gives the UUID of the collection and the image's name."""

    def store(profile: str, which: str = "tiny") -> tuple[str, str]:
        engine = RecordedEngine(profile, tmp_path / "engine", wrapper=profile == "podman4")
        name = f"{profile.replace('.', '-')}/{which}:v1"
        engine.add(ARCHIVES / f"{profile}-{which}-byname.tar", name)
        paths = docker_that(AS_UPSTREAM_ASKS)["PATH"].split(":")
        path = f"{paths[0]}:{engine.environment['PATH']}"
        environment = {"PATH": path, "REAL_PATH": engine.environment["PATH"]}
        words = ["--force-image-format"] if profile == "podman4" else []
        result = run_upstream(*words, "--project-uuid", project, *name.split(":"), env=environment)
        assert result.status == 0, result.stderr
        return result.stdout.strip(), name

    return store


@pytest.mark.parametrize("which", ["tiny", "solo", "built"])
@pytest.mark.parametrize("profile", PROFILES)
def test_what_upstream_stored_is_mended(
    run: Command, upstream_stored: Upstream, cluster: Cluster, project: str, profile: str, which: str
) -> None:
    old, name = upstream_stored(profile, which)
    result = run("--project-uuid", project, "--from-arvados", name)
    new = stored(result)
    assert new != old
    containerd = "containerd" in profile
    saved = (ARCHIVES / f"{profile}-{which}-byname.tar").read_bytes()
    direct = run(
        "--project-uuid",
        project,
        "--universal" if containerd else "--no-universal",
        "--portable-data-hash",
        "--force",
        "--from-archive",
        str(ARCHIVES / f"{profile}-{which}-byname.tar"),
        "direct/image",
    )
    assert content(cluster, new) == direct.stdout.strip()
    held = collection(cluster, new)["manifest_text"].split("sha256\\072")[1].partition(".")[0]
    assert archive_of(saved, universal=containerd)
    if not containerd:
        assert f"sha256:{held}" == FACTS[f"{profile}-{which}-byname.tar"]["config_digest"]
    assert names_of(cluster, new) == {f"sha256:{held}", name}
    assert cluster.api().collections().get(uuid=old).execute()["uuid"] == old
    # It is what the name means now, and it is as it should be.
    again = run("--project-uuid", project, "--from-arvados", name)
    assert stored(again) == new
    assert f"to the old collection, {old}, stay: " in result.stderr


def test_old_links_are_removed_by_the_command_that_is_shown(
    run: Command, upstream_stored: Upstream, cluster: Cluster, project: str
) -> None:
    old, name = upstream_stored("docker29-containerd")
    assert len(links_to(cluster, old)) == 2
    result = run("--project-uuid", project, "--from-arvados", name)
    (command,) = [line.partition("to remove them: ")[2] for line in result.stderr.splitlines() if "to remove" in line]
    subprocess.run(shlex.split(command), env=run.environment, check=True)
    assert links_to(cluster, old) == []
    assert collection(cluster, old)


def test_a_node_finds_what_was_mended(
    upstream_stored: Upstream, project: str, run: Command, cluster: Cluster, sandbox: Sandbox
) -> None:
    old, name = upstream_stored("docker29-containerd", "solo")
    api = cluster.api()
    assert image_run_for(api, name, project) == content(cluster, old)
    new = stored(run("--project-uuid", project, "--from-arvados", name))
    assert image_run_for(api, name, project) == content(cluster, new)
    request = container_request(content(cluster, new), owner_uuid=project)
    assert api.container_requests().create(body=request).execute()["container_uuid"]
    properties = {key: link["properties"] for link in links_to(cluster, new) for key in [link["link_class"]]}
    assert properties[HASH]["arv:universal"] is True
    assert properties[HASH]["arv:engine_image_id"] in names_of(cluster, old)


@pytest.mark.parametrize("which", ["solo", "built"])
def test_the_engine_that_has_it_knows_what_was_mended(
    upstream_stored: Upstream, project: str, run: Command, tmp_path: Path, which: str
) -> None:
    _, name = upstream_stored("docker29-containerd", which)
    new = stored(run("--project-uuid", project, "--from-arvados", name))
    engine = RecordedEngine("docker29-containerd", tmp_path / "again")
    engine.add(ARCHIVES / f"docker29-containerd-{which}-byname.tar", name)
    assert stored(run("--project-uuid", project, name, env=engine.environment)) == new
    assert not [call for call in engine.calls() if "save" in call]
