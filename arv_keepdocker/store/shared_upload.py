"""What the uploads of one run share: memory, the knowledge of what is in Keep, and layers."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..keep.block_sender import BlockSender, BufferSlots
from ..keep.keep_sink import KeepSink
from ..keep.known_layers import KnownLayers
from ..keep.small_layers import LIMIT

_FRESH = 30 * 60
"""Seconds: half of the time that every reused signature is still valid."""


class SharedResources:
    """What all uploads of a run share."""

    def __init__(self, threads: int, known: Callable[[], KnownLayers], at_once: int) -> None:
        """`known` is called when its result is first needed. `at_once` images are uploaded at a time."""
        self.slots = BufferSlots(BufferSlots.needed(threads))
        self.small_limit = LIMIT // at_once
        """Bytes of small layers that each upload may hold in memory."""
        self._make_known = known
        self._known: KnownLayers | None = None
        self._until = 0.0
        self._making = threading.Lock()

    @property
    def known(self) -> KnownLayers:
        """What need not be sent for any of the images, renewed from time to time because signatures expire."""
        with self._making:
            if self._known is None or time.monotonic() > self._until:
                self._known = self._make_known()
                self._until = time.monotonic() + _FRESH
            return self._known


class SharedUpload:
    """The sender and sink of images that are uploaded one after the other, so that shared layers are sent once."""

    def __init__(self, common: SharedResources) -> None:
        self.common = common
        self._open: tuple[BlockSender, KeepSink] | None = None

    @contextmanager
    def of(self, make: Callable[[], tuple[BlockSender, KeepSink]]) -> Iterator[tuple[BlockSender, KeepSink]]:
        """The sender and sink for the next image's layers: new ones if a block could not be stored."""
        if self._open is not None and self._open[0].failed:
            self.close()
        if self._open is None:
            sender, sink = make()
            sender.__enter__()
            self._open = sender, sink
        yield self._open

    def close(self) -> None:
        """End the upload of the last image."""
        if self._open is not None:
            sender, sink = self._open
            self._open = None
            sender.__exit__(None, None, None)
            sink.close()


class CountsSince:
    """What a sender does from now on, which is for one image."""

    def __init__(self, sender: BlockSender) -> None:
        self.sending = sender.sending
        self.full = sender.full
        self._sender = sender
        self._moved = sender.moved
        self._reused = sender.reused

    @property
    def moved(self) -> int:
        """Bytes that were sent."""
        return self._sender.moved - self._moved

    @property
    def reused(self) -> int:
        """Bytes that need not be sent."""
        return self._sender.reused - self._reused
