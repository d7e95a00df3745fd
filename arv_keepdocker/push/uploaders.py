"""Chooses how an image gets from its source to Keep."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from ..catalog.entry import CatalogEntry
from ..images.image import Image, Selection
from ..sources.source import Source
from ..store.content import Content
from .request import Request, Tools

if TYPE_CHECKING:
    from ..keep.known_layers import StoredManifest
    from ..store.streaming import StreamingUploader


class Upload(Protocol):
    """A complete, checked image, ready to be stored."""

    image_id: str
    """The id to record: an engine that loads the stored archive finds the image by it."""
    image: Image
    universal: bool
    """Whether it is stored in the universal form."""

    @property
    def content(self) -> Content | None:
        """What the collection holds or, before `store`, will hold; None if only Arvados knows."""

    def store(self, entry: CatalogEntry) -> str:
        """Create its collection and links, and return the collection's UUID. Raises ArvadosError."""


class Uploader(Protocol):
    """One way to upload images."""

    def prepare(self, source: Source, wanted: Selection, universal: bool | None) -> AbstractContextManager[Upload]:
        """Read the image and check it; nothing is recorded yet. With `universal` None, the image decides."""


def make_uploader(
    request: Request, tools: Tools, dry_run: bool, manifests: Sequence["StoredManifest"] = ()
) -> Uploader:
    """The way that the request asks for; with `dry_run` nothing is sent. The `manifests` have layers of the image."""
    if request.via_arv_put:
        from ..store.via_arv_put import ArvPutUploader

        resume = request.resume and not request.force
        return ArvPutUploader(tools.catalog, tools.cache, tools.display, request.put_arguments, resume)
    return streaming_uploader(request, tools, dry_run, manifests)


def streaming_uploader(
    request: Request, tools: Tools, dry_run: bool, manifests: Sequence["StoredManifest"] = ()
) -> "StreamingUploader":
    """The default uploader, which sends images block by block."""
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
        manifests=manifests,
        shared_upload=tools.shared_upload,
    )
