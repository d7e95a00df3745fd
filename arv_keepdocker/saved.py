"""The way through arv-put: the image is saved to the cache directory, checked, and uploaded from there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import arvput, contents, sdk_logs
from .cache import Cache
from .catalog import Catalog
from .contents import Contents, Wanted
from .display import Counter, Display
from .engine import Engine
from .entry import Entry
from .errors import ArchiveError, ArvadosError, KeepdockerError
from .keep import answers
from .repack import Extent, Repacked
from .source import EngineSource, FileSource, Source
from .sources.described import EngineImage
from .tarball import Readable

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ViaArvPut:
    """Saves images and hands them to arv-put."""

    catalog: Catalog
    cache: Cache
    display: Display
    arguments: Sequence[str]
    """The user's options for arv-put."""
    resume: bool = True
    """Use what an earlier run has saved, if it is whole."""

    @contextmanager
    def from_engine(self, engine: Engine, image: EngineImage, wanted: Wanted) -> Iterator["Saved"]:
        """Save the engine's image and check it.

        Raises EngineError, ArchiveError or CacheError, and then leaves no file. If it is not stored after all, the file
        stays for the next run.
        """
        # An Id that names images for several platforms has an archive for each.
        kind = "." + "".join(filter(str.isalnum, str(image.platform))) if image.several_platforms else ""
        path = self.cache.archive_path(image.id, kind)
        _check_name(path)
        found = self._of_earlier_run(path, wanted) if self.resume and path.exists() else None
        if found is None:
            if image.size is not None:
                self.cache.check_space(image.size)
            self.display.note(f"saving image {image.id}")
            found = self._kept(EngineSource(engine, image), path, wanted, self.display.counter("saving", image.size))
        yield Saved(self, path, found, kept=True)
        path.unlink(missing_ok=True)

    @contextmanager
    def from_file(self, file: str, wanted: Wanted) -> Iterator["Saved"]:
        """Check an archive that was made elsewhere; `-` is standard input.

        What is compressed, or comes from standard input, is kept in the cache directory meanwhile. Raises ArchiveError,
        and CacheError when the cache directory is needed and cannot be used.
        """
        source = FileSource(file)
        if source.is_plain():
            _check_name(Path(file))
            before = _state(Path(file))
            yield Saved(self, Path(file), contents.read(source, wanted), before)
            return
        path = self.cache.incoming_path()
        _check_name(path)
        try:
            found = self._kept(source, path, wanted, self.display.counter("reading", None))
            yield Saved(self, path, found)
        finally:
            path.unlink(missing_ok=True)

    def _of_earlier_run(self, path: Path, wanted: Wanted) -> Contents | None:
        if not path.is_file():  # but something that might not even be readable to its end
            return None
        try:
            found = contents.read(FileSource(str(path)), wanted)
        except ArchiveError as error:
            self.display.warning(f"saving the image again, for what an earlier run has saved is not usable: {error}")
            return None
        self.display.note(f"going on with the image that an earlier run has saved to {path}")
        return found

    def _kept(self, source: Source, path: Path, wanted: Wanted, counter: Counter) -> Contents:
        """Write what comes from the source to `path`, checking it on the way."""
        with self.cache.replacing(path) as partial, partial.open("wb") as file:
            try:
                return contents.read(
                    source,
                    wanted,
                    lambda stream: _Tee(stream, file, self.cache, counter),
                    # What is unpacked on the way may be far larger than what it comes from.
                    lambda offset, size: self.cache.check_space(size),
                )
            finally:
                counter.close()


class Saved:
    """A whole, checked archive on disk."""

    def __init__(self, way: ViaArvPut, path: Path, found: Contents, before: object = None, kept: bool = False) -> None:
        """`before` is the state of a file that is not ours, before it was checked; `kept` whether the file stays if it
        cannot be stored."""
        self.path = path
        self.contents = found
        self._way = way
        self._before = before
        self._kept = kept

    def store(self, entry: Entry) -> str:
        """Upload it as a new collection of the project, record that, and return its UUID.

        Raises ArvadosError, and then the files stay for the next run; KeepdockerError if a file that is not ours has
        changed since it was checked.
        """
        way, repacked = self._way, self.contents.repacked
        self._check_unchanged()
        path = self.path if repacked is None else self._repacked(repacked)
        arguments = [*way.arguments, f"--project-uuid={entry.project}", f"--name={entry.collection_name}"]
        if way.cache.is_distrusted:
            arguments.append("--no-cache")  # for arv-put believes its notes of what was sent
        try:
            keep = way.catalog.cluster.api.keep
            waiting = way.display.waiting("arv-put to store the image")
            with sdk_logs.retries_told(way.display), waiting, answers.checked(keep):
                uuid = arvput.put(str(path), entry.filename, arguments, way.catalog.cluster.api)
            try:
                self._check_unchanged()
            except KeepdockerError:
                way.catalog.discard(uuid)  # it is named for another image
                raise
            way.catalog.record(uuid, entry).carry_out()
        except ArvadosError as error:
            goes_on = way.resume and (self._kept or repacked is not None)
            hint = f"What was saved is kept in {path}; the same command goes on from there." if goes_on else None
            raise ArvadosError(f"image {entry.image_id} could not be stored: {error}", error.hint or hint) from error
        if repacked is not None:
            path.unlink(missing_ok=True)
        return uuid

    def _check_unchanged(self) -> None:
        if self._before is not None and _state(self.path) != self._before:
            raise KeepdockerError(f"{self.path} changed while it was stored")

    def _repacked(self, repacked: Repacked) -> Path:
        """The archive to store, beside the one that was saved; of an earlier run if that has got as far."""
        cache = self._way.cache
        path = cache.archive_path(repacked.image_id, f".{repacked.fingerprint}")
        if not self._way.resume or not path.exists() or path.stat().st_size != repacked.size:
            cache.check_space(repacked.size)
            with self.path.open("rb") as old, cache.replacing(path) as partial, partial.open("wb") as new:
                for part in repacked.parts:
                    if isinstance(part, bytes):
                        new.write(part)
                    else:
                        _copy(old, new, part)
                self._check_unchanged()
        return path


def _check_name(path: Path) -> None:
    """Raise KeepdockerError for a path that arv-put could not handle: it encodes it to name its own cache by."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise KeepdockerError(
            f"arv-put cannot store {path}: the path is not UTF-8", "Leave out --via-arv-put, which is not needed."
        ) from error


def _state(path: Path) -> object:
    """What differs when a file is written or replaced. Raises KeepdockerError if it is gone."""
    try:
        status = path.stat()
    except OSError as error:
        raise KeepdockerError(f"{path} cannot be read: {error.strerror}") from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


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
    """Reads a stream and writes what it reads to a file in the cache."""

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
