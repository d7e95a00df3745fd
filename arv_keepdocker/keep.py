"""Blocks on their way to Keep: what Arvados has already is not sent, the rest a few blocks at a time."""

import hashlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from .blocks import Stored
from .cluster import Cluster, once
from .errors import ArvadosError, KeepdockerError
from .troubles import KeepProblem, explained, worded

_LONGEST_CONNECT = 128
"""Seconds."""


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
        self._limit = threads
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Sender":
        try:
            threading.Thread(target=self._load, daemon=True).start()
        except RuntimeError as error:
            raise KeepdockerError("the system starts no more threads") from error
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
        if len(self._threads) < self._limit:
            self._start_one()
        future: Future[Stored] = Future()
        self._queue.put((data, future))
        return future

    def _start_one(self) -> None:
        thread = threading.Thread(target=self._work, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise KeepdockerError("the system starts no more threads") from error
            for _ in range(self._limit - len(self._threads)):
                self._slots.acquire(blocking=False)  # with fewer threads, fewer blocks wait in memory
            self._limit = len(self._threads)
        else:
            self._threads.append(thread)

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


class Putter:
    """Stores a block in Keep and returns its signed locator, or raises ArvadosError; in several threads if need be.

    Replication and storage classes are the cluster's defaults.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._keep = cluster.api.keep
        self._copies = cluster.replication
        self._answered = False
        """Whether a block was stored: what answers to that is Keep, and was found."""
        self._asking = threading.Lock()
        self._services_known = False

    def __call__(self, data: bytes) -> str:
        return self._cluster.attempts("Keep to take a block", partial(self._put, data))

    def _put(self, data: bytes) -> str:
        from arvados.errors import KeepRequestError

        self._find_services()
        try:
            locator: str = self._keep.put(data, copies=self._copies, num_retries=0)
        except KeepRequestError as error:
            self._services_known = False
            raise self._explained(error) from error
        except Exception as error:  # the client lets through what libcurl raises
            raise ArvadosError(f"Keep did not take a block: {error}") from error
        self._answered = True
        return locator

    def _find_services(self) -> None:
        """Ask, once, and again after a failure, where Keep is: the SDK would try that again in silence."""
        from arvados.errors import NoKeepServersError

        if self._services_known or hasattr(self._keep, "local_store"):
            return
        with self._asking, explained("asking for the Keep services"), once(self._cluster.api._http):
            if not self._services_known:
                try:
                    self._keep.build_services_list(force_rebuild=True)
                except NoKeepServersError as error:
                    raise ArvadosError("Arvados names no Keep service that you can use") from error
                self._services_known = True

    def _explained(self, error: Any) -> ArvadosError:
        """What the SDK says of the services that were asked, one of which would have had to do more."""
        problems = {service: KeepProblem.of(each) for service, each in error.request_errors().items()}
        if any(problem.timed_out for problem in problems.values()):
            self._be_patient()
        passing = [problem.trouble for problem in problems.values() if problem.passes(self._answered)]
        hints = [problem.hint for problem in problems.values() if problem.hint is not None]
        words = "; ".join(f"{service.rstrip('/')}: {problem.words}" for service, problem in problems.items())
        request = re.search(r"\[(req-\w+)\]", str(error))
        said = f"{words or worded(str(error))}{f' ({request[1]})' if request is not None and words else ''}"
        return ArvadosError(f"Keep did not take a block: {said}", next(iter(hints), None), next(iter(passing), None))

    def _be_patient(self) -> None:
        """Give a connection more time to come about than the SDK's two seconds, as its own attempts would."""
        for name in ("timeout", "proxy_timeout"):
            seconds, *others = getattr(self._keep, name)
            setattr(self._keep, name, (min(2 * seconds, _LONGEST_CONNECT), *others))
