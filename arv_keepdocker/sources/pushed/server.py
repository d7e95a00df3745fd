"""The HTTP server for one repository, on 127.0.0.1, with the requests that engines send to push an image.

Whoever does not know the repository's name gets 404, and cannot keep the engine from being served, however many
connections they make.
"""

import hmac
import io
import json
import socket
import socketserver
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..registry.client import MANIFEST_LIMIT
from .repository import NOT_FOUND, RefusedError, Repository
from .request_body import ConnectionLostError, request_body

HOST = "127.0.0.1"
_CONNECTIONS = 32
"""The most connections at a time: of strangers, whose oldest is closed for a new one, and of the engine."""
_STRANGERS_SECONDS = 10.0
_SILENCE_SECONDS = 300.0
"""Seconds for which the engine may be silent in the middle of a request; it may be busy compressing."""
_TLS_HANDSHAKE = b"\x16"


class PushServer:
    """A context in which a repository can be pushed to; the port is closed when it ends."""

    def __init__(self, repository: Repository, port: int = 0, answers_ping: bool = False) -> None:
        """`port` is used if it is free, else another. With `answers_ping`, GET /v2/ is answered, by which podman
        finds out whether there is a registry. Raises OSError if no port can be opened."""
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError:
            self._server = _Server((HOST, 0), _Handler)
        self._server.repository = repository
        self._server.answers_ping = answers_ping
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> "PushServer":
        try:
            self._thread.start()
        except RuntimeError as error:
            self._server.server_close()
            raise OSError(str(error)) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True  # even while closed connections are in TIME_WAIT
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    repository: Repository
    answers_ping: bool

    def __init__(self, *arguments: Any) -> None:
        self._lock = threading.Lock()
        self._strangers: dict[socket.socket, None] = {}
        self._engines: dict[socket.socket, None] = {}
        self._closed = False
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            while len(self._strangers) >= _CONNECTIONS:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                _cut(oldest)
            self._strangers[request] = None
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system starts no more threads
            self.shutdown_request(request)

    def trust(self, request: socket.socket) -> bool:
        """Count a connection as the engine's, which knows the repository's name; False if it has too many."""
        with self._lock:
            self._strangers.pop(request, None)
            if self._closed or (request not in self._engines and len(self._engines) >= _CONNECTIONS):
                return False
            self._engines[request] = None
        request.settimeout(_SILENCE_SECONDS)
        return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._strangers.pop(request, None)
            self._engines.pop(request, None)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Close all connections, so that no request continues."""
        with self._lock:
            self._closed = True
            for request in (*self._strangers, *self._engines):
                _cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of connections; those of requests are answered."""


