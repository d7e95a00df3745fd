"""Archives: any bytes are understood or refused, and what is understood is what the bytes say.

The first byte chooses between the bytes as they are, and an archive that is built as the bytes say: no fuzzer guesses
checksums and digests.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from arv_keepdocker.errors import ArchiveError
from arv_keepdocker.images import archive, canonical
from arv_keepdocker.images.image import Image, Selection
from arv_keepdocker.images.layers import Layer, LayerWriter
from arv_keepdocker.images.platform import Platform
from tests import hostile, odd

T = TypeVar("T")

_NAMES = ["a", "layer.tar", "config.json", "manifest.json", "index.json", "d/a", "../a", "/a", "./a", "blobs/sha256"]
_KEYS = ["Config", "Layers", "RepoTags", "rootfs", "diff_ids", "manifests", "layers", "config", "digest", "annotations"]
_TAGS = ["x:1", "docker.io/library/x:1", "x:2", "localhost/x:1", "X", "", "a\nb", "--force", "x"]
_PAX = ["path", "linkpath", "size", "hdrcharset", "comment", "GNU.sparse.major", "mtime", "SCHILY.xattr.user.a"]


def check(data: bytes) -> None:
    if data[:1] < b"\x10":
        _check_archive(data[1:], name=None, platform=None)
    else:
        source = _Bytes(data[1:])
        name, platform = source.choice([None, "x:1", "x:3"]), source.choice([None, Platform("linux", "amd64")])
        _check_archive(_built(source), name, platform)


def _check_archive(data: bytes, name: str | None, platform: Platform | None) -> None:
    sink = _Sink()
    try:
        image = archive.read_image(io.BytesIO(data), sink, Selection(name, platform))
    except ArchiveError as error:
        _check_message(error)
        assert sink.open == 0
        return
    assert sink.open == 0
    assert image.id == f"sha256:{_sha256(image.config)}"
    for layer in image.layers:
        held = sink.layers[layer.stored_digest]
        assert (len(held), layer.stored_digest) == (layer.size, f"sha256:{_sha256(held)}")
        assert layer.compression or layer.diff_id == layer.stored_digest
    for universal in (False, True):
        _check_written(image, sink, universal)


def _check_message(error: ArchiveError) -> None:
    assert len(str(error)) < 5000
    assert str(error).isprintable()


def _check_written(image: Image, sink: _Sink, universal: bool) -> None:
    """What is written of an image is an archive of that image, on which there is nothing more to do."""
    try:
        made = canonical.arrange(image, universal)
    except ArchiveError as error:
        _check_message(error)
        return
    units = [
        canonical.unit_header(layer) + sink.layers[layer.stored_digest] + bytes(canonical.padding(layer.size))
        for segment in made.segments
        for layer in segment.layers
    ]
    again = archive.read_image(io.BytesIO(b"".join([*units, made.end])), _Sink(), Selection())
    assert again.id == made.image_id
    assert [layer.diff_id for layer in again.layers] == [layer.diff_id for layer in image.layers]
    assert canonical.arrange(again, made.universal) == made


class _Sink:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.layers: dict[str, bytes] = {}
        self.open = 0

    def has(self, diff_id: str) -> Layer | None:
        return None

    def begin(self) -> LayerWriter:
        self.open += 1
        return _Writer(self)


class _Writer:
    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self._data = b""
        self._ended = False

    def write(self, data: bytes) -> None:
        assert not self._ended
        self._data += data

    def finish(self) -> Layer:
        assert not self._ended
        self.abandon()
        layer = Layer(f"sha256:{_sha256(self._data)}", len(self._data))
        self._sink.layers[layer.diff_id] = self._data
        return layer

    def abandon(self) -> None:
        self._sink.open -= not self._ended
        self._ended = True


class _Bytes:
    """The fuzzer's bytes, as decisions; when they have come to their end, always the first possibility."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, limit: int) -> int:
        return int.from_bytes(self.take(1 if limit <= 256 else 2), "big") % limit

    def choice(self, values: Sequence[T]) -> T:
        return values[self.number(len(values))]

    def some(self) -> bytes:
        return self.take(self.number(64))


def _built(source: _Bytes) -> bytes:
    layers = [_layer(source) for _ in range(source.number(4))]
    paths = [
        source.choice([f"blobs/sha256/{_sha256(data)}", f"{number}.tar"]) for number, (data, _) in enumerate(layers)
    ]
    configuration = json.dumps(_configuration(source, [diff_id for _, diff_id in layers])).encode()
    config = source.choice([f"{_sha256(configuration)}.json", f"blobs/sha256/{_sha256(configuration)}", "config.json"])
    members = [hostile.member(path, data) for path, (data, _) in zip(paths, layers, strict=True)]
    members.append(hostile.member(config, configuration))
    members += _documents(source, config, configuration, paths, layers)
    for _ in range(source.number(8)):
        _edit(source, members)
    whole = b"".join(members) + hostile.END
    if source.number(8) == 7:
        return whole[: source.number(65536)]
    return whole


