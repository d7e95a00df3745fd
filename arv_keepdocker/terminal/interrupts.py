"""Postpones the effect of a signal where it must not interrupt at once.

A signal handler raises an exception in whatever the main thread is doing. Functions that Python itself calls when it
forks (the logging module has some) ignore exceptions, so the signal would be lost.
"""

import contextlib
from collections.abc import Iterator

_depth = 0
_postponed: BaseException | None = None


def interrupt(interruption: BaseException) -> None:
    """For a signal handler: raise the interruption now or, within a `postponed` block, when that ends."""
    global _postponed
    if not _depth:
        raise interruption
    _postponed = interruption


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Postpone interruptions until the block ends. Only for the main thread, in which signal handlers run."""
    global _depth, _postponed
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and _postponed is not None:
            interruption, _postponed = _postponed, None
            raise interruption
