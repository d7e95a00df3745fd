"""The images that an archive names: in manifest.json (docker-archive) or index.json (OCI image layout).

See https://github.com/moby/docker-image-spec and https://github.com/opencontainers/image-spec. Since version 25, Docker
writes both.
"""

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from ..errors import ArchiveError, IncompleteArchiveError, quoted
from . import archive_names, json
from .json import Object
from .media_types import CONFIG_TYPES, INDEX_TYPES, LAYER_PREFIXES, MANIFEST_TYPES, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from .members import Members

MANIFEST = "manifest.json"
INDEX = "index.json"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_DEPTH = 4
"""How deep indexes may be nested; engines nest them once."""
_IMAGES_LIMIT = 1000
"""Images that an archive may name, names of each, and descriptors that may lead to them."""
_FULL_NAME, _REF_NAME = "io.containerd.image.name", "org.opencontainers.image.ref.name"
_ATTESTATION = "vnd.docker.reference.type"
"""BuildKit's annotation of attestations in an image index."""


@dataclass(frozen=True)
class ArchiveEntry:
    """An image that the archive names."""

    config: str
    """The name of the member with its configuration."""
    layers: tuple[str, ...]
    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    """Tags without a repository."""
    digests: tuple[str, ...] = ()
    """The digests of its manifests."""


def of_archive(members: Members) -> list[ArchiveEntry]:
    """The images that manifest.json names or, without it, index.json. Raises ArchiveError."""
    return of_manifest(members) if members.find(MANIFEST) is not None else of_index(members)


def of_manifest(members: Members) -> list[ArchiveEntry]:
    """The images that manifest.json names. Raises ArchiveError."""
    entries = json.parse(document(members, MANIFEST, "the archive's"), "the archive's manifest.json")
    if not isinstance(entries, list) or not all(isinstance(entry, Object) for entry in entries):
        raise ArchiveError("the archive's manifest.json is not a list of images")
    _check_count(len(entries))
    return _merged(members, map(_manifest_entry, entries))


def of_index(members: Members) -> list[ArchiveEntry]:
    """The images to which index.json leads. Raises ArchiveError."""
    found = _Index(members)
    entries = _merged(members, found.entries())
    if not entries and found.missing:
        raise IncompleteArchiveError(f"the archive is incomplete: manifest {found.missing[0]} is missing")
    if not entries and found.left_out:
        raise ArchiveError("the archive holds no image, but signatures, attestations or other artifacts")
    return entries


def targets(members: Members) -> list[str]:
    """The digests that the archive's index names itself: by these a containerd image store knows what it has loaded."""
    try:
        index = json.parse_object(document(members, INDEX, "the archive's"), "the archive's index.json")
        return [_digest(each) for each in index.get("manifests") or []]
    except (ArchiveError, TypeError):  # whoever needs what is in it will say so
        return []


def document(members: Members, name: str, what: str) -> bytes:
    """The bytes of a JSON document of the archive. Raises ArchiveError if there is none."""
    file = members.find(name)
    if file is None:
        raise IncompleteArchiveError(f"the archive is incomplete: {what} {quoted(name)} is missing")
    if file.document is None:
        raise ArchiveError(f"{what} {quoted(name)} is not a JSON document of at most {json.DOCUMENT_LIMIT >> 20} MiB")
    return file.document


def _manifest_entry(entry: Object) -> ArchiveEntry:
    config, layers, tags = entry.get("Config"), entry.get("Layers"), entry.get("RepoTags")
    layers, tags = layers or [], tags or []  # Go writes an empty list as null
    if not (isinstance(config, str) and config and _strings(layers) and _strings(tags)):
        raise ArchiveError("the archive's manifest.json does not name a configuration and layers")
    _check_count(len(tags))
    return ArchiveEntry(
        config, tuple(layers), tuple(name for name in map(archive_names.of_repo_tag, tags) if name is not None)
    )


def _merged(members: Members, entries: Iterable[ArchiveEntry]) -> list[ArchiveEntry]:
    """Merge the entries of each image into one."""
    merged: dict[str, ArchiveEntry] = {}
    for entry in entries:
        file = members.find(entry.config)
        key = file.sha256 if file is not None else entry.config
        if key in merged:
            first = merged[key]
            entry = replace(
                first,
                names=_together(first.names, entry.names),
                tags=_together(first.tags, entry.tags),
                digests=_together(first.digests, entry.digests),
            )
        merged[key] = replace(entry, names=_together(entry.names, ()))
    return list(merged.values())


