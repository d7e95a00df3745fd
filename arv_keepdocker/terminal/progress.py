"""How far an upload is: a line that a terminal redraws, one every half a minute elsewhere, or one for programs."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from .display import Display, Style

_SECONDS = {Style.LINE: 0.2, Style.PLAIN: 30.0, Style.BATCH: 1.0}
"""Between two lines."""


class Counts(Protocol):
    """Bytes that are in Keep now."""

    sent: int
    reused: int


class Taken(Protocol):
    """Bytes of layers that were read, or need not be."""

    taken: int


class Expected(Protocol):
    """An estimate of the bytes of layers that there will be."""

    size: int | None


class Progress:
    """Shows, until the `with` block ends, how far an upload is."""

    def __init__(
        self,
        display: Display,
        counts: Counts,
        taken: Taken,
        expected: Expected,
        machine_line: Callable[[int, int | None], str],
    ) -> None:
        """`machine_line` is what a program is told."""
        self.stage = "uploading"
        self._display = display
        self._counts = counts
        self._taken = taken
        self._estimate = expected
        self._machine_line = machine_line
        self._started = self._reading_since = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show_from_time_to_time, daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if self._display.progress is Style.BATCH and error is None:
            self._display.write(self._machine_line(self._stored, self._stored))
        self._display.clear()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @property
    def _stored(self) -> int:
        return self._counts.sent + self._counts.reused

    @property
    def _expected(self) -> int | None:
        return max(self._estimate.size, self._taken.taken) if self._estimate.size else None

    def _show_from_time_to_time(self) -> None:
        seconds = _SECONDS.get(self._display.progress)
        while not self._ended.wait(seconds):
            if self._display.progress is Style.LINE:
                self._display.redraw(self._line())
            elif self._display.progress is Style.PLAIN:
                self._display.note(self._line())
            elif self._display.progress is Style.BATCH:
                self._display.write(self._machine_line(self._stored, self._expected))

    def _line(self) -> str:
        read, expected = self._taken.taken, self._expected
        if not read:
            self._reading_since = time.monotonic()
            return f"waiting for the archive, {_clock(self.seconds)}"
        total = f" / {expected >> 20}" if expected else ""
        rate = read / max(time.monotonic() - self._reading_since, 0.001)
        left = f", {_clock((expected - read) / rate)} left" if expected else ""
        return (
            f"{self.stage}: {read >> 20}{total} MiB read, {self._counts.sent >> 20} sent, "
            f"{self._counts.reused >> 20} reused, {rate / (1 << 20):.0f} MiB/s{left}"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
