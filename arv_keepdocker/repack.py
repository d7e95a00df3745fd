"""A new archive around the layers of an old one.

The layers stay as they are, base first; all that is small is written again after them. The result has nothing of the
engine that saved the image, so that the same image gives the same bytes.

It is an OCI image layout and a docker-archive at once, in the plain form or in the universal one: there a single JSON
document is both the image's manifest and its configuration, so that its digest is the image's id on engines that know
an image by the one and on those that know it by the other (measured on Docker 20.10, 25, 28, 29 with both image stores
and podman 4.3). Either specification lets readers ignore the members that they do not know.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .archive import Image, Layer, parse_json, sha256
from .errors import ArchiveError

_BLOCK = 512
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Extent:
    """Bytes of the old archive."""

    offset: int
    size: int


@dataclass(frozen=True)
class Repacked:
    """The new archive: its parts, one after the other, and the image's id in it."""

    image_id: str
    parts: tuple[bytes | Extent, ...]

    @property
    def size(self) -> int:
        return sum(part.size if isinstance(part, Extent) else len(part) for part in self.parts)

    @property
    def fingerprint(self) -> str:
        """Tells archives of the same image apart, which may differ in its name; letters and digits."""
        return hashlib.sha256(b"".join(part for part in self.parts if isinstance(part, bytes))).hexdigest()[:16]


def repack(image: Image, name: str | None, universal: bool) -> Repacked:
    """The archive of the one image, called `name` (`repo:tag`) if that is given, in the universal form or the plain.

    Raises ArchiveError where the image's configuration has what cannot be written.
    """
    layers = {layer.file.sha256: layer for layer in image.layers}
    document = _universal(image) if universal else _plain(image)
    config = document if universal else image.config
    names = [name] if name is not None and "@" not in name else []
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEX,
        "manifests": [_descriptor(_MANIFEST, document) | _annotations(names)],
    }
    listing = [
        {
            "Config": _path(sha256(config)),
            "RepoTags": names or None,
            "Layers": [_path(f"sha256:{layer.file.sha256}") for layer in image.layers],
        }
    ]
    small = {
        **{_path(sha256(blob)): blob for blob in (document, image.config)},
        "index.json": _json(index),
        "manifest.json": _json(listing),
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
    }
    return Repacked(sha256(config), tuple(_joined(_members(layers.values(), small))))


def is_universal(image: Image) -> bool:
    """Whether the image's configuration is its manifest, too, as it is made here."""
    document: dict[str, Any] = parse_json(image.config, "the image's configuration")
    layers = list(map(_layer_descriptor, image.layers))
    return bool(document.get("mediaType") == _MANIFEST and document.get("layers") == layers)


def _universal(image: Image) -> bytes:
    document = parse_json(image.config, "the image's configuration")
    settings = document.get("config")
    described = _descriptor(_CONFIG, image.config)
    document["schemaVersion"] = 2
    document["mediaType"] = _MANIFEST
    document["config"] = {**(settings if isinstance(settings, dict) else {}), **described}
    document["layers"] = [_layer_descriptor(layer) for layer in image.layers]
    return _json(document)


def _plain(image: Image) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, image.config),
            "layers": [_layer_descriptor(layer) for layer in image.layers],
        }
    )


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(blob), "size": len(blob)}


def _layer_descriptor(layer: Layer) -> dict[str, Any]:
    compression = f"+{layer.file.compression}" if layer.file.compression is not None else ""
    return {"mediaType": _LAYER + compression, "digest": f"sha256:{layer.file.sha256}", "size": layer.file.size}


def _annotations(names: list[str]) -> dict[str, Any]:
    """How containerd finds an image's name; without one it is loaded nameless, as what docker saves by its id."""
    if not names:
        return {}
    return {
        "annotations": {
            "io.containerd.image.name": _full_name(names[0]),
            "org.opencontainers.image.ref.name": names[0].rpartition(":")[2],
        }
    }


def _full_name(name: str) -> str:
    """The name with its registry: containerd knows no other."""
    first, slash, _ = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(document: object) -> bytes:
    try:
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:  # 1e999 reads as infinity, which JSON cannot write
        raise ArchiveError(f"the image's configuration cannot be written again: {error}") from error
    return text.encode("utf-8", "surrogatepass")


def _members(layers: Iterable[Layer], small: dict[str, bytes]) -> Iterator[bytes | Extent]:
    for directory in ("blobs", "blobs/sha256"):
        yield _header(directory, 0, tarfile.DIRTYPE, 0o755)
    for layer in layers:
        yield _header(_path(f"sha256:{layer.file.sha256}"), layer.file.size)
        yield Extent(layer.file.offset, layer.file.size)
        yield bytes(-layer.file.size % _BLOCK)
    for name, data in small.items():
        yield _header(name, len(data)) + data + bytes(-len(data) % _BLOCK)
    yield bytes(2 * _BLOCK)


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.mode = size, kind, mode
    return member.tobuf(tarfile.GNU_FORMAT)  # which knows sizes of 8 GiB and more


def _joined(parts: Iterable[bytes | Extent]) -> Iterator[bytes | Extent]:
    """Neighbouring bytes made one."""
    pending = b""
    for part in parts:
        if isinstance(part, bytes):
            pending += part
        else:
            yield pending
            yield part
            pending = b""
    yield pending
