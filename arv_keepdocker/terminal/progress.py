"""Shows the progress of an upload or a check: a redrawn line on a terminal, a line every half minute in a log, or lines
for programs."""

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from .display import Display, Style
from .transfer_rate import Pace, Stopwatch

_SECONDS = {Style.LINE: 0.2, Style.PLAIN: 30.0, Style.BATCH: 1.0}
"""Seconds between two lines."""
_LOOK = 0.2
"""Seconds between two measurements of the rates."""
_BLOCK = 64 << 20
"""Bytes that may still be unsent when the last byte has been read, however fast the sending is."""


class Activity:
    """Shows what is happening, and for how long, until the `with` block ends."""

    def __init__(self, display: Display, what: str) -> None:
        self._display = display
        self._what = what
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show_from_time_to_time, daemon=True)

    def __enter__(self) -> "Activity":
        if self._display.progress in _SECONDS:
            with contextlib.suppress(RuntimeError):  # the system has no more threads
                self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._display.clear()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def _show_from_time_to_time(self) -> None:
        interval = _SECONDS[self._display.progress]
        due = time.monotonic() + interval
        while not self._ended.wait(_LOOK):
            self._look()
            if time.monotonic() >= due:
                due += interval
                self._show()

    def _look(self) -> None:
        """Measure the rates."""

    def _show(self) -> None:
        if self._display.progress is Style.LINE:
            self._display.redraw(*self._line())
        elif self._display.progress is Style.PLAIN:
            self._display.note("".join(self._line()))

    def _line(self) -> tuple[str, str]:
        """The subject of the line, and its state."""
        return self._what, f" ({_clock(self.seconds)})"


class _Counting(Activity):
    """Also writes a line for programs, from the bytes done and the total."""

    def __init__(self, display: Display, what: str, machine_line: Callable[[int, int | None], str]) -> None:
        super().__init__(display, what)
        self._machine_line = machine_line

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        super().__exit__(kind, error, _)
        if self._display.progress is Style.BATCH and error is None:
            done = self._at_the_end()
            self._display.write(self._machine_line(done, done))

    def _show(self) -> None:
        super()._show()
        if self._display.progress is Style.BATCH:
            self._display.write(self._machine_line(*self._counted()))

    def _counted(self) -> tuple[int, int | None]:
        """The bytes done, and how many there are in all, if that is known."""
        raise NotImplementedError

    def _at_the_end(self) -> int:
        """The bytes that were to be done."""
        raise NotImplementedError


class Counts(Protocol):
    """The bytes that go to Keep."""

    @property
    def moved(self) -> int:
        """Bytes that were sent, including those of blocks that are not complete yet."""

    @property
    def reused(self) -> int:
        """Bytes that need not be sent."""

    sending: Stopwatch
    """Runs while there is something to send."""
    full: Stopwatch
    """Runs while the reader waits until what it has read is sent."""


class Skipped(Protocol):
    skipped: int
    """Bytes of layers that are in Arvados and were not read."""


class ReadProgress(Protocol):
    """Bytes that are read from the source, which may be compressed."""

    read: int

    @property
    def left(self) -> int:
        """Bytes that are still to be read, as far as is known."""

    @property
    def size(self) -> int | None:
        """An estimate of the image's uncompressed size in bytes; None if there is none."""


class Expected(Protocol):
    """Where the image comes from."""

    what: str
    activity: str
    """What happens there, to be followed by the image's name: `docker is saving`."""

    @property
    def read_progress(self) -> ReadProgress: ...


