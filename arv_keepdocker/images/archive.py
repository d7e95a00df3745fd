"""Selects one image of an archive, and checks that it is complete."""

import functools
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from ..errors import ArchiveError, IncompleteArchiveError, PlatformNotSavedError, quoted
from . import archive_entries, canonical, configuration
from .archive_entries import ArchiveEntry
from .configuration import WHAT, Configuration
from .image import Image, Selection
from .layers import Layer, LayerSink, sha256
from .members import File, Members
from .platform import USUAL, Platform
from .reference import familiar
from .tar import Readable, scan
from .tar_headers import begins_a_tar

_NAMED_BY_DIGEST = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
_FOREIGN = re.compile(rb'"mediaType":\s*"[^"]*(?:nondistributable|foreign)[^"]*"')
_SHOWN = 5


def read_image(stream: Readable, sink: LayerSink, wanted: Selection, file: str = "FILE") -> Image:
    """Read the archive to its end, feed its layers to the sink, and return the wanted image.

    `file` is the archive's name for commands in hints. Raises ArchiveError if there is no such image, or several to
    choose from, if the image is incomplete, or if no engine would load it. Passes on what `stream.read` and the sink
    raise.
    """
    return select_image(scan(stream, sink, file), sink, wanted)


def select_image(members: Members, sink: LayerSink, wanted: Selection) -> Image:
    """The wanted image of an archive that has been read. Raises ArchiveError as `read_image` does."""
    return _checked_image(members, sink, _Choice(members).one(wanted))


class _Choice:
    """Chooses one of the images of an archive."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._entries = archive_entries.of_archive(members)
        self._platform = functools.cache(self._read_platform)  # an image may have to be looked at twice

    def one(self, wanted: Selection) -> ArchiveEntry:
        """The wanted image's entry. Raises ArchiveError."""
        found = self._entries
        if wanted.image_id is not None:
            found = [entry for entry in found if self._id(entry) == wanted.image_id] or found
        if wanted.platform is not None and not self._for(found, wanted.platform):
            # manifest.json has the engine's own platform, the index may have others.
            found = (
                archive_entries.of_index(self._members)
                if self._members.find(archive_entries.INDEX) is not None
                else found
            )
        if len(found) > 1 and wanted.name is not None:
            found = _with_name(found, wanted.name) or found
        of_platform = self._for(found, wanted.platform) if wanted.platform is not None else self._usual(found)
        if len(of_platform) == 1:
            return of_platform[0]
        raise self._problem(of_platform or found, wanted.platform if not of_platform else None)

    def _id(self, entry: ArchiveEntry) -> str:
        file = self._members.find(entry.config)
        return f"sha256:{file.sha256}" if file is not None else ""

    def _for(self, found: Sequence[ArchiveEntry], platform: Platform) -> list[ArchiveEntry]:
        return [entry for entry in found if self._platform(entry.config).matches(platform)]

    def _usual(self, found: Sequence[ArchiveEntry]) -> Sequence[ArchiveEntry]:
        """Of several entries with the same names, which are one image's platforms, those for linux/amd64."""
        if len(found) > 1 and _are_one_image(found):
            return self._for(found, USUAL) or found
        return found

    def _problem(self, found: Sequence[ArchiveEntry], missing: Platform | None) -> ArchiveError:
        platforms = ", ".join(dict.fromkeys(str(self._platform(entry.config)) for entry in found[:_SHOWN]))
        if missing is not None and found:
            return PlatformNotSavedError(f"the archive has no image for {missing}, only for {platforms}")
        if not found:
            return ArchiveError("the archive holds no image")
        if _are_one_image(found) and len({self._platform(entry.config) for entry in found}) == len(found):
            name = found[0].names[0] if found[0].names else "one image"
            return ArchiveError(
                f"the archive holds {name} for {len(found)} platforms: {platforms}", "Choose one with --platform."
            )
        more = ", ..." if len(found) > _SHOWN else ""
        shown = ", ".join(map(_entry_text, found[:_SHOWN]))
        return ArchiveError(f"the archive holds {len(found)} images: {shown}{more}", "Name one of them as IMAGE.")

    def _read_platform(self, config: str) -> Platform:
        data = archive_entries.document(self._members, config, WHAT)
        return configuration.platform(configuration.parse(data))


def _with_name(found: Sequence[ArchiveEntry], name: str) -> list[ArchiveEntry]:
    """The entries with this name or, if there are none, those that have only its tag."""
    called = [entry for entry in found if familiar(name) in map(familiar, entry.names)]
    tag = name.rpartition(":")[2]
    return called or [entry for entry in found if tag in entry.tags]


