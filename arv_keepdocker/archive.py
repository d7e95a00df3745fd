"""The images in a saved archive, and whether one of them is whole.

An archive is a docker-archive (manifest.json names the configuration and layers of each image), an OCI image layout
(index.json names manifests, and these a configuration and layers), or both at once, as Docker writes it since 25. See
https://github.com/moby/docker-image-spec and https://github.com/opencontainers/image-spec.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

from . import reference
from .errors import ArchiveError, IncompleteArchiveError, PlatformNotSavedError, UsageError, quoted
from .platforms import USUAL, Platform
from .reference import familiar
from .tarball import DOCUMENT_LIMIT, File, Tarball

MANIFEST = "manifest.json"
_INDEX = "index.json"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAMED_BY_DIGEST = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
_MAX_DEPTH = 4
"""How deep indexes may be nested in indexes; engines write one in another."""
_IMAGES_LIMIT = 1000
"""How many images an archive may name, how many names each may have, and how many descriptors may lead to them."""
_NAME_LIMIT = 512
"""Characters of an image's name; docker allows 255 for the repository and 128 for the tag."""
_SHOWN = 5
_TIME = re.compile(r"[0-9TZtz:.+ -]{10,40}")
_PLATFORM_PART = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Layer:
    """One layer: a tar, perhaps compressed."""

    name: str
    """The member of the archive that holds it."""
    file: File
    diff_id: str
    """Digest of the uncompressed tar."""


@dataclass(frozen=True)
class Image:
    """One whole image: its configuration and layers are there and have the digests they should have."""

    id: str
    """`sha256:` and the hexadecimal digest of the image's configuration."""
    config: bytes
    created: str | None
    """The configuration's `created`, ISO 8601, if it has one."""
    platform: Platform
    layers: tuple[Layer, ...]
    """Base first; one that occurs twice is named twice."""
    names: tuple[str, ...]
    """The `repo:tag` names that the archive has for it."""


@dataclass(frozen=True)
class _Entry:
    """What names an image in the archive."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


def loadable(tarball: Tarball, image: Image) -> bool:
    """Whether every engine can load the archive as it is and finds `image` in it.

    Docker 20 to 28 and 29's classic store need manifest.json, and of several images a node would not know which is
    meant.
    """
    if MANIFEST not in tarball.files:
        return False
    configs = [tarball.target(entry.config) for entry in _manifest_entries(tarball)]
    return [f"sha256:{tarball.files[name].sha256}" for name in configs if name in tarball.files] == [image.id]


def indexed(tarball: Tarball, image: Image) -> bool:
    """Whether the archive's index names the image's configuration as the one manifest, whose own one is there, too.

    So it is in the universal form; an engine that knows that image by its configuration saves it otherwise.
    """
    if _INDEX not in tarball.files:
        return False
    descriptors = _document(tarball, _INDEX, "the archive's index").get("manifests")
    if (
        not isinstance(descriptors, list)
        or len(descriptors) != 1
        or _blob(descriptors[0]) != _blob({"digest": image.id})
    ):
        return False
    settings = parse_json(image.config, "the image's configuration").get("config")
    return _blob(descriptors[0]) in tarball.files and _blob(settings) in tarball.files


def find(tarball: Tarball, name: str | None = None, platform: Platform | None = None, layout: bool = False) -> Image:
    """The one image of the archive, or the one that is called `name` (`repo:tag`), or the one for `platform`.

    With `layout`, an OCI image layout without manifest.json will do; engines always write one. Raises ArchiveError when
    there is no image, or several and nothing to choose by, or when it is not whole.
    """
    from_index = layout and MANIFEST not in tarball.files
    entries = _index_entries(tarball) if from_index else _manifest_entries(tarball)
    if platform is not None and not from_index and not _of_platform(tarball, entries, platform):
        # manifest.json has the engine's own platform, the index may have others.
        entries = _index_entries(tarball) if _INDEX in tarball.files else entries
    if len(entries) != 1 and name is not None:
        entries = [entry for entry in entries if familiar(name) in map(familiar, entry.names)] or entries
    images = _of_platform(tarball, entries, platform, from_index)
    if len(images) > 1:
        named = [" ".join(entry.names[:_SHOWN]) or quoted(entry.config) for entry in images[:_SHOWN]]
        more = ", ..." if len(images) > _SHOWN else ""
        raise ArchiveError(
            f"the archive holds {len(images)} images: {', '.join(named)}{more}", "Name one of them as IMAGE."
        )
    if not images:
        if platform is not None and entries:
            raise PlatformNotSavedError(f"the archive holds no image for {platform}")
        raise ArchiveError("the archive holds no image")
    return _whole(tarball, images[0])


def _of_platform(
    tarball: Tarball, entries: Sequence[_Entry], platform: Platform | None, from_index: bool = False
) -> Sequence[_Entry]:
    """The entries for the platform; without one asked for, of several that are one image's (they have the same name, or
    an index names none), those for this machine's."""

    @functools.cache  # entries may have the same configuration
    def runs_on(config: str) -> Platform:
        return _platform(_document(tarball, config, "the image's configuration"))

    if platform is not None:
        return [entry for entry in entries if runs_on(tarball.target(entry.config)).matches(platform)]
    if len({entry.names for entry in entries}) == 1 < len(entries) and (entries[0].names or from_index):
        ours = [entry for entry in entries if runs_on(tarball.target(entry.config)).matches(USUAL)]
        return ours or entries
    return entries


