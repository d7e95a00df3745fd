"""The canonical archive, which is what is stored of an image: the same bytes wherever the image came from.

Form 1 has the layers, each once, base first, uncompressed, under `blobs/sha256/` and their diff ids; then the
documents; then the end. All members have the same fixed header fields, and there are no image names, times, owners or
directories. It is both a docker-archive and an OCI image layout, in one of two forms:

- plain: the documents are the configuration and a manifest;
- universal: they are the configuration and the *universal document*, one JSON object that is both a manifest and a
  configuration. Its digest is the image's id on engines that know images by their manifests as well as on those that
  know them by their configurations. Both specifications tell readers to ignore members that they do not know (measured
  on Docker 20.10, 25, 28, 29 with both image stores, and on podman 4.3).

A layer's *unit* is its tar header, its bytes and their padding. Units are cut into blocks so that a layer has the same
blocks in every image (see `Segment`). The documents and the end are the last block, of a few kilobytes, which tells
what the archive holds and where.

Arvados reuses a container's results only if the image has the same portable data hash. So any change of these bytes, or
of how they are cut, is a new form with a new number. Tests contain the digests of this one.
"""

import base64
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..errors import ArchiveError
from .image import UNIVERSAL_OF, Image
from .layers import Layer, sha256
from .media_types import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST

FORM = 1
BLOCK_SIZE = 64 << 20
"""Bytes of the largest block that Keep accepts."""
OWN_BLOCKS = 4 << 20
"""Bytes from which on a unit has blocks of its own.

For images with many layers, 1 MiB would make half as many blocks again, to send 7 MiB less of a next version; 16 MiB
would save few blocks, and send small bases again (`python -m tests.bench.threshold`).
"""
HEADER = 512
"""Bytes of a member's header; content is padded to a multiple of it."""
_EMBEDDED_LIMIT = 1 << 20
"""Bytes of the largest configuration that the universal document carries."""
_OF_MANIFESTS = {"schemaversion", "mediatype", "artifacttype", "config", "layers", "subject", "annotations"}
"""The members of a manifest (OCI image specification), in lower case, because Go ignores case."""
_OF_DESCRIPTORS = {"mediatype", "digest", "size", "urls", "annotations", "data", "platform", "artifacttype"}


@dataclass(frozen=True)
class Segment:
    """Units that are cut together: one unit of `OWN_BLOCKS` or more, or smaller ones that follow each other.

    Small units are packed because each block costs readers of the image a request, and the scheduler reserves 64 MiB
    of scratch space for it.
    """

    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes of its units."""
        return sum(map(unit_size, self.layers))

    @property
    def blocks(self) -> list[int]:
        """The sizes of its blocks, in bytes."""
        size = self.size
        return [min(BLOCK_SIZE, size - start) for start in range(0, size, BLOCK_SIZE)]


@dataclass(frozen=True)
class Arrangement:
    """An image's canonical archive, without the layers' bytes."""

    image_id: str
    """The id under which an engine finds the image after loading the archive."""
    universal: bool
    segments: tuple[Segment, ...]
    end: bytes
    """The last block: the documents and the tar's end."""

    @property
    def config(self) -> bytes:
        """The configuration; in the universal form, the one that the document was made from."""
        return next(_read_members(self.end))[1]

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return sum(segment.size for segment in self.segments) + len(self.end)


def arrange(image: Image, universal: bool) -> Arrangement:
    """The archive of an image, in the universal or the plain form.

    An image whose configuration is a universal document stays universal. Raises ArchiveError if the configuration has
    a value that JSON cannot express.
    """
    original = _original(image, universal)
    if original is not None:
        return _arranged(original, image.layers, universal=True)
    return _arranged(image.config, image.layers, universal)


def unit_size(layer: Layer) -> int:
    """Bytes of the layer's unit."""
    return HEADER + layer.size + padding(layer.size)


def padding(size: int) -> int:
    """Bytes of zeros after a member of `size` bytes."""
    return -size % HEADER


def unit_header(layer: Layer) -> bytes:
    """The tar header with which the layer's unit begins."""
    return _header(_path(layer.stored_digest), layer.size)


def segments(layers: Iterable[Layer]) -> tuple[Segment, ...]:
    """The segments of an image's layers, base first. A layer that occurs twice is stored once, in its first place."""
    found: list[Segment] = []
    different = {layer.stored_digest: layer for layer in layers}.values()
    for small, group in groupby(different, lambda layer: unit_size(layer) < OWN_BLOCKS):
        together = tuple(group)
        found += [Segment(together)] if small else [Segment((layer,)) for layer in together]
    return tuple(found)