def _are_one_image(found: Sequence[ArchiveEntry]) -> bool:
    return len({(entry.names, entry.tags) for entry in found}) == 1


def _entry_text(entry: ArchiveEntry) -> str:
    return " ".join([*entry.names, *entry.tags][:_SHOWN]) or quoted(entry.config)


def _checked_image(members: Members, sink: LayerSink, entry: ArchiveEntry) -> Image:
    data = archive_entries.document(members, entry.config, WHAT)
    image = Image(data, (), USUAL)
    named = _NAMED_BY_DIGEST.fullmatch(entry.config)
    if named and image.id != f"sha256:{named[1]}":
        raise ArchiveError(f"{WHAT} {quoted(entry.config)} is damaged: its digest is {image.id}")
    found = configuration.read(data)
    if len(found.diff_ids) != len(entry.layers):
        raise ArchiveError(f"{WHAT} has {len(found.diff_ids)} layers, the archive names {len(entry.layers)}")
    layers = tuple(_layer(members, sink, *pair) for pair in zip(entry.layers, found.diff_ids, strict=True))
    warnings = list(found.warnings)
    if any(layer.compression is not None for layer in layers):
        warnings.append(
            "the image has layers compressed with zstd, which Docker 20.10 cannot load, and there is no decoder here "
            "to unpack them: they are stored as they are, and their content is not checked (pip install "
            "'arv-keepdocker[zstd]' brings the decoder)"
        )
    image = replace(
        image,
        layers=layers,
        platform=found.platform,
        created=found.created,
        names=entry.names,
        tags=entry.tags,
        universal_of=_universal_of(members, found),
        digests=entry.digests,
        warnings=tuple(warnings),
    )
    return _universal_beside(members, image) or image


def _universal_beside(members: Members, image: Image) -> Image | None:
    """The image in the universal form, if the archive's index has it; None otherwise.

    A containerd image store saves it like that: its manifest.json names the configuration that the universal document
    was made from.
    """
    if image.universal_of is not None or members.find(archive_entries.INDEX) is None:
        return None
    with suppress(ArchiveError):  # manifest.json has been read, and says enough
        for digest in (digest for entry in archive_entries.of_index(members) for digest in entry.digests):
            file = members.find("blobs/" + digest.replace(":", "/"))
            if file is None or file.document is None or image.id.encode() not in file.document:
                continue
            universal = replace(image, config=file.document, universal_of=image.config)
            if canonical.arrange(universal, universal=False).universal:
                return universal
    return None


def _universal_of(members: Members, found: Configuration) -> bytes | None:
    """The configuration that a universal document was made from, which is in the document or in the archive."""
    original = configuration.original(found.document)
    if original is None:
        return None
    digest, carried = original
    beside = members.find("blobs/" + digest.replace(":", "/"))
    candidates = [carried, beside.document if beside is not None else None]
    return next((data for data in candidates if data is not None and sha256(data) == digest), None)


def _layer(members: Members, sink: LayerSink, name: str, diff_id: str) -> Layer:
    file = members.find(name)
    if file is None:
        raise _missing(members, name)
    if file.later is not None:
        there = sink.has(diff_id) if file.kept is None else None
        if there is not None:
            return there
        file = file.later(sink)
    layer = file.layer if file.layer is not None else _feed(file, name, sink)
    if file.kept is not None:
        return replace(layer, diff_id=diff_id, digest=layer.diff_id, compression=file.kept)
    if layer.diff_id != diff_id:
        raise ArchiveError(f"layer {quoted(name)} of the archive is damaged: it is not the configuration's {diff_id}")
    return layer


def _missing(members: Members, name: str) -> ArchiveError:
    """The error for a layer that is not in the archive; Docker leaves out foreign layers."""
    problem = f"the archive is incomplete: layer {quoted(name)} is missing"
    digest = name[-64:].encode()
    documents = [file.document for file in members.files.values() if file.document is not None]
    if any(digest in document and _FOREIGN.search(document) for document in documents):
        return ArchiveError(f"{problem}; the image has foreign layers")
    return IncompleteArchiveError(problem)


def _feed(file: File, name: str, sink: LayerSink) -> Layer:
    """Feed a layer that looked like a document to the sink; Go takes an empty file for an empty tar."""
    if file.document is None or not (begins_a_tar(file.document) or file.size == 0):
        raise ArchiveError(f"layer {quoted(name)} of the archive cannot be read: {file.problem or 'it is no tar'}")
    writer = sink.begin()
    writer.write(file.document)
    return writer.finish()
