"""Engines that Debian does not have, as recorded: which id is stored, what a repeat run knows, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.images.reference import familiar
from tests.conftest import Cluster, Command, stored
from tests.engines import Podman
from tests.recorded import PROFILES, RecordedEngine
from tests.test_archive import FACTS, FIXTURES
from tests.test_listing import Catalogue
from tests.test_store import in_project

ARCHIVES = FIXTURES / "archives"
CONTAINERD = [profile for profile in PROFILES if profile.endswith("-containerd")]


def archive(profile: str, image: str) -> str:
    return f"{profile}-{image}-byname.tar"


def known_as(fixture: str) -> str:
    """What one types for the image."""
    return familiar(str(FACTS[fixture]["repo_tags"][0]))


def hash_link(cluster: Cluster, uuid: str) -> tuple[str, dict[str, Any]]:
    filters = [["head_uuid", "=", uuid], ["link_class", "=", "docker_image_hash"]]
    links = cluster.api().links().list(filters=filters).execute()["items"]
    assert len(links) == 1
    return links[0]["name"], links[0]["properties"]


def saves(docker: RecordedEngine) -> list[str]:
    return [call for call in docker.calls() if call.startswith("image save")]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("image", ["tiny", "solo", "built"])
def test_every_engine(cluster: Cluster, project: str, run: Command, tmp_path: Path, profile: str, image: str) -> None:
    fixture = archive(profile, image)
    facts = FACTS[fixture]
    engine = RecordedEngine(profile, tmp_path / "engine")
    engine_id = engine.add(ARCHIVES / fixture)
    name = known_as(fixture)
    environment = {**engine.environment, "ARV_KEEPDOCKER_ENGINE": "podman" if profile == "podman4" else "docker"}
    containerd = profile in CONTAINERD

    # The plain form: the digest of the configuration, whatever the engine calls Id.
    plain = stored(run("--project-uuid", project, "--no-universal", name, env=environment))
    image_id, properties = hash_link(cluster, plain)
    assert image_id == facts["config_digest"]
    assert properties["image_timestamp"] == facts["created"]
    assert properties.get("arv:engine_image_id") == (engine_id if containerd else None)
    assert "arv:universal" not in properties
    assert len(saves(engine)) == 1

    # By default the universal form where the store is containerd's.
    default = stored(run("--project-uuid", project, name, env=environment))
    if containerd:
        assert default != plain
        universal_id, properties = hash_link(cluster, default)
        assert universal_id not in (engine_id, image_id)
        assert properties["arv:engine_image_id"] == engine_id
        assert properties["arv:universal"] is True
        assert properties["image_timestamp"] == facts["created"]
    else:
        assert default == plain
        assert engine_id == image_id

    # Neither is saved again, by its name or by the engine's id.
    saves(engine)
    digits = engine_id.removeprefix("sha256:")
    assert stored(run("--project-uuid", project, name, env=environment)) == default
    assert stored(run("--project-uuid", project, digits[:12], env=environment)) == default
    assert stored(run("--project-uuid", project, f"sha256:{digits}", env=environment)) == default
    assert stored(run("--project-uuid", project, "--no-universal", name, env=environment)) == plain
    assert saves(engine) == []


@pytest.mark.parametrize("profile", CONTAINERD)
def test_an_id_is_learned_once(cluster: Cluster, project: str, run: Command, tmp_path: Path, profile: str) -> None:
    """An image that another engine stored is known by the configuration's digest only, until it was saved once."""
    classic = RecordedEngine("docker25", tmp_path / "classic")
    classic.add(ARCHIVES / archive("docker25", "tiny"))
    name = known_as(archive("docker25", "tiny"))
    uuid = stored(run("--project-uuid", project, name, env=classic.environment))

    engine = RecordedEngine(profile, tmp_path / "engine")
    engine.add(ARCHIVES / archive(profile, "tiny"))
    words = ("--project-uuid", project, "--no-universal", name)
    assert stored(run(*words, env=engine.environment)) == uuid
    assert len(saves(engine)) == 1
    assert stored(run(*words, env=engine.environment)) == uuid
    assert saves(engine) == []
    assert len(in_project(cluster, project)) == 1
    # And the classic engine still finds it.
    assert stored(run("--project-uuid", project, name, env=classic.environment)) == uuid
    assert len(saves(classic)) == 1


