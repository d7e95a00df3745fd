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

import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..errors import ArchiveError
from .image import Image
from .layers import Layer, sha256
from .media_types import OCI_INDEX, OCI_MANIFEST
from .universal import descriptor, dump, is_same_image, layer_of, manifest, universal_document

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
    described = json.loads(document)
    diff_ids = json.loads(config)["rootfs"]["diff_ids"]
    layers = [layer_of(*pair) for pair in zip(described["layers"], diff_ids, strict=True)]
    found = _arranged(config, layers, universal="rootfs" in described)
    sizes = [size for segment in found.segments for size in segment.blocks]
    return found if found.end == end and [*sizes, len(end)] == list(blocks) else None


def _arranged(config: bytes, layers: Sequence[Layer], universal: bool) -> Arrangement:
    document = universal_document(config, layers) if universal else manifest(config, layers)
    image_id = sha256(document if universal else config)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(OCI_MANIFEST, document)]}
    listing = {
        "Config": _path(image_id),
        "RepoTags": None,
        "Layers": [_path(layer.stored_digest) for layer in layers],
    }
    members = {
        _path(sha256(config)): config,
        _path(sha256(document)): document,
        "oci-layout": dump({"imageLayoutVersion": "1.0.0"}),
        "index.json": dump(index),
        "manifest.json": dump([listing]),
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
    if universal_document(original, image.layers) == image.config:
        return original
    return original if universal and is_same_image(original, image.config) else None


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


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
