"""What the user reads on stderr: errors, warnings, notes, and progress on a terminal."""

import contextlib
import enum
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TextIO

from ..terminal import streams
from ..terminal.secrets import Secrets
from ..terminal.width import fitted, width

PROGRAM = "arv-keepdocker"
_REDRAW_SECONDS = 0.2
_TO_END_OF_LINE, _TO_END = "\x1b[K", "\x1b[J"
"""What a terminal erases, from the cursor on (ECMA-48: EL, ED)."""
_COLUMNS = 80
"""The width of a terminal that does not report one."""
_SHORTEST = 10
"""The fewest columns that are left for a line's subject."""
_PATIENCE = 10.0
"""Seconds that the program may wait without saying so."""
_REMINDER = 60.0
"""Seconds between two messages about the same wait."""


class Style(enum.Enum):
    """How progress is shown."""

    NONE = enum.auto()
    LINE = enum.auto()
    """One line of a terminal that is redrawn."""
    PLAIN = enum.auto()
    """A line from time to time, for logs."""
    BATCH = enum.auto()
    """arv-put's lines for programs."""


class _Waits:
    """What this process waits for. One thread watches it: to start one for each wait, as for every request, would take
    longer than most of them."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._waits: dict[object, tuple[float, Callable[[], None]]] = {}
        """When each has lasted too long, and what to call then."""
        self._watched = False

    def forget(self) -> None:
        """Begin anew in a forked process: it has none of its parent's threads, neither those that wait nor the one that
        watches them."""
        self._changing, self._waits, self._watched = threading.Lock(), {}, False

    @contextlib.contextmanager
    def watched(self, tell: Callable[[], None]) -> Iterator[None]:
        """Call `tell`, once, if the block takes too long."""
        wait = object()
        try:  # a signal may interrupt the first lines, too
            with self._changing:
                self._waits[wait] = time.monotonic() + _PATIENCE, tell
                if not self._watched:
                    with contextlib.suppress(RuntimeError):  # the system has no more threads
                        threading.Thread(target=self._watch, daemon=True).start()
                        self._watched = True
            yield
        finally:
            with self._changing:
                self._waits.pop(wait, None)

    def _watch(self) -> None:
        while (end := self._tell()) is not None:
            time.sleep(max(end - time.monotonic(), 0))  # what begins meanwhile ends later

    def _tell(self) -> float | None:
        """Tell of the waits that last too long. Returns when the next one does; None if there is none."""
        now = time.monotonic()
        with self._changing:
            late = [wait for wait, (end, _) in self._waits.items() if end <= now]
            told = [self._waits.pop(wait)[1] for wait in late]
            next_end = min((end for end, _ in self._waits.values()), default=None)
            self._watched = next_end is not None
        for tell in told:
            tell()
        return next_end


_WAITS = _Waits()
os.register_at_fork(after_in_child=_WAITS.forget)


class Display:
    """Writes to one stream; text from elsewhere (docker, Arvados, names) cannot steer the terminal."""

    is_shared = False
    """Whether other images' displays write to the stream, too."""

    def __init__(self, stream: TextIO, quiet: bool = False, progress: Style = Style.NONE) -> None:
        """With `quiet` only errors and warnings are shown."""
        self.stream = stream
        self.quiet = quiet
        self.progress = progress
        self._lines: dict[str, tuple[str, str]] = {}
        """The progress lines at the bottom, by image: the subject of each, and its state."""
        self._height = 0
        """How many lines were drawn; the cursor is in the first of them."""
        self._closed = False
        self._writing = threading.RLock()
        self._secrets = Secrets()
        self._said: dict[str, float] = {}

    def hide(self, token: str) -> None:
        """Never show the token, however it is spelled: a server that receives it may repeat it in an answer."""
        self._secrets.add(token)

    def clean(self, text: str) -> str:
        """The text, which may have several lines, without secrets and terminal control sequences."""
        return "\n".join(map(escaped, self._secrets.hidden(text).split("\n")))

    def note(self, message: str) -> None:
        if not self.quiet:
            self._line(message)

    def retrying(self, message: str) -> None:
        """Report a failure that is being retried, even if quiet."""
        self._line(message)

    def warning(self, message: str) -> None:
        self._line(f"warning: {message}")

    def error(self, message: str, hint: str | None = None) -> None:
        self._line(f"error: {message}")
        if hint:
            self._line(hint)

    @contextlib.contextmanager
    def waiting(self, what: str, at_once: bool = False) -> Iterator[None]:
        """Report, even if quiet, that the program waits for `what` if the block takes more than 10 seconds.

        With `at_once`, it is also reported at the beginning, unless quiet.
        """
        words = f"waiting for {what}"
        if at_once and not self.quiet:
            self._line(words)
            yield
            return
        with _WAITS.watched(partial(self._still, words)):
            yield

    def _still(self, words: str) -> None:
        now = time.monotonic()
        if now - self._said.get(words, -_REMINDER) >= _REMINDER:  # many small waits for one thing need one line
            self._said[words] = now
            self._line(words)

    def counter(self, what: str, total: int | None) -> "Counter":
        """A progress line that counts bytes; `total` is how many are expected."""
        return Counter(self, what, total)

    def redraw(self, what: str, state: str = "", image: str = "") -> None:
        """Show the image's progress line at the bottom, in place of its previous one.

        `what` is shortened if it leaves no room for `state`, the part that changes.
        """
        with self._writing:
            if not self._closed:
                self._lines[image] = self.clean(what), self.clean(state)
                self._draw()

    def clear(self, image: str = "") -> None:
        """Remove the image's progress line."""
        with self._writing:
            if self._lines.pop(image, None) is not None:
                self._draw()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Hide the progress lines while the block writes to the terminal."""
        with self._writing:
            self._erase()
            yield
            if self._lines:
                self._draw()

    def close(self) -> None:
        """Redraw nothing more, even if other threads are still at work."""
        with self._writing:
            self._closed = True
            self._lines.clear()
            self._erase()

    def _draw(self) -> None:
        columns = (streams.columns(self.stream) or _COLUMNS) - 1
        lines = [
            fitted(fitted(what, max(columns - width(state), _SHORTEST)) + state, columns)
            for what, state in self._lines.values()
        ]
        if not lines:
            self._erase()
            return
        end = _TO_END if max(self._height, len(lines)) > 1 else _TO_END_OF_LINE
        back = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        self.write("\r" + f"{_TO_END_OF_LINE}\r\n".join(lines) + end + back)
        self._height = len(lines)

    def _erase(self) -> None:
        if self._height:
            self.write("\r" + (_TO_END if self._height > 1 else _TO_END_OF_LINE))
            self._height = 0

    def write(self, text: str) -> None:
        # A stderr that is gone or full is no reason to fail: the result is on stdout.
        with contextlib.suppress(OSError, ValueError):
            streams.write(text, self.stream)

    def _line(self, message: str) -> None:
        with self.aside():
            self.write(self.clean(f"{PROGRAM}: {' '.join(message.split())}") + "\n")


class Counter:
    """A redrawn progress line; does nothing if progress is not shown."""

    def __init__(self, display: Display, what: str, total: int | None) -> None:
        self._display = display
        self._what = what
        self._total = total
        self._done = 0
        self._next = 0.0

    def add(self, count: int) -> None:
        """Count `count` more bytes."""
        self._done += count
        now = time.monotonic()
        if self._display.progress is Style.LINE and now >= self._next:
            self._next = now + _REDRAW_SECONDS
            self._draw()

    def close(self) -> None:
        """End the count and remove the line."""
        self._display.clear()

    def _draw(self) -> None:
        # The engine's size is an estimate: docker's archive is a little longer.
        total = f" / {max(self._total, self._done) >> 20}" if self._total else ""
        self._display.redraw(f"{self._what}: {self._done >> 20}{total} MiB")


def escaped(text: str) -> str:
    """The text with control characters, and everything else that can steer a terminal, escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