@pytest.mark.parametrize("profile", CONTAINERD)
def test_an_image_that_was_stored_by_the_engines_id_is_stored_again(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, profile: str
) -> None:
    """As upstream does it; most compute nodes do not find it."""
    engine = RecordedEngine(profile, tmp_path / "engine")
    fixture = archive(profile, "tiny")
    engine_id = engine.add(ARCHIVES / fixture)
    old = Catalogue(cluster.api(), project).image("by/upstream:1", image_id=engine_id)
    uuid = stored(run("--project-uuid", project, "--no-universal", known_as(fixture), env=engine.environment))
    assert uuid != old
    assert hash_link(cluster, uuid)[0] == FACTS[fixture]["config_digest"]


@pytest.mark.parametrize("profile", CONTAINERD)
def test_a_universal_image_that_is_there_without_saying_so(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, profile: str
) -> None:
    file = ARCHIVES / "universal-solo.tar"
    uuid = stored(run("--project-uuid", project, "--universal", "--from-archive", str(file)))
    image_id, properties = hash_link(cluster, uuid)
    assert properties["arv:universal"] is True
    engine = RecordedEngine(profile, tmp_path / "engine")
    engine.add(file)
    words = ("--project-uuid", project, known_as("universal-solo.tar"))
    assert stored(run(*words, env=engine.environment)) == uuid
    # What a run leaves that dies before the links.
    api = cluster.api()
    for link in api.links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]:
        api.links().delete(uuid=link["uuid"]).execute()
    assert stored(run(*words, env=engine.environment)) == uuid
    assert hash_link(cluster, uuid)[0] == image_id