def _together(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


@dataclass(frozen=True)
class _Named:
    """A manifest that an index names, and the names that it gives the image."""

    digest: str
    name: str | None
    tag: str | None


class _Index:
    """Follows index.json to image manifests."""

    def __init__(self, members: Members) -> None:
        self.missing: list[str] = []
        """Digests of manifests that are missing in the archive."""
        self.left_out = False
        """Whether the index names anything but images: attestations, signatures, other artifacts."""
        self._members = members

    def entries(self) -> Iterator[ArchiveEntry]:
        read = functools.cache(self._read)  # the index may lead to the same document many times
        pending = [(each, 1) for each in reversed(self._descriptors(INDEX, self._parse(INDEX)))]
        count = len(pending)
        while pending:
            named, depth = pending.pop()
            found = read(named.digest)
            if isinstance(found, ArchiveEntry):
                yield replace(
                    found,
                    names=(named.name,) if named.name is not None else (),
                    tags=(named.tag,) if named.tag is not None else (),
                )
            elif found is not None:
                count += len(found)
                _check_count(count)
                if depth == _MAX_DEPTH:
                    raise ArchiveError(f"the archive has indexes in indexes, more than {_MAX_DEPTH} deep")
                pending += [
                    (_Named(child.digest, child.name or named.name, child.tag or named.tag), depth + 1)
                    for child in reversed(found)
                ]

    def _read(self, digest: str) -> ArchiveEntry | list[_Named] | None:
        """The image of a manifest, the manifests of an index, or None for anything else."""
        name = _path(digest)
        found = self._parse(name)
        if found.get("manifests") is not None:
            return self._descriptors(name, found)
        layers, config = found.get("layers"), found.get("config")
        layers = layers if layers is not None else []
        if not isinstance(layers, list) or not isinstance(config, Object):
            raise ArchiveError(f"{quoted(name)} in the archive is neither an image manifest nor an index")
        if not is_image_manifest(found):
            self.left_out = True
            return None
        return ArchiveEntry(_path(_digest(config)), tuple(_path(_digest(each)) for each in layers), digests=(digest,))

    def _parse(self, name: str) -> Object:
        data = document(self._members, name, "an image manifest or index")
        return json.parse_object(data, f"an image manifest or index {quoted(name)}")

    def _descriptors(self, name: str, index: Object) -> list[_Named]:
        descriptors = index.get("manifests")
        if descriptors is None:
            descriptors = []
        if not isinstance(descriptors, list):
            raise ArchiveError(f"{quoted(name)} in the archive is not an image index")
        _check_count(len(descriptors))
        found = []
        for each in descriptors:
            digest = _digest(each)
            if not is_image_descriptor(each):
                self.left_out = True
            elif self._members.find(_path(digest)) is None:
                self.missing.append(digest)
            else:
                found.append(_reference_in_index(digest, each.get("annotations")))
        return found


def is_image_descriptor(descriptor: Object) -> bool:
    """Whether the descriptor may be that of an image or an index of images, not of an attestation or artifact."""
    annotations, platform = descriptor.get("annotations"), descriptor.get("platform")
    if isinstance(annotations, Object) and annotations.entry(_ATTESTATION) is not None:
        return False
    if descriptor.get("artifactType"):
        return False
    if isinstance(platform, Object) and platform.get("os") == "unknown":
        return False
    return (descriptor.get("mediaType") or OCI_MANIFEST) in (*MANIFEST_TYPES, *INDEX_TYPES)


def is_image_manifest(manifest: Object) -> bool:
    """Whether the manifest is that of an image, not of an artifact, attestation or signature."""
    config, layers = manifest.get("config"), manifest.get("layers") or []
    if manifest.get("artifactType") or not isinstance(config, Object):
        return False
    if (config.get("mediaType") or OCI_CONFIG) not in CONFIG_TYPES:
        return False
    types = [each.get("mediaType") or OCI_LAYER for each in layers if isinstance(each, Object)]
    return not types or any(isinstance(kind, str) and kind.startswith(LAYER_PREFIXES) for kind in types)


def _reference_in_index(digest: str, annotations: Any) -> _Named:
    """The reference, with the full name in containerd's annotation or, if others wrote one, in the one for tags."""
    if not isinstance(annotations, Object):
        return _Named(digest, None, None)
    full, ref = annotations.entry(_FULL_NAME), annotations.entry(_REF_NAME)
    name = archive_names.of_annotation(full) or archive_names.of_annotation(ref)
    return _Named(digest, name, archive_names.bare_tag(ref) if name is None else None)


def _digest(descriptor: Any) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, Object) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ArchiveError("a descriptor in the archive has no sha256 digest")
    return digest


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _check_count(count: int) -> None:
    if count > _IMAGES_LIMIT:
        raise ArchiveError(f"the archive names more than {_IMAGES_LIMIT} images")


def _strings(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
