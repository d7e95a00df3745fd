"""The bytes of an image: saved to the cache directory, checked, and handed to arv-put."""

import gzip
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from . import archive, arvput, repack, tarball
from .archive import Image
from .cache import Cache
from .catalog import Catalog, Entry
from .display import Counter, Display
from .engine import Engine, EngineImage, incomplete_hint
from .errors import ArchiveError, ArvadosError, KeepdockerError
from .platforms import Platform
from .repack import Extent, Repacked
from .tarball import Tarball

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """Which image of an archive is to be stored, and how."""

    name: str | None = None
    """What it is called, to choose one of several images by and to write into an archive that is made."""
    platform: Platform | None = None
    universal: bool = False
    layout: bool = False
    """Whether an OCI image layout will do that has no manifest.json; it gets one."""


@dataclass(frozen=True)
class Saved:
    """A whole, checked archive on disk."""

    path: Path
    image: Image
    repacked: Repacked | None
    """What is stored instead, where the archive cannot stay as it is."""
    temporary: bool = True
    """Whether the file is ours to remove."""

    @property
    def image_id(self) -> str:
        """The id of the image as it will be stored."""
        return self.repacked.image_id if self.repacked is not None else self.image.id


def save(engine: Engine, image: EngineImage, wanted: Wanted, cache: Cache, display: Display, resume: bool) -> Saved:
    """Save the engine's image to the cache directory and check it.

    With `resume`, what an earlier run has saved there is used, if it is whole. Raises EngineError, ArchiveError or
    CacheError, and then leaves no file.
    """
    # An Id that names images for several platforms has an archive for each.
    kind = "." + "".join(filter(str.isalnum, str(image.platform))) if image.several_platforms else ""
    path = cache.archive_path(image.id, kind)
    if resume and path.exists():
        try:
            with path.open("rb") as file:
                found = _chosen(path, tarball.scan(file), wanted, temporary=True)
        except (ArchiveError, OSError) as error:
            display.warning(f"saving the image again, for {path} is not usable: {error}")
        else:
            display.note(f"going on with the image that an earlier run has saved to {path}")
            return found
    if image.size is not None:
        cache.check_space(image.size)
    display.note(f"saving image {image.id}")
    try:
        return _kept(engine.save(image), path, wanted, cache, display.counter("saving", image.size), to_end=True)
    except ArchiveError as error:
        hint = incomplete_hint(image) if image.containerd else error.hint
        raise ArchiveError(f"{engine.name} saved image {image.id}, but {error}", hint) from error


@contextmanager
def examined(file: str, wanted: Wanted, cache: Cache, display: Display) -> Iterator[Saved]:
    """Check an archive that was made elsewhere; `-` is standard input.

    What is compressed, or comes from standard input, is kept in the cache directory meanwhile. Raises ArchiveError, and
    CacheError when the cache directory is needed and cannot be used.
    """
    try:
        saved = _read_archive(file, wanted, cache, display)
    except OSError as error:
        raise KeepdockerError(f"archive {file} cannot be read: {error.strerror or error}") from error
    except ArchiveError as error:
        raise ArchiveError(f"archive {file}: {error}", error.hint) from error
    try:
        yield saved
    finally:
        if saved.temporary:
            saved.path.unlink(missing_ok=True)


def _read_archive(file: str, wanted: Wanted, cache: Cache, display: Display) -> Saved:
    given = file == "-"
    with open(0 if given else file, "rb", closefd=not given) as source:
        compressed = source.peek(2).startswith(b"\x1f\x8b")
        if not given and not compressed and source.seekable():
            return _chosen(Path(file), tarball.scan(source), wanted, temporary=False)
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=source)) if compressed else source
        return _kept(nullcontext(stream), cache.incoming_path(), wanted, cache, display.counter("reading", None))


def _kept(
    source: AbstractContextManager[IO[bytes]],
    path: Path,
    wanted: Wanted,
    cache: Cache,
    counter: Counter,
    to_end: bool = False,
) -> Saved:
    """Write what comes from the source to `path`, checking it on the way; with `to_end` a broken archive is read to its
    end, for an engine may be about to say itself what is wrong, which explains more."""
    broken: ArchiveError | None = None
    with cache.replacing(path) as partial, partial.open("wb") as file:
        with source as stream:
            try:
                # What is unpacked on the way may be far larger than what it comes from.
                contents = tarball.scan(_Tee(stream, file, counter), lambda offset, size: cache.check_space(size))
            except ArchiveError as error:
                broken = error
                while to_end and stream.read(_CHUNK):
                    pass
        counter.close()
        if broken is not None:
            raise broken
        return _chosen(path, contents, wanted, temporary=True)


def _chosen(path: Path, contents: Tarball, wanted: Wanted, temporary: bool) -> Saved:
    image = archive.find(contents, wanted.name, wanted.platform, wanted.layout)
    stays = archive.loadable(contents, image) and (not wanted.universal or repack.is_universal(image))
    name = wanted.name or next(iter(image.names), None)
    return Saved(path, image, None if stays else repack.repack(image, name, wanted.universal), temporary)


def store(saved: Saved, entry: Entry, put_arguments: Sequence[str], cache: Cache, catalog: Catalog) -> str:
    """Upload the saved image with arv-put as a new collection of the project, record it, and return its UUID.

    `put_arguments` are the user's options for arv-put. Raises ArvadosError, and then the files stay for the next run.
    """
    path = saved.path if saved.repacked is None else _repacked(saved, saved.repacked, cache)
    arguments = [*put_arguments, f"--project-uuid={entry.project}", f"--name={entry.collection_name}"]
    try:
        uuid = arvput.put(str(path), entry.filename, arguments, catalog.api)
        catalog.record(uuid, entry)
    except ArvadosError as error:
        hint = error.hint or f"What was saved is kept in {path}; the same command goes on from there."
        raise ArvadosError(f"image {entry.image_id} could not be stored: {error}", hint) from error
    if saved.repacked is not None:
        path.unlink(missing_ok=True)
    return uuid


def _repacked(saved: Saved, repacked: Repacked, cache: Cache) -> Path:
    """The archive to store, beside the one that was saved; of an earlier run if that has got as far."""
    path = cache.archive_path(repacked.image_id, ".repacked")
    if not path.exists() or path.stat().st_size != repacked.size:
        cache.check_space(repacked.size)
        with saved.path.open("rb") as old, cache.replacing(path) as partial, partial.open("wb") as new:
            for part in repacked.parts:
                if isinstance(part, bytes):
                    new.write(part)
                else:
                    _copy(old, new, part)
    return path


def _copy(old: IO[bytes], new: IO[bytes], extent: Extent) -> None:
    old.seek(extent.offset)
    left = extent.size
    while left:
        data = old.read(min(_CHUNK, left))
        if not data:
            raise ArchiveError(f"the archive has become shorter while it was read, near byte {old.tell()}")
        new.write(data)
        left -= len(data)


class _Tee:
    """Reads a stream and writes what it reads to a file."""

    def __init__(self, stream: IO[bytes], file: IO[bytes], counter: Counter) -> None:
        self._stream = stream
        self._file = file
        self._counter = counter

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._file.write(data)
        self._counter.add(len(data))
        return data
