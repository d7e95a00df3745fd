"""--from-registry: from a real registry into Arvados."""

from __future__ import annotations

import base64
import gzip
import json
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.keep.block_sender import SLOTS
from arv_keepdocker.keep.locators import locators
from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, stored
from tests.engines import RUN, Engine, Registry
from tests.registries import DOCKER_LIST, OCI_INDEX, Exchange, Front, Repository, configuration, layer_tar, sha256
from tests.test_mistakes import RETRYING
from tests.test_registry_auth import HTPASSWD, PASSWORD

BIG = 4_400_000
"""Bytes of a layer that has blocks of its own."""


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    with Front(registry.host) as front:
        yield front


@pytest.fixture
def repository(registry: Registry) -> Repository:
    return Repository(registry.host, f"akd-{RUN}-{secrets.token_hex(3)}/tool")


@pytest.fixture
def layers() -> list[bytes]:
    return [layer_tar("base", images.noise(BIG)), layer_tar("tool", os.urandom(1000))]


def links(cluster: Cluster, uuid: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.api().links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]
    return sorted(found, key=lambda link: str(link["link_class"]))


def content(cluster: Cluster, uuid: str) -> str:
    return str(cluster.api().collections().get(uuid=uuid).execute()["portable_data_hash"])


def gets(front: Front) -> list[str]:
    return [request for request in front.asked if request.startswith("GET")]


def test_an_image_is_stored_as_if_an_engine_had_saved_it(
    run: Command, cluster: Cluster, project: str, registry: Registry, engine: Engine
) -> None:
    name = f"{registry.host}/{images.unique_name()}"
    image = images.build(engine.host, name, layers=[{"big": images.noise(BIG)}, {"small": os.urandom(100)}])
    engine.docker("push", name)
    words = ("--project-uuid", project, "--no-universal", "--force")
    from_registry = stored(run(*words, "--from-registry", name))
    from_engine = stored(run(*words, name))
    assert content(cluster, from_registry) == content(cluster, from_engine)
    by_class = {link["link_class"]: link for link in links(cluster, from_registry)}
    assert by_class["docker_image_hash"]["name"] == image.id
    assert by_class["docker_image_repo+tag"]["name"] == name
    assert by_class["docker_image_hash"]["properties"]["image_timestamp"] == image.created


def test_a_repeat_run_is_one_head(
    run: Command, cluster: Cluster, project: str, front: Front, repository: Repository, layers: list[bytes]
) -> None:
    name = f"{front.address}/{repository.path}"
    manifest = repository.image(layers, "v1")
    uuid = stored(run("--project-uuid", project, "--from-registry", f"{name}:v1"))
    assert links(cluster, uuid)[0]["properties"]["arv:engine_image_id"] == manifest["digest"]
    assert links(cluster, uuid)[0]["properties"]["arv:platform"] == "linux/amd64"
    assert len(links(cluster, uuid)) == 2
    front.log.clear()
    again = run("--project-uuid", project, "--from-registry", f"{name}:v1")
    assert stored(again) == uuid
    assert f"{name}:v1 is in Arvados already" in again.stderr
    assert front.asked == [f"HEAD /v2/{repository.path}/manifests/v1"] * len(front.asked)
    front.log.clear()
    assert stored(run("--project-uuid", project, "--from-registry", f"{name}@{manifest['digest']}")) == uuid
    assert front.asked == []


def test_the_next_version_fetches_its_new_layer_only(
    run: Command, cluster: Cluster, project: str, front: Front, repository: Repository, layers: list[bytes]
) -> None:
    name = f"{front.address}/{repository.path}"
    repository.image(layers, "v1")
    stored(run("--project-uuid", project, "--from-registry", f"{name}:v1"))
    front.log.clear()
    newer = [layers[0], layer_tar("tool", os.urandom(2000))]
    repository.image(newer, "v2")
    result = run("--project-uuid", project, "--from-registry", f"{name}:v2")
    uuid = stored(result)
    fetched = [request.rpartition("/")[2] for request in gets(front) if "/blobs/" in request]
    assert (
        sorted(fetched) == sorted([sha256(configuration(newer)), sha256(gzip.compress(newer[1]))]) or len(fetched) == 2
    )
    assert "0.0 MiB came from the registry" in result.stderr
    fresh = stored(run("--project-uuid", project, "--force", "--from-registry", f"{name}:v2"))
    assert content(cluster, fresh) == content(cluster, uuid)


def test_a_tag_that_has_moved(
    run: Command, project: str, front: Front, repository: Repository, layers: list[bytes]
) -> None:
    name = f"{front.address}/{repository.path}:latest"
    repository.image(layers, "latest")
    first = stored(run("--project-uuid", project, "--from-registry", name.removesuffix(":latest")))
    repository.image(layers[:1], "latest", created="2026-02-02T03:04:05Z")
    assert stored(run("--project-uuid", project, "--from-registry", name)) != first


