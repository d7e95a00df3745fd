"""The listening sockets, on the ports of the last run if possible."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Sequence
from pathlib import Path

HOST = "127.0.0.1"


class PortInUse(Exception):
    """A requested port is not free."""


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} is in use") from None
        raise
    return listener


def _bind_again(last: int) -> socket.socket:
    """A listener on the port that was used before if it is free, on any other if not."""
    try:
        return _bind(last)
    except PortInUse:
        return _bind(0)


def bind_all(wanted: Sequence[int], record: Path) -> list[socket.socket]:
    """A listener for each wanted port; 0 means the last run's, which the record names, or any."""
    last: list[int] = json.loads(record.read_text()) if record.exists() else []
    last = (last + [0] * len(wanted))[: len(wanted)]
    listeners: list[socket.socket] = []
    try:
        for port, before in zip(wanted, last, strict=True):
            listeners.append(_bind(port) if port else _bind_again(before))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    record.write_text(json.dumps([listener.getsockname()[1] for listener in listeners]))
    return listeners
