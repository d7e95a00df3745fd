"""The default way to upload: layers go to Keep block by block while they are read, and only new blocks are sent."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from ..catalog.arvados_errors import ArvadosRefusedError
from ..catalog.catalog import Catalog
from ..catalog.entry import CatalogEntry
from ..errors import ArvadosError, CacheError, KeepdockerError
from ..images.canonical import arrange
from ..images.image import Image, Selection
from ..images.layers import NoSink
from ..keep.block_sender import BlockSender, Put
from ..keep.cache import Cache
from ..keep.journal import Journal
from ..keep.keep_sink import WRITERS, KeepSink, LayerState, LostLayerError
from ..keep.known_layers import KnownLayers, StoredManifest
from ..keep.locators import expires_before, manifest, portable_data_hash
from ..keep.small_layers import LIMIT
from ..sources.file_source import FileSource
from ..sources.source import Source
from ..terminal.display import Display
from ..terminal.progress import Activity, Progress
from . import arv_put
from .announcements import called, described, mebibytes, stored
from .block_putter import BlockPutter
from .block_reader import block_reader
from .content import Content
from .shared_upload import CountsSince, SharedUpload

_MARGIN = 60 * 60
"""Seconds that a reused block's signature must still be valid: the collection is created at the end."""


@dataclass(frozen=True)
class StreamingUploader:
    """Uploads images block by block, without writing them to disk."""

    catalog: Catalog
    cache: Cache
    display: Display
    threads: int
    reuse: bool = True
    """Do not send blocks that Arvados has."""
    resume: bool = True
    """Do not send blocks that are in the journal."""
    remember: bool = True
    """Write the journal."""
    dry_run: bool = False
    """Send nothing."""
    manifests: Sequence[StoredManifest] = ()
    """Of archives that have layers of the image, beside those that are looked for."""
    shared_upload: SharedUpload | None = None
    """What is shared with other images of the run, if any."""

    @contextmanager
    def prepare(self, source: Source, wanted: Selection, universal: bool | None) -> Iterator["StreamingUpload"]:
        """Upload the image, or only check it where it can be read again; with `universal` None in its source's form.

        Raises ArchiveError, ArvadosError or what the source raises; then nothing is recorded.
        """
        yield StreamingUpload(self, source, wanted, universal)

    def tell_what_cannot_be_reused(self) -> None:
        """Print a note if signatures expire too soon for any block to be reused."""
        seconds = self.catalog.client.signature_seconds
        if self.reuse and seconds is not None and seconds <= _MARGIN:
            self.display.note(
                f"this cluster's signatures expire after {seconds} s, so nothing that Arvados has can be reused"
            )

    def layer_states(self, name: str | None, layers: Iterable[tuple[str, int]]) -> tuple[LayerState, ...]:
        """Which of these layers (diff ids and sizes) of an image of this name are new. Raises ArvadosError."""
        known = self.known_layers(name) if self.reuse else None
        return tuple(LayerState(diff_id, size, not (known and known.copies_of(diff_id))) for diff_id, size in layers)

    def known_layers(self, name: str | None) -> KnownLayers:
        """What need not be sent for an image of this name."""
        return (
            self.shared_upload.common.known
            if self.shared_upload is not None
            else self.known_layers_of([name] if name else [])
        )

    def known_layers_of(self, names: Sequence[str]) -> KnownLayers:
        """What need not be sent for images of these names."""
        client = self.catalog.client

        def manifests() -> Sequence[StoredManifest]:
            user = self.catalog.projects.user["uuid"]
            found = self.catalog.newest_manifests(names)
            newest = [StoredManifest(text, mine=modified_by == user) for text, modified_by in found]
            return [*self.manifests, *newest]

        journal = self.journal if self.resume else None
        return KnownLayers(manifests, journal, block_reader(client), time.time() + _MARGIN, self.remember)

    @property
    def journal(self) -> Journal | None:
        """What this user has sent to this cluster before; None if the cache directory cannot be used."""
        client = self.catalog.client
        try:
            path = self.cache.path / Journal.filename(client.uuid_prefix, client.api.api_token)
            return Journal(path, self.display.waiting)
        except CacheError:
            return None  # which was said when the lock could not be taken


