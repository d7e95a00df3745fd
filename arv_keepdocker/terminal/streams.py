"""Writes text to stdout and stderr, which may be full, closed, or not ready.

Python keeps what it could not write, tries again when the interpreter exits, and then exits with status 120. So nothing
is left in its buffers here: text that cannot be written raises an error at once, or is discarded.
"""

import contextlib
import os
import select
from typing import TextIO


def write(text: str, stream: TextIO) -> None:
    """Write all of the text now, even if the stream accepts it only in parts or cannot encode all of Unicode.

    Raises OSError, or ValueError if the stream is closed.
    """
    stream.flush()
    buffer = getattr(stream, "buffer", None)
    if buffer is None:  # a stream in memory
        stream.write(text)
        stream.flush()
        return
    raw = getattr(buffer, "raw", buffer)
    left = memoryview(text.encode(stream.encoding, "backslashreplace"))
    while left:
        written = raw.write(left)
        if written is None:  # the stream is non-blocking and not ready
            _wait(raw.fileno())
        else:
            left = left[written:]
    raw.flush()


def empty(stream: TextIO | None) -> None:
    """Discard what others have left in the stream's buffer and cannot be written."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError), open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), stream.fileno())
            stream.flush()


def columns(stream: TextIO | None) -> int | None:
    """The width of the terminal in columns; None if the stream is no terminal, or reports no width."""
    if stream is None:
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _wait(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
