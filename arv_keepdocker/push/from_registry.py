"""Finding an image in its registry, without an engine: by a digest first, which costs one request and no download."""

from dataclasses import replace
from functools import partial

from ..catalog.entry import Entry
from ..images.image import Selection
from ..images.platform import USUAL
from ..sources.registry.source import RegistrySource, open_registry
from .found import Found, Known
from .request import Request, Tools


def find_in_registry(request: Request, project: str, tools: Tools) -> Found:
    """The image that the registry has under the name now. Raises ImageNotFoundError or RegistryError."""
    reference = request.reference
    assert reference is not None
    if request.insecure:
        tools.display.warning("others on the network can read the registry's password and change what it sends")
    retries = tools.catalog.cluster.retries
    source = open_registry(reference, request.platform, tools.display, retries, request.insecure)
    digest = source.head()
    # A name that stands for one image alone means that, whatever it is for.
    single = source.is_index is False and request.platform is None
    entry = Entry(project, digest, reference.name, request.title, universal=bool(request.universal))
    found = Found(
        replace(entry, engine_id=digest, platform=None if single else request.platform or USUAL),
        lambda: source,
        Selection(reference.name, request.platform),
        known=Known.BY_DIGEST,
        single_image=single,
        records_digests=True,
    )
    return replace(found, describe=partial(_described, found, source, request))


def _described(found: Found, source: RegistrySource, request: Request) -> Found:
    """What manifest and configuration tell, among others the id by which Arvados may have it from elsewhere."""
    description = source.describe()
    about = description.configuration
    entry = replace(found.entry, image_id=description.image_id, platform=request.platform or about.platform)
    return replace(
        found,
        entry=entry.made_at(about.created),
        known=Known.WHEN_READ if entry.universal else Known.BY_ID,
        created=about.created,
        platform=about.platform,
        layers=[(layer.diff_id, layer.size) for layer in description.layers],
    )
