"""Finds an image in its registry, without an engine: first its digest, which takes one request and no download."""

from dataclasses import replace
from functools import partial

from ..catalog.entry import CatalogEntry
from ..images.image import Selection
from ..images.platform import USUAL
from ..sources.registry.registry_source import RegistrySource, open_registry
from .found_image import FoundImage, Lookup
from .request import Request, Tools


def find_in_registry(request: Request, project: str, tools: Tools) -> FoundImage:
    """The image that the registry has now under this name. Raises ImageNotFoundError or RegistryError."""
    reference = request.reference
    assert reference is not None
    if request.insecure:
        tools.display.warning("others on the network can read the registry's password and change what it sends")
    retries = tools.catalog.client.retries
    source = open_registry(reference, request.platform, tools.display, retries, request.insecure)
    digest = source.head()
    # A name that stands for one image alone means that, whatever it is for.
    single = source.is_index is False and request.platform is None
    entry = CatalogEntry(project, digest, reference.name, request.title, universal=bool(request.universal))
    found = FoundImage(
        replace(entry, engine_id=digest, platform=None if single else request.platform or USUAL),
        lambda: source,
        Selection(reference.name, request.platform),
        lookup=Lookup.BY_DIGEST,
        single_image=single,
        records_digests=True,
    )
    return replace(found, describe=partial(_describe, found, source, request))


def _describe(found: FoundImage, source: RegistrySource, request: Request) -> FoundImage:
    """The image with what its manifest and configuration tell, such as the id under which Arvados may have it."""
    description = source.describe()
    about = description.configuration
    entry = replace(found.entry, image_id=description.image_id, platform=request.platform or about.platform)
    return replace(
        found,
        entry=entry.with_timestamp(about.created),
        lookup=Lookup.AFTER_READING if entry.universal else Lookup.BY_ID,
        created=about.created,
        platform=about.platform,
        layers=[(layer.diff_id, layer.size) for layer in description.layers],
    )
