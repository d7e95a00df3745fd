"""Reads the body of an HTTP request, by Content-Length or in chunks."""

from collections.abc import Iterator
from email.message import Message
from io import BufferedIOBase

_CHUNK = 1 << 18
_LINE_LIMIT = 1 << 10
_NUMBER_LIMIT = 15
"""Digits."""


class ConnectionLostError(Exception):
    """The connection was lost or is unusable."""


def request_body(headers: Message, stream: BufferedIOBase) -> Iterator[bytes]:
    """The body's bytes, no more than were announced. Raises ConnectionLostError if they do not arrive."""
    try:
        if headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := _number(_line(stream).partition(b";")[0], 16):
                yield from _bytes(stream, size)
                _line(stream)
            while _line(stream):
                pass
        else:
            yield from _bytes(stream, _number(headers.get("Content-Length", "0").encode(), 10))
    except OSError as error:
        raise ConnectionLostError from error


def _bytes(stream: BufferedIOBase, size: int) -> Iterator[bytes]:
    while size:
        data = stream.read(min(size, _CHUNK))
        if not data:
            raise ConnectionLostError
        size -= len(data)
        yield data


def _line(stream: BufferedIOBase) -> bytes:
    line = stream.readline(_LINE_LIMIT)
    if not line.endswith(b"\n"):
        raise ConnectionLostError
    return line.strip()


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base) if len(text) <= _NUMBER_LIMIT and text.isalnum() else -1
    except ValueError:
        number = -1
    if number < 0:
        raise ConnectionLostError
    return number