class Progress(_Counting):
    """Shows how much of an image is in Keep, whether just sent or there before, until the `with` block ends."""

    def __init__(
        self,
        display: Display,
        name: str,
        counts: Counts,
        units: Skipped,
        source: Expected,
        machine_line: Callable[[int, int | None], str],
        dry_run: bool = False,
    ) -> None:
        """`name` is what the user calls the image; `machine_line` makes the line for programs, from the bytes done and
        the total. With `dry_run` nothing is really sent."""
        super().__init__(display, f"{source.activity} {name}", machine_line)
        self.whole: int | None = None
        """Bytes of the stored archive, known when everything has been read."""
        self._name = name
        self._counts = counts
        self._units = units
        self._source = source
        self._dry_run = dry_run
        self._reading = Pace()
        self._sending = Pace()

    @property
    def _in_keep(self) -> int:
        return self._counts.moved + self._counts.reused + self._units.skipped

    @property
    def _total(self) -> int | None:
        if self.whole is not None:
            return self.whole
        size = self._source.read_progress.size
        return max(size, self._in_keep) if size else None

    def _counted(self) -> tuple[int, int | None]:
        return self._in_keep, self._total

    def _at_the_end(self) -> int:
        return self._in_keep

    def _look(self) -> None:
        self._sending.note(self._counts.sending.seconds, self._counts.moved)
        # The time in which the reader had to wait for the sender says nothing about how fast it reads.
        self._reading.note(self.seconds - self._counts.full.seconds, self._source.read_progress.read)

    def _line(self) -> tuple[str, str]:
        if not self._source.read_progress.read and not self._units.skipped:
            return f"{self._source.activity} {self._name}", super()._line()[1]
        there, total = self._in_keep, self._total
        words = [f"{there >> 20} MiB"]
        if total is not None:
            # 100 % means that Keep has confirmed the last byte; then nothing is shown any more.
            words = _share(there, total)
        if (seconds := self._standing()) is not None:
            words += _stalled(seconds)
        else:
            words.append(f"{self._counts.moved >> 20} {'new' if self._dry_run else 'sent'}")
            words += _moving(None if self._dry_run else self._sending.rate, self._left(there, total))
        return self._name, f": {', '.join(words)}"

    def _standing(self) -> float | None:
        """The seconds since anything moved; None as long as that is not unusual."""
        if self._counts.sending.runs:
            pace = self._sending
        elif self.whole is None:
            pace = self._reading
        else:
            return None
        return pace.idle if pace.is_still else None

    def _left(self, there: int, total: int | None) -> float | None:
        """Seconds until everything is in Keep if reading and sending keep their rates; the slower of them decides."""
        if total is None:
            return None
        unsent = max(total - there, 0)
        reading = 0.0 if self.whole is not None else _seconds(self._source.read_progress.left, self._reading.rate)
        if not self._counts.moved or self._dry_run:
            return reading
        sending = _seconds(unsent, self._sending.rate)
        tail = _seconds(min(unsent, _BLOCK), self._sending.rate)
        if reading is None or sending is None or tail is None:
            return None
        return max(reading + tail, sending)


class CheckProgress(_Counting):
    """Shows how much of an image that is checked has been read, until the `with` block ends."""

    def __init__(
        self,
        display: Display,
        what: str,
        read: Callable[[], int],
        total: int,
        machine_line: Callable[[int, int | None], str],
    ) -> None:
        """`read` returns how many of the `total` bytes were read; `machine_line` makes the line for programs."""
        super().__init__(display, what, machine_line)
        self._read = read
        self._total = total
        self._pace = Pace()

    def _counted(self) -> tuple[int, int | None]:
        return self._read(), self._total

    def _at_the_end(self) -> int:
        return self._total

    def _look(self) -> None:
        self._pace.note(self.seconds, self._read())

    def _line(self) -> tuple[str, str]:
        read, rate = self._read(), self._pace.rate
        left = _seconds(max(self._total - read, 0), rate)
        words = _share(read, self._total)
        words += _stalled(self._pace.idle) if self._pace.is_still else _moving(rate, left)
        return self._what, f": {', '.join(words)}"


def _share(done: int, total: int) -> list[str]:
    return [f"{min(100 * done // max(total, 1), 99)}%", f"{done >> 20} of {total >> 20} MiB"]


def _stalled(seconds: float) -> list[str]:
    return [f"stalled for {_clock(seconds)}", "time left unknown"]


def _moving(rate: float | None, left: float | None) -> list[str]:
    words = [f"{rate / (1 << 20):.1f} MiB/s"] if rate is not None else []
    return [*words, f"{_clock(max(left, 1))} left" if left is not None else "time left unknown"]


def _seconds(count: int, rate: float | None) -> float | None:
    if not count:
        return 0.0
    return count / rate if rate is not None else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
