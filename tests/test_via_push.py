"""The engine pushes: the same is stored as by saving, only what Arvados lacks is asked for, and nothing is left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine, Podman
from tests.test_failures import DockerThat, cached
from tests.test_streaming import MIB, layers, sent

SAVES = "saves image"


def content(cluster: Cluster, uuid: str) -> str:
    """The collection's portable data hash."""
    return str(cluster.api().collections().get(uuid=uuid).execute()["portable_data_hash"])


def names(engine: Engine) -> list[str]:
    """All names and digests of this engine's images, and ids of those that have none."""
    listed = engine.docker("images", "--all", "--no-trunc", "--digests", "--format", "{{json .}}")
    return sorted(
        " ".join(json.loads(line)[key] for key in ("ID", "Repository", "Tag", "Digest")) for line in listed.splitlines()
    )


def pushed(result: Result) -> str:
    """The UUID, of what the engine did push."""
    assert SAVES not in result.stderr, result.stderr
    return stored(result)


@pytest.mark.parametrize("sizes", [(0.1,), (4, 0.5, 5, 0.01), (70,)], ids=["small", "some", "large"])
def test_the_same_is_stored_as_by_saving(
    engine: Engine, cluster: Cluster, project: str, run: Command, tmp_path: Path, sizes: tuple[float, ...]
) -> None:
    image = images.build(engine.host, layers=[*layers(*sizes), {"zeros": bytes(5 * MIB)}])
    before = names(engine)
    by_pushing = pushed(run("--project-uuid", project, "--via-push", image.name))
    assert names(engine) == before
    assert cached(tmp_path) == []
    by_saving = stored(run("--project-uuid", project, "--force", image.name))
    assert content(cluster, by_pushing) == content(cluster, by_saving)


