"""Layers, and the interface between sources and sinks.

A source (an engine, an archive, a registry, ...) reads an image and feeds its layers, uncompressed, to a *layer sink*:
several at a time, in any order, and possibly some that turn out not to belong to the image.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Layer:
    """A complete layer in a sink."""

    diff_id: str
    """`sha256:` and the hexadecimal digest of the uncompressed tar."""
    size: int
    """Bytes in the sink: those of the uncompressed tar, unless `compression` is set."""
    digest: str = ""
    """Digest of the bytes in the sink, if it is not the diff id."""
    compression: str | None = None
    """`zstd` for a layer that stays compressed because there is no decoder; its diff id could not be checked."""

    @property
    def stored_digest(self) -> str:
        """Digest of the bytes in the sink."""
        return self.digest or self.diff_id


class LayerWriter(Protocol):
    """Receives one layer. Used by one thread at a time."""

    def write(self, data: bytes) -> None:
        """Write the next bytes of the uncompressed layer, a tar. Raises what storing them raises."""

    def finish(self) -> Layer:
        """End the layer, and return it with the diff id and size of what was written.

        The caller checks them. A finished layer that no image names is ignored.
        """

    def abandon(self) -> None:
        """Give the layer up. May be called at any time before `finish` has returned, and more than once."""


class LayerSink(Protocol):
    """Receives layers. Its methods may be called by several threads at a time."""

    def has(self, diff_id: str) -> Layer | None:
        """The layer, if the sink does not need its bytes: it is in Keep, or was finished before. None otherwise."""

    def begin(self) -> LayerWriter:
        """Begin another layer. Waits while the layers being written need too much memory."""


class NoSink:
    """A sink that keeps nothing, to check a source only."""

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
