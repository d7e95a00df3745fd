"""Cuts one layer into blocks while it arrives."""

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import Future

from ..images.canonical import BLOCK_SIZE, HEADER, padding
from ..images.layers import Layer
from .block_sender import BlockSender, StoredBlock

Finished = Callable[[Layer, io.BytesIO, "list[Future[StoredBlock]]", io.BytesIO | None], None]
"""Takes a finished layer's unit: the first block, with room for the header; the blocks that were sent after it; and the
last block, if it is not the first."""


class BlockWriter:
    """A layer writer that sends full blocks, and holds the first one back until its header is known."""

    def __init__(
        self, sender: BlockSender, taken: Callable[[int], None], finished: Finished, ended: Callable[[], None]
    ) -> None:
        """`taken` is called with the number of bytes after each write, `ended` when the writer is not used any more."""
        self._sender = sender
        self._taken = taken
        self._finished = finished
        self._ended = ended
        self._digest = hashlib.sha256()
        self._size = 0
        self._first: io.BytesIO | None = None
        self._later: list[Future[StoredBlock]] = []
        self._current: io.BytesIO | None = None
        """The block after the first that is being filled."""
        self._open = True

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)
        self._append(data)
        self._taken(len(data))

    def finish(self) -> Layer:
        layer = Layer(f"sha256:{self._digest.hexdigest()}", self._size)
        self._append(bytes(padding(self._size)))
        first = self._first or self._new_first_block()
        self._first = None
        rest, self._current = self._current, None
        self._finished(layer, first, self._later, rest)
        self._end()
        return layer

    def abandon(self) -> None:
        for buffer in (self._first, self._current):
            if buffer is not None:
                self._sender.release_slot()
        self._first = self._current = None
        self._end()

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            buffer = self._buffer()
            piece = left[: BLOCK_SIZE - buffer.tell()]
            buffer.write(piece)
            left = left[len(piece) :]
            if buffer is self._current and buffer.tell() == BLOCK_SIZE:
                self._current = None
                self._later.append(self._sender.send(buffer.getvalue()))

    def _buffer(self) -> io.BytesIO:
        """The block for the next bytes."""
        if self._first is None:
            self._first = self._new_first_block()
        if self._first.tell() < BLOCK_SIZE:
            return self._first
        if self._current is None:
            self._sender.take_slot()
            self._current = io.BytesIO()  # which gives its bytes away without copying them
        return self._current

    def _new_first_block(self) -> io.BytesIO:
        self._sender.take_slot()
        buffer = io.BytesIO()
        buffer.write(bytes(HEADER))  # which tells the digest, in the end
        return buffer

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._ended()
