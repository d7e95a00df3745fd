"""How much of an image has been read, and how long it will be, uncompressed."""

import threading
from collections.abc import Callable

from ..images.layers import Layer, LayerSink, LayerWriter
from ..images.tar import Readable

COMPRESSION_RATIO = 2.5
"""How much longer a layer is than its compressed blob, as a rule."""
_ENOUGH = 1 << 20
"""Bytes that tell it better."""


class ReadProgress:
    """Counts the bytes that a source reads. May be used by several threads."""

    def __init__(self, total: int | None = None, growth: float = 1.0) -> None:
        """`total` bytes are to be read, if that is known, each of which is so many when it is uncompressed: a guess
        that what is read improves."""
        self.total = total
        self.read = 0
        self._growth = growth
        self._unpacked = 0
        self._is_again = False
        self._lock = threading.Lock()

    def begin(self, total: int | None) -> None:
        """Begin to read, perhaps once more, what has so many bytes."""
        with self._lock:
            if self.read and self._unpacked:
                self._growth = self._unpacked / self.read
                self._is_again = True
            self.total = total
            self.read = self._unpacked = 0

    def add(self, read: int, unpacked: int) -> None:
        """So many bytes were read, and are so many when they are uncompressed."""
        with self._lock:
            self.read += read
            self._unpacked += unpacked

    def unpack(self, count: int) -> None:
        """So many uncompressed bytes came out of those that were read."""
        self.add(0, count)

    def skip(self, count: int) -> None:
        """So many uncompressed bytes need not be read."""
        self.add(int(count / self._factor), count)

    @property
    def is_guess(self) -> bool:
        """Whether how long it will be is little more than a guess."""
        return self._growth != 1.0 and not self._is_again

    @property
    def left(self) -> int:
        """Bytes that are still to be read, as far as is known."""
        return max((self.total or 0) - self.read, 0)

    @property
    def size(self) -> int | None:
        """An estimate of the bytes of the image's layers, uncompressed; None where nothing is known."""
        with self._lock:
            return self._unpacked + int(self.left * self._factor) if self.total else None

    @property
    def _factor(self) -> float:
        is_clear = self.read > _ENOUGH and self._unpacked and not self._is_again
        return self._unpacked / self.read if is_clear else self._growth


class MeasuredSink:
    """Passes layers on, and tells how many bytes they have."""

    def __init__(self, sink: LayerSink, written: Callable[[int], None], known: Callable[[int], None]) -> None:
        """`written` is told of what is written, `known` of the layers that need not be."""
        self._sink = sink
        self._written = written
        self._tell_known = known
        self._known: set[str] = set()

    def has(self, diff_id: str) -> Layer | None:
        layer = self._sink.has(diff_id)
        if layer is not None and diff_id not in self._known:
            self._known.add(diff_id)
            self._tell_known(layer.size)
        return layer

    def begin(self) -> LayerWriter:
        return _MeasuredWriter(self._sink.begin(), self._written)


class _MeasuredWriter:
    def __init__(self, writer: LayerWriter, written: Callable[[int], None]) -> None:
        self._writer = writer
        self._written = written

    def write(self, data: bytes) -> None:
        self._writer.write(data)
        self._written(len(data))

    def finish(self) -> Layer:
        return self._writer.finish()

    def abandon(self) -> None:
        self._writer.abandon()


class CountedStream:
    """A stream whose bytes are counted."""

    def __init__(self, stream: Readable, read_progress: ReadProgress) -> None:
        self._stream = stream
        self._reading = read_progress

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._reading.add(len(data), 0)
        return data
