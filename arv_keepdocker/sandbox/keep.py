"""One Keep service: signed blocks in and out, over plain HTTP."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web

from .blocks import MAXIMUM_SIZE, BlockStore, Discarded, Incoming
from .call import new_request_id
from .cluster import Cluster
from .faults import Fault, Faults, Subject
from .request_log import LoggedRequest, RequestLog
from .responses import Answer, drop, send, wait

_PUT_PATH = re.compile(r"/([0-9a-f]{32})(\+.*)?")
_GET_PATH = re.compile(r"/(([0-9a-f]{32})(?:\+(\d+))?(?:\+[A-Z][A-Za-z0-9@_-]*)*)")
_HEALTH = "/_health/"
# A piece of a body whose rate is limited.
_PIECE = 1 << 16
_PAUSE_INTERVAL = 0.05
# Pieces are gathered up to this size before they are hashed.
_BATCH = 1 << 20
_TEXT = "text/plain; charset=utf-8"
_TOKEN = re.compile(r"(?:OAuth2|Bearer)\s+(\S+)")
_Input = TypeVar("_Input")
_Output = TypeVar("_Output")


class _Refusal(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass
class _Bandwidth:
    """A limit shared by all requests of a service."""

    cluster: Cluster
    _free_at: float = 0

    @property
    def is_limited(self) -> bool:
        return self.cluster.settings.keep_bandwidth > 0

    async def until_resumed(self) -> None:
        while self.cluster.settings.keep_paused:
            await asyncio.sleep(_PAUSE_INTERVAL)

    async def use(self, size: int) -> None:
        await self.until_resumed()
        rate = self.cluster.settings.keep_bandwidth
        if rate > 0:
            self._free_at = max(self._free_at, time.monotonic()) + size / rate
            await asyncio.sleep(self._free_at - time.monotonic())


class KeepService:
    """A listener's handler."""

    def __init__(
        self,
        cluster: Cluster,
        blocks: BlockStore,
        faults: Faults,
        request_log: RequestLog,
        threads: Executor,
        instance: int,
        replicas: int,
    ) -> None:
        self._cluster = cluster
        self._blocks = blocks
        self._faults = faults
        self._request_log = request_log
        self._threads = threads
        self._instance = instance
        self._replicas = replicas
        self._bandwidth = _Bandwidth(cluster)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        entry = LoggedRequest(
            service="keep",
            method=request.method,
            path=request.path,
            query=dict(request.query),
            instance=self._instance,
            time=time.time(),
            request_size=request.content_length or 0,
        )
        self._request_log.add(entry)
        try:
            return await self._handle(request, entry)
        finally:
            entry.seconds = time.time() - entry.time

    async def _handle(self, request: web.Request, entry: LoggedRequest) -> web.StreamResponse:
        await self._bandwidth.until_resumed()
        if self._cluster.settings.latency_ms:
            await asyncio.sleep(self._cluster.settings.latency_ms / 1000)
        subject = Subject(
            "keep",
            request.method,
            request.path_qs,
            instance=self._instance,
            port=self._cluster.keep_ports[self._instance],
        )
        fault = await wait(self._faults.strike(subject))
        if fault and fault.action == "drop":
            return drop(request)
        if fault and fault.action in _FAULT_ANSWERS:
            answer = _FAULT_ANSWERS[fault.action](fault)
        else:
            answer = await self._answer(request)
        answer.headers = {**answer.headers, "X-Request-Id": request.headers.get("X-Request-Id") or new_request_id()}
        entry.status, entry.response_size = answer.status, len(answer.body)
        if fault and fault.action == "drop-after":
            entry.status = 0
        return await send(request, answer, fault, self._bandwidth.use)

    async def _answer(self, request: web.Request) -> Answer:
        method = _METHODS.get(request.method)
        try:
            if request.path.startswith(_HEALTH):
                raise _refused_health(request)
            if method is None:
                raise _Refusal(400, "Bad Request")
            return await method(self, request)
        except _Refusal as refusal:
            return _text(refusal.status, refusal.text)

    # PUT

    async def _put(self, request: web.Request) -> Answer:
        match = _PUT_PATH.fullmatch(request.path)
        if match is None:
            raise _Refusal(400, "Bad Request")
        if (request.content_length or 0) > MAXIMUM_SIZE:
            raise _Refusal(413, "block size exceeds 64 MiB")
        classes = _storage_classes(request)
        if self._bandwidth.is_limited and request.transport:
            # The sender should feel the limit instead of filling the kernel's buffers with megabytes.
            request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
        incoming = self._blocks.receive()
        try:
            await self._receive(request, incoming)
            good = await self._in_thread(incoming.finish, match[1])
        except BaseException:
            incoming.abandon()
            raise
        if not good:
            raise _Refusal(400, f"content hash {incoming.md5} did not match specified locator {request.path[1:]}")
        locator = f"{match[1]}+{incoming.size}"
        token = _token(request)
        # Without a token the locator is not signed; whose token it is makes no difference (measured on Arvados 3.2.1).
        hint = self._cluster.signer.hint(match[1], token) if token else ""
        headers = {"X-Keep-Replicas-Stored": str(self._replicas)}
        if not self._cluster.settings.keep_proxy:
            headers["X-Keep-Storage-Classes-Confirmed"] = ", ".join(f"{name}={self._replicas}" for name in classes)
        return Answer(200, f"{locator}{hint}\n".encode(), _TEXT, headers)

    async def _receive(self, request: web.Request, incoming: Incoming) -> None:
        """Receive the body; while one batch is hashed and written, the next is read."""
        work: asyncio.Future[None] | None = None
        received = 0
        batch: list[bytes] = []
        gathered = 0
        try:
            while piece := await self._read(request):
                batch.append(piece)
                gathered += len(piece)
                received += len(piece)
                if received > MAXIMUM_SIZE:
                    raise _Refusal(413, "block size exceeds 64 MiB")
                await self._throttle(request, len(piece))
                if gathered >= _BATCH:
                    if work:
                        await work
                    work = self._in_thread(incoming.add, batch)
                    batch, gathered = [], 0
        finally:
            if work:
                await work  # it must end first: after a failure, the caller closes the file
        await self._in_thread(incoming.add, batch)

    async def _throttle(self, request: web.Request, size: int) -> None:
        """Wait as long as the limit demands, without reading from the network."""
        if request.transport is None or not (self._bandwidth.is_limited or self._cluster.settings.keep_paused):
            return
        request.transport.pause_reading()
        try:
            await self._bandwidth.use(size)
        finally:
            request.transport.resume_reading()

    async def _read(self, request: web.Request) -> bytes:
        """The next piece of a body: all that has arrived or, at a limited rate, a little, to keep the rate even."""
        return await (request.content.read(_PIECE) if self._bandwidth.is_limited else request.content.readany())

    def _in_thread(self, function: Callable[[_Input], _Output], value: _Input) -> asyncio.Future[_Output]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function, value)

    # GET and HEAD

    async def _get(self, request: web.Request) -> Answer:
        md5, size = self._checked(request)
        try:
            data = await self._in_thread(self._blocks.read, md5)
        except Discarded:
            raise _Refusal(404, "block was discarded (--discard-blocks)") from None
        if data is None:
            raise _Refusal(404, "not found")
        # A size that is wrong gives nothing, but no error (measured on Arvados 3.2.1).
        return Answer(200, data if len(data) == size else b"", "application/octet-stream")

    async def _head(self, request: web.Request) -> Answer:
        md5, wanted = self._checked(request)
        size = self._blocks.size(md5)
        if size is None:
            raise _Refusal(404, "not found")
        return Answer(200, b"", None, length=size if size == wanted else 0)

    def _checked(self, request: web.Request) -> tuple[str, int]:
        """The requested block's hash and claimed size, after its signature has been verified."""
        match = _GET_PATH.fullmatch(request.path)
        if match is None:
            raise _Refusal(400, "Bad Request")
        if match[3] is None:
            raise _Refusal(405, "method not allowed")
        token = _token(request)
        if token is None:
            raise _Refusal(401, "no token provided in Authorization header")
        wrong = self._cluster.signer.check(match[1], token)
        if wrong:
            raise _Refusal(401 if wrong == "expired" else 400, f"{wrong} signature")
        return match[2], int(match[3])


