"""Reports downloads that have stalled."""

import contextlib
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from ...terminal.display import Display

_LOOK_SECONDS = 1.0


class Stalls:
    """A context in which one thread watches the reads of all others; there are too many reads for a timer each."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._reading: dict[int, tuple[float, str]] = {}
        self._ended = threading.Event()

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Watch the block, which reads from `what`."""
        number = threading.get_ident()
        self._reading[number] = (time.monotonic(), what)
        try:
            yield
        finally:
            del self._reading[number]

    def __enter__(self) -> "Stalls":
        self._ended.clear()
        with contextlib.suppress(RuntimeError):  # the system has no more threads
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            for number, read in list(self._reading.items()):
                if time.monotonic() - read[0] > _LOOK_SECONDS:
                    with self._display.waiting(read[1]):
                        while self._reading.get(number) == read and not self._ended.wait(_LOOK_SECONDS):
                            pass
