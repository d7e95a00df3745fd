"""Work side by side, in threads that each have a connection of their own."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, TypeVar

Result = TypeVar("Result")


class Closable(Protocol):
    """What a thread works with."""

    def close(self) -> None: ...


Connection = TypeVar("Connection", bound=Closable)


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class Workers(Generic[Connection]):
    """A context in which work is done side by side.

    Its threads do not keep a program that is told to stop from ending, as those of concurrent.futures would.
    """

    def __init__(self, connections: Sequence[Connection]) -> None:
        """There are as many workers as connections; of one alone, the thread that takes the results does the work."""
        self._unused = list(connections)
        self._alone = self._unused.pop() if len(connections) == 1 else None
        self._threads: list[threading.Thread] = []
        self._work: queue.SimpleQueue[Callable[[Connection], object] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[object] = queue.SimpleQueue()

    def each(self, work: Sequence[Callable[[Connection], Result]]) -> Iterator[Result]:
        """The results in the order in which they are there; raises what the work raises."""
        if self._alone is not None:
            yield from (each(self._alone) for each in work)
            return
        for each in work:
            self._work.put(each)
        while self._unused and len(self._threads) < len(work):
            # Each has as much to do as there is; there are no more of them than are of use, for connections cost.
            thread = threading.Thread(target=self._run, args=(self._unused.pop(),), daemon=True)
            self._threads.append(thread)
            thread.start()
        for _ in work:
            result = _next(self._done)
            if isinstance(result, _Failure):
                raise result.error
            yield result  # type: ignore[misc]

    def _run(self, connection: Connection) -> None:
        while (work := self._work.get()) is not None:
            try:
                self._done.put(work(connection))
            except BaseException as error:
                self._done.put(_Failure(error))
        connection.close()

    def __enter__(self) -> "Workers[Connection]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._work.get_nowait()
        for _ in self._threads:
            self._work.put(None)
        if error is None:
            for thread in self._threads:
                thread.join()


Item = TypeVar("Item")
_END = object()


def side_by_side(work: Iterable[Callable[[], Iterator[Item]]], at_once: int) -> Iterator[Item]:
    """What the iterators give that the work returns, as it comes; of so many `at_once`. Raises what they raise."""
    left: queue.SimpleQueue[Callable[[], Iterator[Item]]] = queue.SimpleQueue()
    for each in work:
        left.put(each)
    done: queue.SimpleQueue[object] = queue.SimpleQueue()

    def run() -> None:
        try:
            with contextlib.suppress(queue.Empty):
                while True:
                    for item in left.get_nowait()():
                        done.put(item)
        except BaseException as error:
            done.put(_Failure(error))
        done.put(_END)

    running = _start(run, min(at_once, left.qsize()))
    while running:
        item = _next(done)
        if item is _END:
            running -= 1
        elif isinstance(item, _Failure):
            raise item.error
        else:
            yield item  # type: ignore[misc]


def _next(done: "queue.SimpleQueue[object]") -> object:
    """What is put there next.

    A signal that comes just before Python begins to wait is handled only when it has waited: that must not take long.
    """
    while True:
        with contextlib.suppress(queue.Empty):
            return done.get(timeout=1)


def in_order(count: int, known: dict[int, Item], arriving: Iterator[tuple[int, Item]]) -> Iterator[Item]:
    """The items with the numbers from 0 on, as soon as those before are there: the `known`, and those that arrive."""
    for number in range(count):
        while number not in known:
            arrived, item = next(arriving)
            known[arrived] = item
        yield known.pop(number)
    for _ in arriving:  # it may have to finish
        raise AssertionError("there is one too many")


def _start(run: Callable[[], None], count: int) -> int:
    """Run it in so many threads, or in fewer, and say in how many."""
    for number in range(count):
        try:
            threading.Thread(target=run, daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            if not number:
                run()
            return max(number, 1)
    return count
