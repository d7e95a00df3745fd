"""Uploads through arv-put: the image is saved to the cache directory, checked, and uploaded from there."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ..catalog import sdk_logs
from ..catalog.catalog import Catalog
from ..catalog.entry import CatalogEntry
from ..errors import ArchiveError, ArvadosError, KeepdockerError
from ..images import archive, archive_entries
from ..images.canonical import Arrangement, arrange
from ..images.image import Image, Selection
from ..images.layers import NoSink
from ..images.members import Members
from ..images.tar import Readable, scan
from ..keep import put_verification
from ..keep.cache import Cache
from ..sources.engine_source import EngineSource
from ..sources.file_source import FileSource
from ..sources.source import Source
from ..terminal.display import Counter, Display
from . import arv_put
from .announcements import called, stored
from .canonical_file import CanonicalFile


@dataclass(frozen=True)
class ArvPutUploader:
    """Saves images and hands them to arv-put: byte for byte as the engine wrote them, or as canonical archives.

    Archives from elsewhere are always written anew, because two readers might see two images in them. So is the
    universal form, which no engine writes.
    """

    catalog: Catalog
    cache: Cache
    display: Display
    arguments: Sequence[str]
    """The user's options for arv-put."""
    resume: bool = True
    """Use an archive that an earlier run has saved, if it is complete."""
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def prepare(self, source: Source, wanted: Selection, universal: bool | None) -> Iterator["ArvPutUpload"]:
        """Save the image and check it.

        Raises ArchiveError, CacheError or what the source raises, and then leaves no file. An engine's image that is
        not stored after all stays on disk for the next run.
        """
        if isinstance(source, EngineSource):
            saved = self._from_engine(source, wanted, bool(universal))
            yield saved
            saved.discard()
            return
        saved = self._from_elsewhere(source, wanted, bool(universal))
        try:
            yield saved
        finally:
            if not source.repeatable:
                saved.discard()

    def _from_engine(self, source: EngineSource, wanted: Selection, universal: bool) -> "ArvPutUpload":
        image = source.image
        # An Id that names images for several platforms has an archive for each.
        kind = "".join(filter(str.isalnum, str(image.platform))) if image.several_platforms else ""
        kind += "universal" if universal else ""
        path = self.cache.archive_path(image.id, f".{kind}" if kind else "")
        _check_name(path)
        found = self._of_earlier_run(path, wanted, universal) if self.resume and path.exists() else None
        if found is None:
            if image.size is not None:
                self.cache.check_space(image.size)
            self.display.note(f"storing {called(wanted, source)}")
            counter = self.display.counter("saving", image.size)
            if universal:
                arrangement, saved = self._arranged(source, wanted, universal, path, counter)
                return ArvPutUpload(self, saved, arrangement.image_id, arrangement.universal, path)
            found = self._saved(source, wanted, path, counter)
        return self._as_saved(found, path, wanted, universal)

    def _as_saved(self, found: tuple[Members, Image], path: Path, wanted: Selection, universal: bool) -> "ArvPutUpload":
        """The archive at `path` as it is, if every engine can load it and find the image; otherwise written anew."""
        members, image = found
        if universal or _loadable(members, image):
            arrangement = arrange(image, universal)
            image_id = arrangement.image_id if universal else image.id
            return ArvPutUpload(self, image, image_id, universal, path)
        return self._written_later(FileSource(str(path)), image, wanted, universal, [path])

    def _of_earlier_run(self, path: Path, wanted: Selection, universal: bool) -> tuple[Members, Image] | None:
        if not path.is_file():  # but something that might not even be readable to its end
            return None
        sink = NoSink()
        try:
            with path.open("rb") as file:
                members = scan(file, sink)
            image = archive.select_image(members, sink, wanted)
            if universal and path.stat().st_size != arrange(image, universal).size:
                raise ArchiveError("it is another archive")
        except (ArchiveError, OSError) as error:
            self.display.warning(f"saving the image again, because what an earlier run saved cannot be used: {error}")
            return None
        self.display.note(f"continuing with the image that an earlier run saved to {path}")
        return members, image

    def _saved(self, source: EngineSource, wanted: Selection, path: Path, counter: Counter) -> tuple[Members, Image]:
        """Write what the engine saves to `path`, and check it meanwhile."""
        with self.cache.replacing(path) as partial, partial.open("wb") as file:
            try:
                return source.read(NoSink(), wanted, lambda stream: _Tee(stream, file, self.cache, counter))
            finally:
                counter.close()

    def _from_elsewhere(self, source: Source, wanted: Selection, universal: bool) -> "ArvPutUpload":
        if source.repeatable:
            image = source.deliver(NoSink(), wanted)
            return self._written_later(source, image, wanted, universal, [])
        path = self.cache.incoming_path()
        _check_name(path)
        counter = self.display.counter("reading", None)
        arrangement, image = self._arranged(source, wanted, universal, path, counter)
        return ArvPutUpload(self, image, arrangement.image_id, arrangement.universal, path)

    def _written_later(
        self, source: Source, image: Image, wanted: Selection, universal: bool, before: Sequence[Path]
    ) -> "ArvPutUpload":
        """The canonical archive, which `store` writes unless an earlier run has."""
        arrangement = arrange(image, universal)
        path = self.cache.archive_path(arrangement.image_id, ".canonical")
        _check_name(path)

        def write() -> None:
            if self.resume and path.exists() and path.stat().st_size == arrangement.size:
                return
            self.cache.check_space(arrangement.size)
            counter = self.display.counter("writing", arrangement.size)
            written, _ = self._arranged(source, wanted, universal, path, counter)
            if written != arrangement:
                path.unlink(missing_ok=True)
                raise KeepdockerError(f"{source.what} changed while it was stored")

        return ArvPutUpload(self, image, arrangement.image_id, arrangement.universal, path, write, before)

    def _arranged(
        self, source: Source, wanted: Selection, universal: bool, path: Path, counter: Counter
    ) -> tuple[Arrangement, Image]:
        """Write the canonical archive to `path`."""
        with self.cache.replacing(path) as partial, closing(CanonicalFile(self.cache, partial, counter.add)) as file:
            try:
                image = source.deliver(file, wanted)
                return file.become(image, universal), image
            finally:
                counter.close()


