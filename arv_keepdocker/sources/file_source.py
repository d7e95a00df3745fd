"""An image in an archive that was made elsewhere: a file, or standard input."""

import io
import os
import select
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import cast

from ..errors import ArchiveError, KeepdockerError
from ..images import archive
from ..images.compression import MAGIC_SIZE, detect
from ..images.image import Image, Selection
from ..images.layers import Layer, LayerSink, NoSink
from ..images.members import Members
from ..images.tar import Readable, scan
from ..terminal.waiting import Waiting, unsaid
from .read_progress import CountedStream, MeasuredSink, ReadProgress

_BUFFER = 64 << 10
_SOON = 0.1
"""Seconds within which bytes usually come: to wait for so long is not worth saying."""


class FileSource:
    """An archive that was made elsewhere; `-` is standard input."""

    remote = False
    fetched = None

    def __init__(self, file: str, waiting: Waiting = unsaid) -> None:
        """`waiting` is told where the file, a pipe, has nothing to read for long."""
        self._waiting = waiting
        self.what = f"archive {file}"
        self.image_id: str | None = None
        self.layers: int | None = None
        self.activity = "reading"
        self.read_progress = ReadProgress()
        self.file = file
        self.repeatable = file != "-" and os.path.isfile(file)

    def deliver(self, sink: LayerSink, wanted: Selection) -> Image:
        with self._explained():
            return self._read_parts(sink, wanted) if self.repeatable else self._read_all(sink, wanted)

    def peek(self, wanted: Selection) -> Image:
        """The image without a look at its layers, whose sizes are not known then, as far as that can be."""
        with self._explained():
            return self._read_parts(_Unread(), wanted) if self.repeatable else self._read_all(NoSink(), wanted)

    def _read_parts(self, sink: LayerSink, wanted: Selection) -> Image:
        """The image, of which only what it needs and the sink lacks is read."""
        measured = MeasuredSink(sink, self.read_progress.unpack, self.read_progress.skip)
        with open(self.file, "rb") as file:
            self.read_progress.begin(os.fstat(file.fileno()).st_size)
            members: Members | None = None
            # What is compressed as a whole can only be read from its beginning to its end.
            is_compressed = detect(file.read(MAGIC_SIZE)) is not None
            file.seek(0)
            if not is_compressed:
                with suppress(ArchiveError):
                    members = scan(CountedStream(file, self.read_progress), measured, self.file, pass_over=file.seek)
            if members is not None:
                return self._noting_id(archive.select_image(members, measured, wanted))
        # Read to its end, it may tell more of what is wrong with it, or have the same member twice.
        return self._read_all(NoSink() if isinstance(sink, _Unread) else sink, wanted)

    def _read_all(self, sink: LayerSink, wanted: Selection) -> Image:
        measured = MeasuredSink(sink, self.read_progress.unpack, self.read_progress.unpack)
        with self._open() as file:
            return self._noting_id(archive.read_image(file, measured, wanted, self.file))

    @contextmanager
    def _open(self) -> Iterator[Readable]:
        """From its begin."""
        given = self.file == "-"
        waiting = partial(self._waiting, "standard input" if given else self.file)
        with waiting():  # for somebody to open a named pipe for writing
            opened = open(0 if given else self.file, "rb", buffering=0, closefd=not given)  # noqa: SIM115
        with opened as raw, io.BufferedReader(_Patient(raw, waiting), _BUFFER) as file:
            self.read_progress.begin(os.fstat(raw.fileno()).st_size or None)  # a pipe has none
            yield CountedStream(file, self.read_progress)

    def _noting_id(self, image: Image) -> Image:
        self.image_id, self.layers = image.id, len(image.layers)
        return image

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise KeepdockerError(f"{self.what} cannot be read: {error.strerror or error}") from error
        except ArchiveError as error:
            raise ArchiveError(f"{self.what}: {error}", error.hint) from error


class _Unread(NoSink):
    """Takes no layer."""

    def has(self, diff_id: str) -> Layer:
        return Layer(diff_id, 0)


class _Patient(io.RawIOBase):
    """A file that waits for its next bytes, and says so where they take long.

    Also where whoever opened standard input has set that not to block.
    """

    def __init__(self, file: io.FileIO, waiting: Callable[[], AbstractContextManager[None]]) -> None:
        self._file = file
        self._waiting = waiting
        self._ready = select.poll()
        self._ready.register(file.fileno(), select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            if not self._ready.poll(_SOON * 1000):
                with self._waiting():
                    self._ready.poll()
            count = cast("int | None", self._file.readinto(buffer))
            if count is not None:
                return count
