"""Groups of images that are stored one after the other, because they share layers or come from one archive."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..sources.file_source import FileSource
from .found_image import FoundImage, Lookup
from .request import Request, Tools
from .uploaders import streaming_uploader

if TYPE_CHECKING:
    from ..store.shared_upload import SharedUpload

_IN_ARVADOS = "Arvados"
"""What all images have in common that are read from there."""
_SAVED_AT_ONCE = 16 << 30
"""Bytes of images to save in one archive at most: docker's classic store writes it to disk first."""


class Groups:
    """Forms the groups, and gives the images of each what they share."""

    def __init__(self, request: Request, tools: Tools, at_once: int) -> None:
        """All requests are like `request`, except for the image. `at_once` groups are stored at a time."""
        from ..store.shared_upload import SharedResources

        self._request = request
        self._engine = tools.engine
        self._names: list[str] = []
        uploader = streaming_uploader(request, tools, request.dry_run)
        self._common = SharedResources(request.threads, lambda: uploader.known_layers_of(self._names), at_once)
        self._file: FileSource | None = None
        if request.archive is not None:
            from ..sources.shared_archive import SharedFileSource

            self._file = SharedFileSource(request.archive, tools.display.waiting)

    def shared_upload(self) -> "closing[SharedUpload]":
        """What the images of one group share while they are uploaded."""
        from ..store.shared_upload import SharedUpload

        return closing(SharedUpload(self._common))

    def identified(self, found: FoundImage) -> FoundImage:
        """The image with its id, which for an image in an archive means looking into the archive."""
        file = self._file
        if file is None:
            return found
        if not file.repeatable:
            return replace(found, source=lambda: file)
        from ..images.canonical import arrange

        image = file.peek(found.wanted)
        arrangement = arrange(image, found.entry.universal)
        entry = replace(found.entry, image_id=arrangement.image_id, universal=arrangement.universal)
        return replace(
            found,
            source=lambda: file,
            entry=entry.with_timestamp(image.created),
            lookup=Lookup.BY_ID,
            created=image.created,
            platform=image.platform,
        )

    def of(self, found: Mapping[int, FoundImage]) -> list[dict[int, FoundImage]]:
        """The groups, in the order of the first image of each."""
        self._names = [each.entry.name for each in found.values() if each.entry.name is not None]
        groups: list[tuple[set[str], list[int]]] = []
        for number, each in found.items():
            keys, numbers = self._shared(each), [number]
            for group in [group for group in groups if group[0] & keys]:
                groups.remove(group)
                keys |= group[0]
                numbers += group[1]
            groups.append((keys, sorted(numbers)))
        ordered = sorted(numbers for _, numbers in groups)
        return [self._saved_together({number: found[number] for number in numbers}) for numbers in ordered]

    def _shared(self, found: FoundImage) -> set[str]:
        """What the image may have in common with others."""
        keys = set(found.digests)
        if self._file is not None:
            keys.add(self._file.what)
        if found.located is not None and found.in_place is None:
            keys.add(_IN_ARVADOS)  # which layers they have is not known before they are read
        if found.in_engine is not None:
            keys.update(found.in_engine.diff_ids)
        if found.layers is not None:
            keys.update(diff_id for diff_id, _ in found.layers)
        return keys

    def _saved_together(self, group: Mapping[int, FoundImage]) -> dict[int, FoundImage]:
        """The group, with sources that save images in one archive where the engine can."""
        saved = dict(group)
        for numbers in _portions(group):
            from ..sources.shared_archive import JointSave

            images = {image.id: image for number in numbers if (image := group[number].in_engine) is not None}
            if len(images) < 2:
                continue
            together = JointSave(self._engine, list(images.values()))
            for number in numbers:
                image = group[number].in_engine
                assert image is not None
                saved[number] = replace(group[number], source=partial(together.source, image))
        return saved


def _portions(group: Mapping[int, FoundImage]) -> Iterator[list[int]]:
    """The numbers of the images that are saved in one archive."""
    portion: list[int] = []
    left = _SAVED_AT_ONCE
    for number, found in group.items():
        image = found.in_engine
        if image is None or image.containerd or found.source is None:
            continue
        size = image.size or 0
        if portion and size > left:
            yield portion
            portion, left = [], _SAVED_AT_ONCE
        portion.append(number)
        left -= size
    if portion:
        yield portion
