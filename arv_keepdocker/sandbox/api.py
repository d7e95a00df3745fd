"""The API listener: finds the endpoint for a request, asks it in a transaction, and renders answer or refusal."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from . import (
    call,
    cluster_info,
    collections,
    containers,
    discovery,
    federation,
    groups,
    links,
    trash,
    unsupported,
    users,
)
from .blocks import BlockStore
from .call import Call
from .cluster import Cluster, Settings
from .control import Control
from .endpoints import Endpoint
from .errors import ApiError, PassedThrough, RailsError
from .faults import Fault, Faults, Subject
from .request_log import KEPT_BODY, LoggedRequest, RequestLog
from .resources import SYSTEM_USER
from .responses import Answer, drop, send, wait
from .tokens import authenticate, check_scopes

ENDPOINTS: tuple[Endpoint, ...] = (
    *cluster_info.ENDPOINTS,
    *unsupported.ENDPOINTS,
    *collections.ENDPOINTS,
    *containers.ENDPOINTS,
    *groups.ENDPOINTS,
    *links.ENDPOINTS,
    *users.ENDPOINTS,
)
_BY_PATH: dict[str, dict[str, Endpoint]] = {}
for _endpoint in ENDPOINTS:
    _BY_PATH.setdefault(_endpoint.path, {})[_endpoint.method] = _endpoint
_RESOURCES = {path.split("/")[0] for path in _BY_PATH}

_PREFIX = "/arvados/v1/"
_DISCOVERY = "/discovery/v1/apis/arvados/v1/rest"
_SWEEP = "/sys/trash_sweep"
_CONTROL = "/sandbox/"
# Go refuses request headers of more than 1 MiB and a little.
_LONGEST_REQUEST_LINE = (1 << 20) + 4096
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS, PROPFIND, PUT, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Range, X-Http-Method-Override",
    "Access-Control-Expose-Headers": "Content-Range",
    "Access-Control-Max-Age": "86400",
}
_DENIED = "#<ArvadosModel::PermissionDeniedError: ArvadosModel::PermissionDeniedError>"

_log = logging.getLogger(__name__)


def _json(value: Any, status: int = 200, sort: bool = False) -> Answer:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort)
    items = value.get("items") if isinstance(value, dict) else None
    return Answer(status, text.encode() + b"\n", rows=len(items) if isinstance(items, list) else 0)


def _find(asked: Call) -> Endpoint:
    """The endpoint of a path; the kinds of refusal are as measured on Arvados 3.2.1."""
    path = asked.path[len(_PREFIX) :]
    kind, *rest = path.split("/")
    named = _BY_PATH.get(path, {})
    general = _BY_PATH.get("/".join([kind, "{uuid}", *rest[1:]]), {}) if rest and rest[0] else {}
    method = "GET" if asked.method == "HEAD" else asked.method
    if method in named:
        return named[method]
    if method in general:
        asked.groups = (rest[0],)
        return general[method]
    if named or general:
        raise ApiError(405, "API endpoint does not allow this method")
    if kind in _RESOURCES:
        raise ApiError(404, "API endpoint not found")
    raise PassedThrough(404, "Path not found") if asked.caller_or_none else PassedThrough(401, "Not logged in")


def _call(endpoint: Endpoint, cluster: Cluster, asked: Call) -> Any:
    try:
        if endpoint.needs_token:
            check_scopes(asked)
        if asked.groups and not endpoint.passed_through and federation.is_remote(cluster, asked.uuid):
            return federation.answer(cluster, asked)
        return endpoint.handler(cluster, asked)
    except RailsError as error:
        if endpoint.passed_through:
            raise PassedThrough(error.status, error.reason) from None
        raise


def _rails_down(asked: Call) -> Answer:
    """The controller's own answer without the server behind it: 500, not 502 or 503 (measured on Arvados 3.2.1)."""
    reason = "dial tcp 127.0.0.1:8004: connect: connection refused"
    request = f'{asked.method.capitalize()} "//railsapi.internal{asked.reported_path}"'
    return _json({"errors": [f"{request}: {reason}"]}, 500)


# What some faults answer in place of us.
_FAULT_ANSWERS: dict[str, Callable[[Fault, Call], Answer]] = {
    "garbage": lambda *_: Answer(200, b"<html>garbage</html>\n", "text/html"),
    "status": lambda fault, _: _json({"errors": fault.errors or ["ordered fault"]}, fault.status),
    "expired-signature": lambda *_: _json({"errors": [_DENIED]}, 403),
    "full": lambda *_: _json({"errors": ["ordered fault: full"]}, 503),
    "read-only": lambda *_: _json({"errors": ["ordered fault: read-only"]}, 503),
    "rails-down": lambda _, asked: _rails_down(asked),
    # Above its limit of concurrent requests, the controller answers without a body (lib/httpserver/request_limiter.go).
    "busy": lambda *_: Answer(503, content_type=None),
}


