"""Keep's blocks as files, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import IO

MAXIMUM_SIZE = 64 << 20
# Stands for a block of which only the size was kept: a sparse file.
_DISCARDED = ".discarded"


class Discarded(Exception):
    """The block was received, but could not be kept."""


class Incoming:
    """A block that is being received. Its methods may block; call them in a thread."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._hash = hashlib.md5()
        self._file: IO[bytes] | None = None
        self._path = store.directory / f".incoming-{secrets.token_hex(8)}"
        self.size = 0

    def add(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._hash.update(piece)
            self.size += len(piece)
        if self._store.discard:
            return
        if self._file is None:
            self._file = self._path.open("xb", buffering=0)
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) :]

    def finish(self, md5: str) -> bool:
        """Keep the block if it has this hash."""
        if self.md5 != md5:
            self.abandon()
            return False
        if self._file is None:
            self._file = self._path.open("xb", buffering=0)
            self._file.truncate(self.size)
        self._file.close()
        self._store.adopt(self._path, md5)
        return True

    @property
    def md5(self) -> str:
        """The hash of what has come in so far."""
        return self._hash.hexdigest()

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)


class BlockStore:
    """All blocks of the cluster; several Keep services share it."""

    def __init__(self, directory: Path, discard: bool = False) -> None:
        self.directory = directory
        self.discard = discard
        directory.mkdir(mode=0o700, exist_ok=True)
        for left_over in directory.glob(".incoming-*"):
            left_over.unlink()

    def _path(self, md5: str) -> Path:
        return self.directory / md5[:3] / md5

    def receive(self) -> Incoming:
        return Incoming(self)

    def adopt(self, temporary: Path, md5: str) -> None:
        path = self._path(md5)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        os.replace(temporary, path.with_suffix(_DISCARDED) if self.discard else path)

    def size(self, md5: str) -> int | None:
        """The size of a block, None if there is no such block."""
        for path in (self._path(md5), self._path(md5).with_suffix(_DISCARDED)):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                pass
        return None

    def hashes(self) -> list[str]:
        """The hashes of all blocks."""
        return sorted(path.stem for path in self.directory.glob("???/*"))

    def lose(self, md5: str) -> bool:
        """Delete a block. Returns whether it was there."""
        paths = [self._path(md5), self._path(md5).with_suffix(_DISCARDED)]
        there = [path for path in paths if path.exists()]
        for path in there:
            path.unlink()
        return bool(there)

    def read(self, md5: str) -> bytes | None:
        path = self._path(md5)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if path.with_suffix(_DISCARDED).exists():
                raise Discarded from None
            return None
