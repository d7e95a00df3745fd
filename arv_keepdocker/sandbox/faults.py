"""Faults that a test orders: which requests they affect, and how."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

ACTIONS = frozenset(
    [
        "status",
        "delay",
        "drop",
        "drop-after",
        "garbage",
        "half-body",
        "expired-signature",
        "full",
        "read-only",
        # Of the API only: the server behind the controller cannot be reached; too many requests at a time.
        "rails-down",
        "busy",
    ]
)
# The API checks signatures only there.
_CREATION = r"^/arvados/v1/collections(\?|$)"


@dataclass
class Fault:
    """One ordered fault."""

    action: str
    service: str | None = None
    # Regular expressions, searched in the effective method, in path?query (decoded), and in the body of an API request.
    method: str | None = None
    path: str | None = None
    body: str | None = None
    # Let this many matching requests pass, then strike this many (all, if None).
    skip: int = 0
    times: int | None = 1
    # Only this Keep service, counted from 0, or only the one on this port.
    instance: int | None = None
    keep_port: int | None = None
    status: int = 503
    errors: list[str] | None = None
    seconds: float = 1
    id: int = 0
    seen: int = 0
    struck: int = 0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"unknown action {self.action!r}; there are {', '.join(sorted(ACTIONS))}")
        if self.service not in (None, "api", "keep"):
            raise ValueError("service must be api or keep")
        if self.action in ("rails-down", "busy"):
            if self.service == "keep":
                raise ValueError(f"{self.action} is of the API only")
            self.service = "api"
        if self.action == "rails-down" and not self.path:
            # The controller answers these itself.
            self.path = r"^(?!/arvados/v1/(config|vocabulary)(\?|$))"
        if self.action == "expired-signature" and self.service == "api" and not self.path:
            self.method, self.path = "POST", _CREATION
        for pattern in (self.method, self.path, self.body):
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None

    def matches(self, subject: Subject) -> bool:
        return (
            self.service in (None, subject.service)
            and (self.instance is None or (subject.service == "keep" and self.instance == subject.instance))
            and (self.keep_port is None or self.keep_port == subject.port)
            and (self.method is None or re.fullmatch(self.method, subject.method) is not None)
            and (self.path is None or re.search(self.path, subject.path) is not None)
            and (self.body is None or re.search(self.body, subject.body) is not None)
        )


@dataclass(frozen=True)
class Subject:
    """The parts of a request that faults can match."""

    service: str
    method: str
    path: str
    body: str = ""
    instance: int = 0
    port: int = 0


@dataclass
class Faults:
    """All faults that are in force."""

    _faults: list[Fault] = field(default_factory=list)
    _numbers: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    def add(self, spec: dict[str, Any]) -> Fault:
        """Order a fault. Raises ValueError or TypeError if the specification is invalid."""
        fault = Fault(**spec)
        fault.id = next(iter(self._numbers))
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        self._faults.clear()

    def described(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._faults]

    def strike(self, subject: Subject) -> list[Fault]:
        """The faults for a request: delays, and at most one that decides its fate."""
        striking = []
        for fault in self._faults:
            if not fault.matches(subject):
                continue
            fault.seen += 1
            if fault.seen <= fault.skip or (fault.times is not None and fault.struck >= fault.times):
                continue
            fault.struck += 1
            striking.append(fault)
            if fault.action != "delay":
                break
        return striking
