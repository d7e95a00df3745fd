"""What earlier runs have found out about pushing."""

import re
import secrets
import threading
from dataclasses import dataclass
from time import time

from ...keep.journal import Journal, Notes

_REPOSITORY = re.compile(r"arv-keepdocker-[0-9a-f]{32}")


@dataclass(frozen=True)
class Address:
    """Where to push to. It is always the same, if the port is free: an engine remembers each for a long time."""

    port: int
    """0 for any."""
    repository: str
    """Nobody can guess it."""


class PushNotes:
    """The journal, as far as it helps an engine that pushes. For several threads."""

    def __init__(self, journal: Journal | None, resume: bool = True, remember: bool = True) -> None:
        """Without `resume` it is not read, without `remember` not written."""
        self._notes = journal.read(time()) if journal is not None and resume else Notes()
        self._journal = journal if remember else None
        self._lock = threading.Lock()

    def address(self) -> Address:
        """The one of the last run, or a new one."""
        port, repository = self._notes.push or (0, "")
        if port < 1 << 16 and _REPOSITORY.fullmatch(repository):
            return Address(port, repository)
        return Address(0, f"arv-keepdocker-{secrets.token_hex(16)}")

    def add_address(self, address: Address) -> None:
        """Let the next runs use it, too."""
        if self._journal is not None:
            self._journal.add_push(address.port, address.repository)

    def diff_id(self, digest: str) -> str | None:
        """Of the layer that a blob is."""
        with self._lock:
            return self._notes.blobs.get(digest)

    def add_blob(self, digest: str, diff_id: str) -> None:
        """Note it, for what was unpacked and hashed here."""
        with self._lock:
            new = self._notes.blobs.get(digest) != diff_id
            self._notes.blobs[digest] = diff_id
        if new and self._journal is not None:
            self._journal.add_blob(digest, diff_id)
