"""The journal's notes for pushes: the address, and which layer each blob is."""

import re
import secrets
import threading
from dataclasses import dataclass
from time import time

from ...keep.journal import Journal, Notes

_REPOSITORY = re.compile(r"arv-keepdocker-[0-9a-f]{32}")


@dataclass(frozen=True)
class Address:
    """Where to push to. It stays the same while the port is free, because engines remember each address for long."""

    port: int
    """The port; 0 means any."""
    repository: str
    """The repository's name, which nobody can guess."""


class PushNotes:
    """The part of the journal that concerns pushes. For several threads."""

    def __init__(self, journal: Journal | None, resume: bool = True, remember: bool = True) -> None:
        """Without `resume` the journal is not read, without `remember` it is not written."""
        self._notes = journal.read(time()) if journal is not None and resume else Notes()
        self._journal = journal if remember else None
        self._lock = threading.Lock()

    def address(self) -> Address:
        """The last run's address, or a new one."""
        port, repository = self._notes.push or (0, "")
        if port < 1 << 16 and _REPOSITORY.fullmatch(repository):
            return Address(port, repository)
        return Address(0, f"arv-keepdocker-{secrets.token_hex(16)}")

    def add_address(self, address: Address) -> None:
        """Note the address, so that later runs use it."""
        if self._journal is not None:
            self._journal.add_push(address.port, address.repository)

    def diff_id(self, digest: str) -> str | None:
        """The diff id of the layer that a blob contains; None if it is not known."""
        with self._lock:
            return self._notes.blobs.get(digest)

    def add_blob(self, digest: str, diff_id: str) -> None:
        """Note the diff id of a blob that was unpacked and hashed here."""
        with self._lock:
            new = self._notes.blobs.get(digest) != diff_id
            self._notes.blobs[digest] = diff_id
        if new and self._journal is not None:
            self._journal.add_blob(digest, diff_id)