def _cut(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _STRANGERS_SECONDS
    rbufsize = 1 << 16
    server: _Server

    def handle_one_request(self) -> None:
        # Engines try TLS first, and fall back to plain HTTP if they get an HTTP answer.
        assert isinstance(self.rfile, io.BufferedReader)
        if self.rfile.peek(1)[:1] == _TLS_HANDSHAKE:
            self.request_version = "HTTP/1.1"
            self.send_error(400)
            return
        super().handle_one_request()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that http.server does not understand."""
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def version_string(self) -> str:
        return "arv-keepdocker"

    def _answer(self) -> None:
        repository = self.server.repository
        self._left: int | None = None
        try:
            reply = self._routed(repository)
        except RefusedError as refused:
            error = {"code": refused.code, "message": str(refused)}
            reply = _Reply(
                refused.status, {"Content-Type": "application/json"}, json.dumps({"errors": [error]}).encode()
            )
            self.close_connection = True  # the request's body may not have been read
        except ConnectionLostError:
            self.close_connection = True
            return
        except Exception as error:
            repository.fail(error)
            self.close_connection = True
            return
        self._send(reply)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _answer

    def _send(self, reply: _Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in reply.headers and reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def _routed(self, repository: Repository) -> _Reply:
        if self.server.answers_ping and self.path == "/v2/" and self.command == "GET":
            return _Reply(200, {"Content-Type": "application/json"}, b"{}")
        url = urlsplit(self.path)
        prefix = f"/v2/{repository.path}/"
        known = hmac.compare_digest(url.path[: len(prefix)].encode(errors="replace"), prefix.encode())
        if not known or not self.server.trust(self.connection):
            raise NOT_FOUND
        kind, _, rest = url.path[len(prefix) :].partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if kind == "manifests":
            return self._manifest(repository, rest)
        if kind == "blobs" and not rest.startswith("uploads/"):
            return self._blob(repository, rest)
        if kind == "blobs" and rest == "uploads/":
            return self._begin(repository, query)
        if kind == "blobs":
            return self._upload(repository, rest.removeprefix("uploads/"), query)
        raise NOT_FOUND

    def _manifest(self, repository: Repository, reference: str) -> _Reply:
        if self.command == "PUT":
            body = b""
            for piece in request_body(self.headers, self.rfile):
                body += piece
                if len(body) > MANIFEST_LIMIT:
                    raise RefusedError(413, "SIZE_INVALID", "the manifest is too long")
            document = repository.take_manifest(reference, body, self.headers.get("Content-Type", ""))
            if reference == repository.tag:
                # Otherwise a classic image store would keep the registry's name and the manifest's digest.
                raise RefusedError(400, "DENIED", "arv-keepdocker has the image, and the push is over")
            return _Reply(201, {"Docker-Content-Digest": document.digest, "Location": self.path})
        found = repository.found_manifest(reference) if self.command in ("GET", "HEAD") else None
        if found is None:
            raise RefusedError(404, "MANIFEST_UNKNOWN", "there is no such manifest")
        headers = {"Content-Type": found.media_type, "Docker-Content-Digest": found.digest}
        return _Reply(200, {**headers, "Content-Length": str(len(found.body))}, found.body)

    def _blob(self, repository: Repository, digest: str) -> _Reply:
        size = repository.size_of(digest) if self.command == "HEAD" else None
        if size is None:
            raise RefusedError(404, "BLOB_UNKNOWN", "there is no such blob")
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        return _Reply(200, {**headers, "Content-Length": str(size)})

    def _begin(self, repository: Repository, query: Mapping[str, str]) -> _Reply:
        if self.command != "POST":
            raise NOT_FOUND
        for _piece in request_body(self.headers, self.rfile):
            raise RefusedError(400, "BLOB_UPLOAD_INVALID", "a blob is sent by PATCH and PUT")
        mounted = query.get("mount", "")
        if mounted and repository.size_of(mounted) is not None:
            where = f"/v2/{repository.path}/blobs/{mounted}"
            return _Reply(201, {"Docker-Content-Digest": mounted, "Location": where})
        return self._accepted(repository, repository.begin(), 0)

    def _upload(self, repository: Repository, identifier: str, query: Mapping[str, str]) -> _Reply:
        if self.command == "DELETE":
            repository.abandon(identifier)
            return _Reply(204)
        if self.command not in ("PATCH", "PUT"):
            raise NOT_FOUND
        with repository.upload(identifier) as upload:
            start = self.headers.get("Content-Range", "").partition("-")[0]
            if start and start != str(upload.size):
                raise RefusedError(416, "BLOB_UPLOAD_INVALID", f"{upload.size} bytes of the blob have come")
            for piece in request_body(self.headers, self.rfile):
                upload.feed(piece)
            if self.command == "PATCH":
                return self._accepted(repository, identifier, upload.size)
            digest = query.get("digest", "")
            repository.finish(identifier, upload, digest)
        where = f"/v2/{repository.path}/blobs/{digest}"
        return _Reply(201, {"Docker-Content-Digest": digest, "Location": where})

    def _accepted(self, repository: Repository, identifier: str, size: int) -> _Reply:
        where = f"/v2/{repository.path}/blobs/uploads/{identifier}"
        there = {"Location": where, "Range": f"0-{max(size - 1, 0)}", "Docker-Upload-UUID": identifier}
        return _Reply(202, there)
