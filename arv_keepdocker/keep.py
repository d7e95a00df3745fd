"""Blocks on their way to Keep: what Arvados has already is not sent, the rest a few blocks at a time."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType

from .blocks import Stored
from .cluster import Cluster
from .errors import ArvadosError


class Sender:
    """Stores blocks in threads that end with the `with` block, or with the program, whatever they are doing.

    Of the memory that blocks take, `send` keeps the bound: it waits while one more than there are threads is on its
    way.
    """

    def __init__(self, put: Callable[[bytes], str], known: Callable[[], dict[str, str]], threads: int) -> None:
        """`put` sends a block and returns its locator. `known` has the locators of blocks that need not be sent, by
        their md5 and size as `md5+size`. Both are called in the threads."""
        self.sent = 0
        """Bytes."""
        self.reused = 0
        """Bytes."""
        self._put = put
        self._load_known = known
        self._known: dict[str, str] = {}
        self._sizes: set[int] = set()
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._counting = threading.Lock()
        self._slots = threading.Semaphore(threads + 1)
        self._queue: SimpleQueue[tuple[bytes, Future[Stored]] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def __enter__(self) -> "Sender":
        for thread in (threading.Thread(target=self._load, daemon=True), *self._threads):
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self._failure = ArvadosError("the upload was given up")  # for what waits
        for _thread in self._threads:
            self._queue.put(None)

    def send(self, data: bytes) -> "Future[Stored]":
        """Store a block. Raises ArvadosError if another one could not be stored."""
        self._slots.acquire()
        if self._failure is not None:
            raise self._failure
        future: Future[Stored] = Future()
        self._queue.put((data, future))
        return future

    def _load(self) -> None:
        try:
            self._known = self._load_known()
            self._sizes = {int(key.partition("+")[2]) for key in self._known}
        except Exception as error:
            self._failure = error
        finally:
            self._ready.set()

    def _work(self) -> None:
        self._ready.wait()
        while (item := self._queue.get()) is not None:
            data, future = item
            try:
                if self._failure is not None:
                    raise self._failure
                future.set_result(self._store(data))
            except Exception as error:
                self._failure = error
                future.set_exception(error)
            finally:
                del item, data  # or they are kept until there is another
                self._slots.release()

    def _store(self, data: bytes) -> Stored:
        # To put a block hashes it again: what cannot be known need not be hashed here.
        key = f"{hashlib.md5(data).hexdigest()}+{len(data)}" if len(data) in self._sizes else None
        locator = self._known.get(key) if key is not None else None
        if locator is not None:
            with self._counting:
                self.reused += len(data)
            return Stored(locator, reused=True)
        locator = self._put(data)
        with self._counting:
            self.sent += len(data)
            if key is not None:
                self._known[key] = locator
        return Stored(locator, reused=False)


def putter(cluster: Cluster) -> Callable[[bytes], str]:
    """What stores a block in Keep and returns its signed locator, or raises ArvadosError.

    Replication and storage classes are the cluster's defaults.
    """
    copies = cluster.replication

    def put(data: bytes) -> str:
        try:
            locator: str = cluster.api.keep.put(data, copies=copies, num_retries=cluster.retries)
        except Exception as error:  # the client lets through what the API client and libcurl raise
            raise ArvadosError(f"Keep did not take a block: {error}") from error
        return locator

    return put
