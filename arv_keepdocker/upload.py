"""The bytes of an image: saved to the cache directory, checked, and handed to arv-put."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from . import archive, arvput
from .archive import Archive
from .cache import Cache
from .catalog import Catalog, Entry
from .display import Counter, Display
from .engine import Engine, EngineImage
from .errors import ArchiveError, ArvadosError


def save(engine: Engine, image: EngineImage, cache: Cache, display: Display, resume: bool) -> tuple[Path, Archive]:
    """Save the image to the cache directory and check it.

    With `resume`, what an earlier run has saved there is used, if it is whole. Raises EngineError, ArchiveError or
    CacheError, and then leaves no file.
    """
    path = cache.archive_path(image.id)
    if resume and path.exists():
        try:
            with path.open("rb") as file:
                found = archive.read(file)
        except (ArchiveError, OSError) as error:
            display.warning(f"saving the image again, for {path} is not usable: {error}")
        else:
            display.note(f"going on with the image that an earlier run has saved to {path}")
            return path, found
    if image.size is not None:
        cache.check_space(image.size)
    display.note(f"saving image {image.id}")
    counter = display.counter("saving", image.size)
    broken: ArchiveError | None = None
    with cache.replacing(path) as partial, partial.open("wb") as file:
        with engine.save(image.id) as stream:
            tee = _Tee(stream, file, counter)
            try:
                saved = archive.read(tee)
            except ArchiveError as error:
                broken = error
                tee.drain()  # docker may be about to say itself what is wrong, which explains more
        counter.close()
        if broken is not None:
            raise ArchiveError(f"docker saved image {image.id}, but {broken}") from broken
    return path, saved


def store(path: Path, entry: Entry, put_arguments: Sequence[str], catalog: Catalog) -> str:
    """Upload the saved image with arv-put as a new collection of the project, record it, and return its UUID.

    `put_arguments` are the user's options for arv-put. Raises ArvadosError, and then the file stays for the next run.
    """
    arguments = [*put_arguments, f"--project-uuid={entry.project}", f"--name={entry.collection_name}"]
    try:
        uuid = arvput.put(str(path), entry.filename, arguments, catalog.api)
        catalog.record(uuid, entry)
    except ArvadosError as error:
        hint = error.hint or f"The saved image is kept in {path}; the same command goes on from there."
        raise ArvadosError(f"image {entry.image_id} could not be stored: {error}", hint) from error
    return uuid


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

    def drain(self) -> None:
        while self.read(1 << 20):
            pass