def _whole(tarball: Tarball, entry: _Entry) -> Image:
    name = tarball.target(entry.config)
    config = _document(tarball, name, "the image's configuration")
    image_id = tarball.files[name].sha256
    named = _NAMED_BY_DIGEST.fullmatch(entry.config)
    if named and named[1] != image_id:
        raise ArchiveError(
            f"the image's configuration {quoted(entry.config)} is damaged: its digest is sha256:{image_id}"
        )
    diff_ids = _diff_ids(config)
    if len(diff_ids) != len(entry.layers):
        raise ArchiveError(
            f"the image's configuration has {len(diff_ids)} layers, the archive names {len(entry.layers)}"
        )
    created = config.get("created")
    return Image(
        id=f"sha256:{image_id}",
        config=tarball.documents[name],
        created=created if isinstance(created, str) and _TIME.fullmatch(created) else None,
        platform=_platform(config),
        layers=tuple(_layer(tarball, *pair) for pair in zip(entry.layers, diff_ids, strict=True)),
        names=entry.names,
    )


def _layer(tarball: Tarball, name: str, diff_id: str) -> Layer:
    target = tarball.target(name)
    file = tarball.files.get(target)
    if file is None:
        raise _missing(tarball, target, f"layer {quoted(name)}")
    if file.compression is None:
        whole = diff_id == f"sha256:{file.sha256}"
    elif file.content_sha256 is not None:
        whole = diff_id == f"sha256:{file.content_sha256}"
    else:  # compressed, and named by its digest, which has been checked
        whole = target.endswith(file.sha256)
    if not whole:
        raise ArchiveError(f"layer {quoted(name)} of the archive is damaged: it is not the configuration's {diff_id}")
    return Layer(target, file, diff_id)


def _manifest_entries(tarball: Tarball) -> list[_Entry]:
    entries = _parsed(tarball, MANIFEST, "the archive's manifest.json")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ArchiveError("the archive's manifest.json is not a list of images")
    _check_count(len(entries))
    return [_manifest_entry(entry) for entry in entries]


def _manifest_entry(entry: Mapping[str, Any]) -> _Entry:
    config, layers, names = entry.get("Config"), entry.get("Layers"), entry.get("RepoTags") or []
    if layers is None:
        layers = []  # Go writes an empty list so
    if not (isinstance(config, str) and _strings(layers) and _strings(names)):
        raise ArchiveError("the archive's manifest.json does not name a configuration and layers")
    _check_count(len(names))
    return _Entry(config, tuple(layers), tuple(map(_checked_name, names)))


def _checked_name(name: str) -> str:
    """A name from the archive, which may be recorded; docker loads no archive that has another."""
    try:
        checked = reference.parse(name).name if len(name) < _NAME_LIMIT else None
    except UsageError as error:
        raise ArchiveError(f"the archive gives its image a name that docker rejects: {error}") from error
    if checked is None:
        raise ArchiveError(f"the archive gives its image a name that is none: {quoted(name)}")
    return checked


def _check_count(count: int) -> None:
    if count > _IMAGES_LIMIT:
        raise ArchiveError(f"the archive names more than {_IMAGES_LIMIT} images")


def _index_entries(tarball: Tarball) -> list[_Entry]:
    if _INDEX not in tarball.files:
        raise ArchiveError("this is no image archive: it has neither manifest.json nor index.json")
    layers: dict[str, tuple[str, ...]] = {}
    names: dict[str, dict[str, None]] = {}
    for manifest, name in _manifests(tarball):
        layers[manifest.config] = manifest.layers
        names.setdefault(manifest.config, {}).update({} if name is None else {name: None})
    return [_Entry(config, layers[config], tuple(names[config])) for config in layers]


@dataclass(frozen=True)
class _Manifest:
    """What of an image manifest names members of the archive."""

    config: str
    layers: tuple[str, ...]


_Named = list[tuple[str, str | None]]
"""The members that an image index names, with its names for them; what is not in the archive is left out."""


