"""Trying again what may succeed later, and saying so."""

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
    """Does what somebody else may fail at for a while. Safe for use in several threads."""

    def __init__(self, retries: int, display: Display | None = None) -> None:
        """Without a `display` nothing is said."""
        self.retries = retries
        self._display = display

    def __call__(self, whom: str, do: Callable[[], _Answer], retries: int | None = None) -> _Answer:
        """What `do` returns, which is called up to `retries` times more while its ArvadosError has a `retry_reason`.

        That the program waits for `whom` is said where that takes long.
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
        # Not all clients of a server that comes back shall ask it in the same second.
        seconds = min(2.0**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)
        if self._display is not None:
            self._display.retrying(f"{retry_reason}; trying again in {seconds:.0f} s ({attempt} of {tries})")
        time.sleep(seconds)