@pytest.mark.parametrize("profile", PROFILES)
def test_the_beginning_of_an_id_with_its_prefix(project: str, run: Command, tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine", wrapper=profile == "podman4")
    engine_id = engine.add(ARCHIVES / archive(profile, "tiny"))
    digits = engine_id.removeprefix("sha256:")[:12]
    stored(run("--project-uuid", project, f"sha256:{digits}", env=engine.environment))
    assert run("--project-uuid", project, "sha256:0000000000ff", env=engine.environment).status == 3


@pytest.mark.parametrize("profile", PROFILES)
def test_an_id_is_not_pulled_and_may_be_for_another_platform(
    project: str, run: Command, tmp_path: Path, profile: str
) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine", wrapper=profile == "podman4")
    engine_id = engine.add(ARCHIVES / archive(profile, "tiny"))
    for word in (engine_id, engine_id.removeprefix("sha256:")):
        refused = run("--project-uuid", project, "--pull", "--platform", "linux/arm64", word, env=engine.environment)
        assert (refused.status, refused.stdout) == (3, "")
        assert "for linux/arm64" in refused.stderr


@pytest.mark.parametrize("profile", PROFILES)
def test_the_platform_is_told_to_save_where_it_can_be(project: str, run: Command, tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine", wrapper=profile == "podman4")
    engine_id = engine.add(ARCHIVES / archive(profile, "solo"))
    stored(run("--project-uuid", project, known_as(archive(profile, "solo")), env=engine.environment))
    flag = " --platform linux/amd64" if profile in CONTAINERD else ""
    assert saves(engine) == [f"image save{flag} sha256:{engine_id.removeprefix('sha256:')}"]


@pytest.mark.parametrize("told", [True, False])
def test_an_incomplete_image_is_refused(
    cluster: Cluster,
    project: str,
    run: Command,
    docker_that: Callable[[str], dict[str, str]],
    tmp_path: Path,
    told: bool,
) -> None:
    """Docker says that something is missing if it is told the platform; else it writes the rest and exits with 0."""
    engine = RecordedEngine("docker29-containerd", tmp_path / "engine")
    engine.add(ARCHIVES / "docker29-containerd-incomplete.tar", "d29/three:1")
    environment = engine.environment
    if not told:  # as with a client or a daemon that is too old for that
        hidden = docker_that('[ "$1" != version ] || exit 1; real "$@"')
        environment = {**hidden, "REAL_PATH": environment["PATH"]}
    refused = run("--project-uuid", project, "d29/three:1", env=environment)
    assert refused.status == (4 if told else 5)
    assert refused.stdout == ""
    assert ("no suitable export target" if told else "incomplete") in refused.stderr
    assert "docker rmi d29/three:1, then docker pull --platform linux/amd64 d29/three:1" in refused.stderr
    assert in_project(cluster, project) == []


def test_one_platform_of_several(cluster: Cluster, project: str, run: Command, tmp_path: Path) -> None:
    engine = RecordedEngine("docker29-containerd", tmp_path / "engine")
    fixture = archive("docker29-containerd", "tinyboth")
    engine_id = engine.add(ARCHIVES / fixture)
    name = known_as(fixture)
    ours = run("--project-uuid", project, name, env=engine.environment)
    theirs = run("--project-uuid", project, "--platform", "linux/aarch64", name, env=engine.environment)
    assert "warning" not in ours.stderr + theirs.stderr
    links = [hash_link(cluster, stored(result)) for result in (ours, theirs)]
    assert links[0][0] != links[1][0]
    assert [properties["arv:engine_image_id"] for _, properties in links] == [engine_id] * 2
    assert [properties["arv:platform"] for _, properties in links] == ["linux/amd64", "linux/arm64/v8"]
    # The Id alone does not tell which.
    saves(engine)
    assert run("--project-uuid", project, name, env=engine.environment).stdout == ours.stdout
    again = run("--project-uuid", project, "--platform", "linux/arm64", name, env=engine.environment)
    assert again.stdout == theirs.stdout
    assert saves(engine) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_a_platform_that_the_engine_does_not_have(project: str, run: Command, tmp_path: Path, profile: str) -> None:
    """Docker 29 describes it all the same, if the index names it."""
    image = "multi" if profile == "docker29-containerd" else "tiny"
    engine = RecordedEngine(profile, tmp_path / "engine", wrapper=profile == "podman4")
    fixture = archive(profile, image)
    engine.add(ARCHIVES / fixture)
    stored(run("--project-uuid", project, known_as(fixture), env=engine.environment))
    refused = run("--project-uuid", project, "--platform", "linux/arm64", known_as(fixture), env=engine.environment)
    assert (refused.status, refused.stdout) == (3, "")
    assert "for linux/arm64" in refused.stderr
    assert "--pull --platform linux/arm64" in refused.stderr
    stored(run("--project-uuid", project, "--platform", "linux/amd64", known_as(fixture), env=engine.environment))


def test_what_arvados_has_may_be_for_another_platform(project: str, run: Command, tmp_path: Path) -> None:
    engine = RecordedEngine("docker28", tmp_path / "engine")
    fixture = archive("docker28", "tiny")
    engine.add(ARCHIVES / fixture)
    name = known_as(fixture)
    stored(run("--project-uuid", project, name, env=engine.environment))
    empty = RecordedEngine("docker28", tmp_path / "empty")
    stored(run("--project-uuid", project, name, env=empty.environment))
    assert run("--project-uuid", project, "--platform", "linux/arm64", name, env=empty.environment).status == 3


def test_another_architecture_gets_a_warning(project: str, run: Command, tmp_path: Path) -> None:
    engine = RecordedEngine("docker28", tmp_path / "engine")
    fixture = archive("docker28", "tiny")
    engine.add(ARCHIVES / fixture, platforms=["linux/arm64"])
    shown = run("--project-uuid", project, known_as(fixture), env=engine.environment)
    stored(shown)
    assert "warning: the image is for linux/arm64" in shown.stderr


@pytest.mark.parametrize("profile", ["docker29-containerd", "docker25"])
def test_pull_of_a_platform(project: str, run: Command, tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine")
    fixture = archive(profile, "solo")
    name = known_as(fixture)
    engine.publish(ARCHIVES / fixture, name)
    words = ("--project-uuid", project, "--pull", "--platform", "linux/amd64")
    uuid = stored(run(*words, name, env=engine.environment))
    assert f"image pull --quiet --platform linux/amd64 {name}" in engine.calls()
    assert stored(run("--project-uuid", project, name, env=engine.environment)) == uuid
    refused = run(*words, name.replace("solo", "nosuch"), env=engine.environment)
    assert refused.status == 4
    assert "not found" in refused.stderr


def test_the_wrapper_that_makes_podman_a_docker(podman: Podman, project: str, run: Command, tmp_path: Path) -> None:
    """As Debian's package podman-docker has it."""
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
