"""Engines that Debian does not have, as recorded: which id is stored, what a repeat run knows, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cluster, Command, stored
from tests.engines import Podman
from tests.recorded import RecordedDocker
from tests.test_archive import FACTS
from tests.test_store import in_project

VERSIONS = [
    ("docker20", "20.10.24", "classic"),
    ("docker25", "25.0.13", "classic"),
    ("docker28", "28.5.2", "classic"),
    ("docker28-containerd", "28.5.2", "containerd"),
    ("docker29-classic", "29.7.2", "classic"),
    ("docker29.0-containerd", "29.0.1", "containerd"),
    ("docker29-containerd", "29.7.2", "containerd"),
]
CONTAINERD = [version for version in VERSIONS if version[2] == "containerd"]


def hash_link(cluster: Cluster, uuid: str) -> tuple[str, dict[str, Any]]:
    filters = [["head_uuid", "=", uuid], ["link_class", "=", "docker_image_hash"]]
    links = cluster.api().links().list(filters=filters).execute()["items"]
    assert len(links) == 1
    return links[0]["name"], links[0]["properties"]


def saves(docker: RecordedDocker) -> list[str]:
    return [call for call in docker.calls() if call.startswith("image save")]


@pytest.mark.parametrize(("profile", "version", "store"), VERSIONS, ids=[version[0] for version in VERSIONS])
@pytest.mark.parametrize("image", ["tiny", "solo", "built"])
def test_every_docker(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, profile: str, version: str, store: str, image: str
) -> None:
    fixture = f"{profile}-{image}-byname.tar"
    facts = FACTS[fixture]
    docker = RecordedDocker(tmp_path / "docker", version, store)
    known = docker.add(fixture)
    name = known["name"]

    # The plain form: the digest of the configuration, whatever the engine calls Id.
    plain = stored(run("--project-uuid", project, "--no-universal", name, env=docker.environment))
    image_id, properties = hash_link(cluster, plain)
    assert image_id == facts["config_digest"]
    assert properties["image_timestamp"] == facts["created"]
    assert properties.get("arv:engine_image_id") == (known["id"] if store == "containerd" else None)
    assert "arv:universal" not in properties
    assert len(saves(docker)) == 1

    # By default the universal form where the store is containerd's.
    default = stored(run("--project-uuid", project, name, env=docker.environment))
    if store == "classic":
        assert default == plain
        assert known["id"] == image_id
    else:
        assert default != plain
        universal_id, properties = hash_link(cluster, default)
        assert universal_id not in (known["id"], image_id)
        assert properties["arv:engine_image_id"] == known["id"]
        assert properties["arv:universal"] is True
        assert properties["image_timestamp"] == facts["created"]

    # Neither is saved again, by its name or by the engine's id.
    saves(docker)
    assert stored(run("--project-uuid", project, name, env=docker.environment)) == default
    assert stored(run("--project-uuid", project, known["id"][7:19], env=docker.environment)) == default
    assert stored(run("--project-uuid", project, "--no-universal", name, env=docker.environment)) == plain
    assert saves(docker) == []


@pytest.mark.parametrize(("profile", "version", "store"), CONTAINERD, ids=[version[0] for version in CONTAINERD])
def test_an_id_is_learned_once(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, profile: str, version: str, store: str
) -> None:
    """An image that another engine stored is known by the configuration's digest only, until it was saved once."""
    classic = RecordedDocker(tmp_path / "classic", "25.0.13", "classic")
    name = classic.add("docker25-tiny-byname.tar")["name"]
    uuid = stored(run("--project-uuid", project, name, env=classic.environment))

    docker = RecordedDocker(tmp_path / "docker", version, store)
    docker.add(f"{profile}-tiny-byname.tar")
    words = ("--project-uuid", project, "--no-universal", name)
    assert stored(run(*words, env=docker.environment)) == uuid
    assert len(saves(docker)) == 1
    assert stored(run(*words, env=docker.environment)) == uuid
    assert saves(docker) == []
    assert len(in_project(cluster, project)) == 1
    # And the classic engine still finds it.
    assert stored(run("--project-uuid", project, name, env=classic.environment)) == uuid
    assert len(saves(classic)) == 1


def test_the_platform_is_told_to_docker_save_where_it_can_be(project: str, run: Command, tmp_path: Path) -> None:
    for version, store, flag in (
        ("29.7.2", "containerd", " --platform linux/amd64"),
        ("28.5.2", "classic", ""),
    ):
        docker = RecordedDocker(tmp_path / store, version, store)
        fixture = "docker29-containerd-solo-byname.tar" if store == "containerd" else "docker28-solo-byname.tar"
        image = docker.add(fixture)
        stored(run("--project-uuid", project, image["name"], env=docker.environment))
        assert saves(docker) == [f"image save{flag} {image['id']}"]


@pytest.mark.parametrize(("version", "words"), [("29.7.2", "no suitable export target"), ("25.0.13", "incomplete")])
def test_an_incomplete_image_is_refused(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, version: str, words: str
) -> None:
    """Docker says so since 28, when told the platform; before, it writes an archive without layers and exits with 0."""
    docker = RecordedDocker(tmp_path / "docker", version, "containerd")
    docker.add("docker29-containerd-incomplete.tar", name="d29/three:1")
    refused = run("--project-uuid", project, "d29/three:1", env=docker.environment)
    assert refused.status == (4 if version == "29.7.2" else 5)
    assert refused.stdout == ""
    assert words in refused.stderr
    assert "docker rmi d29/three:1, then docker pull --platform linux/amd64 d29/three:1" in refused.stderr
    assert in_project(cluster, project) == []


