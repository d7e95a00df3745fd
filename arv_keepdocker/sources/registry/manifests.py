"""Reads manifests and indexes, and chooses one image of an index.

https://github.com/opencontainers/image-spec, https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...errors import ArchiveError, ImageNotFoundError, quoted
from ...images import configuration, json
from ...images.json import Object
from ...images.media_types import CONFIG_TYPES, INDEX_TYPES, LAYER_PREFIXES, MANIFEST_TYPES
from ...images.platform import USUAL, Platform
from .client import DIGEST, Document

_LAYER_ENDINGS = ("tar", "gzip", "zstd", "bzip2", "xz")
_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_DESCRIPTORS_LIMIT = 1000
_MAX_DEPTH = 4
_UNTOLD_LIMIT = 16
"""How many images are examined of an index that does not state their platforms."""
_SHOWN = 12


@dataclass(frozen=True)
class Descriptor:
    """How a manifest describes a blob, or an index a manifest."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    """The platform of a manifest in an index, if the index states it."""


@dataclass(frozen=True)
class ImageManifest:
    """The manifest of one image."""

    digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Index:
    """An index of several images, usually one for each platform."""

    digest: str
    manifests: tuple[Descriptor, ...]
    """The descriptors that may lead to an image."""


class Documents(Protocol):
    """A repository: where manifests and configurations come from."""

    @property
    def name(self) -> object: ...
    def manifest(self, reference: str) -> Document: ...
    def document(self, digest: str, size: int) -> bytes: ...


def fetch(client: Documents, reference: str, what: str = "") -> ImageManifest | Index:
    """The manifest or index that a tag or digest names; `what` names it in messages. Raises ArchiveError if it is
    neither."""
    return parse(client.manifest(reference), what or f"manifest {reference} of {client.name}")


def choose_platform(client: Documents, index: Index, wanted: Platform | None, what: str) -> ImageManifest:
    """The image in an index for a platform, by default for linux/amd64. `what` names the index in messages.

    Raises ImageNotFoundError, naming the platforms that the index has, if there is none.
    """
    platform = wanted or USUAL
    there: list[Platform] = []
    untold: list[ImageManifest] = []
    for descriptor in _leaves(client, index):
        if descriptor.platform is not None:
            there.append(descriptor.platform)
            if descriptor.platform.matches(platform):
                return _image(client, descriptor.digest)
        elif len(untold) < _UNTOLD_LIMIT:
            found = fetch(client, descriptor.digest)
            untold += [found] if isinstance(found, ImageManifest) else []
    for manifest in untold:
        of_config = configuration.read(config_of(client, manifest)).platform
        there.append(of_config)
        if of_config.matches(platform):
            return manifest
    names = list(dict.fromkeys(map(str, there[:_SHOWN])))
    raise ImageNotFoundError(
        f"{what} exists for {', '.join(names) or 'no platform'}, but not for {platform}",
        f"Choose one with --platform, as in --platform {names[0]}." if names else None,
    )


def config_of(client: Documents, manifest: ImageManifest) -> bytes:
    """The image's configuration, verified against its digest."""
    if manifest.config.size > json.DOCUMENT_LIMIT:
        raise ArchiveError(f"the configuration of {client.name} has more than {json.DOCUMENT_LIMIT >> 20} MiB")
    return client.document(manifest.config.digest, manifest.config.size)