class Api:
    """The handler of the API listener."""

    def __init__(self, cluster: Cluster, faults: Faults, request_log: RequestLog, blocks: BlockStore) -> None:
        self._cluster = cluster
        self._faults = faults
        self._request_log = request_log
        self._control = Control(cluster, faults, request_log, blocks)
        self._described_with: Settings | None = None
        self._description = b""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        entry = LoggedRequest("api", request.method, request.path, time=time.time())
        if len(request.raw_path) > _LONGEST_REQUEST_LINE:
            return await self._refuse(request, entry, Answer(431, b"431 Request Header Fields Too Large", "text/plain"))
        entry.query_size = len(request.raw_path.partition("?")[2])
        data = await request.read()
        entry.body, entry.request_size = data[:KEPT_BODY].decode("utf-8", "replace"), len(data)
        try:
            asked = call.parse(request.method, request.raw_path, request.headers, data)
        except ApiError as error:
            return await self._refuse(request, entry, _json({"errors": [error.reason]}, error.status))
        if asked.path.startswith(_CONTROL):
            return await send(request, self._in_transaction(asked, self._control.answer))
        entry.method, entry.path, entry.query = asked.method, asked.path, asked.effective_query
        self._request_log.add(entry)
        try:
            return await self._handle(request, asked, entry)
        finally:
            entry.seconds = time.time() - entry.time

    async def _refuse(self, request: web.Request, entry: LoggedRequest, answer: Answer) -> web.StreamResponse:
        """Answer a request that cannot be parsed."""
        entry.status, entry.response_size = answer.status, len(answer.body)
        self._request_log.add(entry)
        return await send(request, answer)

    async def _handle(self, request: web.Request, asked: Call, entry: LoggedRequest) -> web.StreamResponse:
        if self._cluster.settings.latency_ms:
            await asyncio.sleep(self._cluster.settings.latency_ms / 1000)
        query = "&".join(f"{name}={value}" for name, value in entry.query.items())
        path = f"{asked.path}?{query}" if query else asked.path
        subject = Subject("api", asked.method, path, entry.body, port=self._cluster.api_port)
        fault = await wait(self._faults.strike(subject))
        if fault and fault.action == "drop":
            return drop(request)
        if fault and fault.action in _FAULT_ANSWERS:
            answer = _FAULT_ANSWERS[fault.action](fault, asked)
        else:
            answer = self._in_transaction(asked, self._answer)
        answer.headers = {**answer.headers, "X-Request-Id": asked.request_id}
        entry.status, entry.response_size, entry.rows = answer.status, len(answer.body), answer.rows
        if fault and fault.action == "drop-after":
            entry.status = 0
        return await send(request, answer, fault)

    def _in_transaction(self, asked: Call, function: Callable[[Call], Answer]) -> Answer:
        """Each request has the database for itself: most take less time than to hand them to another thread."""
        try:
            with self._cluster.database.transaction():
                asked.caller_or_none = authenticate(self._cluster.database, asked.token)
                return function(asked)
        except ApiError as error:
            # What was undone may have been counted in already.
            self._cluster.permissions.changed()
            message = error.message(asked.reported_path, asked.request_id)
            return _json({"errors": [message], **error.extra()}, error.status)
        except Exception as error:
            _log.exception("%s %s", asked.method, asked.path)
            self._cluster.permissions.changed()
            return _json({"errors": [f"sandbox defect: {error!r}"]}, 500)

    def _answer(self, asked: Call) -> Answer:
        if asked.path == _DISCOVERY:
            return self._describe()
        if asked.path == _SWEEP:
            return self._sweep(asked)
        if not asked.path.startswith(_PREFIX):
            raise ApiError(404, "API endpoint not found")
        if asked.method == "OPTIONS":
            return Answer(200, headers=_CORS)
        endpoint = _find(asked)
        # The controller writes its answers' members in alphabetical order.
        return _json(_call(endpoint, self._cluster, asked), sort=not endpoint.passed_through)

    def _describe(self) -> Answer:
        """The discovery document, with which every client begins: made anew only after a setting has changed."""
        if self._described_with is not self._cluster.settings:
            self._described_with = self._cluster.settings
            self._description = _json(discovery.document(self._cluster, ENDPOINTS)).body
        return Answer(200, self._description)

    def _sweep(self, asked: Call) -> Answer:
        if asked.method != "POST":
            raise ApiError(405, "API endpoint does not allow this method")
        if asked.caller.uuid != SYSTEM_USER:
            raise RailsError(403, "Forbidden")
        trash.sweep(self._cluster)
        return Answer(204)