def test_one_platform_of_several(cluster: Cluster, project: str, run: Command, tmp_path: Path) -> None:
    docker = RecordedDocker(tmp_path / "docker", "29.7.2", "containerd")
    image = docker.add("docker29-containerd-tinyboth-byname.tar", platforms=["linux/amd64", "linux/arm64"])
    name = image["name"]
    ours = run("--project-uuid", project, name, env=docker.environment)
    theirs = run("--project-uuid", project, "--platform", "linux/aarch64", name, env=docker.environment)
    assert "warning" not in ours.stderr + theirs.stderr
    links = [hash_link(cluster, stored(result)) for result in (ours, theirs)]
    assert links[0][0] != links[1][0]
    assert [properties["arv:engine_image_id"] for _, properties in links] == [image["id"]] * 2
    assert [properties["arv:platform"] for _, properties in links] == ["linux/amd64", "linux/arm64"]
    # The Id alone does not tell which.
    saves(docker)
    assert run("--project-uuid", project, name, env=docker.environment).stdout == ours.stdout
    again = run("--project-uuid", project, "--platform", "linux/arm64", name, env=docker.environment)
    assert again.stdout == theirs.stdout
    assert saves(docker) == []
    # Nor is what Arvados has by that name for another platform.
    missing = run("--project-uuid", project, "--platform", "linux/riscv64", name, env=docker.environment)
    assert (missing.status, missing.stdout) == (3, "")
    assert "linux/riscv64" in missing.stderr


@pytest.mark.parametrize(
    ("profile", "version", "store"), [VERSIONS[0], VERSIONS[2], VERSIONS[5]], ids=["20", "28", "29.0-containerd"]
)
def test_a_platform_that_the_image_is_not_for(
    project: str, run: Command, tmp_path: Path, profile: str, version: str, store: str
) -> None:
    docker = RecordedDocker(tmp_path / "docker", version, store)
    name = docker.add(f"{profile}-tiny-byname.tar")["name"]
    refused = run("--project-uuid", project, "--platform", "linux/arm64", name, env=docker.environment)
    assert (refused.status, refused.stdout) == (3, "")
    assert "for linux/arm64" in refused.stderr
    assert "--pull --platform linux/arm64" in refused.stderr
    stored(run("--project-uuid", project, "--platform", "linux/amd64", name, env=docker.environment))


def test_another_architecture_gets_a_warning(project: str, run: Command, tmp_path: Path) -> None:
    docker = RecordedDocker(tmp_path / "docker", "28.5.2", "classic")
    name = docker.add("docker28-tiny-byname.tar", platform="linux/arm64", platforms=["linux/arm64"])["name"]
    shown = run("--project-uuid", project, name, env=docker.environment)
    stored(shown)
    assert "warning: the image is for linux/arm64" in shown.stderr


def test_pull_of_a_platform(project: str, run: Command, tmp_path: Path) -> None:
    docker = RecordedDocker(tmp_path / "docker", "29.7.2", "containerd")
    name = docker.add("docker29-containerd-solo-byname.tar", where="registry")["name"]
    uuid = stored(run("--project-uuid", project, "--pull", "--platform", "linux/amd64", name, env=docker.environment))
    assert f"image pull --quiet --platform linux/amd64 {name}" in docker.calls()
    assert stored(run("--project-uuid", project, name, env=docker.environment)) == uuid
    refused = run("--project-uuid", project, "--pull", "--platform", "linux/s390x", name, env=docker.environment)
    assert refused.status == 4
    assert "manifest unknown" in refused.stderr


def test_a_word_of_digits_that_is_the_engines_id(project: str, run: Command, tmp_path: Path) -> None:
    docker = RecordedDocker(tmp_path / "docker", "29.7.2", "containerd")
    image = docker.add("docker29-containerd-tiny-byname.tar")
    by_id = run("--project-uuid", project, image["id"][7:15], env=docker.environment)
    uuid = stored(by_id)
    assert stored(run("--project-uuid", project, image["id"], env=docker.environment)) == uuid


def test_the_wrapper_that_makes_podman_a_docker(podman: Podman, project: str, run: Command, tmp_path: Path) -> None:
    """As Debian's package podman-docker has it."""
    from tests.test_archive import FIXTURES

    directory = tmp_path / "wrapper"
    directory.mkdir()
    (directory / "docker").write_text(
        "#!/bin/sh\n"
        'echo "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg." >&2\n'
        f'exec {podman.program} "$@"\n'
    )
    (directory / "docker").chmod(0o755)
    environment = {"PATH": f"{directory}:{run.environment['PATH']}"}
    podman.run("load", "--quiet", "--input", str(FIXTURES / "archives" / "podman4-solo-byname.tar"))
    name = FACTS["podman4-solo-byname.tar"]["repo_tags"][0]
    uuid = stored(run("--project-uuid", project, name, env=environment))
    assert stored(run("--project-uuid", project, name, env=environment)) == uuid
    missing = run("--project-uuid", project, "no/such:1", env=environment)
    assert missing.status == 3
    assert "Emulate" not in missing.stderr
    pulled = run("--project-uuid", project, "--pull", "127.0.0.1:1/no/such:1", env=environment)
    assert pulled.status == 4
    assert "Emulate" not in pulled.stderr
    podman.run("rmi", "--force", name)


def test_an_engine_that_is_not_there(run: Command) -> None:
    refused = run("--engine", "no-such-engine", "x")
    assert refused.status == 4
    assert "'no-such-engine'" in refused.stderr


def test_each_engine_is_asked_only_what_it_was_recorded_for(run: Command, tmp_path: Path) -> None:
    docker = RecordedDocker(tmp_path / "docker", "25.0.13", "classic")
    assert shutil.which("docker", path=docker.environment["PATH"]) == str(docker.path / "docker")
    assert run("no/such:1", env=docker.environment).status == 3
    assert docker.calls() == ["image inspect no/such:1"]