def parse(document: Document, what: str) -> ImageManifest | Index:
    """Parse a document. Raises ArchiveError, saying what it is, unless it is an image or an index of images."""
    content = json.parse_object(document.body, what)
    media_type = str(content.get("mediaType") or document.media_type)
    if content.get("schemaVersion") == 1 or media_type in _SCHEMA_1:
        hint = "Pull it with an older docker, and push it again."
        raise ArchiveError(f"{what} is in the image format of schema 1, which docker no longer loads", hint)
    manifests, layers = content.get("manifests"), content.get("layers")
    if isinstance(manifests, list) == isinstance(layers, list):
        raise ArchiveError(f"{what} is neither an image nor an index of images, but {quoted(media_type)}")
    types = INDEX_TYPES if isinstance(manifests, list) else MANIFEST_TYPES
    if content.get("mediaType") and media_type not in types:
        raise ArchiveError(f"{what} is not a container image, but {quoted(media_type)}")
    if isinstance(manifests, list):
        return Index(document.digest, tuple(_images(manifests, what)))
    config = _descriptor(content.get("config"), what)
    artifact = content.get("artifactType") or (config.media_type if config.media_type not in CONFIG_TYPES else None)
    if artifact:
        raise ArchiveError(f"{what} is not a container image, but {quoted(str(artifact))}")
    return ImageManifest(document.digest, config, tuple(_layers(layers or [], what)))


def _images(descriptors: Sequence[object], what: str) -> Iterator[Descriptor]:
    """The descriptors of an index that may lead to an image for a platform."""
    if len(descriptors) > _DESCRIPTORS_LIMIT:
        raise ArchiveError(f"{what} names more than {_DESCRIPTORS_LIMIT} manifests")
    for each in descriptors:
        descriptor = _descriptor(each, what)
        assert isinstance(each, Object)
        annotations = each.get("annotations")
        # BuildKit keeps provenance beside the images, as manifests for no platform.
        is_attestation = isinstance(annotations, Object) and annotations.entry("vnd.docker.reference.type") is not None
        is_image = descriptor.media_type in (*MANIFEST_TYPES, *INDEX_TYPES) and not each.get("artifactType")
        if is_image and not is_attestation:
            yield descriptor


def _layers(descriptors: Sequence[object], what: str) -> Iterator[Descriptor]:
    if len(descriptors) > _DESCRIPTORS_LIMIT:
        raise ArchiveError(f"{what} has more than {_DESCRIPTORS_LIMIT} layers")
    for each in descriptors:
        descriptor = _descriptor(each, what)
        assert isinstance(each, Object)
        if each.get("urls"):
            raise ArchiveError(f"{what} has a foreign layer, {descriptor.digest}, which is not in the registry")
        is_tar = descriptor.media_type.startswith(LAYER_PREFIXES) and descriptor.media_type.endswith(_LAYER_ENDINGS)
        if not is_tar:
            raise ArchiveError(f"{what} has a layer that is not a tar, but {quoted(descriptor.media_type)}")
        yield descriptor


def _leaves(client: Documents, index: Index) -> Iterator[Descriptor]:
    """The images of an index, including those of the indexes in it."""
    pending = [(descriptor, 1) for descriptor in index.manifests]
    seen = {index.digest}
    count = 0
    while pending:
        descriptor, depth = pending.pop(0)
        if descriptor.media_type not in INDEX_TYPES:
            yield descriptor
            continue
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        inner = fetch(client, descriptor.digest)
        if not isinstance(inner, Index):
            raise ArchiveError(f"{descriptor.digest} of {client.name} is declared to be an index but is not one")
        count += len(inner.manifests)
        if depth == _MAX_DEPTH or count > _DESCRIPTORS_LIMIT:
            raise ArchiveError(f"{client.name} has too many indexes in indexes")
        pending = [(each, depth + 1) for each in inner.manifests] + pending


def _image(client: Documents, digest: str) -> ImageManifest:
    found = fetch(client, digest)
    if not isinstance(found, ImageManifest):
        raise ArchiveError(f"{digest} of {client.name} is declared to be an image but is an index")
    return found


def _descriptor(value: object, what: str) -> Descriptor:
    found = value if isinstance(value, Object) else Object([])
    digest, size, media_type = found.get("digest"), found.get("size"), found.get("mediaType")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ArchiveError(f"{what} has a descriptor without a sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not isinstance(media_type, str):
        raise ArchiveError(f"{what} does not say the size and type of {digest}")
    platform = found.get("platform")
    return Descriptor(
        media_type, digest, size, configuration.platform(platform) if isinstance(platform, Object) else None
    )
