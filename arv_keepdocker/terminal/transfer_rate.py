"""Measures how fast something moves, over the time in which it could move, and whether it has stalled."""

import threading
import time
from collections import deque

STILL = 3.0
"""Seconds without movement after which something has stalled; they do not count towards its rate."""
_TRICKLE = 0.01
"""The part of what would have moved meanwhile that is no movement: TCP probes a receiver that takes nothing."""
_PROBE = 128 << 10
"""Bytes that such probes may move at any rate, unless they are half of what would have moved."""
_WINDOW = 20.0
"""Seconds over which the rate is measured: long enough to even out bursts, short enough to follow changes."""


class Stopwatch:
    """A context for several threads; measures for how long at least one of them was in it."""

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
        """Whether any thread is in it now."""
        return self._inside > 0

    @property
    def seconds(self) -> float:
        with self._lock:
            return self._before + (time.monotonic() - self._since if self._inside else 0.0)


class Pace:
    """The recent rate of something that is counted, and whether it stands still."""

    def __init__(self) -> None:
        self.idle = 0.0
        """Seconds since the last movement in which it could have moved."""
        self._time = 0.0
        self._seconds = 0.0
        self._count = 0
        self._points: deque[tuple[float, int]] = deque()

    def note(self, seconds: float, count: int) -> None:
        """Record the total count so far, and the total of the seconds in which it could grow."""
        passed = max(seconds - self._seconds, 0.0)
        self._seconds = seconds
        self.idle += passed
        expected = (self.rate or 0.0) * min(self.idle, STILL)
        if 0 <= count - self._count <= max(_TRICKLE * expected, min(_PROBE, expected / 2)):
            return
        if self._points:  # it is not known how long the first movement took
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
        """The rate per second; None while it is not known."""
        if len(self._points) < 2:
            return None
        (start, before), (end, after) = self._points[0], self._points[-1]
        return (after - before) / (end - start) if end > start and after > before else None