def _layer(source: _Bytes) -> tuple[bytes, str]:
    plain = source.choice([hostile.member("f", source.some()) + hostile.END, hostile.END, source.some(), b"{}", b""])
    compress = source.choice(list(_COMPRESSIONS))
    stored = compress(plain)
    if source.number(8) == 7:
        stored *= 2
    if source.number(8) == 7:
        stored = stored[: source.number(len(stored) + 1)]
    return stored, f"sha256:{_sha256(plain)}"


_COMPRESSIONS: Sequence[Callable[[bytes], bytes]] = (
    bytes,
    lambda data: gzip.compress(data, mtime=0),
    bz2.compress,
    lzma.compress,
    odd.zstd,
)


def _configuration(source: _Bytes, diff_ids: list[str]) -> Any:
    document: dict[str, Any] = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}}
    for _ in range(source.number(4)):
        document[source.choice([*_KEYS, "os", "architecture", "variant", "created", "history"])] = _json(source, 3)
    return document if source.number(32) != 31 else _json(source, 3)


def _documents(
    source: _Bytes, config: str, configuration: bytes, paths: list[str], layers: list[tuple[bytes, str]]
) -> list[bytes]:
    """manifest.json, or index.json and what it names."""
    documents: list[bytes] = []
    which = source.number(4)
    if which != 1:
        entry: Any = {"Config": config, "Layers": paths, "RepoTags": [source.choice(_TAGS)]}
        for _ in range(source.number(3)):
            entry[source.choice(_KEYS)] = _json(source, 3)
        listing = [entry] * source.choice([1, 1, 1, 2, 0])
        documents.append(hostile.member("manifest.json", json.dumps(listing).encode()))
    if which != 0:
        described = [hostile.descriptor(data) for data, _ in layers]
        manifest: Any = {"config": hostile.descriptor(configuration), "layers": described}
        for _ in range(source.number(3)):
            manifest[source.choice(_KEYS)] = _json(source, 3)
        documents += _index(source, json.dumps(manifest).encode())
    return documents


def _index(source: _Bytes, blob: bytes) -> list[bytes]:
    documents: list[bytes] = []
    for last in [False] * source.number(6) + [True]:
        documents.append(hostile.member(f"blobs/sha256/{_sha256(blob)}", blob))
        key = source.choice(
            ["io.containerd.image.name", "org.opencontainers.image.ref.name", "vnd.docker.reference.type"]
        )
        named = hostile.descriptor(blob, annotations={key: source.choice(_TAGS)})
        more = [_json(source, 2) for _ in range(source.number(2))]
        blob = json.dumps({"manifests": [named] * (1 + source.number(3)) + more}).encode()
        if last:
            documents.append(hostile.member("index.json", blob))
    return documents


def _json(source: _Bytes, depth: int) -> Any:
    kind = source.number(10 if depth else 6)
    if kind < 6:
        text = source.some().decode("utf-8", "surrogateescape") if kind == 5 else ""
        return [None, 0, 1e9, "sha256:" + "0" * 64, source.choice(_NAMES + _TAGS), text][kind]
    if kind < 8:
        return [_json(source, depth - 1) for _ in range(source.number(4))]
    return {source.choice(_KEYS): _json(source, depth - 1) for _ in range(source.number(4))}


def _edit(source: _Bytes, members: list[bytes]) -> None:
    at = source.number(len(members) + 1)
    what = source.number(8)
    if what < 5:
        members.insert(at, _extra(source, what))
    elif at < len(members) and what == 5:
        del members[at]
    elif at < len(members) and what == 6:
        members.insert(source.number(len(members)), members[at])
    elif at < len(members):
        members[at] = _changed(source, members[at])


def _extra(source: _Bytes, what: int) -> bytes:
    name = source.choice([*_NAMES, ""]) or source.some()
    if what == 0:
        records = [
            (source.choice(_PAX), source.choice([b"a", b"", b"5", b"512", source.some()]))
            for _ in range(source.number(4))
        ]
        return hostile.pax(*records, kind=source.choice([b"x", b"g"]))
    if what == 1:
        return hostile.member("pax", source.some(), source.choice([b"x", b"g", b"L", b"K"]))
    if what == 2:
        return hostile.header(name, source.number(2), source.choice([b"1", b"2"]), source.choice(_NAMES))
    if what == 3:
        return hostile.header(name, 0, source.take(1) or b"5", raw_size=source.take(12) if source.number(2) else None)
    return hostile.member(name, source.some(), source.choice([b"0", b"\0", b"7", b"5"]))


def _changed(source: _Bytes, member: bytes) -> bytes:
    """With another byte, and in a header with the checksum that fits."""
    at = source.number(min(len(member), 65536))
    changed = member[:at] + source.take(1) + member[at + 1 :]
    if len(changed) < 512 or at >= 512:
        return changed
    block = changed[:148] + b" " * 8 + changed[156:512]
    return changed[:148] + b"%06o\0 " % sum(block) + changed[156:]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
