"""The forms in which images are listed: for people, and for programs."""

import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..catalog.links import ENGINE_ID, format_utc, parse_time, text, to_utc
from ..catalog.stored_images import StoredImage, split_name
from ..images.reference import Reference, split_recorded
from ..terminal.display import escaped
from ..terminal.width import fitted, padded, width

_ID_LENGTH = 12
_ROW = "{:30}  {:10}  {:12}  {:29}  {:20}\n"
_TITLES = ("REPOSITORY", "TAG", "IMAGE ID", "COLLECTION", "CREATED")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_REPOSITORY, _TAG, _ID, _COLLECTION, _CREATED, _SIZE, _PROJECT = range(7)
_NARROWER = (
    ((_REPOSITORY, _TAG, _PROJECT), 12),
    ((_CREATED,), len("2026-11-25…")),
    ((_ID,), 8),
    ((_REPOSITORY, _TAG, _PROJECT), 8),
    ((_COLLECTION,), 8),
    (range(7), 1),
)
"""Columns of the wide table that are cut where a terminal is too narrow, and down to how many characters."""
_NO_NAME = ("<none>", "<none>")

Owners = Mapping[str, str]
"""Names of projects and users by their UUIDs, as far as they can be read."""


@dataclass(frozen=True)
class Format:
    """One format: how the lines are written, and which fields it needs."""

    write: Callable[[Sequence[StoredImage], Owners, bool, int | None], Iterable[str]]
    """From the images, the names of their owners, whether long ids are cut, and how many columns there are on a
    terminal: the text in pieces."""
    fields: Sequence[str] = ()
    """Of the collections, beside their UUIDs."""
    owners: bool = False
    """Whether the names of the owners are shown."""


def _table(images: Sequence[StoredImage], owners: Owners, cut: bool, columns: int | None) -> Iterator[str]:
    """The same table as upstream's."""
    yield _ROW.format(*_TITLES)
    end = _ID_LENGTH if cut else None
    for image in images:
        repository, tag = _NO_NAME if image.name is None else split_name(escaped(image.name))
        image_id = escaped(image.image_id or "<unknown>")[:end]
        yield _ROW.format(repository, tag, image_id, image.collection, to_utc(image.created).strftime("%c"))


def _wide(images: Sequence[StoredImage], owners: Owners, cut: bool, columns: int | None) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [(*_TITLES, "SIZE", "PROJECT")]
    end = _ID_LENGTH if cut else None
    for image in images:
        image_id = image.image_id or "<unknown>"
        row = (
            *(_NO_NAME if image.name is None else split_name(image.name)),
            image_id.removeprefix("sha256:")[:end] if cut else image_id,
            image.collection,
            format_utc(image.created, "seconds"),
            _readable_size(image.size),
            owners.get(image.owner, image.owner),
        )
        rows.append(tuple(map(escaped, row)))
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    if columns is not None:
        _narrow(widths, columns)
    for cells in rows:
        fitting = (padded(fitted(cell, most), most) for cell, most in zip(cells, widths, strict=True))
        yield "  ".join(fitting).rstrip() + "\n"


def _narrow(widths: list[int], columns: int) -> None:
    """Narrow the columns, the widest of a group first, until the table fits."""
    excess = sum(widths) + 2 * (len(widths) - 1) - columns
    for group, least in _NARROWER:
        while excess > 0 and widths[widest := max(group, key=widths.__getitem__)] > least:
            widths[widest] -= 1
            excess -= 1


def _array(images: Sequence[StoredImage], owners: Owners, cut: bool, columns: int | None) -> Iterator[str]:
    separator = "[\n"
    for image in images:
        yield separator + json.dumps(_object(image, owners))
        separator = ",\n"
    yield "\n]\n" if images else "[]\n"


def _lines(images: Sequence[StoredImage], owners: Owners, cut: bool, columns: int | None) -> Iterator[str]:
    return (json.dumps(_object(image, owners)) + "\n" for image in images)


def _uuids(images: Sequence[StoredImage], owners: Owners, cut: bool, columns: int | None) -> Iterator[str]:
    return (image.collection + "\n" for image in images)


QUIET = Format(_uuids)
_DETAILS = ("created_at", "file_size_total", "owner_uuid", "portable_data_hash")
FORMATS = {
    "table": Format(_table),
    "wide": Format(_wide, ("file_size_total", "owner_uuid"), owners=True),
    "json": Format(_array, _DETAILS, owners=True),
    "jsonl": Format(_lines, _DETAILS, owners=True),
}


def _object(image: StoredImage, owners: Owners) -> dict[str, object]:
    """All that is known about an image; what is unknown is null."""
    name = Reference() if image.name is None else split_recorded(image.name)
    return {
        "repository": name.repository,
        "tag": name.tag,
        "digest": name.digest,
        "id": image.image_id,
        "engine_id": text(image.properties.get(ENGINE_ID)),
        "collection_uuid": image.collection,
        "portable_data_hash": image.record["portable_data_hash"],
        "owner_uuid": image.owner,
        "owner_name": owners.get(image.owner),
        "created": _iso_or_none(parse_time(image.link.time)),
        "stored_at": _iso_or_none(parse_time(image.record["created_at"])),
        "size": image.size,
    }


def _iso_or_none(time: datetime.datetime | None) -> str | None:
    return None if time is None else format_utc(time)


def _readable_size(size: int) -> str:
    """The size as docker prints it: decimal units, three digits."""
    number, unit = float(size), 0
    while number >= 999.5 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.3g}{_UNITS[unit]}"