_METHODS = {"PUT": KeepService._put, "GET": KeepService._get, "HEAD": KeepService._head}


def _token(request: web.Request) -> str | None:
    match = _TOKEN.fullmatch(request.headers.get("Authorization", ""))
    return match[1] if match else None


def _storage_classes(request: web.Request) -> list[str]:
    given = request.headers.get("X-Keep-Storage-Classes", "default")
    classes = [name.strip() for name in given.split(",") if name.strip()]
    if classes != ["default"]:
        raise _Refusal(507, "insufficient storage")
    return classes


def _refused_health(request: web.Request) -> _Refusal:
    if "Authorization" not in request.headers:
        return _Refusal(401, "authorization required")
    return _Refusal(403, "authorization error")


def _text(status: int, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode(), _TEXT)


# What some faults answer in place of us.
_FAULT_ANSWERS: dict[str, Callable[[Fault], Answer]] = {
    "garbage": lambda _: Answer(200, b"<html>garbage</html>\n", "text/html"),
    "status": lambda fault: _text(fault.status, "; ".join(fault.errors or ["ordered fault"])),
    "expired-signature": lambda _: _text(401, "expired signature"),
    "full": lambda _: _text(507, "insufficient storage"),
    "read-only": lambda _: _text(405, "method not allowed: read-only"),
}
