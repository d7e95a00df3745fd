"""Decides whether an image is in Arvados already."""

from collections.abc import Iterator
from dataclasses import replace

from ..catalog.catalog import Accepts, Catalog, accept_any
from ..catalog.entry import CatalogEntry
from ..catalog.plan import Plan
from ..catalog.stored_images import StoredImage
from .found_image import FoundImage, Lookup
from .request import Request


def look_up(
    found: FoundImage, request: Request, catalog: Catalog, incomplete: bool = True, again: bool = False
) -> Plan | None:
    """The plan to use the image in Arvados, by what is known before it is read; None if there is none, or with --force.

    With `incomplete`, a collection that has no links yet counts, too. With `again`, what was known may
    have changed since then.
    """
    if request.force:
        return None
    if found.in_place is not None:
        return found.in_place(catalog if again else None)
    if found.lookup is Lookup.AFTER_READING:
        return None
    if found.lookup is Lookup.BY_ID:
        known = look_up_id if incomplete else _adopted
        return known(found.entry, request, catalog, found.stored)
    return next(filter(None, map(catalog.plan_reuse, _candidates(found, catalog))), None)


def look_up_id(
    entry: CatalogEntry,
    request: Request,
    catalog: Catalog,
    stored: StoredImage | None = None,
    accepts: Accepts = accept_any,
) -> Plan | None:
    """The plan to use the image in Arvados that has this id, even if a run that died has left it incomplete.

    `stored` is an image that may lack the link for its id. Only collections that `accepts` accepts are used.
    """
    if request.force:
        return None
    return catalog.plan_reuse(entry, stored, accepts) or catalog.plan_completion(entry, accepts)


def _adopted(entry: CatalogEntry, request: Request, catalog: Catalog, stored: StoredImage | None) -> Plan | None:
    return catalog.plan_reuse(entry, stored)


def _candidates(found: FoundImage, catalog: Catalog) -> Iterator[CatalogEntry]:
    for image_id in catalog.ids_by_digest(found.entry, found.single_image):
        yield replace(found.entry, image_id=image_id)
    yield from found.also_recorded_as
