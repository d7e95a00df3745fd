"""How an image gets from its source to Keep: the ways to choose from."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from ..catalog.entry import CatalogEntry
from ..images.image import Image, Selection
from ..sources.source import Source
from ..store.content import Content
from .request import Request, Tools

if TYPE_CHECKING:
    from ..store.streaming import StreamingUploader


class Upload(Protocol):
    """A whole, checked image that can be stored."""

    image_id: str
    """The id under which it is stored: an engine that has loaded it knows it by that."""
    image: Image
    universal: bool
    """Whether it is stored in the universal form."""

    @property
    def content(self) -> Content | None:
        """What the collection holds or, before `store`, will hold; None if only Arvados can tell."""

    def store(self, entry: CatalogEntry) -> str:
        """Make it a collection with its links, and return the collection's UUID. Raises ArvadosError."""


class Uploader(Protocol):
    """One way to Keep."""

    def prepare(self, source: Source, wanted: Selection, universal: bool) -> AbstractContextManager[Upload]:
        """Read the image and check it; nothing is recorded yet."""


def make_uploader(request: Request, tools: Tools, dry_run: bool) -> Uploader:
    """The way that the request asks for; with `dry_run` nothing is sent."""
    if request.via_arv_put:
        from ..store.via_arv_put import ArvPutUploader

        resume = request.resume and not request.force
        return ArvPutUploader(tools.catalog, tools.cache, tools.display, request.put_arguments, resume)
    return streaming_uploader(request, tools, dry_run)


def streaming_uploader(request: Request, tools: Tools, dry_run: bool) -> "StreamingUploader":
    """The usual way, block by block."""
    from ..store.streaming import StreamingUploader

    return StreamingUploader(
        tools.catalog,
        tools.cache,
        tools.display,
        request.threads,
        reuse=not request.force,
        resume=request.resume and not request.force,
        remember=request.remember and not dry_run,
        dry_run=dry_run,
        shared_upload=tools.shared_upload,
    )
