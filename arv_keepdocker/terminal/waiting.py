"""How those below the display are given a voice for what takes long."""

import contextlib
from collections.abc import Callable

Waiting = Callable[[str], contextlib.AbstractContextManager[None]]
"""Makes a block that may wait for what the text names: if it does so for long, somebody is told."""


def unsaid(what: str) -> contextlib.AbstractContextManager[None]:
    """A Waiting where there is nobody to tell."""
    return contextlib.nullcontext()
