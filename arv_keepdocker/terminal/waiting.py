"""The interface by which modules below the display report that they are waiting."""

import contextlib
from collections.abc import Callable

Waiting = Callable[[str], contextlib.AbstractContextManager[None]]
"""Makes a context for a wait; the text names what is awaited, and is reported if the wait is long."""


def unsaid(what: str) -> contextlib.AbstractContextManager[None]:
    """A Waiting that reports nothing."""
    return contextlib.nullcontext()
