"""Interrupts what the main thread is doing when a signal comes, but not where the interruption would be lost.

The signal handler raises an exception. Python ignores exceptions in destructors and in callbacks of weak references, of
which imports have many, and prints them as "Exception ignored"; functions that it calls when it forks (the logging
module has some) ignore them, too.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

_AGAIN = 0.01
"""Seconds after which an ignored signal is sent again."""

_depth = 0
_postponed: "Interrupted | None" = None


class Interrupted(SystemExit):
    """Raised for a signal. It is a SystemExit because arv-put would save half a file after a KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)
        self.hint: str | None = None


@contextlib.contextmanager
def by_signals() -> Iterator[None]:
    """Raise Interrupted for SIGINT and SIGTERM until the block ends. Only for the main thread."""
    handlers = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, sys.unraisablehook = sys.unraisablehook, partial(_ignored, sys.unraisablehook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


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


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The signal handler."""
    global _postponed
    if _depth:
        _postponed = Interrupted(number)
    elif _is_ignoring(frame):
        _send_again(number)
    else:
        raise Interrupted(number)


def _ignored(usual: Callable[["sys.UnraisableHookArgs"], object], unraisable: "sys.UnraisableHookArgs") -> None:
    """What Python calls with an exception that it ignores."""
    if isinstance(unraisable.exc_value, Interrupted):
        _send_again(unraisable.exc_value.signal)
    else:
        usual(unraisable)


def _is_ignoring(frame: FrameType | None) -> bool:
    """Whether Python runs `_ignored`, and so would ignore this exception for good."""
    while frame is not None and frame.f_code is not _ignored.__code__:
        frame = frame.f_back
    return frame is not None


def _send_again(number: int) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def send() -> None:
        time.sleep(_AGAIN)
        signal.pthread_kill(main, number)

    threading.Thread(target=send, daemon=True).start()
