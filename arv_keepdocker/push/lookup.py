"""What Arvados has of an image that was found."""

from collections.abc import Iterator
from dataclasses import replace

from ..catalog.entry import Entry
from ..catalog.missing_records import Plan
from ..catalog.records import Catalog
from ..catalog.stored_images import StoredImage
from .found import Found, Known
from .request import Request


def look_up(found: Found, request: Request, catalog: Catalog, incomplete: bool = True) -> Plan | None:
    """The image that Arvados has, by what is known before reading; None if it has none, or with --force.

    With `incomplete` also one that has no links.
    """
    if request.force or found.known is Known.WHEN_READ:
        return None
    if found.known is Known.BY_ID:
        known = look_up_id if incomplete else _adopted
        return known(found.entry, request, catalog, found.stored)
    return next(filter(None, map(catalog.adopt, _candidates(found, catalog))), None)


def look_up_id(entry: Entry, request: Request, catalog: Catalog, stored: StoredImage | None = None) -> Plan | None:
    """The image that Arvados has under an id that is certain, also one that a run which died has left incomplete.

    `stored` is one that may lack the link for its id.
    """
    if request.force:
        return None
    return catalog.adopt(entry, stored) or catalog.complete(entry)


def _adopted(entry: Entry, request: Request, catalog: Catalog, stored: StoredImage | None) -> Plan | None:
    return catalog.adopt(entry, stored)


def _candidates(found: Found, catalog: Catalog) -> Iterator[Entry]:
    for image_id in catalog.recognize(found.entry, found.single_image):
        yield replace(found.entry, image_id=image_id)
    yield from found.also_recorded_as
