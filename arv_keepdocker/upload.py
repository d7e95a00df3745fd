"""The usual way: an archive goes to Keep while it is read, block by block, and only what is new is sent."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from . import arvput, contents
from .archive import Image
from .blocks import Cutter, Piece, manifest
from .cache import Cache
from .catalog import Catalog
from .contents import Contents, Wanted
from .display import Display
from .engine import Engine
from .entry import Entry
from .errors import ArvadosError, CacheError, KeepdockerError
from .keep.blocks import locators
from .keep.journal import Journal, valid
from .keep.putter import Putter
from .keep.sender import Sender, Stored
from .progress import Progress
from .repack import Extent
from .source import EngineSource, FileSource, Source
from .sources.described import EngineImage
from .tarball import Readable
from .troubles import ArvadosRefusedError

_EXPIRY = re.compile(r"\+A[0-9a-f]{40}@([0-9a-f]{8})")
_MARGIN = 60 * 60
"""Seconds for which a signature must still be good: the collection is made when everything is sent."""


@dataclass(frozen=True)
class Streaming:
    """Uploads archives block by block, without a file on disk."""

    catalog: Catalog
    cache: Cache
    display: Display
    threads: int
    reuse: bool = True
    """Do not send what Arvados has."""
    resume: bool = True
    """Do not send what the journal says was sent."""
    remember: bool = True
    """Write the journal."""
    dry_run: bool = False
    """Send nothing."""

    @contextmanager
    def from_engine(self, engine: Engine, image: EngineImage, wanted: Wanted) -> Iterator["Streamed"]:
        """Upload the engine's image. Raises EngineError, ArchiveError or ArvadosError; then nothing is recorded."""
        yield Streamed(self, EngineSource(engine, image), wanted, None)

    @contextmanager
    def from_file(self, file: str, wanted: Wanted) -> Iterator["Streamed"]:
        """Check an archive that was made elsewhere (`-` is standard input), and what cannot be read again, upload, too.

        Raises KeepdockerError when it cannot be read, ArchiveError or ArvadosError.
        """
        source = FileSource(file)
        yield Streamed(self, source, wanted, contents.read(source, wanted) if source.repeatable else None)

    def tell_what_cannot_be_reused(self) -> None:
        """Say that everything is sent, where blocks' signatures expire sooner than a collection could be made."""
        seconds = self.catalog.cluster.signature_seconds
        if self.reuse and seconds is not None and seconds <= _MARGIN:
            self.display.note(
                f"this cluster's signatures are good for {seconds} s: nothing that Arvados has already can be reused"
            )

    @property
    def journal(self) -> Journal | None:
        """What this user has sent to this cluster earlier; None if the cache directory cannot be used."""
        cluster = self.catalog.cluster
        try:
            path = self.cache.path / Journal.filename(cluster.uuid_prefix, cluster.api.api_token)
            return Journal(path, self.display.waiting)
        except CacheError:
            return None  # which was said when the lock could not be taken


@dataclass(frozen=True)
class LayerState:
    """Whether a layer of an image has to be sent."""

    diff_id: str
    size: int
    """Bytes in the archive."""
    new: bool


@dataclass(frozen=True)
class _Uploaded:
    contents: Contents
    manifest: str
    layers: tuple[LayerState, ...]
    sent: int
    reused: int


