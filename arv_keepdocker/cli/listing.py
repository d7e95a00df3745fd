"""The command that lists the images that Arvados has."""

import argparse
import contextlib
import gc
import itertools
from collections.abc import Callable, Iterator

from ..catalog import stored_images
from ..catalog.catalog import Catalog
from ..catalog.client import ArvadosClient
from ..catalog.stored_images import StoredImage
from ..errors import ImageNotFoundError
from ..images import reference
from . import usage
from .filters import ORDERS, Filters
from .listing_formats import FORMATS, QUIET
from .results import Result

_TAGS = 10
"""How many existing tags the message about a missing one names."""
_LINES = 1000
"""Lines that are written at a time."""


def list_images(options: argparse.Namespace, connect: Callable[[], ArvadosClient], columns: int | None) -> Result:
    """The listing that the options ask for; `connect` is called once they are checked. `columns` is the terminal's
    width, None if stdout is no terminal."""
    with _without_garbage_collection():
        return Result(_listing(options, connect, columns), whole=False)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Python would scan tens of thousands of images again and again, none of them garbage, for a quarter of the time
    that a listing takes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _listing(options: argparse.Namespace, connect: Callable[[], ArvadosClient], columns: int | None) -> Iterator[str]:
    form = QUIET if options.quiet else FORMATS[options.format or "table"]
    filters = Filters.parse(options.filter)
    order = ORDERS.get(options.sort)
    client = connect()
    if options.project_uuid is not None:
        Catalog(client).projects.get(options.project_uuid)  # a missing project is an error, not an empty listing
    fields = {*form.fields, *(order.fields if order is not None else ())}

    def find(name: str) -> list[StoredImage]:
        return stored_images.matching(client, *reference.split_query(name), options.project_uuid, sorted(fields))

    images = (
        stored_images.all_images(client, options.project_uuid, sorted(fields))
        if options.tag is None
        else find(options.tag)
    )
    if options.tag is not None and not images:
        raise _not_listed(client, options.tag, options.project_uuid)
    for condition in filters.conditions(find):
        images = [image for image in images if condition(image)]
    if order is not None:
        order.sort(images)
    images = images[: options.limit]
    owners = stored_images.owner_names(client, images) if form.owners else {}
    lines = iter(form.write(images, owners, options.trunc, columns))
    return iter(lambda: "".join(itertools.islice(lines, _LINES)), "")


def _not_listed(client: ArvadosClient, text: str, project: str | None) -> ImageNotFoundError:
    """The error for a name that is not found; its hint names the repository's tags."""
    name, tag = reference.split_query(text)
    repository = name.partition("@")[0]
    looked_for = text if text.lower().startswith("sha256:") else f"{name}:{tag or reference.DEFAULT_TAG}"
    where = f" in {project}" if project is not None else ""
    tags = stored_images.names_in_repository(client, repository, project)
    more = f" and {len(tags) - _TAGS} more" if len(tags) > _TAGS else ""
    there = f"There {'are' if len(tags) > 1 else 'is'} {', '.join(tags[:_TAGS])}{more}."
    hint = there if tags else usage.probably_meant(text)
    return ImageNotFoundError(f"Arvados has no image {looked_for} that you may read{where}", hint)
