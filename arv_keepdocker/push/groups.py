"""Images that are stored one after the other, because they have layers in common or come from the same file."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..sources.archives import FileSource
from .found import Found, Known
from .request import Request, Tools
from .uploaders import streaming

if TYPE_CHECKING:
    from ..store.together import Transfer

_SAVED_AT_ONCE = 16 << 30
"""Bytes of images that an engine is asked to save in one archive: docker's classic store writes it to a disk first."""


class Groups:
    """Forms groups, and gives their images what they have in common."""

    def __init__(self, request: Request, tools: Tools, at_once: int) -> None:
        """All requests are like this one, but for the image. So many groups are stored at a time."""
        from ..store.together import Common

        self._request = request
        self._engine = tools.engine
        self._names: list[str] = []
        uploader = streaming(request, tools, request.dry_run)
        self._common = Common(request.threads, lambda: uploader.known_of(self._names), at_once)
        self._file: FileSource | None = None
        if request.archive is not None:
            from ..sources.together import FileOfSeveral

            self._file = FileOfSeveral(request.archive, tools.display.waiting)

    def transfer(self) -> "closing[Transfer]":
        """What the images of one group share."""
        from ..store.together import Transfer

        return closing(Transfer(self._common))

    def identified(self, found: Found) -> Found:
        """With the id of an image in a file, which a look into that tells."""
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
            entry=entry.made_at(image.created),
            known=Known.BY_ID,
            created=image.created,
            platform=image.platform,
        )

    def of(self, found: Mapping[int, Found]) -> list[dict[int, Found]]:
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

    def _shared(self, found: Found) -> set[str]:
        """What other images may have, too."""
        keys = set(found.digests)
        if self._file is not None:
            keys.add(self._file.what)
        if found.in_engine is not None:
            keys.update(found.in_engine.diff_ids)
        if found.layers is not None:
            keys.update(diff_id for diff_id, _ in found.layers)
        return keys

    def _saved_together(self, group: Mapping[int, Found]) -> dict[int, Found]:
        """The engine saves those of the group in one archive whose configurations it knows by their digests."""
        saved = dict(group)
        for numbers in _portions(group):
            from ..sources.together import SavedTogether

            images = {image.id: image for number in numbers if (image := group[number].in_engine) is not None}
            if len(images) < 2:
                continue
            together = SavedTogether(self._engine, list(images.values()))
            for number in numbers:
                image = group[number].in_engine
                assert image is not None
                saved[number] = replace(group[number], source=partial(together.source, image))
        return saved


def _portions(group: Mapping[int, Found]) -> Iterator[list[int]]:
    """The numbers of images that are saved at once."""
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