class Streamed:
    """An archive whose blocks were sent; or one that was checked, and they are when it is stored."""

    def __init__(self, way: Streaming, source: Source, wanted: Wanted, checked: Contents | None) -> None:
        self._way = way
        self._source = source
        self._wanted = wanted
        self._uploaded: _Uploaded | None = None
        self._image_id = checked.image_id if checked is not None else None
        self.contents = checked if checked is not None else self._sent().contents

    @property
    def layers(self) -> tuple[LayerState, ...]:
        """The image's layers, base first; known after a dry run."""
        return self._sent().layers

    @property
    def sent(self) -> int:
        """How many bytes were sent, or would have been."""
        return self._sent().sent

    def store(self, entry: Entry) -> str:
        """Make it a new collection of the project, record that, and return its UUID. Raises ArvadosError."""
        catalog = self._way.catalog
        uploaded = self._sent()
        with self._explained():
            uuid = self._created(entry, uploaded)
        if uuid is None:
            uploaded = self._sent_again()
            with self._explained():
                uuid = catalog.create(entry, uploaded.manifest)
        with self._explained():
            catalog.link(uuid, entry)
        return uuid

    def _created(self, entry: Entry, uploaded: _Uploaded) -> str | None:
        """The collection's UUID; None if Arvados refuses what it may not refuse when every block is sent."""
        way = self._way
        try:
            return way.catalog.create(entry, uploaded.manifest)
        except ArvadosRefusedError as error:
            # It may be a signature that has expired meanwhile, or by another clock; the answer does not say.
            expired = expires_before(uploaded.manifest, time.time() + _MARGIN)
            if error.http_status != 403 or not (uploaded.reused or expired):
                raise
            way.catalog.projects.forget()
            way.catalog.projects.check_writable(entry.project)  # may raise an error that says more
            if not self._source.repeatable:
                hint = "Try again with --force, which sends every block." if uploaded.reused else None
                raise ArvadosError(str(error), hint) from error
            why = "signatures of blocks may have expired" if expired else str(error)
            way.display.warning(f"{why}; sending every block once more, also those that Arvados has")
            return None

    def _sent_again(self) -> _Uploaded:
        if self._way.journal is not None and self._way.remember:
            self._way.journal.forget()
        return self._same_sent(reuse=False)

    def _sent(self) -> _Uploaded:
        if self._uploaded is None:
            self._uploaded = self._same_sent(self._way.reuse)
        return self._uploaded

    def _same_sent(self, reuse: bool) -> _Uploaded:
        """Send it, and see that it still is the image that Arvados was asked about."""
        uploaded = self._upload(reuse)
        image_id = uploaded.contents.image_id
        if self._image_id not in (None, image_id):
            raise KeepdockerError(
                f"{self._source.what} changed while it was stored: it was {self._image_id} and is {image_id} now"
            )
        self._image_id = image_id
        return uploaded

    def _upload(self, reuse: bool) -> _Uploaded:
        way, wanted = self._way, self._wanted
        journal = way.journal
        put = _remembering(Putter(way.catalog.cluster), journal if way.remember else None)
        known = partial(_known, way.catalog, journal if way.resume else None, wanted.name)
        sender = Sender(_unsent if way.dry_run else put, known if reuse else dict, way.threads)
        progress = Progress(way.display, sender, self._source.size, arvput.machine_progress)
        cutter = Cutter(partial(_sent_when_there_is_room, sender), hold=wanted.may_change)
        if not way.dry_run:
            way.display.note(f"uploading {self._source.what}")
            way.tell_what_cannot_be_reused()
        with self._explained(), sender, progress:
            read = contents.read(
                self._source, wanted, lambda stream: _Feeder(stream, cutter, progress), cutter.announce
            )
            progress.stage = "finishing"
            cutter.close()
            repacked = read.repacked
            pieces = cutter.as_it_is() if repacked is None else cutter.arranged(repacked.parts)
            text = manifest(f"{read.image_id}.tar", pieces)
        if journal is not None and journal.problem is not None:
            way.display.warning(f"no notes of what was sent: {journal.problem.strerror or journal.problem}")
        if way.dry_run:
            return _Uploaded(read, text, _layer_states(read.image, cutter, pieces), sender.sent, sender.reused)
        way.display.note(
            f"{_mebibytes(progress.read)} in {progress.seconds:.1f} s: {_mebibytes(sender.sent)} sent, "
            f"{_mebibytes(sender.reused)} that Arvados had already"
        )
        return _Uploaded(read, text, (), sender.sent, sender.reused)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        way = self._way
        try:
            yield
        except ArvadosError as error:
            goes_on = error.trouble is not None and way.resume and way.remember and way.journal is not None
            hint = "What was sent need not be sent again: try the same command again." if goes_on else None
            raise ArvadosError(f"{self._source.what} could not be stored: {error}", error.hint or hint) from error


class _Feeder:
    """Reads a stream and has it cut."""

    def __init__(self, stream: Readable, cutter: Cutter, progress: Progress) -> None:
        self._stream = stream
        self._cutter = cutter
        self._progress = progress

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._cutter.feed(data)
        self._progress.add(len(data))
        return data


def _known(catalog: Catalog, journal: Journal | None, name: str | None) -> dict[str, str]:
    """The locators of blocks that need not be sent, by `md5+size`."""
    until = time.time() + _MARGIN
    sent = journal.read(until).locators if journal is not None else []
    good = [locator for locator in (*sent, *locators(catalog.newest_manifests(name))) if valid(locator, until)]
    return {"+".join(locator.split("+")[:2]): locator for locator in good}


def expires_before(manifest_text: str, time: float) -> bool:
    """Whether a block's signature in the manifest is not good any more at that time, in seconds since 1970."""
    return any(int(expiry, 16) < time for expiry in _EXPIRY.findall(manifest_text))


def _remembering(put: Callable[[bytes], str], journal: Journal | None) -> Callable[[bytes], str]:
    def put_and_remember(data: bytes) -> str:
        locator = put(data)
        if journal is not None:
            journal.add(locator)
        return locator

    return put_and_remember


def _sent_when_there_is_room(sender: Sender, data: bytes) -> "Future[Stored]":
    sender.take_room()
    return sender.send(data)


def _unsent(data: bytes) -> str:
    return f"{hashlib.md5(data).hexdigest()}+{len(data)}"


def _layer_states(image: Image, cutter: Cutter, pieces: Sequence[Piece]) -> tuple[LayerState, ...]:
    new = {piece.block for piece in pieces if not piece.block.stored().reused}
    states = []
    for layer in image.layers:
        blocks = {piece.block for piece in cutter.covering(Extent(layer.file.offset, layer.file.size))}
        # What is small may have been packed again, in blocks that were not cut from the archive.
        packed = new - set(cutter.blocks) if not all(block.is_sent for block in blocks) else set()
        states.append(LayerState(layer.diff_id, layer.file.size, bool(packed or blocks & new)))
    return tuple(states)


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