def _manifests(tarball: Tarball) -> Iterator[tuple[_Manifest, str | None]]:
    """Each image manifest to which the index leads, with the image's name."""

    @functools.cache  # the index may lead to the same document many times
    def read(blob: str) -> _Manifest | _Named:
        return _manifest_or_index(tarball, blob)

    pending: list[tuple[str, str | None, int]] = [(_INDEX, None, 0)]
    count = 0
    while pending:
        blob, name, depth = pending.pop()
        found = read(blob)
        if isinstance(found, _Manifest):
            yield found, name
            continue
        count += len(found)
        _check_count(count)
        if depth == _MAX_DEPTH:
            raise ArchiveError(f"the archive has indexes in indexes, more than {_MAX_DEPTH} deep")
        pending += [(child, own_name or name, depth + 1) for child, own_name in reversed(found)]


def _manifest_or_index(tarball: Tarball, blob: str) -> _Manifest | _Named:
    document = _document(tarball, blob, "an image manifest or index")
    if "manifests" in document or blob == _INDEX:
        descriptors = document.get("manifests")
        if not isinstance(descriptors, list):
            raise ArchiveError(f"{quoted(blob)} in the archive is not an image index")
        named = ((_blob(each), each) for each in descriptors)
        there = [(child, each) for child, each in named if child in tarball.files and not _is_attestation(each)]
        return [(child, _annotated_name(each)) for child, each in there]
    layers = document.get("layers")
    if not isinstance(layers, list):
        raise ArchiveError(f"{quoted(blob)} in the archive is neither an image manifest nor an index")
    return _Manifest(_blob(document.get("config")), tuple(map(_blob, layers)))


def _missing(tarball: Tarball, name: str, what: str) -> ArchiveError:
    """Docker leaves foreign layers out, which a registry may not have either, and they are nowhere else."""
    pattern = re.compile(rb'"mediaType":\s*"[^"]*(?:nondistributable|foreign)[^"]*"')
    foreign = name.startswith("blobs/") and any(
        name[-64:].encode() in document and pattern.search(document) for document in tarball.documents.values()
    )
    if foreign:
        return ArchiveError(f"the archive is incomplete: {what} is missing; the image has foreign layers")
    return IncompleteArchiveError(f"the archive is incomplete: {what} is missing")


def _blob(descriptor: object) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ArchiveError("a descriptor in the archive has no sha256 digest")
    return "blobs/" + digest.replace(":", "/")


def _annotated_name(descriptor: Mapping[str, Any]) -> str | None:
    """The full name that containerd gives, or what others write into the annotation that is meant for a tag."""
    annotations = descriptor.get("annotations")
    if not isinstance(annotations, dict):
        return None
    full, ref_name = annotations.get("io.containerd.image.name"), annotations.get("org.opencontainers.image.ref.name")
    name = familiar(full) if isinstance(full, str) else ref_name
    try:
        return _checked_name(name) if isinstance(name, str) and ":" in name else None
    except ArchiveError:
        return None  # an annotation may be anything


def _is_attestation(descriptor: Mapping[str, Any]) -> bool:
    """BuildKit keeps provenance beside the images of an index, as a manifest for no platform."""
    annotations = descriptor.get("annotations")
    return isinstance(annotations, dict) and "vnd.docker.reference.type" in annotations


def _platform(config: Mapping[str, Any]) -> Platform:
    parts = (str(config.get(key) or "") for key in ("os", "architecture", "variant"))
    return Platform(*(part if _PLATFORM_PART.fullmatch(part) else "" for part in parts))


def _diff_ids(config: Mapping[str, Any]) -> tuple[str, ...]:
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None:
        diff_ids = []  # an image without layers, as `FROM scratch` and only metadata gives
    if not _strings(diff_ids) or not all(_DIGEST.fullmatch(digest) for digest in diff_ids):
        raise ArchiveError("the image's configuration has no list of layer digests (rootfs.diff_ids)")
    return tuple(diff_ids)


def _strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _document(tarball: Tarball, name: str, what: str) -> Mapping[str, Any]:
    document = _parsed(tarball, name, what)
    if not isinstance(document, dict):
        raise ArchiveError(f"{what} is not a JSON object")
    return document


def _parsed(tarball: Tarball, name: str, what: str) -> Any:
    if name not in tarball.files:
        raise _missing(tarball, name, f"{what} {quoted(name)}")
    if name not in tarball.documents:
        raise ArchiveError(f"{what} {quoted(name)} is not a JSON document of at most {DOCUMENT_LIMIT >> 20} MiB")
    return parse_json(tarball.documents[name], f"{what} {quoted(name)}")


def parse_json(data: bytes, what: str) -> Any:
    """JSON as RFC 8259 has it; raises ArchiveError for anything else."""
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{what} is not JSON: {error}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def sha256(data: bytes) -> str:
    """`sha256:` and the hexadecimal digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
