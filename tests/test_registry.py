"""Images straight from a registry: what is asked, fetched, checked and refused; faults in the middle."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from arv_keepdocker.errors import ArchiveError, ImageNotFoundError, KeepdockerError, RegistryError
from arv_keepdocker.images import compression
from arv_keepdocker.images.image import Image, Selection
from arv_keepdocker.images.layers import Layer
from arv_keepdocker.images.platform import Platform
from arv_keepdocker.sources.registry.client import RegistryClient
from arv_keepdocker.sources.registry.registry_source import RegistrySource
from arv_keepdocker.sources.registry.repository_name import RepositoryName
from arv_keepdocker.sources.registry.transport import Transport
from arv_keepdocker.terminal import display
from arv_keepdocker.terminal.display import Display
from tests.engines import Registry
from tests.registries import (
    DOCKER_LIST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Exchange,
    Front,
    Repository,
    Rule,
    configuration,
    layer_tar,
    once,
    packed,
    sha256,
)


@dataclass
class Sink:
    """Keeps the layers."""

    known: dict[str, Layer] = field(default_factory=dict)
    layers: dict[str, bytes] = field(default_factory=dict)
    abandoned: int = 0
    open: int = 0
    most_open: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def has(self, diff_id: str) -> Layer | None:
        return self.known.get(diff_id)

    def begin(self) -> Writer:
        with self.lock:
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        return Writer(self)


class Writer:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._data = io.BytesIO()
        self._ended = False

    def write(self, data: bytes) -> None:
        self._data.write(data)

    def finish(self) -> Layer:
        data = self._data.getvalue()
        layer = Layer(sha256(data), len(data))
        with self._sink.lock:
            self._sink.open -= 1
            self._sink.layers[layer.diff_id] = data
        self._ended = True
        return layer

    def abandon(self) -> None:
        assert not self._ended
        with self._sink.lock:
            self._sink.abandoned += 1


@dataclass
class Run:
    """One look at a registry, and what was said of it."""

    source: RegistrySource
    sink: Sink
    shown: io.StringIO

    def deliver(self) -> Image:
        return self.source.deliver(self.sink, Selection())

    @property
    def said(self) -> str:
        return self.shown.getvalue()


def look(
    host: str,
    path: str,
    reference: str = "v1",
    platform: str | None = None,
    retries: int = 3,
    insecure: bool = False,
    silence: float = 20,
    certificates: tuple[str, ...] = (),
) -> Run:
    shown = io.StringIO()
    transport = Transport(Display(shown), retries, insecure, certificates, silence, first_wait=0.01)
    client = RegistryClient(RepositoryName(host, path), transport)
    wanted = Platform.parse(platform) if platform is not None else None
    return Run(RegistrySource(client, reference, wanted), Sink(), shown)


@pytest.fixture
def repository(registry: Registry, request: pytest.FixtureRequest) -> Repository:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    return Repository(registry.host, f"bio/{name}"[:100].rstrip("-"))


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    with Front(registry.host) as front:
        yield front


@pytest.fixture(scope="module")
def layers() -> list[bytes]:
    """Always the same: each test has a repository and a sink of its own."""
    return [layer_tar("base", os.urandom(3_000_000)), layer_tar("tool", os.urandom(1000) * 100)]


def check(run: Run, layers: list[bytes], **config: object) -> Image:
    """The image comes whole."""
    image = run.deliver()
    assert image.id == sha256(configuration(layers, **config))
    assert [layer.diff_id for layer in image.layers] == list(map(sha256, layers))
    assert run.sink.layers == {sha256(layer): layer for layer in layers}
    assert run.sink.abandoned == run.sink.open == 0 or run.sink.abandoned == run.sink.open
    return image


# What an image looks like.


@pytest.mark.parametrize("oci", [True, False], ids=["oci", "docker"])
@pytest.mark.parametrize("compress", [None, gzip.compress, lambda data: packed(data[:5000]) + packed(data[5000:])])
def test_an_image_comes_as_it_is(
    repository: Repository, layers: list[bytes], oci: bool, compress: Callable[[bytes], bytes] | None
) -> None:
    manifest = repository.image(layers, "v1", compress, oci)
    run = look(repository.host, repository.path)
    assert run.source.head() == manifest["digest"]
    image = check(run, layers)
    assert image.digests == (manifest["digest"],)
    assert image.platform == Platform("linux", "amd64")
    assert image.created == "2026-01-02T03:04:05Z"
    assert run.said == ""


def test_a_look_is_one_head(front: Front, repository: Repository, layers: list[bytes]) -> None:
    manifest = repository.image(layers, "v1")
    assert look(front.address, repository.path).source.head() == manifest["digest"]
    assert front.asked == [f"HEAD /v2/{repository.path}/manifests/v1"]
    front.log.clear()
    assert look(front.address, repository.path, manifest["digest"]).source.head() == manifest["digest"]
    assert front.asked == []


def test_a_description_fetches_no_layer(front: Front, repository: Repository, layers: list[bytes]) -> None:
    repository.image(layers, "v1")
    description = look(front.address, repository.path).source.describe()
    assert [layer.diff_id for layer in description.layers] == list(map(sha256, layers))
    blobs = [request for request in front.asked if "/blobs/" in request]
    assert blobs == [f"GET /v2/{repository.path}/blobs/{sha256(description.config)}"]


def test_what_is_there_is_not_fetched(front: Front, repository: Repository, layers: list[bytes]) -> None:
    repository.image(layers, "v1")
    run = look(front.address, repository.path)
    known = Layer(sha256(layers[0]), len(layers[0]))
    run.sink.known[known.diff_id] = known
    image = run.deliver()
    assert image.layers[0] is known
    assert list(run.sink.layers) == [sha256(layers[1])]
    assert not any(sha256(packed(layers[0])) in request for request in front.asked)
    assert run.source.fetched < len(layers[0])


def test_a_layer_that_occurs_twice_is_fetched_once(front: Front, repository: Repository, layers: list[bytes]) -> None:
    twice = [layers[1], layers[0], layers[1]]
    repository.image(twice, "v1", None)
    run = look(front.address, repository.path)
    image = run.deliver()
    assert [layer.diff_id for layer in image.layers] == list(map(sha256, twice))
    assert sum(sha256(layers[1]) in request for request in front.asked) == 1


def test_an_image_without_layers(repository: Repository) -> None:
    repository.image([], "v1")
    check(look(repository.host, repository.path), [])


def test_a_layer_with_no_decoder_stays_as_it_is(
    repository: Repository, layers: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    magic = b"\x28\xb5\x2f\xfd"
    frame = magic + bytes([0x20, 3, 0x19, 0, 0]) + b"abc"  # RFC 8878: one raw block of three bytes
    if compression.can_unpack("zstd"):
        pytest.skip("there is a decoder")
    config = repository.blob(configuration([b"abc"]), OCI_CONFIG)
    blob = repository.blob(frame, f"{OCI_LAYER}+zstd")
    repository.manifest({"schemaVersion": 2, "config": config, "layers": [blob]}, OCI_MANIFEST, "v1")
    image = look(repository.host, repository.path).deliver()
    assert image.layers == (Layer(sha256(b"abc"), len(frame), sha256(frame), "zstd"),)


# Several platforms.


def index_of(
    repository: Repository, *descriptors: dict[str, Any], kind: str = OCI_INDEX, tag: str = "v1"
) -> dict[str, Any]:
    content = {"schemaVersion": 2, "mediaType": kind, "manifests": list(descriptors)}
    return repository.manifest(content, kind, tag)


def for_platform(repository: Repository, layers: list[bytes], text: str, told: bool = True) -> dict[str, Any]:
    platform: dict[str, Any] = dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))
    descriptor = repository.image(layers, **platform)
    return {**descriptor, "platform": platform} if told else descriptor


INDEXED = {
    name: [layer_tar("for", name.encode())]
    for name in ("windows/amd64", "linux/arm/v7", "linux/arm/v6", "linux/arm64/v8", "linux/amd64")
}


@pytest.fixture(scope="module")
def indexed(registry: Registry) -> Callable[[bool, bool], tuple[Repository, dict[str, Any], dict[str, str]]]:
    """Gives a repository that has an index of INDEXED's images; the index's descriptor and the images' digests."""

    @functools.cache
    def made(told: bool, nested: bool) -> tuple[Repository, dict[str, Any], dict[str, str]]:
        repository = Repository(registry.host, f"bio/index-{int(told)}-{int(nested)}")
        manifests = [for_platform(repository, layers, name, told) for name, layers in INDEXED.items()]
        attestation = {
            **repository.image([layer_tar("provenance", b"")]),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        }
        if nested:
            inner = index_of(repository, *manifests[2:], kind=DOCKER_LIST, tag="inner")
            top = index_of(repository, attestation, *manifests[:2], inner)
        else:
            top = index_of(repository, attestation, *manifests)
        digests = {name: manifest["digest"] for name, manifest in zip(INDEXED, manifests, strict=True)}
        return repository, top, digests

    return made


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, "linux/amd64"),
        ("linux/amd64", "linux/amd64"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("windows/amd64", "windows/amd64"),
    ],
)
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_the_platform_of_an_index(
    indexed: Callable[[bool, bool], tuple[Repository, dict[str, Any], dict[str, str]]],
    wanted: str | None,
    expected: str,
    told: bool,
    nested: bool,
) -> None:
    repository, top, digests = indexed(told, nested)
    run = look(repository.host, repository.path, platform=wanted)
    assert run.source.head() == top["digest"]
    image = run.deliver()
    assert str(image.platform) == expected
    assert image.layers[0].diff_id == sha256(INDEXED[expected][0])
    assert image.digests == (digests[expected], top["digest"])