@pytest.fixture
def versions(repository: Repository, layers: list[bytes]) -> tuple[str, str]:
    """The names of an image and of its next version."""
    repository.image(layers, "v1")
    repository.image([*layers, layer_tar("new", b"new")], "v2")
    name = f"{repository.host}/{repository.path}"
    return f"{name}:v1", f"{name}:v2"


def test_keep_fails_for_a_while_when_it_is_asked_for_layers(
    run: Command, sandbox: Sandbox, project: str, versions: tuple[str, str], tmp_path: Path
) -> None:
    """Layers that were sent from another machine are looked up in Keep."""
    words = ("--project-uuid", project, "--from-registry")
    stored(run(*words, versions[0]))
    sandbox.fault("status", service="keep", method="GET", status=503, times=2)
    sandbox.clear_requests()
    result = run(*words, versions[1], env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    stored(result)
    assert {match[1] for match in RETRYING.finditer(result.stderr)} == {"Keep answered 503"}
    assert sum(each["request_size"] for each in sandbox.requests() if each["method"] == "PUT") < BIG


def test_nobody_waits_for_keep_that_has_never_answered(
    run: Command, project: str, versions: tuple[str, str], tmp_path: Path
) -> None:
    words = ("--project-uuid", project, "--from-registry")
    stored(run(*words, versions[0]))
    nowhere = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "ARVADOS_KEEP_SERVICES": "http://nosuch.invalid/"}
    result = run(*words, versions[1], env=nowhere)
    assert result.status == 6
    assert "resolve" in result.stderr
    assert not RETRYING.search(result.stderr)


def test_keep_that_has_lost_the_end_of_an_image(
    run: Command,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    versions: tuple[str, str],
    tmp_path: Path,
) -> None:
    """Nothing of it is reused, and nobody waits."""
    words = ("--project-uuid", project, "--from-registry")
    uuid = stored(run(*words, versions[0]))
    text = cluster.api().collections().get(uuid=uuid).execute()["manifest_text"]
    assert sandbox.lose_block(list(locators([text]))[-1])
    result = run(*words, versions[1], env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    stored(result)
    assert not RETRYING.search(result.stderr)


def test_what_arvados_has_from_elsewhere_is_not_fetched(
    run: Command, cluster: Cluster, project: str, registry: Registry, engine: Engine, front: Front
) -> None:
    path = images.unique_name()
    name = f"{registry.host}/{path}"
    images.build(engine.host, name)
    engine.docker("push", name)
    uuid = stored(run("--project-uuid", project, "--no-universal", name))
    result = run("--project-uuid", project, "--from-registry", f"{front.address}/{path}")
    assert stored(result) == uuid
    assert sum("/blobs/" in request for request in front.asked) == 1
    front.log.clear()
    assert stored(run("--project-uuid", project, "--from-registry", f"{front.address}/{path}")) == uuid
    assert not gets(front)


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_platforms(
    run: Command, cluster: Cluster, project: str, front: Front, repository: Repository, kind: str
) -> None:
    name = f"{front.address}/{repository.path}"
    described = []
    for text in ("linux/arm64/v8", "linux/amd64"):
        platform: dict[str, Any] = dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))
        described.append({**repository.image([layer_tar("for", text.encode())], **platform), "platform": platform})
    repository.manifest({"schemaVersion": 2, "mediaType": kind, "manifests": described}, kind, "v1")
    words = ("--project-uuid", project, "--from-registry", f"{name}:v1")
    amd = stored(run(*words))
    arm = stored(run(*words, "--platform", "linux/arm64/v8"))
    assert amd != arm
    front.log.clear()
    assert stored(run(*words)) == amd
    assert stored(run(*words, "--platform", "linux/amd64")) == amd
    assert stored(run(*words, "--platform", "linux/arm64")) == arm
    digest = described[1]["digest"]
    assert stored(run("--project-uuid", project, "--from-registry", f"{name}@{digest}")) == amd
    assert not gets(front)
    missing = run(*words, "--platform", "linux/s390x")
    assert missing.status == 3
    assert f"image {name}:v1 exists for linux/arm64/v8, linux/amd64, but not for linux/s390x" in missing.stderr
    assert "Choose one with --platform, as in --platform linux/arm64/v8." in missing.stderr


def test_another_platform_alone(run: Command, project: str, front: Front, repository: Repository) -> None:
    repository.image([], "v1", architecture="arm64")
    words = ("--project-uuid", project, "--from-registry", f"{front.address}/{repository.path}:v1")
    result = run(*words)
    uuid = stored(result)
    assert "warning: the image is for linux/arm64" in result.stderr
    front.log.clear()
    assert stored(run(*words)) == uuid
    assert not gets(front)
    assert run(*words, "--platform", "linux/amd64").status == 3


