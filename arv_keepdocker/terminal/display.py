"""What the user reads on stderr: errors, warnings, notes, and progress on a terminal."""

import contextlib
import enum
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from ..terminal import streams
from ..terminal.secrets import Secrets
from ..terminal.width import fitted, width

PROGRAM = "arv-keepdocker"
_REDRAW_SECONDS = 0.2
_COLUMNS = 80
"""Of a terminal that does not say how many it has."""
_SHORTEST = 10
"""Columns of what a line is about."""
_PATIENCE = 10.0
"""Seconds that anything may take without a word."""
_REMINDER = 60.0
"""Seconds after which it is said again what the program waits for."""


class Style(enum.Enum):
    """How progress is shown."""

    NONE = enum.auto()
    LINE = enum.auto()
    """One line of a terminal that is redrawn."""
    PLAIN = enum.auto()
    """A line from time to time, for logs."""
    BATCH = enum.auto()
    """arv-put's lines for programs."""


class Display:
    """Writes to one stream; text from elsewhere (docker, Arvados, names) cannot steer the terminal."""

    def __init__(self, stream: TextIO, quiet: bool = False, progress: Style = Style.NONE) -> None:
        """With `quiet` only errors and warnings are shown."""
        self.stream = stream
        self.quiet = quiet
        self.progress = progress
        self._drawn = False
        self._writing = threading.RLock()
        self._secrets = Secrets()
        self._said: dict[str, float] = {}

    def hide(self, token: str) -> None:
        """Never show the token in any spelling; who is told it may repeat it in an answer."""
        self._secrets.add(token)

    def clean(self, text: str) -> str:
        """Text of several lines without secrets and without what a terminal might obey."""
        return "\n".join(map(escaped, self._secrets.hidden(text).split("\n")))

    def note(self, message: str) -> None:
        if not self.quiet:
            self._line(message)

    def retrying(self, message: str) -> None:
        """Say, quiet or not, what went wrong and is tried again."""
        self._line(message)

    def warning(self, message: str) -> None:
        self._line(f"warning: {message}")

    def error(self, message: str, hint: str | None = None) -> None:
        self._line(f"error: {message}")
        if hint:
            self._line(hint)

    @contextlib.contextmanager
    def waiting(self, what: str, at_once: bool = False) -> Iterator[None]:
        """Say, quiet or not, that the program waits for `what` if the block takes more than 10 seconds.

        With `at_once` that is said now, unless quiet.
        """
        words = f"waiting for {what}"
        if at_once and not self.quiet:
            self._line(words)
            yield
            return
        timer = threading.Timer(_PATIENCE, self._still, [words])
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # the system has no more threads
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _still(self, words: str) -> None:
        now = time.monotonic()
        if now - self._said.get(words, -_REMINDER) >= _REMINDER:  # many small waits for one thing need one line
            self._said[words] = now
            self._line(words)

    def counter(self, what: str, total: int | None) -> "Counter":
        """A line that counts the bytes of something that may take long; `total` is how many are expected."""
        return Counter(self, what, total)

    def redraw(self, what: str, state: str = "") -> None:
        """Show a line in the place of what was drawn there before; `what` is cut where it leaves no room for `state`,
        which changes."""
        what, state = self.clean(what), self.clean(state)
        columns = (streams.columns(self.stream) or _COLUMNS) - 1
        with self._writing:
            self._drawn = True
            line = fitted(fitted(what, max(columns - width(state), _SHORTEST)) + state, columns)
            self.write(f"\r{line}\x1b[K")

    def clear(self) -> None:
        """Take away what was drawn."""
        with self._writing:
            if self._drawn:
                self._drawn = False
                self.write("\r\x1b[K")

    def write(self, text: str) -> None:
        # A stderr that is gone or full is no reason to fail: the result is on stdout.
        with contextlib.suppress(OSError, ValueError):
            streams.write(text, self.stream)

    def _line(self, message: str) -> None:
        with self._writing:
            self.clear()
            self.write(self.clean(f"{PROGRAM}: {' '.join(message.split())}") + "\n")


class Counter:
    """A redrawn progress line; does nothing where progress is not wanted."""

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
        """Leave the line as it is at the end."""
        if self._display.progress is Style.LINE:
            self._draw()
            self._display.write("\n")

    def _draw(self) -> None:
        # The engine's size is an estimate: docker's archive is a little longer.
        total = f" / {max(self._total, self._done) >> 20}" if self._total else ""
        self._display.write(f"\r{self._what}: {self._done >> 20}{total} MiB ")


def escaped(text: str) -> str:
    """`text` with control characters, and whatever else a terminal might obey, escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
