"""A display for one of several images that are stored at the same time."""

import contextlib
from collections.abc import Iterator

from .display import Display


class ImageDisplay(Display):
    """Names its image in each message; on a terminal, each image has a progress line of its own."""

    is_shared = True

    def __init__(self, display: Display, name: str) -> None:
        super().__init__(display.stream, display.quiet, display.progress)
        self._display = display
        self._name = name
        self._secrets = display._secrets

    def note(self, message: str) -> None:
        self._display.note(self._named(message))

    def retrying(self, message: str) -> None:
        self._display.retrying(self._named(message))

    def warning(self, message: str) -> None:
        self._display.warning(self._named(message))

    def error(self, message: str, hint: str | None = None) -> None:
        self._display.error(self._named(message), hint)

    def redraw(self, what: str, state: str = "", image: str = "") -> None:
        self._display.redraw(self._named(what), state, self._name)

    def clear(self, image: str = "") -> None:
        self._display.clear(self._name)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        with self._display.aside():
            yield

    def write(self, text: str) -> None:
        self._display.write(text)

    def _line(self, message: str) -> None:
        self._display._line(self._named(message))

    def _named(self, message: str) -> str:
        return message if self._name in message else f"{self._name}: {message}"
