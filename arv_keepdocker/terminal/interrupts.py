"""Where a signal may not end things at once.

A signal's handler raises, in whatever the main thread is doing. What Python calls by itself when it forks (the logging
module has such functions) ignores what is raised there, and the signal would be lost.
"""

import contextlib
from collections.abc import Iterator

_depth = 0
_postponed: BaseException | None = None


def interrupt(interruption: BaseException) -> None:
    """For a signal's handler: raise the interruption, now, or when the `postponed` block ends that it came in."""
    global _postponed
    if not _depth:
        raise interruption
    _postponed = interruption


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Let interruptions wait until the block ends. Only for the main thread, which is where handlers run."""
    global _depth, _postponed
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and _postponed is not None:
            interruption, _postponed = _postponed, None
            raise interruption
