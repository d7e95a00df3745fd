"""Where an archive is read from: an engine that saves an image, a file, or standard input."""

import gzip
import io
import os
import select
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any, Protocol, cast

from .engine import Engine
from .errors import ArchiveError, ImageNotFoundError, IncompleteArchiveError, KeepdockerError, PlatformNotSavedError
from .sources.described import EngineImage

_BUFFER = 64 << 10


class Source(Protocol):
    """What an archive can be read from."""

    what: str
    """For messages."""
    size: int | None
    """An estimate, in bytes."""
    repeatable: bool
    """Whether it can be read again from its beginning."""

    says_why: bool
    """Whether, read to its end, it may say itself what is wrong with it, which explains more."""

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """The archive, to be read to its end. Raises EngineError after that if the engine failed."""

    def explained(self) -> AbstractContextManager[None]:
        """Where an ArchiveError is raised that shall say whose archive it is."""


class EngineSource:
    """An image that an engine saves."""

    repeatable = True
    says_why = True

    def __init__(self, engine: Engine, image: EngineImage) -> None:
        self.what = f"image {image.id}"
        self.size = image.size
        self._engine = engine
        self._image = image

    def open(self) -> AbstractContextManager[IO[bytes]]:
        return self._engine.save(self._image)

    @contextmanager
    def explained(self) -> Iterator[None]:
        try:
            yield
        except PlatformNotSavedError as error:
            what = f"{self._engine.name} does not have image {self._image.id} for {self._image.platform}"
            raise ImageNotFoundError(what) from error
        except ArchiveError as error:
            lacks = isinstance(error, IncompleteArchiveError)
            hint = self._engine.repair(self._image) if lacks else error.hint
            raise type(error)(f"{self._engine.name} saved image {self._image.id}, but {error}", hint) from error


class FileSource:
    """An archive that was made elsewhere, plain or in gzip; `-` is standard input."""

    says_why = False

    def __init__(self, file: str) -> None:
        self.what = f"archive {file}"
        self.size: int | None = None  # until it has been opened
        self.file = file
        self.repeatable = file != "-" and os.path.isfile(file)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        given = self.file == "-"
        with (
            open(0 if given else self.file, "rb", buffering=0, closefd=not given) as raw,
            io.BufferedReader(_Patient(raw), _BUFFER) as file,
        ):
            if _is_gzip(file):
                yield cast("IO[bytes]", gzip.GzipFile(fileobj=file))
            else:
                self.size = os.fstat(raw.fileno()).st_size or None  # a pipe has none
                yield file

    def is_plain(self) -> bool:
        """Whether the archive is the file as it is, which can be read again."""
        if not self.repeatable:
            return False
        with self.explained(), open(self.file, "rb") as file:
            return not _is_gzip(file)

    @contextmanager
    def explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise KeepdockerError(f"{self.what} cannot be read: {error.strerror or error}") from error
        except ArchiveError as error:
            raise ArchiveError(f"{self.what}: {error}", error.hint) from error


class _Patient(io.RawIOBase):
    """A file that waits for its next bytes also where whoever opened standard input has set that not to block."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while (count := cast("int | None", self._file.readinto(buffer))) is None:
            poll = select.poll()
            poll.register(self._file.fileno(), select.POLLIN)
            poll.poll()
        return count


def _is_gzip(file: Any) -> bool:
    return bool(file.peek(2).startswith(b"\x1f\x8b"))
