"""An image that Arvados has, in whatever archive, read from Keep block by block."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType

from ..errors import ArchiveError
from ..images import archive, archive_entries
from ..images.canonical import arrange
from ..images.image import Image, Selection
from ..images.layers import LayerSink
from ..images.members import Members
from ..images.tar import scan
from ..keep.locators import Piece
from .read_progress import CountedStream, MeasuredSink, ReadProgress

Get = Callable[[str], bytes]
"""Reads a block by its signed locator. Raises BlockError if Keep does not have just that block, and ArvadosError."""
AHEAD = 1
"""How many blocks are being read while another one is used: each takes up to 64 MiB of memory."""


class BlockError(ArchiveError):
    """Keep does not have a block, or has something else in its place."""


class WrongBlockError(BlockError):
    """What Keep gave is not the block."""


class Blocks:
    """The bytes of a file in Keep, from its first to its last; the next block is read while one is used.

    A context: when it ends, nothing more is read.
    """

    def __init__(self, pieces: Sequence[Piece], get: Get, ahead: int = AHEAD) -> None:
        self._left = deque(pieces)
        self._get = get
        self._ahead = ahead
        self._coming: deque[tuple[Piece, Future[bytes]]] = deque()
        self._current = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end. Raises what `get` raises."""
        if not self._current:
            self._current = self._next()
        data, self._current = self._current[:size], self._current[size:]
        return bytes(data)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, in the pieces in which they come, without copying them."""
        while size:
            if not self._current:
                self._current = self._next()
            piece, self._current = self._current[:size], self._current[size:]
            size -= len(piece)
            yield piece

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes, which are there."""
        return b"".join(self.pieces(size))

    def _next(self) -> memoryview:
        self._current = memoryview(b"")  # its memory is needed
        while self._left and len(self._coming) <= self._ahead:
            piece = self._left.popleft()
            self._coming.append((piece, _started(self._get, piece.locator)))
        if not self._coming:
            return memoryview(b"")
        piece, coming = self._coming.popleft()
        return memoryview(coming.result())[piece.start : piece.start + piece.size]

    def __enter__(self) -> "Blocks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.clear()
        self._coming.clear()


def _started(get: Get, locator: str) -> "Future[bytes]":
    """What reads a block, in a thread that does not keep the program from ending."""
    future: Future[bytes] = Future()

    def run() -> None:
        try:
            future.set_result(get(locator))
        except BaseException as error:
            future.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError:  # the system gives no more threads
        run()
    return future


class ArvadosSource:
    """An archive that is a collection's one file."""

    repeatable = True
    remote = False
    fetched = None
    activity = "reading"

    def __init__(self, what: str, pieces: Sequence[Piece], recorded: str | None, get: Get, plain: bool = False) -> None:
        """`recorded` is the id that the file is named for. With `plain`, an image in the universal form is the image
        that it was made from."""
        self.what = what
        self.image_id = recorded
        self.layers: int | None = None
        self.read_progress = ReadProgress()
        self._pieces = pieces
        self._get = get
        self._plain = plain

    def deliver(self, sink: LayerSink, wanted: Selection) -> Image:
        return self.read(sink, wanted)[1]

    def read(self, sink: LayerSink, wanted: Selection) -> tuple[Members, Image]:
        """Deliver the image; also tells what the archive has."""
        self.read_progress.begin(sum(piece.size for piece in self._pieces))
        measured = MeasuredSink(sink, self.read_progress.unpack, self.read_progress.unpack)
        with self._explained(), Blocks(self._pieces, self._get) as blocks:
            members = scan(CountedStream(blocks, self.read_progress), measured)
            image = archive.select_image(members, measured, wanted)
        self.layers = len(image.layers)
        if self._plain and image.universal_of is not None and arrange(image, universal=False).universal:
            image = replace(image, config=image.universal_of, universal_of=None)
        return members, replace(image, targets=tuple(archive_entries.targets(members)))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ArchiveError as error:
            raise type(error)(f"{self.what}: {error}", error.hint) from error
