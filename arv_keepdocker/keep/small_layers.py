"""Keeps small layers until the order in which they are packed is known."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from ..errors import KeepdockerError

LIMIT = 96 << 20
"""Bytes to keep in memory; more go to a temporary file."""


class SmallLayers:
    """Units of layers by digest, in memory up to a limit, and beyond it in an unlinked temporary file.

    Raises KeepdockerError if the file cannot be used.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._kept: dict[str, bytes] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._left = limit
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def put(self, digest: str, unit: bytes) -> None:
        with self._lock:
            if digest in self._kept or digest in self._places:
                return
            if len(unit) <= self._left:
                self._left -= len(unit)
                self._kept[digest] = unit
                return
            with _on_disk():
                if self._file is None:
                    self._file = tempfile.TemporaryFile()  # noqa: SIM115
                start = self._file.seek(0, os.SEEK_END)
                self._file.write(unit)
                self._places[digest] = start, len(unit)

    def get(self, digest: str) -> bytes | None:
        with self._lock:
            if digest not in self._places:
                return self._kept.get(digest)
            start, size = self._places[digest]
            assert self._file is not None
            with _on_disk():
                self._file.seek(start)
                return self._file.read(size)

    def close(self) -> None:
        """Free memory and disk."""
        if self._file is not None:
            self._file.close()
        self._kept.clear()


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KeepdockerError(
            f"small layers could not be kept in a temporary file: {error.strerror or error}",
            "Set TMPDIR to a directory that has enough space.",
        ) from error
