"""Archives: any bytes are understood or refused, and what is understood is what the bytes say.

The first byte chooses between the bytes as they are, and an archive that is built as the bytes say: no fuzzer guesses
checksums and digests.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from arv_keepdocker import archive, repack, tarball
from arv_keepdocker.errors import ArchiveError
from arv_keepdocker.platforms import Platform
from tests import hostile

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
    announced: dict[int, int] = {}
    try:
        contents = tarball.scan(io.BytesIO(data), announced.__setitem__)
        assert contents.size == len(data)
        for file in contents.files.values():
            assert announced[file.offset] == file.size
            assert _sha256(data[file.offset : file.offset + file.size]) == file.sha256
        image = archive.find(contents, name, platform, layout=True)
        if archive.MANIFEST in contents.files:
            archive.loadable(contents, image)
    except ArchiveError as error:
        _check_message(error)
        return
    assert image.id == f"sha256:{_sha256(image.config)}"
    for layer in image.layers:
        assert contents.files[layer.name] == layer.file
        assert layer.file.compression or layer.diff_id == f"sha256:{layer.file.sha256}"
    for universal in (False, True):
        _check_repacked(data, image, universal)


def _check_message(error: ArchiveError) -> None:
    assert len(str(error)) < 5000


def _check_repacked(data: bytes, image: archive.Image, universal: bool) -> None:
    """What is made of an image is an archive of that image, on which there is nothing more to do."""
    made = repack.repack(image, "x:1", universal)
    whole = b"".join(
        part if isinstance(part, bytes) else data[part.offset : part.offset + part.size] for part in made.parts
    )
    assert len(whole) == made.size
    contents = tarball.scan(io.BytesIO(whole))
    again = archive.find(contents)
    assert again.id == made.image_id
    assert archive.loadable(contents, again)
    assert repack.is_universal(again) or not universal
    assert [layer.diff_id for layer in again.layers] == [layer.diff_id for layer in image.layers]
    assert universal or again.id == image.id


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
    plain = source.some()
    how = source.number(5)
    stored = [
        plain,
        gzip.compress(plain, mtime=0),
        b"\x28\xb5\x2f\xfd" + plain,
        gzip.compress(plain, mtime=0) * 2,
        plain,
    ][how]
    held = plain * 2 if how == 3 else plain if how < 2 else stored
    return stored, f"sha256:{_sha256(held)}"


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