@dataclass(frozen=True)
class _Uploaded:
    image: Image
    image_id: str
    universal: bool
    manifest: str
    content: Content


class StreamingUpload:
    """An image whose blocks have been sent; or that has been checked, and is sent by `store`."""

    def __init__(self, uploader: StreamingUploader, source: Source, wanted: Selection, universal: bool | None) -> None:
        self._uploader = uploader
        self._source = source
        self._wanted = wanted
        self._universal = universal
        self._uploaded: _Uploaded | None = None
        self._name = called(wanted, source)
        self._started = time.monotonic()
        self.image_id = ""
        """The id to record."""
        if source.repeatable and isinstance(source, FileSource):
            with Activity(uploader.display, f"{source.activity} {self._name}"):
                self.image = source.peek(wanted)
                if universal or self.image.universal_of is not None:  # the id depends on the layers' sizes
                    self.image = source.deliver(NoSink(), wanted)
            arrangement = arrange(self.image, self._is_universal(self.image))
            self.image_id, self.universal = arrangement.image_id, arrangement.universal
        else:
            uploaded = self._sent()
            self.image, self.universal = uploaded.image, uploaded.universal

    @property
    def content(self) -> Content:
        """What the collection holds, or would hold after a dry run."""
        return self._sent().content

    def store(self, entry: CatalogEntry) -> str:
        """Create its collection and links, and return the collection's UUID. Raises ArvadosError."""
        catalog = self._uploader.catalog
        uploaded = self._sent()
        with self._explained():
            uuid = self._created(entry, uploaded)
        if uuid is None:
            uploaded = self._uploaded = self._sent_again()
            with self._explained():
                uuid = catalog.create_collection(entry, uploaded.manifest)
        with self._explained():
            catalog.add_links(uuid, entry)
        sent = f"{mebibytes(uploaded.content.sent)} sent, {mebibytes(uploaded.content.reused)} were there already"
        self._uploader.display.note(f"{stored(entry, catalog)}: {sent} ({time.monotonic() - self._started:.1f} s)")
        return uuid

    def _is_universal(self, image: Image) -> bool:
        return image.is_target(self._source.image_id) if self._universal is None else self._universal

    def _created(self, entry: CatalogEntry, uploaded: _Uploaded) -> str | None:
        """The collection's UUID; None if Arvados refuses it, perhaps only because of a reused block's signature."""
        uploader = self._uploader
        try:
            return uploader.catalog.create_collection(entry, uploaded.manifest)
        except ArvadosRefusedError as error:
            # It may be a signature that has expired meanwhile, or by another clock; the answer does not say.
            expired = expires_before(uploaded.manifest, time.time() + _MARGIN)
            reused = uploaded.content.reused
            if error.http_status != 403 or not (reused or expired):
                raise
            uploader.catalog.projects.forget()
            uploader.catalog.projects.check_writable(entry.project)  # may raise an error that says more
            if not self._source.repeatable:
                hint = "Try again with --force, which sends every block." if reused else None
                raise ArvadosError(str(error), hint) from error
            why = "signatures of blocks may have expired" if expired else str(error)
            uploader.display.warning(f"{why}; sending every block again, even those that Arvados has")
            return None

    def _sent_again(self) -> _Uploaded:
        if self._uploader.journal is not None and self._uploader.remember:
            self._uploader.journal.forget()
        return self._same_sent(reuse=False)

    def _sent(self) -> _Uploaded:
        if self._uploaded is None:
            try:
                self._uploaded = self._same_sent(self._uploader.reuse)
            except LostLayerError as error:
                if not self._source.repeatable:
                    raise
                self._uploader.display.warning(f"{error}; sending every block, even those that Arvados has")
                self._uploaded = self._sent_again()
        return self._uploaded

    def _same_sent(self, reuse: bool) -> _Uploaded:
        """Send the image, and check that it still is the image that was looked up."""
        uploaded = self._upload(reuse)
        if self.image_id not in ("", uploaded.image_id):
            raise KeepdockerError(
                f"{self._source.what} changed while it was stored: it was {self.image_id} and is "
                f"{uploaded.image_id} now"
            )
        self.image_id = uploaded.image_id
        return uploaded

    def _upload(self, reuse: bool) -> _Uploaded:
        uploader = self._uploader
        journal = uploader.journal
        notes = journal if uploader.remember else None
        if not uploader.dry_run:
            uploader.display.note(f"storing {described(self._wanted, self._source)}")
            uploader.tell_what_cannot_be_reused()
        with self._explained(), self._destination(reuse, notes) as (sender, sink):
            progress = Progress(
                uploader.display,
                self._name,
                CountsSince(sender),
                sink,
                self._source,
                arv_put.machine_progress,
                uploader.dry_run,
            )
            with progress:
                image = self._source.deliver(sink, self._wanted)
                arrangement = arrange(image, self._is_universal(image))
                progress.whole = arrangement.size
                composed = sink.compose(arrangement, image.layers)
        alone = uploader.shared_upload is None
        sent = sender.sent if alone else composed.sent
        reused = sender.reused if alone else arrangement.size - composed.sent
        if journal is not None and journal.problem is not None:
            problem = journal.problem.strerror or journal.problem
            uploader.display.warning(f"cannot keep notes of what was sent: {problem}")
        text = manifest(f"{arrangement.image_id}.tar", arrangement.size, composed.locators)
        fetched = self._source.fetched or 0
        content = Content(portable_data_hash(text), arrangement.size, sent, reused, fetched, composed.layers)
        return _Uploaded(image, arrangement.image_id, arrangement.universal, text, content)

    @contextmanager
    def _destination(self, reuse: bool, notes: Journal | None) -> Iterator[tuple[BlockSender, KeepSink]]:
        """The sender and the sink for the image's layers."""
        uploader = self._uploader
        put_block = BlockPutter(uploader.catalog.client)
        put = _unsent if uploader.dry_run else _remembering(put_block, notes)
        common = (
            uploader.shared_upload.common if uploader.shared_upload is not None and reuse == uploader.reuse else None
        )

        def make() -> tuple[BlockSender, KeepSink]:
            known = uploader.known_layers(self._wanted.name)
            slots = common.slots if common else None
            sender = BlockSender(put, known.blocks if reuse else dict, uploader.threads, put_block.sent_so_far, slots)
            limit = common.small_limit if common else LIMIT
            return sender, KeepSink(sender, known if reuse else None, notes, WRITERS, self._source.remote, limit)

        if common is not None and uploader.shared_upload is not None:
            with uploader.shared_upload.of(make) as destination:
                yield destination
            return
        sender, sink = make()
        with closing(sink), sender:
            yield sender, sink

    @contextmanager
    def _explained(self) -> Iterator[None]:
        uploader = self._uploader
        try:
            yield
        except LostLayerError:
            raise
        except ArvadosError as error:
            resumes = uploader.resume and uploader.remember and uploader.journal is not None
            goes_on = resumes and error.retry_reason is not None
            hint = "Run the same command again; what was sent is not sent again." if goes_on else None
            raise ArvadosError(f"{self._source.what} could not be stored: {error}", error.hint or hint) from error


def _remembering(put: Put, journal: Journal | None) -> Put:
    def put_and_remember(data: bytes, key: str) -> str:
        locator = put(data, key)
        if journal is not None:
            journal.add(locator)
        return locator

    return put_and_remember


def _unsent(data: bytes, key: str) -> str:
    return key
