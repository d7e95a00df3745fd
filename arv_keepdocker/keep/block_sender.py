"""Sends blocks to Keep, a few at a time, and only those that Keep does not have."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType

from ..errors import ArvadosError, KeepdockerError
from ..terminal.transfer_rate import Stopwatch
from .locators import block_key_of

_MAPPED = 4 << 20
_M_MMAP_THRESHOLD = -3
SLOTS = 5
"""Blocks in memory at a time, being filled or being sent, unless more threads send."""


@dataclass(frozen=True)
class StoredBlock:
    """A block that is in Keep."""

    locator: str
    """Its locator for a manifest: signed, except in a dry run."""
    reused: bool
    """Whether it was there already."""


Put = Callable[[bytes, str], str]
"""Sends a block, given its bytes and `md5+size`, and returns its locator."""


class BufferSlots:
    """Memory for a number of blocks, which several senders may share."""

    def __init__(self, count: int) -> None:
        self.free = count
        self.changed = threading.Condition()

    @staticmethod
    def needed(threads: int) -> int:
        """How many slots so many sending threads need."""
        return max(SLOTS, threads + 3)

    def release(self, count: int) -> None:
        with self.changed:
            self.free += count
            self.changed.notify_all()


class BlockSender:
    """Stores blocks in threads that end with the `with` block, or with the program.

    It bounds the memory for blocks: take a slot before filling one.
    """

    def __init__(
        self,
        put: Put,
        known: Callable[[], dict[str, str]],
        threads: int,
        sent_so_far: Callable[[str], int] = lambda key: 0,
        slots: BufferSlots | None = None,
    ) -> None:
        """`known` returns the locators of blocks that need not be sent, by `md5+size`. `put` and `known` are called in
        the threads. `sent_so_far` tells how many bytes of a block `put` has sent so far. Without `slots`, the sender
        has its own."""
        self.sent = 0
        """Bytes."""
        self.reused = 0
        """Bytes."""
        self.sending = Stopwatch()
        self.full = Stopwatch()
        """Runs while a thread waits for a slot."""
        self._sent_so_far = sent_so_far
        self._in_flight: set[str] = set()
        self._put = put
        self._load_known = known
        self._known: dict[str, str] = {}
        self._first: dict[str, Future[StoredBlock]] = {}
        """The first of equal blocks, by `md5+size`."""
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._counting = threading.Lock()
        self._slots = slots or BufferSlots(BufferSlots.needed(threads))
        self._taken = 0
        """Slots."""
        self._ended = False
        self._running = 0
        self._queue: SimpleQueue[tuple[bytes, Future[StoredBlock]] | None] = SimpleQueue()
        self._limit = threads
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "BlockSender":
        _give_freed_blocks_back()
        try:
            threading.Thread(target=self._load, daemon=True).start()
        except RuntimeError as error:
            raise KeepdockerError("the system starts no more threads") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self._fail(ArvadosError("the upload was given up"))  # for what waits
        for _thread in self._threads:
            self._queue.put(None)
        with self._slots.changed:
            self._ended = True
        self._clear()

    @property
    def failed(self) -> bool:
        """Whether a block could not be stored; then no other block will be."""
        return self._failure is not None

    def take_slot(self) -> None:
        """Wait for memory for one more block. Raises ArvadosError if a block could not be stored."""
        with self._slots.changed:
            if self._slots.free <= 0:
                with self.full:
                    self._slots.changed.wait_for(lambda: self._slots.free > 0 or self._failure is not None)
            if self._failure is not None:
                raise self._failure
            self._slots.free -= 1
            self._taken += 1

    def release_slot(self) -> None:
        """Release a slot that is not needed any more."""
        with self._slots.changed:
            self._taken -= 1
            self._slots.release(1)

    def _clear(self) -> None:
        """Release, in the end, the slots that an aborted upload still holds."""
        with self._slots.changed:
            if self._ended and not self._running:
                self._slots.release(self._taken)
                self._taken = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A slot for a block that is not sent."""
        self.take_slot()
        try:
            yield
        finally:
            self.release_slot()

    def send(self, data: bytes) -> "Future[StoredBlock]":
        """Store a block, for which a slot was taken."""
        future: Future[StoredBlock] = Future()
        with self._counting:
            self._queue.put((data, future))
            if len(self._threads) < self._limit:
                self._start_one()
        return future

    @property
    def moved(self) -> int:
        """Bytes sent, including those of blocks that are being sent."""
        with self._counting:
            return self.sent + sum(map(self._sent_so_far, self._in_flight))

    def count_reused(self, size: int) -> None:
        """Count bytes that are in Keep and were not passed to `send`."""
        with self._counting:
            self.reused += size

    def _start_one(self) -> None:
        """Start one more thread, as long as there are fewer threads than blocks."""
        thread = threading.Thread(target=self._work, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise KeepdockerError("the system starts no more threads") from error
            fewer = len(self._threads)
            # Fewer blocks are being sent then, so fewer should be in memory.
            self._slots.release(BufferSlots.needed(fewer) - BufferSlots.needed(self._limit))
            self._limit = fewer
        else:
            self._threads.append(thread)

    def _fail(self, failure: Exception) -> None:
        with self._slots.changed:
            self._failure = self._failure or failure
            self._slots.changed.notify_all()

    def _load(self) -> None:
        try:
            self._known = self._load_known()
        except Exception as error:
            self._fail(error)
        finally:
            self._ready.set()

    def _work(self) -> None:
        with self._slots.changed:
            self._running += 1
        self._ready.wait()
        while (item := self._queue.get()) is not None:
            data, future = item
            try:
                if self._failure is not None:
                    raise self._failure
                future.set_result(self._store(data, future))
            except Exception as error:
                self._fail(error)
                future.set_exception(error)
            finally:
                del item, data  # or they stay in memory until the next item
                self.release_slot()
        with self._slots.changed:
            self._running -= 1
        self._clear()

    def _store(self, data: bytes, future: "Future[StoredBlock]") -> StoredBlock:
        key = block_key_of(data)
        with self._counting:
            first = self._first.setdefault(key, future)
        # An image may have the same block many times: gigabytes of zeros.
        locator = self._known.get(key) if first is future else first.result().locator
        if locator is not None:
            with self._counting:
                self.reused += len(data)
            return StoredBlock(locator, reused=True)
        with self._counting:
            self._in_flight.add(key)
        with self.sending:
            locator = self._put(data, key)
        with self._counting:
            self._in_flight.remove(key)
            self.sent += len(data)
        return StoredBlock(locator, reused=False)


def _give_freed_blocks_back() -> None:
    """Have glibc return the memory of blocks to the system when it is freed.

    By default, glibc raises the size from which it does so to 32 MiB (mallopt(3)). Growing blocks pass through smaller
    sizes, and would leave holes that add up to the size of the blocks.
    """
    import ctypes  # late: only storing needs it

    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED)