def test_a_platform_that_is_not_there(repository: Repository) -> None:
    index_of(repository, *(for_platform(repository, [], name) for name in ("linux/arm64", "linux/s390x")))
    with pytest.raises(ImageNotFoundError, match=r"exists for linux/arm64, linux/s390x, but not for linux/amd64"):
        look(repository.host, repository.path).deliver()


def test_an_image_alone_for_another_platform(repository: Repository, layers: list[bytes]) -> None:
    repository.image(layers, "v1", architecture="arm64")
    assert str(look(repository.host, repository.path).deliver().platform) == "linux/arm64"
    with pytest.raises(ImageNotFoundError, match="is for linux/arm64, not for linux/amd64"):
        look(repository.host, repository.path, platform="linux/amd64").deliver()


def test_indexes_that_are_too_deep(repository: Repository) -> None:
    descriptor = for_platform(repository, [], "linux/amd64")
    for number in range(10):
        descriptor = index_of(repository, descriptor, tag=f"v{number}")
    with pytest.raises(ArchiveError, match="indexes in indexes"):
        look(repository.host, repository.path, "v9").deliver()


# What is no image.


def manifest_of(config: dict[str, Any], *layers: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": list(layers), **more}


def served(front: Front, body: bytes, media_type: str = OCI_MANIFEST) -> None:
    """The front has this for a manifest, which the registry would not take."""

    def manifest(exchange: Exchange) -> bool:
        if "/manifests/" not in exchange.path:
            return False
        exchange.reply(200, {"Content-Type": media_type, "Docker-Content-Digest": sha256(body)}, body)
        return True

    front.rules.append(manifest)


HELM = "application/vnd.cncf.helm.config.v1+json"
BLOB = {"mediaType": OCI_LAYER, "digest": f"sha256:{'0' * 64}", "size": 1}
CONFIG = {"mediaType": OCI_CONFIG, "digest": f"sha256:{'0' * 64}", "size": 1}
NO_IMAGES = {
    "schema 1": ({"schemaVersion": 1, "name": "x", "fsLayers": [], "history": []}, "schema 1"),
    "artifact": (
        manifest_of(CONFIG, artifactType="application/vnd.example"),
        "image, but 'application/vnd.example'",
    ),
    "chart": (manifest_of({**CONFIG, "mediaType": HELM}), f"not a container image, but '{HELM}'"),
    "foreign": (manifest_of(CONFIG, {**BLOB, "urls": ["https://example.com/x"]}), "foreign layer, sha256:0000"),
    "in-toto": (
        manifest_of(CONFIG, {**BLOB, "mediaType": "application/vnd.in-toto+json"}),
        "not a tar, but 'app",
    ),
    "encrypted": (
        manifest_of(CONFIG, {**BLOB, "mediaType": f"{OCI_LAYER}+gzip+encrypted"}),
        "tar+gzip+encrypted",
    ),
    "both": (manifest_of(CONFIG, manifests=[]), "neither an image nor an index"),
    "neither": ({"schemaVersion": 2}, "neither an image nor an index"),
    "other": (
        manifest_of(CONFIG) | {"mediaType": "application/vnd.oci.artifact.manifest.v1+json"},
        "not a container image",
    ),
    "digest": (manifest_of({**CONFIG, "digest": "sha256:../../etc/passwd"}), "without a sha256 digest"),
    "sha512": (manifest_of({**CONFIG, "digest": f"sha512:{'0' * 128}"}), "without a sha256 digest"),
    "size": (manifest_of({**CONFIG, "size": -1}), "size and type"),
    "size 2": (manifest_of({**CONFIG, "size": "1"}), "size and type"),
    "config": (manifest_of({**CONFIG, "size": 1 << 40}), "more than 4 MiB"),
    "two configs": (manifest_of(CONFIG, Config=CONFIG), "'config' twice"),
    "no config": ({"schemaVersion": 2, "layers": []}, "without a sha256 digest"),
    "list": ([], "not a JSON object"),
    "many": (manifest_of(CONFIG, *[BLOB] * 1001), "more than 1000 layers"),
    "null": (manifest_of(CONFIG, None), "without a sha256 digest"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_refused_by_name(front: Front, name: str) -> None:
    content, message = NO_IMAGES[name]
    served(front, json.dumps(content).encode())
    with pytest.raises(ArchiveError) as caught:
        look(front.address, "bio/thing").deliver()
    assert message in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"layers": NaN}'])
def test_a_manifest_that_is_not_json(front: Front, body: bytes) -> None:
    served(front, body)
    with pytest.raises(ArchiveError, match=r"not JSON|not a JSON|more than"):
        look(front.address, "bio/thing").deliver()


def test_a_manifest_that_is_too_long(front: Front) -> None:
    served(front, b" " * (5 << 20))
    with pytest.raises(RegistryError, match="sent a document of more than 4096 KiB"):
        look(front.address, "bio/thing").deliver()


def test_a_configuration_of_other_layers(repository: Repository, layers: list[bytes]) -> None:
    config = repository.blob(configuration(layers), OCI_CONFIG)
    blob = repository.blob(layers[0], OCI_LAYER)
    for blobs, message in ([blob], "has 2 layers, its manifest 1"), ([blob, blob], "it is not the configuration's"):
        repository.manifest(manifest_of(config, *blobs), OCI_MANIFEST, "v1")
        run = look(repository.host, repository.path)
        with pytest.raises(ArchiveError, match=message):
            run.deliver()


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:100] + b"x" * 50 + data[150:]])
def test_a_layer_that_cannot_be_unpacked(
    repository: Repository, layers: list[bytes], damage: Callable[[bytes], bytes]
) -> None:
    repository.image(layers, "v1", lambda data: damage(gzip.compress(data)))
    run = look(repository.host, repository.path)
    with pytest.raises(ArchiveError, match="is broken: gzip data is cut short or damaged"):
        run.deliver()


