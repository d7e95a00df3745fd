"""What a terminal shows of a run, and when."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tty import setraw

_PIECE = re.compile(r"\r|\n|\x1b\[\d*[KJA]")
_LINE = re.compile(
    r"(?:.*: )?(?P<percent>\d+)%, (?P<there>\d+) of (?P<total>\d+) MiB"
    r"(?:, (?P<sent>\d+) (?:sent|new))?(?P<still>, stalled for [\d:]+)?"
    r"(?:, (?P<rate>[\d.]+) MiB/s)?, (?:(?P<left>[\d:]+) left|time left unknown)"
)


@dataclass(frozen=True)
class Shown:
    """A line of the display."""

    time: float
    """When it was there, by time.monotonic()."""
    text: str

    @property
    def numbers(self) -> dict[str, str | None] | None:
        match = _LINE.fullmatch(self.text)
        return match.groupdict() if match is not None else None

    @property
    def percent(self) -> int | None:
        """How much of the image is in Keep; None for a line that does not say it."""
        return int(str(self.numbers["percent"])) if self.numbers is not None else None

    @property
    def left(self) -> float | None:
        """The seconds that are left; None where they are unknown."""
        text = self.numbers["left"] if self.numbers is not None else None
        if text is None:
            return None
        seconds = 0
        for part in text.split(":"):
            seconds = 60 * seconds + int(part)
        return float(seconds)

    @property
    def is_redrawn(self) -> bool:
        """Whether another line takes its place."""
        return self.numbers is not None or re.search(r" \(\d+:\d\d\)$", self.text) is not None

    @property
    def is_still(self) -> bool:
        """Whether it says that nothing moves."""
        return self.numbers is not None and self.numbers["still"] is not None


class Screen:
    """A terminal for stderr, in a context; afterwards it knows all that was shown."""

    def __init__(self, columns: int = 80) -> None:
        self.lines: list[Shown] = []
        self._columns = columns
        self._rest = ""

    @contextmanager
    def open(self) -> Iterator[int]:
        """The file descriptor to write to."""
        master, self.slave = pty.openpty()
        setraw(self.slave)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self._columns, 0, 0))
        self._master = master
        try:
            yield self.slave
        finally:
            with suppress(OSError):
                os.close(self.slave)
            os.close(master)

    def watch(self, seen: Callable[[Shown], None] = lambda line: None) -> None:
        """Read until nobody has the terminal open for writing any more; `seen` is told of each line at once."""
        os.close(self.slave)
        with suppress(OSError):  # which is the end
            while data := os.read(self._master, 65536):
                now = time.monotonic()
                *texts, self._rest = _PIECE.split(self._rest + data.decode())
                for text in filter(None, texts):
                    self.lines.append(Shown(now, text))
                    seen(self.lines[-1])


class Terminal:
    """What is to be seen of all that was written to a terminal, which is as large as that needs."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = self._column = 0

    def write(self, text: str) -> None:
        """Do what the text says. Raises ValueError for what this terminal does not know."""
        for char in re.findall(r"\x1b\[\d*[A-Z]|.|\n", text):
            if char == "\r":
                self._column = 0
            elif char == "\n":
                self._row += 1
                self.lines += [""] * (self._row == len(self.lines))
            elif char in ("\x1b[K", "\x1b[J"):
                self.lines[self._row] = self.lines[self._row][: self._column]
                del self.lines[self._row + 1 if char == "\x1b[J" else len(self.lines) :]
            elif char.startswith("\x1b") and char.endswith("A"):
                self._row -= int(char[2:-1])
            elif not char.isprintable():
                raise ValueError(repr(char))
            else:
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[: self._column] + char + line[self._column + 1 :]
                self._column += 1


def misjudged(lines: Sequence[Shown], end: float, factor: float, tolerance: float) -> list[str]:
    """The lines, from 20 % on, whose time left is not within the factor of the truth, or so many seconds.

    Those that say that it is unknown are not among them.
    """
    wrong = []
    for line in lines:
        if line.percent is None or line.percent < 20 or line.left is None:
            continue
        truth = end - line.time
        if not truth / factor - tolerance <= line.left <= truth * factor + tolerance:
            wrong.append(f"{line.text} (it was {truth:.1f} s)")
    return wrong
