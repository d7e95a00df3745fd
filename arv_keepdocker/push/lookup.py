"""Decides whether an image is in Arvados already."""

from collections.abc import Iterator
from dataclasses import replace

from ..catalog import stored_images
from ..catalog.catalog import Accepts, Catalog, accept_any
from ..catalog.entry import CatalogEntry
from ..catalog.links import HASH_LINK
from ..catalog.located import Located
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


def look_up_anew(
    entry: CatalogEntry, located: Located | None, request: Request, catalog: Catalog, accepts: Accepts
) -> Plan | None:
    """The plan to use the archive in Arvados that storing an image anew would make; None if there is none.

    If Arvados prefers the `located` image, which it mends, the plan copies it within the project, so that newer links
    lead to it. `located` is None if nothing was to be mended, but another form is wanted.
    """
    plan = look_up_id(entry, request, catalog, accepts=accepts)
    if plan is None or located is None or not _is_preferred(located, plan, catalog):
        return plan
    return plan.as_copy()


def _is_preferred(located: Located, plan: Plan, catalog: Catalog) -> bool:
    """Whether Arvados prefers the located image, by a name or the id, and would not if there were newer links.

    Of several links to one collection, Arvados goes by the oldest, so that more links to the plan's would not help.
    """
    others = {located.uuid, *(str(link["head_uuid"]) for link in located.links)}
    for link_class, name in plan.entry.links:
        if link_class == HASH_LINK:
            images = stored_images.by_hash_link(catalog.client, name)
        else:
            images = stored_images.by_name(catalog.client, name)
        if plan.collection not in {image.collection for image in images}:
            continue
        own = stored_images.in_seconds(plan.entry.image_timestamp)
        if images[0].collection in others and images[0].timestamp <= own:
            return True
    return False


def _adopted(entry: CatalogEntry, request: Request, catalog: Catalog, stored: StoredImage | None) -> Plan | None:
    return catalog.plan_reuse(entry, stored)


def _candidates(found: FoundImage, catalog: Catalog) -> Iterator[CatalogEntry]:
    for image_id in catalog.ids_by_digest(found.entry, found.single_image):
        yield replace(found.entry, image_id=image_id)
    yield from found.also_recorded_as
