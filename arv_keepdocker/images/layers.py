"""Layers on their way from a source to where they are kept.

A source (an engine, an archive, a registry, ...) reads an image and feeds its layers, uncompressed, to a *layer sink*:
several at a time, in any order, also layers of which it turns out at the end that the image does not have them.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Layer:
    """One whole layer that a sink has."""

    diff_id: str
    """`sha256:` and the hexadecimal digest of the uncompressed tar."""
    size: int
    """How many bytes the sink has of it: those of the uncompressed tar, unless `compression` says otherwise."""
    digest: str = ""
    """Digest of the bytes that the sink has, by which it finds them; given only where it is not the diff id."""
    compression: str | None = None
    """`zstd` for a layer that is kept as it came because there is no decoder; then its diff id could not be checked."""

    @property
    def stored_digest(self) -> str:
        """Digest of the bytes that the sink has."""
        return self.digest or self.diff_id


class LayerWriter(Protocol):
    """Takes one layer. It is used by one thread at a time."""

    def write(self, data: bytes) -> None:
        """Take the next bytes of the uncompressed layer, a tar. Raises what sending them raises."""

    def finish(self) -> Layer:
        """The layer is whole; its diff id and size are those of what was written.

        The caller compares them with what they should be. A finished layer that no image names is simply not used.
        """

    def abandon(self) -> None:
        """The layer will not be finished. May be called at any time before `finish` has returned, also twice."""


class LayerSink(Protocol):
    """Where layers go. Its methods may be called by several threads at a time."""

    def has(self, diff_id: str) -> Layer | None:
        """The layer, if the sink has it without being given its bytes (Arvados has it, or it was finished before)."""

    def begin(self) -> LayerWriter:
        """Take another layer, now known to begin; waits while the layers that are being taken need too much memory."""


class NoSink:
    """A sink that keeps nothing, for a source that is only to be checked."""

    def has(self, diff_id: str) -> Layer | None:
        return None

    def begin(self) -> LayerWriter:
        return _Counter()


class _Counter:
    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)

    def finish(self) -> Layer:
        return Layer(f"sha256:{self._digest.hexdigest()}", self._size)

    def abandon(self) -> None:
        pass


def sha256(data: bytes) -> str:
    """`sha256:` and the hexadecimal digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
