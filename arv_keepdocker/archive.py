"""The images in a saved archive, and whether one of them is whole.

An archive is a docker-archive (manifest.json names the configuration and layers of each image), an OCI image layout
(index.json names manifests, and these a configuration and layers), or both at once, as Docker writes it since 25. See
https://github.com/moby/docker-image-spec and https://github.com/opencontainers/image-spec.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

from .errors import ArchiveError
from .platforms import USUAL, Platform
from .reference import familiar
from .tarball import DOCUMENT_LIMIT, File, Tarball

MANIFEST = "manifest.json"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAMED_BY_DIGEST = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
_MAX_DEPTH = 4
"""How deep indexes may be nested in indexes; engines write one in another."""


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


def find(tarball: Tarball, name: str | None = None, platform: Platform | None = None, layout: bool = False) -> Image:
    """The one image of the archive, or the one that is called `name` (`repo:tag`), or the one for `platform`.

    With `layout`, an OCI image layout without manifest.json will do; engines always write one. Raises ArchiveError when
    there is no image, or several and nothing to choose by, or when it is not whole.
    """
    from_index = layout and MANIFEST not in tarball.files
    entries = _index_entries(tarball) if from_index else _manifest_entries(tarball)
    if platform is not None and not from_index and not _of_platform(tarball, entries, platform):
        # manifest.json has the engine's own platform, the index may have others.
        entries = _index_entries(tarball) if "index.json" in tarball.files else entries
    if len(entries) != 1 and name is not None:
        entries = [entry for entry in entries if familiar(name) in map(familiar, entry.names)] or entries
    images = _of_platform(tarball, entries, platform)
    if len(images) > 1:
        named = [" ".join(entry.names) or entry.config for entry in images]
        raise ArchiveError(f"the archive holds {len(images)} images: {', '.join(named)}", "Name one of them as IMAGE.")
    if not images:
        wanted = f"image for {platform}" if platform is not None and entries else "image"
        raise ArchiveError(f"the archive holds no {wanted}")
    return _whole(tarball, images[0])


def _of_platform(tarball: Tarball, entries: Sequence[_Entry], platform: Platform | None) -> Sequence[_Entry]:
    """The entries for the platform; of the same name's several without one asked for, those for this machine's."""
    if platform is not None:
        return [entry for entry in entries if _platform(_config(tarball, entry)[1]).matches(platform)]
    if len({entry.names for entry in entries}) == 1 and len(entries) > 1:
        ours = [entry for entry in entries if _platform(_config(tarball, entry)[1]).matches(USUAL)]
        return ours or entries
    return entries


def _whole(tarball: Tarball, entry: _Entry) -> Image:
    name, config = _config(tarball, entry)
    image_id = tarball.files[name].sha256
    named = _NAMED_BY_DIGEST.fullmatch(entry.config)
    if named and named[1] != image_id:
        raise ArchiveError(f"the image's configuration {entry.config!r} is damaged: its digest is sha256:{image_id}")
    diff_ids = _diff_ids(config)
    if len(diff_ids) != len(entry.layers):
        raise ArchiveError(
            f"the image's configuration has {len(diff_ids)} layers, the archive names {len(entry.layers)}"
        )
    created = config.get("created")
    return Image(
        id=f"sha256:{image_id}",
        config=tarball.documents[name],
        created=created if isinstance(created, str) and created else None,
        platform=_platform(config),
        layers=tuple(_layer(tarball, *pair) for pair in zip(entry.layers, diff_ids, strict=True)),
        names=entry.names,
    )


def _layer(tarball: Tarball, name: str, diff_id: str) -> Layer:
    target = tarball.target(name)
    file = tarball.files.get(target)
    if file is None:
        raise ArchiveError(f"the archive is incomplete: layer {name!r} is missing")
    if file.compression is None:
        whole = diff_id == f"sha256:{file.sha256}"
    elif file.content_sha256 is not None:
        whole = diff_id == f"sha256:{file.content_sha256}"
    else:  # compressed, and named by its digest, which has been checked
        whole = target.endswith(file.sha256)
    if not whole:
        raise ArchiveError(f"layer {name!r} of the archive is damaged: it is not the configuration's {diff_id}")
    return Layer(target, file, diff_id)


def _manifest_entries(tarball: Tarball) -> list[_Entry]:
    entries = _parsed(tarball, MANIFEST, "the archive's manifest.json")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ArchiveError("the archive's manifest.json is not a list of images")
    return [_manifest_entry(entry) for entry in entries]


def _manifest_entry(entry: Mapping[str, Any]) -> _Entry:
    config, layers, names = entry.get("Config"), entry.get("Layers"), entry.get("RepoTags") or []
    if not (isinstance(config, str) and _strings(layers) and _strings(names)):
        raise ArchiveError("the archive's manifest.json does not name a configuration and layers")
    return _Entry(config, tuple(layers), tuple(names))


def _index_entries(tarball: Tarball) -> list[_Entry]:
    if "index.json" not in tarball.files:
        raise ArchiveError("this is no image archive: it has neither manifest.json nor index.json")
    entries: dict[str, _Entry] = {}
    for config, layers, name in _manifests(tarball, "index.json", None, _MAX_DEPTH):
        known = entries.get(config)
        names = (*(known.names if known is not None else ()), *([name] if name is not None else []))
        entries[config] = _Entry(config, layers, tuple(dict.fromkeys(names)))
    return list(entries.values())


def _manifests(
    tarball: Tarball, index: str, name: str | None, depth: int
) -> Iterator[tuple[str, tuple[str, ...], str | None]]:
    """The configuration, layers and name of each image that an index names; what is not in the archive is left out."""
    descriptors = _document(tarball, index, "the archive's index").get("manifests")
    if not isinstance(descriptors, list) or depth == 0:
        raise ArchiveError(f"{index!r} in the archive is not an image index")
    for descriptor in descriptors:
        blob = _blob(descriptor)
        if blob not in tarball.files or _is_attestation(descriptor):
            continue
        document = _document(tarball, blob, "a manifest")
        own_name = _annotated_name(descriptor) or name
        if "manifests" in document:
            yield from _manifests(tarball, blob, own_name, depth - 1)
        else:
            layers = document.get("layers")
            if not isinstance(layers, list):
                raise ArchiveError(f"{blob!r} in the archive is not an image manifest")
            yield _blob(document.get("config")), tuple(_blob(layer) for layer in layers), own_name


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
    full, reference = annotations.get("io.containerd.image.name"), annotations.get("org.opencontainers.image.ref.name")
    if isinstance(full, str):
        return familiar(full)
    return reference if isinstance(reference, str) and ":" in reference else None


def _is_attestation(descriptor: Mapping[str, Any]) -> bool:
    """BuildKit keeps provenance beside the images of an index, as a manifest for no platform."""
    annotations = descriptor.get("annotations")
    return isinstance(annotations, dict) and "vnd.docker.reference.type" in annotations


def _config(tarball: Tarball, entry: _Entry) -> tuple[str, Mapping[str, Any]]:
    name = tarball.target(entry.config)
    return name, _document(tarball, name, "the image's configuration")


def _platform(config: Mapping[str, Any]) -> Platform:
    return Platform(*(str(config.get(key) or "") for key in ("os", "architecture", "variant")))


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
        raise ArchiveError(f"the archive is incomplete: {what} {name!r} is missing")
    if name not in tarball.documents:
        raise ArchiveError(f"{what} {name!r} is not a JSON document of at most {DOCUMENT_LIMIT >> 20} MiB")
    return parse_json(tarball.documents[name], f"{what} {name!r}")


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
