"""The log of requests, which tests read."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

_CAPACITY = 200_000
# How much of a body is kept.
KEPT_BODY = 4096


@dataclass
class LoggedRequest:
    """One request and how it ended; status 0 means that no answer was given."""

    service: str
    method: str
    path: str
    # When it came, in seconds since 1970.
    time: float
    query: dict[str, Any] = field(default_factory=dict)
    # Which of several Keep services.
    instance: int = 0
    # The beginning of an API request's body.
    body: str = ""
    # The bytes of the query, as it was sent, and of the body.
    query_size: int = 0
    request_size: int = 0
    response_size: int = 0
    # How many objects a list in the answer has.
    rows: int = 0
    status: int = 0
    seconds: float = 0


class RequestLog:
    """The last requests."""

    def __init__(self) -> None:
        self._entries: deque[LoggedRequest] = deque(maxlen=_CAPACITY)

    def add(self, entry: LoggedRequest) -> None:
        self._entries.append(entry)

    def clear(self) -> None:
        self._entries.clear()

    def described(self) -> list[dict[str, Any]]:
        return [asdict(entry) for entry in self._entries]
