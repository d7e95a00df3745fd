"""An archive as Keep blocks: cut where its layers begin and end, and put together as a collection's manifest.

A layer that has blocks of its own is the same blocks in every image that has it, whatever is around it. What is small
is packed together: each block costs whoever reads the image a request, and the scheduler reckons with 64 MiB of scratch
space for each.
"""

import bisect
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from .keep.sender import Stored
from .repack import Extent

BLOCK_SIZE = 64 << 20
"""Bytes that Keep takes as one block at most."""
LAYER_SIZE = 4 << 20
"""Bytes from which a layer gets blocks of its own.

Of images with many layers, 1 MiB would make half as many blocks again, to send 7 MiB less of a next version; 16 would
save few blocks, and send small bases again (`python -m tests.bench.threshold`).
"""
_HELD_LIMIT = BLOCK_SIZE


Send = Callable[[bytes], "Future[Stored]"]


class Block:
    """Bytes of the archive that are one block, or will be."""

    def __init__(self, offset: int, data: bytes) -> None:
        self.offset = offset
        self.size = len(data)
        self.data: bytes | None = data
        """As long as they are not on their way."""
        self._stored: Future[Stored] | None = None

    @property
    def is_sent(self) -> bool:
        """Whether it is stored as it is, or will be."""
        return self._stored is not None

    def send(self, send: Send) -> None:
        if self.data is not None:
            self._stored = send(self.data)
            self.data = None

    def stored(self) -> Stored:
        """What has become of it; waits for that. Raises what sending it has raised."""
        assert self._stored is not None
        return self._stored.result()


@dataclass(frozen=True)
class Piece:
    """A part of a block."""

    block: Block
    start: int
    size: int


class Cutter:
    """Cuts the bytes that come by into blocks and sends them."""

    def __init__(self, send: Send, hold: bool = False) -> None:
        """With `hold`, what is not a layer is kept until the end, unless that is much: it may have to be rewritten."""
        self.blocks: list[Block] = []
        """What was cut so far."""
        self._send = send
        self._hold = hold
        self._held: deque[Block] = deque()
        self._layer_end = 0
        self._start = self._position = 0
        self._data = io.BytesIO()  # which gives its bytes away without copying them

    def announce(self, offset: int, size: int) -> None:
        """What comes next is a file of `size` bytes, at `offset`."""
        if size >= LAYER_SIZE:
            self._cut()
            self._layer_end = offset + size

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        left = memoryview(data)
        while left:
            end = self._start + BLOCK_SIZE
            if self._position < self._layer_end:
                end = min(end, self._layer_end)
            piece = left[: end - self._position]
            self._data.write(piece)
            self._position += len(piece)
            left = left[len(piece) :]
            if self._position == end:
                self._cut()

    def close(self) -> None:
        """Make the rest a block."""
        self._cut()

    def as_it_is(self) -> list[Piece]:
        """The archive, byte for byte, from its blocks."""
        for block in self._held:
            block.send(self._send)
        self._held.clear()
        return [Piece(block, 0, block.size) for block in self.blocks]

    def arranged(self, parts: Iterable[bytes | Extent]) -> list[Piece]:
        """Another archive, of new bytes and extents of this one. Blocks that are not in it are forgotten."""
        small: list[bytes] = []
        pieces: list[Piece] = []
        for part in parts:
            if isinstance(part, bytes):
                small.append(part)
                continue
            for piece in self.covering(part):
                data = piece.block.data
                if data is not None:
                    small.append(data[piece.start : piece.start + piece.size])
                else:
                    pieces += self._packed(small)
                    pieces.append(piece)
                    small = []
        return [*pieces, *self._packed(small)]

    def covering(self, extent: Extent) -> Iterator[Piece]:
        """The parts of blocks that an extent of the archive is made of."""
        number = bisect.bisect_right(self.blocks, extent.offset, key=lambda block: block.offset) - 1
        position, end = extent.offset, extent.offset + extent.size
        while position < end:
            block = self.blocks[number]
            start = position - block.offset
            size = min(end - position, block.size - start)
            yield Piece(block, start, size)
            position += size
            number += 1

    def _packed(self, small: list[bytes]) -> Iterator[Piece]:
        data = b"".join(small)
        for start in range(0, len(data), BLOCK_SIZE):
            block = Block(start, data[start : start + BLOCK_SIZE])
            block.send(self._send)
            yield Piece(block, 0, block.size)

    def _cut(self) -> None:
        if self._position == self._start:
            return
        block = Block(self._start, self._data.getvalue())
        self._data = io.BytesIO()
        self._start = self._position
        self.blocks.append(block)
        self._send_or_hold(block, layer=block.offset < self._layer_end)

    def _send_or_hold(self, block: Block, layer: bool) -> None:
        if layer or not self._hold:
            block.send(self._send)
            return
        self._held.append(block)
        while sum(held.size for held in self._held) > _HELD_LIMIT:
            self._held.popleft().send(self._send)


def manifest(filename: str, pieces: Iterable[Piece]) -> str:
    """The text of a collection of one file, made of the pieces (see Arvados: Keep manifest format).

    Waits for the blocks to be stored, and raises what storing them has raised.
    """
    starts: dict[Block, int] = {}
    segments: list[tuple[int, int]] = []
    size = 0
    for piece in pieces:
        if piece.block not in starts:
            starts[piece.block] = size
            size += piece.block.size
        start = starts[piece.block] + piece.start
        if segments and sum(segments[-1]) == start:
            segments[-1] = (segments[-1][0], segments[-1][1] + piece.size)
        else:
            segments.append((start, piece.size))
    name = filename.replace(":", "\\072")  # as arv-put writes it
    locators = [block.stored().locator for block in starts]
    return " ".join([".", *locators, *(f"{start}:{length}:{name}" for start, length in segments)]) + "\n"