# What is not there, or not for everyone.


@pytest.mark.parametrize("status", [401, 403, 404])
def test_no_image_or_not_for_us(front: Front, status: int) -> None:
    body = json.dumps({"errors": [{"code": "NAME_UNKNOWN", "message": "repository name not known"}]}).encode()
    front.rules.append(lambda exchange: exchange.reply(status, {}, body))
    with pytest.raises(ImageNotFoundError) as caught:
        look(front.address, "bio/thing").deliver()
    assert str(caught.value) == (
        f"{front.address} has no image bio/thing:v1, or you may not see it: NAME_UNKNOWN: repository name not known"
    )
    assert (
        caught.value.hint == f"If it is private, log in: docker login {front.address}, or podman login {front.address}"
    )


def test_an_image_that_a_real_registry_does_not_have(repository: Repository, layers: list[bytes]) -> None:
    with pytest.raises(ImageNotFoundError, match=r"or you may not see it: .*NAME_UNKNOWN|MANIFEST_UNKNOWN"):
        look(repository.host, repository.path).deliver()
    repository.image(layers, "v1")
    with pytest.raises(ImageNotFoundError, match=r"has no image .*:v2, or you may not see it: MANIFEST_UNKNOWN"):
        look(repository.host, repository.path, "v2").deliver()
    with pytest.raises(ImageNotFoundError, match=f"has no image {repository.path}@sha256:0000"):
        look(repository.host, repository.path, f"sha256:{'0' * 64}").deliver()


