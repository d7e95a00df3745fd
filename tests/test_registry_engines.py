"""Images that real engines have pushed come from the registry as the engines saved them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images
from tests.engines import RUN, Engine, Podman, Registry
from tests.test_registry import look


@pytest.fixture
def name(registry: Registry) -> str:
    return f"{registry.host}/akd-{RUN}-{secrets.token_hex(3)}:v1"


@pytest.fixture
def pushed_by_docker(engine: Engine, name: str) -> Iterator[images.Image]:
    image = images.build(engine.host, name, layers=[{"base": b"x" * 100_000}, {"tool": secrets.token_bytes(3000)}])
    engine.docker("push", name)
    yield image
    engine.forget(name)


def test_pushed_by_docker(registry: Registry, name: str, pushed_by_docker: images.Image) -> None:
    run = look(registry.host, name.split("/")[1].split(":")[0])
    image = run.deliver()
    assert image.id == pushed_by_docker.id
    assert [layer.diff_id for layer in image.layers] == pushed_by_docker.diff_ids
    assert image.created == pushed_by_docker.created


def test_by_the_digest_that_docker_shows(
    registry: Registry, engine: Engine, name: str, pushed_by_docker: images.Image
) -> None:
    described = json.loads(engine.docker("image", "inspect", name))[0]
    digest = next(each for each in described["RepoDigests"] if each.startswith(registry.host)).partition("@")[2]
    path = name.split("/")[1].split(":")[0]
    assert look(registry.host, path, digest).deliver().id == pushed_by_docker.id
    assert look(registry.host, path).source.head() == digest


@pytest.mark.parametrize(("form", "compression"), [("oci", "gzip"), ("oci", "zstd"), ("v2s2", "gzip")])
def test_pushed_by_podman(
    registry: Registry, podman: Podman, tmp_path: Path, name: str, form: str, compression: str
) -> None:
    with (tmp_path / "image.tar").open("wb") as stream:
        image = images.write_archive(stream, name, layers=[{"a": b"a" * 5000}, {"b": secrets.token_bytes(2000)}])
    podman.run("load", "--input", str(tmp_path / "image.tar"))
    podman.run("push", "--tls-verify=false", "--format", form, "--compression-format", compression, name)
    delivered = look(registry.host, name.split("/")[1].split(":")[0]).deliver()
    assert [layer.diff_id for layer in delivered.layers] == image.diff_ids
    assert form == "oci" or delivered.id == image.id
