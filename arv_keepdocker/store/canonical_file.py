"""The layer sink that writes the canonical archive to a file, for arv-put."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ..images.canonical import HEADER, Arrangement, arrange, padding, unit_header, unit_size
from ..images.image import Image
from ..images.layers import Layer, LayerWriter
from ..keep.cache import Cache

_CHUNK = 1 << 20


class CanonicalFile:
    """Collects layers, one at a time, in a file in the cache directory, and then turns the file into the archive.

    Every method raises CacheError if the file cannot be written.
    """

    def __init__(self, cache: Cache, path: Path, taken: Callable[[int], None]) -> None:
        """`taken` is called with the number of bytes after each write."""
        self._cache = cache
        self._path = path
        self._taken = taken
        with cache.writing():
            self._file = path.open("w+b")
        self._units: dict[str, tuple[int, Layer]] = {}
        self._free = threading.Semaphore()

    def has(self, diff_id: str) -> Layer | None:
        _, layer = self._units.get(diff_id, (0, None))
        return layer

    def begin(self) -> LayerWriter:
        self._free.acquire()
        return _Writer(self._file, self._cache, self._taken, self._finished, self._free.release)

    def become(self, image: Image, universal: bool) -> Arrangement:
        """Turn the file into the image's archive. Raises ArchiveError if the configuration cannot be written."""
        arrangement = arrange(image, universal)
        layers = [layer for segment in arrangement.segments for layer in segment.layers]
        starts = [self._units[layer.stored_digest][0] for layer in layers]
        with self._cache.writing(), self._file:
            end = sum(map(unit_size, layers))
            if starts == [sum(map(unit_size, layers[:number])) for number in range(len(layers))]:
                self._file.truncate(end)
                self._file.seek(end)
                self._file.write(arrangement.end)
                return arrangement
            self._cache.check_space(arrangement.size)
            with self._cache.replacing(self._path) as partial, partial.open("wb") as new:
                for start, layer in zip(starts, layers, strict=True):
                    _copy(self._file, start, unit_size(layer), new)
                new.write(arrangement.end)
        return arrangement

    def close(self) -> None:
        self._file.close()

    def _finished(self, start: int, layer: Layer) -> None:
        self._units.setdefault(layer.stored_digest, (start, layer))


class _Writer:
    def __init__(
        self,
        file: IO[bytes],
        cache: Cache,
        taken: Callable[[int], None],
        finished: Callable[[int, Layer], None],
        ended: Callable[[], None],
    ) -> None:
        self._file = file
        self._cache = cache
        self._taken = taken
        self._finished = finished
        self._ended: Callable[[], None] | None = ended
        self._digest = hashlib.sha256()
        self._size = 0
        with cache.writing():
            self._start = file.seek(0, 2)
            file.write(bytes(HEADER))

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)
        with self._cache.writing():
            self._file.write(data)
        self._taken(len(data))

    def finish(self) -> Layer:
        layer = Layer(f"sha256:{self._digest.hexdigest()}", self._size)
        with self._cache.writing():
            self._file.write(bytes(padding(self._size)))
            self._file.seek(self._start)
            self._file.write(unit_header(layer))
        self._finished(self._start, layer)
        self._end()
        return layer

    def abandon(self) -> None:
        if self._ended is not None:
            with self._cache.writing():
                self._file.truncate(self._start)
            self._end()

    def _end(self) -> None:
        if self._ended is not None:
            self._ended()
            self._ended = None


def _copy(old: IO[bytes], start: int, size: int, new: IO[bytes]) -> None:
    old.seek(start)
    while size:
        data = old.read(min(_CHUNK, size))
        new.write(data)
        size -= len(data)
