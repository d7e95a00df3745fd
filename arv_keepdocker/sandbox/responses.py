"""Sends an answer, whole or as a fault demands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from .faults import Fault

_CHUNK = 1 << 20
_UNTYPED = "untyped"
Throttle = Callable[[int], Awaitable[None]]


@dataclass
class Answer:
    """The answer to a request."""

    status: int
    body: bytes = b""
    # With its parameters; None for an answer without a Content-Type.
    content_type: str | None = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    # What HEAD announces without sending it.
    length: int | None = None
    # How many objects it lists.
    rows: int = 0


async def drop_content_type(request: web.Request, response: web.StreamResponse) -> None:
    """Before an answer is sent, remove the Content-Type that aiohttp adds if there is none."""
    if response.get(_UNTYPED):
        response.headers.popall("Content-Type", None)


async def wait(faults: list[Fault]) -> Fault | None:
    """Wait for the delays to pass. Returns the fault that decides the request's fate, if there is one."""
    for fault in faults:
        if fault.action != "delay":
            return fault
        await asyncio.sleep(fault.seconds)
    return None


def drop(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


async def send(
    request: web.Request, answer: Answer, fault: Fault | None = None, throttle: Throttle | None = None
) -> web.StreamResponse:
    """Send an answer; "drop-after" and "half-body" faults come into play here."""
    if fault and fault.action == "drop-after":
        return drop(request)
    response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
    response[_UNTYPED] = answer.content_type is None
    if answer.content_type:
        response.headers["Content-Type"] = answer.content_type
    length = len(answer.body) if answer.length is None else answer.length
    if answer.status != 204:
        response.content_length = length
    await response.prepare(request)
    body = memoryview(answer.body if request.method != "HEAD" else b"")
    if fault and fault.action == "half-body":
        await response.write(bytes(body[: len(body) // 2]))
        return drop(request)
    for start in range(0, len(body), _CHUNK):
        if throttle:
            await throttle(min(_CHUNK, len(body) - start))
        await response.write(body[start : start + _CHUNK])
    await response.write_eof()
    return response
