"""Images in archives: one that an engine saves, a file, or standard input."""

import io
import os
import select
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import cast

from ..errors import ArchiveError, ImageNotFoundError, IncompleteArchiveError, KeepdockerError, PlatformNotSavedError
from ..images import archive
from ..images.compression import MAGIC_SIZE, detect
from ..images.image import Image, Selection
from ..images.layers import Layer, LayerSink, NoSink
from ..images.members import Members
from ..images.tar import Readable, scan
from ..terminal.waiting import Waiting, unsaid
from .engine import Engine
from .engine_image import EngineImage
from .reading import PACKED, Counted, MeasuredSink, Reading

_CHUNK = 1 << 20
_BUFFER = 64 << 10
_SOON = 0.1
"""Seconds within which bytes usually come: to wait for so long is not worth saying."""

Through = Callable[[Readable], Readable]


def _straight(stream: Readable) -> Readable:
    return stream


class EngineSource:
    """An image that an engine saves."""

    repeatable = True
    remote = False
    fetched = None

    def __init__(self, engine: Engine, image: EngineImage) -> None:
        self.what = f"image {image.id}"
        self.image_id: str | None = image.id
        self.layers = image.layers
        self.activity = f"{engine.name} is saving"
        # Of the containerd store, the engine tells the size of compressed layers.
        self.reading = Reading(image.size, PACKED if image.containerd else 1.0)
        self.image = image
        self._engine = engine

    def deliver(self, sink: LayerSink, wanted: Selection) -> Image:
        return self.read(sink, wanted)[1]

    def read(self, sink: LayerSink, wanted: Selection, through: Through = _straight) -> tuple[Members, Image]:
        """Deliver the image, reading what `through` makes of the archive; also tells what the archive has."""
        broken: ArchiveError | None = None
        self.reading.begin(self.image.size)
        measured = MeasuredSink(sink, self.reading.unpack, self.reading.unpack)
        with self._explained(), self._engine.save(self.image) as stream:
            try:
                members = scan(through(Counted(stream, self.reading)), measured)
            except ArchiveError as error:
                # Read to its end, the engine may say itself what is wrong, which explains more.
                broken = error
                while stream.read(_CHUNK):
                    pass
        with self._explained():
            if broken is not None:
                raise broken
            return members, archive.find(members, sink, wanted)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except PlatformNotSavedError as error:
            what = f"{self._engine.name} does not have image {self.image.id} for {self.image.platform}"
            raise ImageNotFoundError(what) from error
        except ArchiveError as error:
            lacks = isinstance(error, IncompleteArchiveError)
            hint = self._engine.repair(self.image) if lacks else error.hint
            raise type(error)(f"{self._engine.name} saved image {self.image.id}, but {error}", hint) from error


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
        self.reading = Reading()
        self.file = file
        self.repeatable = file != "-" and os.path.isfile(file)

    def deliver(self, sink: LayerSink, wanted: Selection) -> Image:
        with self._explained():
            return self._parts(sink, wanted) if self.repeatable else self._whole(sink, wanted)

    def peek(self, wanted: Selection) -> Image:
        """The image without a look at its layers, whose sizes are not known then, as far as that can be."""
        with self._explained():
            return self._parts(_Unread(), wanted) if self.repeatable else self._whole(NoSink(), wanted)

    def _parts(self, sink: LayerSink, wanted: Selection) -> Image:
        """The image, of which only what it needs and the sink lacks is read."""
        measured = MeasuredSink(sink, self.reading.unpack, self.reading.skip)
        with open(self.file, "rb") as file:
            self.reading.begin(os.fstat(file.fileno()).st_size)
            members: Members | None = None
            # What is compressed as a whole can only be read from its beginning to its end.
            is_compressed = detect(file.read(MAGIC_SIZE)) is not None
            file.seek(0)
            if not is_compressed:
                with suppress(ArchiveError):
                    members = scan(Counted(file, self.reading), measured, self.file, pass_over=file.seek)
            if members is not None:
                return self._known(archive.find(members, measured, wanted))
        # Read to its end, it may tell more of what is wrong with it, or have the same member twice.
        return self._whole(NoSink() if isinstance(sink, _Unread) else sink, wanted)

    def _whole(self, sink: LayerSink, wanted: Selection) -> Image:
        measured = MeasuredSink(sink, self.reading.unpack, self.reading.unpack)
        with self._open() as file:
            return self._known(archive.read(file, measured, wanted, self.file))

    @contextmanager
    def _open(self) -> Iterator[Readable]:
        """From its begin."""
        given = self.file == "-"
        waiting = partial(self._waiting, "standard input" if given else self.file)
        with waiting():  # for somebody to open a named pipe for writing
            opened = open(0 if given else self.file, "rb", buffering=0, closefd=not given)  # noqa: SIM115
        with opened as raw, io.BufferedReader(_Patient(raw, waiting), _BUFFER) as file:
            self.reading.begin(os.fstat(raw.fileno()).st_size or None)  # a pipe has none
            yield Counted(file, self.reading)

    def _known(self, image: Image) -> Image:
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