def test_the_universal_form(
    run: Command, cluster: Cluster, project: str, front: Front, repository: Repository, layers: list[bytes]
) -> None:
    repository.image(layers, "v1")
    words = ("--project-uuid", project, "--from-registry", f"{front.address}/{repository.path}:v1")
    plain, universal = stored(run(*words)), stored(run(*words, "--universal"))
    assert plain != universal
    front.log.clear()
    assert stored(run(*words)) == plain
    assert stored(run(*words, "--universal")) == universal
    assert stored(run(*words, env={"ARV_KEEPDOCKER_UNIVERSAL": "1"})) == universal
    assert not gets(front)


def test_a_dry_run_fetches_no_layer(
    run: Command, cluster: Cluster, project: str, front: Front, repository: Repository, layers: list[bytes]
) -> None:
    name = f"{front.address}/{repository.path}"
    repository.image(layers[:1], "v1", None)
    stored(run("--project-uuid", project, "--from-registry", f"{name}:v1"))
    repository.image(layers, "v2", None)
    front.log.clear()
    result = run("--dry-run", "--project-uuid", project, "--from-registry", f"{name}:v2")
    assert result.status == 7
    lines = result.stdout.splitlines()
    assert lines[0] == f"image {sha256(configuration(layers))} ({name}:v2): not in Arvados"
    assert lines[1] == f"layer {sha256(layers[0])}: {len(layers[0])} bytes, known"
    assert lines[2] == f"layer {sha256(layers[1])}: {len(layers[1])} bytes, new"
    assert lines[-1] == f"{len(layers[1])} bytes would be sent"
    assert [request for request in gets(front) if "/blobs/" in request] == [
        f"GET /v2/{repository.path}/blobs/{sha256(configuration(layers))}"
    ]
    done = run("--dry-run", "--project-uuid", project, "--from-registry", f"{name}:v1")
    assert (done.status, "in Arvados, in" in done.stdout) == (0, True)


def test_no_such_image(run: Command, cluster: Cluster, project: str, registry: Registry) -> None:
    before = cluster.api().collections().list(limit=0).execute()["items_available"]
    result = run("--project-uuid", project, "--from-registry", f"{registry.host}/bio/nothing")
    assert (result.status, result.stdout) == (3, "")
    assert "has no image bio/nothing:latest, or you may not see it" in result.stderr
    assert cluster.api().collections().list(limit=0).execute()["items_available"] == before


def test_nobody_answers(run: Command, project: str) -> None:
    with Front() as front:
        address = front.address
    result = run("--project-uuid", project, "--from-registry", f"{address}/bio/tool")
    assert (result.status, result.stdout) == (4, "")
    assert f"{address} refuses connections" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_image_leaves_nothing(
    run: Command, cluster: Cluster, project: str, repository: Repository, layers: list[bytes]
) -> None:
    repository.image(layers, "v1", lambda data: gzip.compress(data)[:-5])
    result = run("--project-uuid", project, "--from-registry", f"{repository.host}/{repository.path}:v1")
    assert (result.status, result.stdout) == (5, "")
    assert "is broken" in result.stderr
    owned = [["owner_uuid", "=", project]]
    assert cluster.api().collections().list(filters=owned).execute()["items"] == []
    assert cluster.api().links().list(filters=owned).execute()["items"] == []


def test_a_connection_that_breaks(
    run: Command, cluster: Cluster, project: str, front: Front, repository: Repository
) -> None:
    layers = [layer_tar("big", images.noise(3 * BIG))]
    repository.image(layers, "v1", None)
    cut: set[str] = set()

    def rule(exchange: Exchange) -> bool:
        if not exchange.path.endswith(sha256(layers[0])) or exchange.path in cut:
            return False
        cut.add(exchange.path)
        status, headers, body = exchange.forward()
        return exchange.reply(status, headers, body, len(body) // 2)

    front.rules.append(rule)
    result = run("--project-uuid", project, "--from-registry", f"{front.address}/{repository.path}:v1")
    stored(result)
    assert (
        f"the connection to {front.address} was lost; trying again in 1 s (1 of" in result.stderr
        or "bytes of blob" in result.stderr
    )
    assert any(headers.get("Range", "").startswith("bytes=") for _, _, headers in front.log)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("helper", [False, True])
def test_credentials_of_docker_login(
    run: Command, project: str, tmp_path: Path, layers: list[bytes], helper: bool
) -> None:
    with Registry(HTPASSWD) as registry:
        Repository(registry.host, "bio/tool", ("me", PASSWORD)).image(layers, "v1")
        words = ("--project-uuid", project, "--from-registry", f"{registry.host}/bio/tool:v1")
        without = run(*words)
        assert without.status == 3
        assert f"docker login {registry.host}" in without.stderr
        entry: dict[str, Any] = {
            "auths": {registry.host: {"auth": base64.b64encode(f"me:{PASSWORD}".encode()).decode()}}
        }
        environment = {"DOCKER_CONFIG": str(tmp_path / "config")}
        if helper:
            program = tmp_path / "docker-credential-test"
            program.write_text(f"""#!/bin/sh\necho '{{"Username": "me", "Secret": "{PASSWORD}"}}'\n""")
            program.chmod(0o755)
            entry = {"credHelpers": {registry.host: "test"}}
            environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "config.json").write_text(json.dumps(entry))
        result = run(*words, env=environment)
        stored(result)
        assert PASSWORD not in result.stderr
        entry = {"auths": {registry.host: {"auth": base64.b64encode(b"me:wrong-pass-word").decode()}}}
        (tmp_path / "config" / "config.json").write_text(json.dumps(entry))
        wrong = run(*words, env=environment)
        assert wrong.status == 3
        assert "It was asked with the credentials from" in wrong.stderr
        assert "wrong-pass-word" not in wrong.stderr


