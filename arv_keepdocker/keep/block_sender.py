"""Blocks on their way to Keep: what Arvados has already is not sent, the rest a few blocks at a time."""

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
"""How many blocks are in memory at a time, being filled or on their way, unless more threads send."""


@dataclass(frozen=True)
class StoredBlock:
    """What has become of a block."""

    locator: str
    """By which it can be put into a manifest: signed, unless it was not sent because nothing was to be sent."""
    reused: bool
    """Whether Arvados had it already."""


Put = Callable[[bytes, str], str]
"""Sends a block, given its md5 and size as `md5+size`, and returns its locator."""


class BufferSlots:
    """Places in memory for blocks, which several senders may share."""

    def __init__(self, count: int) -> None:
        self.free = count
        self.changed = threading.Condition()

    @staticmethod
    def needed(threads: int) -> int:
        """How many there are where so many threads send blocks."""
        return max(SLOTS, threads + 3)

    def release(self, count: int) -> None:
        with self.changed:
            self.free += count
            self.changed.notify_all()


class BlockSender:
    """Stores blocks in threads that end with the `with` block, or with the program, whatever they are doing.

    Of the memory that blocks take, it keeps the bound: who is about to fill a block waits for a slot.
    """

    def __init__(
        self,
        put: Put,
        known: Callable[[], dict[str, str]],
        threads: int,
        sent_so_far: Callable[[str], int] = lambda key: 0,
        slots: BufferSlots | None = None,
    ) -> None:
        """`known` has the locators of blocks that need not be sent, by their md5 and size as `md5+size`. Both are
        called in the threads. `sent_so_far` tells how many bytes of a block have been sent while `put` is sending it.
        The `slots` are its own unless some are given."""
        self.sent = 0
        """Bytes."""
        self.reused = 0
        """Bytes."""
        self.sending = Stopwatch()
        self.full = Stopwatch()
        """Runs while somebody waits for a slot."""
        self._sent_so_far = sent_so_far
        self._in_flight: set[str] = set()
        self._put = put
        self._load_known = known
        self._known: dict[str, str] = {}
        self._first: dict[str, Future[StoredBlock]] = {}
        """Of each block that this run sends, by `md5+size`."""
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
        """Whether a block could not be stored: then no other will be."""
        return self._failure is not None

    def take_slot(self) -> None:
        """Wait until there is memory for one more block. Raises ArvadosError if one could not be stored."""
        with self._slots.changed:
            if self._slots.free <= 0:
                with self.full:
                    self._slots.changed.wait_for(lambda: self._slots.free > 0 or self._failure is not None)
            if self._failure is not None:
                raise self._failure
            self._slots.free -= 1
            self._taken += 1

    def release_slot(self) -> None:
        """Give back a slot that was taken and is not needed any more."""
        with self._slots.changed:
            self._taken -= 1
            self._slots.release(1)

    def _clear(self) -> None:
        """Give back, in the end, what an upload that was given up has left taken."""
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
        """Bytes that were sent, also of blocks that are not there as a whole yet."""
        with self._counting:
            return self.sent + sum(map(self._sent_so_far, self._in_flight))

    def count_reused(self, size: int) -> None:
        """Count bytes that are in Keep and were not even given."""
        with self._counting:
            self.reused += size

    def _start_one(self) -> None:
        """One more thread for one more block: more than there are blocks are of no use, however many are allowed."""
        thread = threading.Thread(target=self._work, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise KeepdockerError("the system starts no more threads") from error
            fewer = len(self._threads)
            # Fewer blocks are on their way then, and shall wait in memory.
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
                del item, data  # or they are kept until there is another
                self.release_slot()
        with self._slots.changed:
            self._running -= 1
        self._clear()

    def _store(self, data: bytes, future: "Future[StoredBlock]") -> StoredBlock:
        key = block_key_of(data)
        with self._counting:
            first = self._first.setdefault(key, future)
        # A run may have the same block many times: gigabytes of zeros.
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
    """Have memory of blocks go back to the system when it is freed.

    Left alone, glibc raises the size from which that is so to 32 MiB (mallopt(3)); what is smaller, as blocks are while
    they grow, would leave holes, in all as large as the blocks.
    """
    import ctypes  # late: only storing needs it

    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED)