@pytest.mark.parametrize("how", ["no HEAD", "no digest", "odd digest"])
def test_a_registry_that_does_not_tell_the_digest(
    front: Front, repository: Repository, layers: list[bytes], how: str
) -> None:
    manifest = repository.image(layers, "v1")

    def rule(exchange: Exchange) -> bool:
        if exchange.is_blob:
            return False
        if how == "no HEAD" and exchange.method == "HEAD":
            exchange.reply(405)
            return True
        status, headers, body = exchange.forward()
        del headers["Docker-Content-Digest"]
        exchange.reply(status, headers | ({"Docker-Content-Digest": "md5:1"} if how == "odd digest" else {}), body)
        return True

    front.rules.append(rule)
    run = look(front.address, repository.path)
    assert run.source.head() == manifest["digest"]
    check(run, layers)


# Faults.


def blobs_only(act: Callable[[Exchange], object]) -> Rule:
    def rule(exchange: Exchange) -> bool:
        if not exchange.is_blob:
            return False
        act(exchange)
        return True

    return rule


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("where", ["HEAD", "manifest", "config", "layer"])
def test_a_status_that_passes(
    front: Front, repository: Repository, layers: list[bytes], status: int, where: str
) -> None:
    repository.image(layers, "v1")
    config = sha256(configuration(layers))
    places: dict[str, Callable[[Exchange], bool]] = {
        "HEAD": lambda exchange: exchange.method == "HEAD",
        "manifest": lambda exchange: exchange.method == "GET" and not exchange.is_blob,
        "config": lambda exchange: exchange.path.endswith(config),
        "layer": lambda exchange: exchange.is_blob and not exchange.path.endswith(config),
    }
    front.rules.append(once(lambda exchange: places[where](exchange) and exchange.reply(status), 2))
    run = look(front.address, repository.path)
    check(run, layers)
    words = f"{front.address} answered {status}"
    assert run.said.count(words) == 2
    assert "trying again in 0 s (1 of 3)" in run.said


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_status_that_stays(front: Front, repository: Repository, layers: list[bytes], status: int) -> None:
    repository.image(layers, "v1")
    front.rules.append(blobs_only(lambda exchange: exchange.reply(status)))
    run = look(front.address, repository.path, retries=2)
    with pytest.raises(RegistryError, match=rf"answered {status} \(.*\) \(tried 3 times\)"):
        run.deliver()


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 418, 501])
def test_a_status_that_is_final(front: Front, repository: Repository, layers: list[bytes], status: int) -> None:
    repository.image(layers, "v1")
    front.rules.append(blobs_only(lambda exchange: exchange.reply(status)))
    run = look(front.address, repository.path)
    with pytest.raises(RegistryError, match=rf"does not send blob sha256:.*: it answered {status}"):
        run.deliver()
    assert "trying again" not in run.said