def test_the_universal_form(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    image = images.build(engine.host, layers=layers(0.1, 4.5))
    words = ("--project-uuid", project, "--universal", image.name)
    by_pushing = pushed(run("--via-push", *words))
    assert content(cluster, by_pushing) == content(cluster, stored(run("--force", *words)))


def test_a_layer_that_looks_like_a_document(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    """Uncompressed, it begins with its first file's name."""
    image = images.build(engine.host, layers=[{"{": b"x"}, {'{"a": 1}': os.urandom(6 * MIB)}])
    by_pushing = pushed(run("--project-uuid", project, "--via-push", image.name))
    assert content(cluster, by_pushing) == content(
        cluster, stored(run("--project-uuid", project, "--force", image.name))
    )


def test_only_what_arvados_lacks_is_asked_for(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    base = layers(5, 0.2, 6)
    first = images.build(engine.host, layers=base)
    second = images.build(engine.host, f"{first.name.partition(':')[0]}:v2", layers=[*base, *layers(4.5)])
    pushed(run("--project-uuid", project, "--via-push", first.name))
    sandbox.clear_requests()
    said = tmp_path / "said"
    watched = docker_that(f'if [ "$2" = push ]; then real "$@" | tee -a {said}; else real "$@"; fi')
    pushed(run("--project-uuid", project, "--via-push", second.name, env=watched))
    assert said.read_text().count("Layer already exists") == 3
    assert 4.5 * MIB < sum(sent(sandbox)) < 5.5 * MIB


def test_an_engine_is_always_told_the_same_address(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    """It remembers each with the layers, and forgets older ones for it; but the tag is another."""
    said = tmp_path / "said"
    watched = docker_that(f'[ "$2" != push ] || echo "$@" >> {said}; real "$@"')
    for _ in range(2):
        pushed(run("--project-uuid", project, "--via-push", images.build(engine.host).name, env=watched))
    one, other = said.read_text().splitlines()
    assert one.rpartition(":")[0] == other.rpartition(":")[0]
    assert one != other


@pytest.mark.parametrize("named", [True, False], ids=["with a name", "without a name"])
def test_by_id(engine: Engine, cluster: Cluster, project: str, run: Command, named: bool) -> None:
    image = images.build(engine.host, layers=layers(0.1))
    if not named:
        # Where a name goes to another image, it is taken from this one.
        images.build(engine.host, image.name)
    before = names(engine)
    uuid = pushed(run("--project-uuid", project, "--via-push", image.id))
    assert names(engine) == before
    assert content(cluster, uuid) == content(cluster, stored(run("--project-uuid", project, "--force", image.id)))


def test_without_a_name_on_an_engine_that_imports_only_whole_archives(
    engine: Engine, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    """Docker 29 takes no empty file for an archive, older ones do now and then."""
    image = images.build(engine.host, layers=layers(0.1))
    images.build(engine.host, image.name)
    before = names(engine)
    given = tmp_path / "given"
    keeps = f"cat >{given}; [ -s {given} ] || exit 1; exec <{given}"
    checks = f'if [ "$2" = import ]; then {keeps}; fi; real "$@"'
    result = run("--project-uuid", project, "--via-push", image.id, env=docker_that(checks))
    pushed(result)
    assert "is left in" not in result.stderr
    assert given.exists()
    assert names(engine) == before


def test_podman(cluster: Cluster, podman: Podman, project: str, run: Command, tmp_path: Path) -> None:
    with (tmp_path / "image.tar").open("wb") as file:
        image = images.write_archive(file, layers=[*layers(0.1, 4.5), {"zeros": bytes(MIB)}])
    podman.run("load", "--input", str(tmp_path / "image.tar"))
    before = podman.run("images", "--all", "--format", "json")
    words = ("--engine", str(podman.program), "--project-uuid", project, f"localhost/{image.name}")
    by_pushing = pushed(run("--via-push", *words))
    assert podman.run("images", "--all", "--format", "json") == before
    assert content(cluster, by_pushing) == content(cluster, stored(run("--force", *words)))


def test_the_variable(engine: Engine, cluster: Cluster, project: str, run: Command, docker_that: DockerThat) -> None:
    no_save = {**docker_that('[ "$2" != save ] || exit 1; real "$@"'), "ARV_KEEPDOCKER_VIA_PUSH": "1"}
    stored(run("--project-uuid", project, images.build(engine.host).name, env=no_save))
    assert run("--project-uuid", project, "--no-via-push", images.build(engine.host).name, env=no_save).status == 4
    assert run("x", env={"ARV_KEEPDOCKER_VIA_PUSH": "perhaps"}).status == 2


@pytest.mark.parametrize("words", [("--from-archive", "x"), ("--via-arv-put", "x")])
def test_what_it_cannot_mean(run: Command, words: tuple[str, ...]) -> None:
    result = run("--via-push", *words)
    assert (result.status, result.stdout) == (2, "")
    assert "--via-push" in result.stderr


# Where it cannot be: the image is saved

FAILURES = {
    "refused": ('if [ "$2" = push ]; then echo "dial tcp 127.0.0.1: connection refused" >&2; exit 1; fi', "refused"),
    "nothing": ('[ "$2" != push ] || exit 0', "could not push"),
    "no tag": ('if [ "$2" = tag ]; then echo "no tags here" >&2; exit 1; fi', "no tags here"),
    "elsewhere": ('[ "$1" != context ] || { echo ssh://elsewhere; exit; }', "another machine"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_saved_where_it_cannot_be_pushed(
    engine: Engine, cluster: Cluster, project: str, run: Command, docker_that: DockerThat, tmp_path: Path, kind: str
) -> None:
    script, words = FAILURES[kind]
    image = images.build(engine.host, layers=layers(0.1, 4.2))
    before = names(engine)
    environment = {"DOCKER_HOST": engine.host, **docker_that(f'{script}\nexport DOCKER_HOST={engine.host}; real "$@"')}
    if kind == "elsewhere":
        environment["DOCKER_HOST"] = None
    result = run("--project-uuid", project, "--via-push", image.name, env=environment)
    uuid = stored(result)
    (line,) = [line for line in result.stderr.splitlines() if SAVES in line]
    assert words in line
    assert names(engine) == before
    assert cached(tmp_path) == []
    assert content(cluster, uuid) == content(cluster, stored(run("--project-uuid", project, "--force", image.name)))


def test_a_push_that_stops_in_the_middle(
    engine: Engine, cluster: Cluster, project: str, run: Command, docker_that: DockerThat
) -> None:
    """What it has begun to take does not keep it from saving."""
    image = images.build(engine.host, layers=layers(30, 30, 30))
    dies = docker_that('if [ "$2" = push ]; then real "$@" & sleep 1; kill $!; exit 1; fi; real "$@"')
    uuid = stored(run("--project-uuid", project, "--via-push", image.name, env=dies))
    assert content(cluster, uuid) == content(cluster, stored(run("--project-uuid", project, "--force", image.name)))


def test_keep_that_is_down_ends_it(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, tmp_path: Path
) -> None:
    image = images.build(engine.host, layers=layers(4.2))
    before = names(engine)
    sandbox.fault("status", status=503, service="keep", method="PUT", times=None)
    result = run("--project-uuid", project, "--retries", "0", "--via-push", image.name)
    assert result.status == 6, result.stderr
    assert SAVES not in result.stderr
    assert names(engine) == before
    assert cached(tmp_path) == []