class ArvPutUpload:
    """A complete, checked image whose archive is on disk, or will be."""

    def __init__(
        self,
        uploader: ArvPutUploader,
        image: Image,
        image_id: str,
        universal: bool,
        path: Path,
        write: Callable[[], None] = lambda: None,
        before: Sequence[Path] = (),
    ) -> None:
        """`write` writes the archive at `path`. The files `before` are removed with it when the image is stored."""
        self.image = image
        self.image_id = image_id
        self.universal = universal
        self._uploader = uploader
        self._path = path
        self._write = write
        self._before = before

    @property
    def content(self) -> None:
        """None: arv-put does not tell what it sends."""
        return None

    def store(self, entry: CatalogEntry) -> str:
        """Upload it as a new collection, create its links, and return the collection's UUID.

        Raises ArvadosError, and then the archive stays for the next run; KeepdockerError if the user's archive has
        changed since it was checked.
        """
        uploader = self._uploader
        self._write()
        arguments = [*uploader.arguments, f"--project-uuid={entry.project}", f"--name={entry.collection_name}"]
        if uploader.cache.is_distrusted:
            arguments.append("--no-cache")  # for arv-put believes its notes of what was sent
        try:
            keep = uploader.catalog.client.api.keep
            waiting = uploader.display.waiting("arv-put to store the image")
            with sdk_logs.retries_told(uploader.display), waiting, put_verification.checked(keep):
                uuid = arv_put.put(str(self._path), entry.filename, arguments, uploader.catalog.client.api)
            uploader.catalog.plan_recording(uuid, entry).carry_out()
        except ArvadosError as error:
            hint = f"What was saved is kept in {self._path}; the same command continues from there."
            own_hint = hint if uploader.resume else None
            raise ArvadosError(
                f"image {entry.image_id} could not be stored: {error}", error.hint or own_hint
            ) from error
        self.discard()
        uploader.display.note(f"{stored(entry, uploader.catalog)} ({time.monotonic() - uploader.started:.1f} s)")
        return uuid

    def discard(self) -> None:
        """Remove its files."""
        for path in (self._path, *self._before):
            path.unlink(missing_ok=True)


def _check_name(path: Path) -> None:
    """Raise KeepdockerError for a path that is not UTF-8: arv-put hashes the path to name its cache file."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise KeepdockerError(
            f"arv-put cannot store {path}: the path is not UTF-8", "Leave out --via-arv-put, which is not needed."
        ) from error


def _loadable(members: Members, image: Image) -> bool:
    """Whether every engine can load the archive as it is and find `image` in it.

    Docker 20 to 28 and the classic store of Docker 29 need manifest.json. It must name one image only, since a compute
    node would not know which of several is meant.
    """
    if members.find(archive_entries.MANIFEST) is None:
        return False
    configs = [members.find(entry.config) for entry in archive_entries.of_manifest(members)]
    return [f"sha256:{file.sha256}" for file in configs if file is not None] == [image.id]


class _Tee:
    """Reads a stream, and writes what it reads to a file in the cache directory."""

    def __init__(self, stream: Readable, file: IO[bytes], cache: Cache, counter: Counter) -> None:
        self._stream = stream
        self._file = file
        self._cache = cache
        self._counter = counter

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        with self._cache.writing():
            self._file.write(data)
        self._counter.add(len(data))
        return data