@pytest.mark.parametrize("stage", ["before", "headers", "first", "half", "last"])
def test_a_connection_that_is_cut(front: Front, repository: Repository, layers: list[bytes], stage: str) -> None:
    repository.image(layers, "v1")
    seen: set[str] = set()

    def cut(exchange: Exchange) -> bool:
        if f"{exchange.method} {exchange.path}" in seen:
            return False
        seen.add(f"{exchange.method} {exchange.path}")
        if stage == "before":
            exchange.drop()
            return True
        status, headers, body = exchange.forward()
        cuts = {"headers": 0, "first": 1, "half": len(body) // 2, "last": len(body) - 1}
        return exchange.method == "GET" and exchange.reply(status, headers, body, cuts[stage])

    front.rules.append(cut)
    run = look(front.address, repository.path)
    check(run, layers)
    if stage == "half":
        assert any("Range" in headers for _, _, headers in front.log)


def test_a_connection_that_is_cut_again_and_again(front: Front, repository: Repository, layers: list[bytes]) -> None:
    """As long as there is progress, it goes on."""
    repository.image(layers, "v1", None)

    def cut(exchange: Exchange) -> None:
        status, headers, body = exchange.forward()
        exchange.reply(status, headers, body, min(len(body), 1_100_000))

    front.rules.append(blobs_only(cut))
    run = look(front.address, repository.path, retries=1)
    check(run, layers)


def test_no_progress_is_the_end(front: Front, repository: Repository, layers: list[bytes]) -> None:
    repository.image(layers, "v1")

    def cut(exchange: Exchange) -> None:
        status, headers, body = exchange.forward()
        exchange.reply(status, headers, body, min(len(body) - 1, 100))

    front.rules.append(blobs_only(cut))
    run = look(front.address, repository.path, retries=2)
    with pytest.raises(RegistryError, match=r"was lost|sent \d+ of"):
        run.deliver()
    assert "(2 of 2)" in run.said


@pytest.mark.parametrize("how", ["ignored", "416", "wrong start", "no range", "wrong total", "earlier", "star"])
def test_ranges_that_go_wrong(front: Front, repository: Repository, layers: list[bytes], how: str) -> None:
    repository.image(layers, "v1")

    def rule(exchange: Exchange) -> None:
        asked = exchange.header("Range")
        if asked is None and front.log.count(front.log[-1]) < 2:
            status, headers, body = exchange.forward()
            exchange.reply(status, headers, body, len(body) // 2)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked is not None else 0
        exchange.handler.headers.replace_header("Range", "bytes=0-") if asked else None
        _, headers, body = exchange.forward()
        headers.pop("Content-Range", None)
        size = len(body)
        answers = {
            "416": (416, {}, b""),
            "wrong start": (206, {"Content-Range": f"bytes {start + 5}-{size - 1}/{size}"}, body[start + 5 :]),
            "no range": (206, {}, body[start:]),
            "wrong total": (206, {"Content-Range": f"bytes {start}-{size - 1}/{size + 1}"}, body[start:]),
            "earlier": (206, {"Content-Range": f"bytes {start - 5}-{size - 1}/{size}"}, body[start - 5 :]),
            "star": (206, {"Content-Range": f"bytes {start}-{size - 1}/*"}, body[start:]),
        }
        if asked is None or how == "ignored":
            exchange.reply(200, {}, body)
        else:
            exchange.reply(*answers[how])

    front.rules.append(blobs_only(rule))
    run = look(front.address, repository.path)
    check(run, layers)


@pytest.mark.parametrize("what", ["bytes", "longer", "shorter", "other length", "empty"])
def test_a_blob_that_is_another(front: Front, repository: Repository, layers: list[bytes], what: str) -> None:
    repository.image(layers, "v1")

    def rule(exchange: Exchange) -> None:
        if exchange.path.endswith(sha256(configuration(layers))):
            exchange.reply(*exchange.forward())
            return
        _, _, body = exchange.forward()
        changed = bytearray(body)
        changed[len(body) // 2] ^= 1
        bodies = {
            "bytes": bytes(changed),
            "longer": body + b"x",
            "shorter": body[:-1],
            "other length": body,
            "empty": b"",
        }
        data = bodies[what]
        chunked = f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n" if data else b"0\r\n\r\n"
        if what in ("longer", "shorter", "empty"):
            exchange.reply(200, {"Transfer-Encoding": "chunked"}, chunked)
        elif what == "other length":
            exchange.reply(200, {"Content-Length": str(len(body) + 1)}, body, len(body))
        else:
            exchange.reply(200, {}, data)

    front.rules.append(blobs_only(rule))
    run = look(front.address, repository.path, retries=1)
    with pytest.raises(RegistryError) as caught:
        run.deliver()
    assert caught.value.exit_status == 4
    assert not run.sink.layers


def test_wrong_bytes_once_are_fetched_again(front: Front, repository: Repository, layers: list[bytes]) -> None:
    repository.image(layers, "v1")

    def rule(exchange: Exchange) -> bool:
        if not exchange.is_blob or exchange.path.endswith(sha256(configuration(layers))):
            return False
        _, _, body = exchange.forward()
        exchange.reply(200, {}, bytes(len(body)))
        return True

    front.rules.append(once(rule))
    run = look(front.address, repository.path)
    run.deliver()
    assert run.sink.layers == {sha256(layer): layer for layer in layers}


@pytest.mark.parametrize("what", ["manifest", "digest", "config"])
def test_a_document_that_is_another(front: Front, repository: Repository, layers: list[bytes], what: str) -> None:
    repository.image(layers, "v1")

    def rule(exchange: Exchange) -> bool:
        config = exchange.path.endswith(sha256(configuration(layers)))
        if exchange.method == "HEAD" or config != (what == "config"):
            return False
        status, headers, body = exchange.forward()
        if what == "digest":
            headers["Docker-Content-Digest"] = f"sha256:{'1' * 64}"
        exchange.reply(status, headers, body if what == "digest" else body.replace(b"a", b"b"))
        return True

    front.rules.append(rule)
    with pytest.raises(RegistryError, match="sent something other than"):
        look(front.address, repository.path).deliver()


def test_a_server_that_says_nothing(front: Front, repository: Repository, layers: list[bytes]) -> None:
    repository.image(layers, "v1")
    release = threading.Event()
    seen: set[str] = set()

    def rule(exchange: Exchange) -> bool:
        if not exchange.is_blob or exchange.path in seen:
            return False
        seen.add(exchange.path)
        _, headers, body = exchange.forward()
        exchange.reply(200, headers, body[: len(body) // 2])
        exchange.handler.wfile.flush()
        release.wait(20)
        exchange.drop()
        return True

    front.rules.append(rule)
    run = look(front.address, repository.path, silence=1, retries=10)
    check(run, layers)
    assert "does not answer" in run.said


def test_a_download_that_stands_still_is_told(
    front: Front, repository: Repository, layers: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "_PATIENCE", 0.5)
    repository.image(layers, "v1")
    config = sha256(configuration(layers))
    run = look(front.address, repository.path)
    said = threading.Event()
    write = run.shown.write

    def shown(text: str) -> int:
        if text.endswith(f"waiting for {front.address}\n"):
            said.set()
        return write(text)

    monkeypatch.setattr(run.shown, "write", shown)

    def rule(exchange: Exchange) -> bool:
        if not exchange.is_blob or exchange.path.endswith(config):
            return False
        status, headers, body = exchange.forward()
        exchange.reply(status, headers)
        exchange.handler.wfile.write(body[: len(body) // 2])
        exchange.handler.wfile.flush()
        assert said.wait(20)
        exchange.handler.wfile.write(body[len(body) // 2 :])
        return True

    front.rules.append(rule)
    check(run, layers)
    assert said.is_set()
    assert "trying again" not in run.said


def test_retry_after_is_obeyed_and_bounded(front: Front, repository: Repository, layers: list[bytes]) -> None:
    repository.image(layers, "v1")
    front.rules.append(once(lambda exchange: exchange.is_blob and exchange.reply(429, {"Retry-After": "1"})))
    run = look(front.address, repository.path)
    check(run, layers)
    assert "answered 429 (Too Many Requests); trying again in 1 s (1 of 3)" in run.said
    limits = {"Retry-After": "21600", "RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}
    front.rules[:] = [lambda exchange: exchange.reply(429, limits)]
    with pytest.raises(RegistryError) as caught:
        look(front.address, repository.path).deliver()
    assert str(caught.value) == (
        f"{front.address} answered 429 (Too Many Requests), 0 of 100 downloads left, and asks to wait for 21600 s"
    )
    assert "Log in for a higher limit" in str(caught.value.hint)


# Other servers.


def test_nobody_answers() -> None:
    with Front() as front:
        address = front.address
    with pytest.raises(RegistryError, match=f"{address} refuses connections"):
        look(address, "bio/thing").deliver()
    with pytest.raises(RegistryError, match=r"the host registry\.invalid was not found"):
        look("registry.invalid", "bio/thing").deliver()


def test_plain_http_only_on_this_machine(front: Front) -> None:
    """The address is this machine's, and its name does not say so."""
    port = front.address.rpartition(":")[2]
    with pytest.raises(RegistryError) as caught:
        look(f"0.0.0.0:{port}", "bio/thing", retries=0).deliver()
    assert "--insecure-registry" in str(caught.value.hint)
    assert front.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_blob_that_is_elsewhere(front: Front, repository: Repository, layers: list[bytes], status: int) -> None:
    repository.image(layers, "v1")
    with Front(repository.host) as store:
        front.rules.append(
            blobs_only(
                lambda exchange: exchange.reply(
                    status, {"Location": f"http://{store.address}{exchange.path}?X-Signature=swordfish"}
                )
            )
        )
        check(look(front.address, repository.path), layers)
        assert len(store.asked) == 3


@pytest.mark.parametrize(
    "target",
    ["ftp://example.com/x", "file:///etc/passwd", "http://192.0.2.1/x", "http://", "//", "https://[::1", "\x00"],
)
def test_a_redirect_that_is_not_safe(front: Front, repository: Repository, layers: list[bytes], target: str) -> None:
    repository.image(layers, "v1")
    front.rules.append(blobs_only(lambda exchange: exchange.reply(307, {"Location": target})))
    with pytest.raises(RegistryError):
        look(front.address, repository.path, retries=0).deliver()


def test_a_redirect_in_a_circle(front: Front, repository: Repository, layers: list[bytes]) -> None:
    repository.image(layers, "v1")
    front.rules.append(blobs_only(lambda exchange: exchange.reply(307, {"Location": exchange.path})))
    with pytest.raises(RegistryError, match="redirects more than 5 times"):
        look(front.address, repository.path).deliver()


def test_a_failed_blob_store_is_named_without_its_signature(
    front: Front, repository: Repository, layers: list[bytes]
) -> None:
    repository.image(layers, "v1")
    with Front() as store:
        address = store.address
    front.rules.append(
        blobs_only(lambda exchange: exchange.reply(307, {"Location": f"http://{address}/x?X-Signature=swordfish"}))
    )
    run = look(front.address, repository.path)
    with pytest.raises(KeepdockerError) as caught:
        run.deliver()
    assert address in str(caught.value)
    assert "swordfish" not in str(caught.value) + run.said


def test_two_layers_at_a_time(front: Front, repository: Repository) -> None:
    layers = [layer_tar(str(number), os.urandom(1000)) for number in range(6)]
    repository.image(layers, "v1")
    together = threading.Barrier(2)
    config = sha256(configuration(layers))

    def rule(exchange: Exchange) -> bool:
        if exchange.is_blob and not exchange.path.endswith(config):
            together.wait(20)
        return False

    front.rules.append(rule)
    check(look(front.address, repository.path), layers)
