"""What a check of images has read and found whole, in a file, so that after a run that was stopped it need not be read
again.

A line is a JSON object: `time` in seconds since 1970, `key`, a digest of what was read, and perhaps `facts`. It is
believed for a day, and forgotten when a check has come to its end: whoever checks again wants to know how it is now.
"""

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BELIEVED = 24 * 60 * 60
"""Seconds."""
_READ = 64 << 20
"""Bytes of the file that are read at most."""


def key_of(words: Iterable[str]) -> str:
    """The key of what was read: a digest of its blocks and of what they should contain."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


class CheckJournal:
    """The journal of a check. Without a `path`, or if the file cannot be used, nothing is noted."""

    def __init__(self, path: Path | None, resume: bool = True) -> None:
        """Without `resume`, the notes of an earlier run are dropped."""
        self._path = path
        self._lock = threading.Lock()
        if not resume:
            self.forget()
        self._known: dict[str, Mapping[str, Any]] = dict(self._read())
        self.count = len(self._known)
        """How many notes an earlier run has left."""

    @staticmethod
    def filename(journal: str) -> str:
        """The name of the file that goes with a journal's."""
        return journal.partition(".")[0] + ".checks"

    def find(self, key: str) -> Mapping[str, Any] | None:
        """The facts noted for a key, which may be empty; None if it was not read."""
        return self._known.get(key)

    def add(self, key: str, facts: Mapping[str, Any] | None = None) -> None:
        """Note that this is intact."""
        line = json.dumps({"time": int(time.time()), "key": key, "facts": dict(facts or {})}) + "\n"
        with self._lock, contextlib.suppress(OSError):
            if self._path is not None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
                descriptor = os.open(self._path, flags, 0o600)
                try:
                    os.write(descriptor, line.encode())
                finally:
                    os.close(descriptor)

    def forget(self) -> None:
        """Remove the file: the check is complete."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _read(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        try:
            text = b"" if self._path is None else self._path.read_bytes()[:_READ]
        except OSError:
            return
        now = time.time()
        for line in text.split(b"\n"):
            with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
                found = json.loads(line)
                if now - BELIEVED < found["time"] <= now and isinstance(found["facts"], dict):
                    yield str(found["key"]), found["facts"]