def test_no_engine_is_needed(
    run: Command, project: str, repository: Repository, layers: list[bytes], tmp_path: Path
) -> None:
    repository.image(layers, "v1")
    name = f"{repository.host}/{repository.path}:v1"
    without = {"PATH": str(tmp_path)}
    hint = "With --from-registry, no engine is needed."
    for options in ((), ("--force",), ("--pull",), ("--via-push",)):
        failed = run("--project-uuid", project, *options, name, env=without)
        assert failed.status == 4
        assert hint in failed.stderr
    for words in (("--via-arv-put", name), (f"sha256:{'0' * 64}",)):
        assert hint not in run("--project-uuid", project, *words, env=without).stderr
    stored(run("--project-uuid", project, "--from-registry", name, env=without))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from-registry",), "--from-registry is for storing an image, and there is no IMAGE"),
        (("--from-registry", "images"), "--from-registry is for storing an image, and 'images' lists"),
        (("--from-registry", "--pull", "x"), "--pull is for images of an engine, --from-registry for those of a reg"),
        (("--from-registry", "--from-archive", "y", "x"), "--from-archive cannot be used with --from-registry"),
        (("--from-registry", "--engine", "podman", "x"), "--engine is for images of an engine, --from-registry"),
        (("--from-registry", "--via-arv-put", "x"), "--from-registry cannot be used with --via-arv-put"),
        (("--insecure-registry", "x"), "--insecure-registry is for --from-registry"),
        (("--from-registry", "sha256:1234"), "sha256:1234 is an id, and registries know images only by name"),
        (("--from-registry", "a" * 64), "is an id, and registries know images only by name"),
        (("--from-registry", "x", "--limit", "3"), "--limit is for listing images"),
    ],
)
def test_wrong_usage(run: Command, words: tuple[str, ...], message: str) -> None:
    result = run(*words)
    assert (result.status, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_the_registry_says_nothing(
    run: Command, project: str, front: Front, repository: Repository, layers: list[bytes], number: int
) -> None:
    repository.image(layers, "v1")
    config = sha256(configuration(layers))
    asked, ended = threading.Event(), threading.Event()

    def rule(exchange: Exchange) -> bool:
        if not exchange.is_blob or exchange.path.endswith(config):
            return False
        asked.set()
        ended.wait(60)
        exchange.drop()
        return True

    front.rules.append(rule)
    process = run.start("--project-uuid", project, "--from-registry", f"{front.address}/{repository.path}:v1")
    assert asked.wait(60)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    ended.set()
    assert (process.returncode, out) == (128 + number, "")
    assert "Traceback" not in err


def test_killed_and_started_again(
    run: Command, sandbox: Sandbox, cluster: Cluster, project: str, front: Front, repository: Repository
) -> None:
    layers = [layer_tar(str(number), images.noise(BIG)) for number in range(16)]
    repository.image(layers, "v1", None)
    last = sha256(layers[-1])
    words = ("--project-uuid", project, "--from-registry", f"{front.address}/{repository.path}:v1")

    def kill(exchange: Exchange) -> bool:
        if exchange.path.endswith(last):
            process.kill()
            exchange.drop()
            return True
        return False

    front.rules.append(kill)
    process = run.start(*words)
    process.wait(100)
    front.rules.clear()
    front.log.clear()
    stored(run(*words))
    fetched = {request.rpartition("/")[2] for request in gets(front)} & set(map(sha256, layers))
    assert last in fetched
    assert len(fetched) <= SLOTS + 2  # those that were being fetched, and those whose blocks were being sent
