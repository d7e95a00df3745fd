"""The SDK's log messages: shown in our words or not at all, unless ARVADOS_DEBUG is set."""

import ast
import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace

from ..terminal.display import Display
from . import settings
from .arvados_errors import KeepProblem

_OURS = {"arvados", "arvados.arv_put"}
"""Loggers whose messages are for the user: where settings.conf was not found, and what arv-put does."""


@contextlib.contextmanager
def in_our_words(display: Display) -> Iterator[None]:
    """Keep the SDK's log from stderr or, with ARVADOS_DEBUG, hide tokens and control characters in it.

    Raises ArvadosError if settings.conf, which the SDK reads when it is imported, is malformed.
    """
    debugging = bool(os.environ.get("ARVADOS_DEBUG"))
    hides = _Hides(display)

    def passes(record: logging.LogRecord) -> bool:
        if debugging:
            return hides.filter(record)
        _tell(record, display)
        return False

    with contextlib.ExitStack() as stack:
        _filter(stack, logging.getLogger("arvados"), passes)  # it has something to say when it is imported
        if (problem := settings.load()) is not None:
            display.warning(problem)
        import arvados

        _filter(stack, arvados.log_handler, passes)
        stack.callback(hides.stay_on, arvados.log_handler)  # before the other is taken away
        yield


class _Hides(logging.Filter):
    """Hides tokens and control characters in all messages."""

    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display
        self._formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._display.clean(record.getMessage()), None
        if record.exc_info:
            record.exc_text = self._display.clean(self._formatter.formatException(record.exc_info))
        return True

    def stay_on(self, handler: logging.Handler) -> None:
        """Take the place of the last run's: threads that still send blocks have something to say after the run."""
        handler.addFilter(self)
        for other in handler.filters[:]:
            if isinstance(other, _Hides) and other is not self:
                handler.removeFilter(other)


def _filter(stack: contextlib.ExitStack, place: logging.Filterer, passes: Callable[[logging.LogRecord], bool]) -> None:
    place.addFilter(passes)
    stack.callback(place.removeFilter, passes)


def _tell(record: logging.LogRecord, display: Display) -> None:
    if record.name in _OURS and record.levelno >= logging.WARNING:
        display.warning(record.getMessage())
    elif record.name in _OURS:
        display.note(record.getMessage())


@contextlib.contextmanager
def retries_told(display: Display) -> Iterator[None]:
    """Tell the user about the SDK's own retries, which arv-put relies on."""
    with (
        _heard("googleapiclient.http", logging.WARNING, lambda record: _tell_of_api(record, display)),
        _heard("arvados.keep", logging.DEBUG, lambda record: _tell_of_keep(record, display)),
    ):
        yield


def _tell_of_api(record: logging.LogRecord, display: Display) -> None:
    if str(record.msg).startswith("Sleeping ") and isinstance(record.args, tuple) and len(record.args) == 7:
        seconds, attempt, tries, *_, problem = record.args
        trouble = f"Arvados answered {problem}" if isinstance(problem, int) else f"no answer from Arvados ({problem})"
        display.retrying(f"{trouble}; trying again in {seconds:.0f} s ({attempt} of {tries})")


def _tell_of_keep(record: logging.LogRecord, display: Display) -> None:
    if not str(record.msg).startswith("Request fail: PUT ") or not isinstance(record.args, tuple):
        return
    said = str(record.args[-1])
    with contextlib.suppress(ValueError, TypeError, SyntaxError):
        status, reason = ast.literal_eval(said)  # the SDK's HttpError has no other words
        said = KeepProblem.of(SimpleNamespace(status_code=status, reason=reason)).summary
    display.retrying(f"arv-put: {said}")


@contextlib.contextmanager
def _heard(name: str, level: int, hear: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Call `hear` for messages of the logger at this level or above; the log itself stays as it was."""
    logger = logging.getLogger(name)
    usual, own = logger.getEffectiveLevel(), logger.level

    def passes(record: logging.LogRecord) -> bool:
        hear(record)
        return record.levelno >= usual

    logger.addFilter(passes)
    logger.setLevel(min(level, usual))
    try:
        yield
    finally:
        logger.removeFilter(passes)
        logger.setLevel(own)
