"""What was sent to Keep: signed locators in a file, so that after a run that died they need not be sent again.

A locator is good until its signature expires, for the token that it was made for, and Keep does not collect a block
before. The file's name has a digest of cluster and token, so that nobody reads in vain what is another's.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from .cache import locked, replacing
from .terminal.waiting import Waiting, unsaid

LIMIT = 20_000
"""How many locators are remembered: those of more than a terabyte in full blocks, in less than 3 MB."""
_READ = 16 << 20
"""Bytes of the file's end that are read: many times what the limit takes."""
_LOCATOR = re.compile(r"[0-9a-f]{32}\+\d+(?:\+[B-Z][^\s+]*)*\+A[0-9a-f]{40}@([0-9a-f]{8})(?:\+[B-Z][^\s+]*)*")


class Journal:
    """The file. Whatever is wrong with it, a run goes on without; then `problem` says what."""

    def __init__(self, path: Path, waiting: Waiting = unsaid) -> None:
        """`waiting` is told of another process that keeps the file."""
        self._path = path
        self._waiting = waiting
        self.problem: OSError | None = None

    @staticmethod
    def filename(cluster: str, token: str) -> str:
        """What the file for a token at a cluster is called."""
        return hashlib.sha256(f"{cluster} {token}".encode()).hexdigest()[:32] + ".journal"

    def read(self, until: float) -> list[str]:
        """The locators that are good until the time `until` (seconds since 1970) at least, the oldest first.

        The others are forgotten, and so are the oldest if there are too many.
        """
        try:
            if not self._path.exists():
                return []
            with self._locked() as descriptor:
                size = os.fstat(descriptor).st_size
                text = os.pread(descriptor, _READ, max(0, size - _READ)).decode("ascii", "replace")
                # What follows the last end of a line is what somebody has not written to its end.
                *lines, torn = text.split("\n")
                kept = [line for line in lines if valid(line, until)][-LIMIT:]
                if torn or len(kept) < len(lines) or size > _READ:
                    with replacing(self._path) as new:
                        new.write_text("".join(f"{line}\n" for line in kept))
                return kept
        except OSError as error:
            self.problem = error
            return []

    def forget(self) -> None:
        """Forget all of it."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def add(self, locator: str) -> None:
        """Remember one more."""
        try:
            with self._locked() as descriptor:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                os.pwrite(descriptor, b"\n" * torn + f"{locator}\n".encode(), size)
        except OSError as error:
            self.problem = error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = locked(self._path, lambda _: self._waiting(f"another run, which keeps {self._path}"))
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def valid(locator: str, until: float = 0) -> bool:
    """Whether it is a signed locator whose signature is good until the time `until` at least."""
    match = _LOCATOR.fullmatch(locator)
    return match is not None and int(match[1], 16) >= until
