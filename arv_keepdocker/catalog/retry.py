"""Retries what may succeed later, and tells the user."""

import itertools
import random
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import ArvadosError
from ..terminal.display import Display

_LONGEST_PAUSE = 64
"""Seconds between two attempts."""

_Answer = TypeVar("_Answer")


class Retry:
    """Repeats requests that fail for a while, with growing pauses. Safe for use in several threads."""

    def __init__(self, retries: int, display: Display | None = None) -> None:
        """Without a `display`, nothing is printed."""
        self.retries = retries
        self._display = display

    def __call__(self, whom: str, do: Callable[[], _Answer], retries: int | None = None) -> _Answer:
        """Return what `do` returns; call it again, up to `retries` times, while its ArvadosError has a `retry_reason`.

        If it takes long, the display says that the program is waiting for `whom`.
        """
        tries = self.retries if retries is None else retries
        for attempt in itertools.count(1):
            try:
                if self._display is None:
                    return do()
                with self._display.waiting(whom):
                    return do()
            except ArvadosError as error:
                if error.retry_reason is None or attempt > tries:
                    raise
                self._pause(error.retry_reason, attempt, tries)
        raise AssertionError

    def _pause(self, retry_reason: str, attempt: int, tries: int) -> None:
        # A server that comes back should not get the requests of all clients in the same second.
        seconds = min(2.0**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)
        if self._display is not None:
            self._display.retrying(f"{retry_reason}; trying again in {seconds:.0f} s ({attempt} of {tries})")
        time.sleep(seconds)
