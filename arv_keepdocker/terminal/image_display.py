"""A display for one of several images that are stored at a time."""

import threading

from .display import Display


class SharedLine:
    """The line that a terminal redraws, with what is to be said of each image."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._lock = threading.Lock()
        self._parts: dict[str, str] = {}

    def show(self, name: str, text: str | None) -> None:
        """Say this of an image; None if there is nothing to say any more."""
        with self._lock:
            if text is not None:
                self._parts[name] = text
            elif self._parts.pop(name, None) is None:
                return
            if self._parts:
                self._display.redraw("; ".join(self._parts.values()))
            else:
                self._display.clear()


class ImageDisplay(Display):
    """Says of which image it speaks."""

    def __init__(self, display: Display, name: str, line: SharedLine) -> None:
        super().__init__(display.stream, display.quiet, display.progress)
        self._display = display
        self._name = name
        self._shared = line
        self._secrets = display._secrets

    def note(self, message: str) -> None:
        self._display.note(self._named(message))

    def retrying(self, message: str) -> None:
        self._display.retrying(self._named(message))

    def warning(self, message: str) -> None:
        self._display.warning(self._named(message))

    def error(self, message: str, hint: str | None = None) -> None:
        self._display.error(self._named(message), hint)

    def redraw(self, what: str, state: str = "") -> None:
        self._shared.show(self._name, self._named(what) + state)

    def clear(self) -> None:
        self._shared.show(self._name, None)

    def write(self, text: str) -> None:
        self._display.write(text)

    def _line(self, message: str) -> None:
        self._display._line(self._named(message))

    def _named(self, message: str) -> str:
        return message if self._name in message else f"{self._name}: {message}"
