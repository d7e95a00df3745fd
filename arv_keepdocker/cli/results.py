"""Prints a command's result to stdout."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

from ..errors import KeepdockerError
from ..terminal import streams
from ..terminal.display import Display


@dataclass
class Result:
    """What goes to stdout, in pieces, and the exit status."""

    pieces: Iterable[str]
    status: int = 0
    """The exit status; final once all pieces have been produced."""
    whole: bool = True
    """Whether a reader that does not read all of it is an error."""


def print_result(result: Result, stdout: TextIO | None, display: Display) -> None:
    """Write the result to stdout. Raises KeepdockerError if not all of it can be written."""
    shown = f"; it is: {''.join(result.pieces)}" if result.whole and isinstance(result.pieces, list) else ""
    if stdout is None:  # closed when Python started
        raise KeepdockerError(f"there is no standard output for the result{shown}")
    for piece in result.pieces:
        try:
            with display.aside() if stdout.isatty() else contextlib.nullcontext():
                streams.write(piece, stdout)
        except BrokenPipeError as error:
            if result.whole:
                raise KeepdockerError(f"nobody reads the result{shown}") from error
            return  # the reader has seen enough, as in `| head`
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise KeepdockerError(f"cannot write the result: {reason}{shown}") from error