def parse(end: bytes, blocks: Sequence[int]) -> Arrangement | None:
    """The canonical archive whose last block is `end` and whose blocks have these sizes, in order.

    None unless `end` is, byte for byte, what `arrange` makes.
    """
    try:
        return _parsed(end, blocks)
    except (
        ArchiveError,
        ArithmeticError,
        LookupError,
        RecursionError,
        StopIteration,
        tarfile.TarError,
        TypeError,
        ValueError,
    ):
        return None


def _parsed(end: bytes, blocks: Sequence[int]) -> Arrangement | None:
    members = _read_members(end)
    config, document = next(members)[1], next(members)[1]
    manifest = json.loads(document)
    diff_ids = json.loads(config)["rootfs"]["diff_ids"]
    layers = [_layer_of(*pair) for pair in zip(manifest["layers"], diff_ids, strict=True)]
    found = _arranged(config, layers, universal="rootfs" in manifest)
    sizes = [size for segment in found.segments for size in segment.blocks]
    return found if found.end == end and [*sizes, len(end)] == list(blocks) else None


def _arranged(config: bytes, layers: Sequence[Layer], universal: bool) -> Arrangement:
    document = _universal(config, layers) if universal else _manifest(config, layers)
    image_id = sha256(document if universal else config)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_descriptor(OCI_MANIFEST, document)]}
    listing = {
        "Config": _path(image_id),
        "RepoTags": None,
        "Layers": [_path(layer.stored_digest) for layer in layers],
    }
    members = {
        _path(sha256(config)): config,
        _path(sha256(document)): document,
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(index),
        "manifest.json": _json([listing]),
    }
    documents = [_header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members.items()]
    return Arrangement(image_id, universal, segments(layers), b"".join(documents) + bytes(2 * HEADER))


def _original(image: Image, universal: bool) -> bytes | None:
    """The configuration that the image's universal document was made from; None if the image is not universal.

    If the universal form is wanted, documents from before form 1, which describe other layers, count, too.
    """
    original = image.universal_of
    if original is None:
        return None
    if _universal(original, image.layers) == image.config:
        return original
    same = _without_manifest(_object(original)) == _without_manifest(_object(image.config))
    return original if universal and same else None


def _manifest(config: bytes, layers: Iterable[Layer]) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(OCI_CONFIG, config),
            "layers": list(map(_layer_descriptor, layers)),
        }
    )


def _universal(config: bytes, layers: Iterable[Layer]) -> bytes:
    document = _without_manifest(_object(config))
    annotations = {UNIVERSAL_OF: base64.b64encode(config).decode()}
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            **document,
            "config": {**document["config"], **_descriptor(OCI_CONFIG, config)},
            "layers": list(map(_layer_descriptor, layers)),
            **({"annotations": annotations} if len(config) <= _EMBEDDED_LIMIT else {}),
        }
    )


def _without_manifest(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without members that a manifest has, but always with `config` and `history`: without `history`,
    podman takes a universal document for a manifest only."""
    found: dict[str, Any] = {"config": {}}
    history: Any = None
    for key, value in config.items():
        if _folded(key) == "config":
            settings = value if isinstance(value, dict) else {}
            found["config"] = {name: each for name, each in settings.items() if _folded(name) not in _OF_DESCRIPTORS}
        elif _folded(key) == "history":
            history = value
        elif _folded(key) not in _OF_MANIFESTS:
            found[key] = value
    return {**found, "history": history if history is not None else []}


def _folded(key: str) -> str:
    """A member's name as Go compares it (encoding/json)."""
    return key.casefold()


def _object(config: bytes) -> dict[str, Any]:
    try:
        document = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"the image's configuration is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ArchiveError("the image's configuration is not a JSON object")
    return document


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(blob), "size": len(blob)}


def _layer_descriptor(layer: Layer) -> dict[str, Any]:
    compression = f"+{layer.compression}" if layer.compression is not None else ""
    return {"mediaType": OCI_LAYER + compression, "digest": layer.stored_digest, "size": layer.size}


def _layer_of(descriptor: Mapping[str, Any], diff_id: str) -> Layer:
    """The layer that has this descriptor."""
    compression = descriptor["mediaType"].removeprefix(OCI_LAYER).removeprefix("+") or None
    digest = descriptor["digest"]
    return Layer(diff_id, int(descriptor["size"]), digest if digest != diff_id else "", compression)


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(document: object) -> bytes:
    """Compact JSON, in ASCII, since readers differ on other characters."""
    try:
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # 1e999 reads as infinity, which JSON cannot write
        raise ArchiveError(f"the image's configuration cannot be written again: {error}") from error


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.GNU_FORMAT)  # which knows sizes of 8 GiB and more


def _read_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the members of a tar that this module wrote."""
    start = 0
    while start < len(data):
        member = tarfile.TarInfo.frombuf(data[start : start + HEADER], "utf-8", "strict")
        start += HEADER
        yield member.name, data[start : start + member.size]
        start += member.size + padding(member.size)
