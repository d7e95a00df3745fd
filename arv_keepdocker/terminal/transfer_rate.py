"""How fast something moves, measured over the time in which it could move."""

import threading
import time
from collections import deque

STILL = 3.0
"""Seconds without movement after which something stands still; they say nothing of how fast it is otherwise."""
_TRICKLE = 0.01
"""Of what would have moved meanwhile: less is no movement. TCP probes a receiver that takes nothing with a little."""
_WINDOW = 20.0
"""Seconds over which is measured: long enough for what moves in bursts, short enough to follow what changes."""


class Stopwatch:
    """A context for several threads that measures how long at least one of them was in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._since = 0.0
        self._before = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._since = time.monotonic()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before += time.monotonic() - self._since

    @property
    def runs(self) -> bool:
        """Whether a thread is in it."""
        return self._inside > 0

    @property
    def seconds(self) -> float:
        with self._lock:
            return self._before + (time.monotonic() - self._since if self._inside else 0.0)


class Pace:
    """The recent rate of something that is counted."""

    def __init__(self) -> None:
        self.idle = 0.0
        """Seconds in which it could have moved since it last has."""
        self._time = 0.0
        self._seconds = 0.0
        self._count = 0
        self._points: deque[tuple[float, int]] = deque()

    def note(self, seconds: float, count: int) -> None:
        """It had so many seconds to move until now, of all time, and has come to `count`."""
        passed = max(seconds - self._seconds, 0.0)
        self._seconds = seconds
        self.idle += passed
        if 0 <= count - self._count <= _TRICKLE * (self.rate or 0.0) * min(self.idle, STILL):
            return
        if self._points:  # how long the first movement took is not known
            self._time += self.idle if self.idle < STILL else passed
        self._count = count
        self.idle = 0.0
        self._points.append((self._time, count))
        while len(self._points) > 2 and self._points[1][0] < self._time - _WINDOW:
            self._points.popleft()

    @property
    def is_still(self) -> bool:
        return self.idle >= STILL

    @property
    def rate(self) -> float | None:
        """Per second; None while it is not known."""
        if len(self._points) < 2:
            return None
        (start, before), (end, after) = self._points[0], self._points[-1]
        return (after - before) / (end - start) if end > start and after > before else None
