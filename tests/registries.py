"""What the tests put into registries, and servers in front of one that want tokens or make mistakes."""

from __future__ import annotations

import functools
import hashlib
import http.client
import io
import json
import ssl
import tarfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from isal import isal_zlib

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer_tar(name: str, content: bytes) -> bytes:
    """A layer with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@functools.lru_cache(4)
def packed(data: bytes) -> bytes:
    """As a gzip file; what cannot be packed takes Python's own seven times as long."""
    return isal_zlib.compress(data, wbits=31)


def configuration(layers: Sequence[bytes], **more: object) -> bytes:
    """An image's configuration for these layers, uncompressed."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": list(map(sha256, layers))},
            "history": [{"created": "2026-01-02T03:04:05Z"} for _ in layers],
            **more,
        }
    ).encode()


@dataclass
class Repository:
    """A repository of a registry, to be filled."""

    host: str
    path: str
    auth: tuple[str, str] | None = None
    certificates: tuple[str, str] | None = None
    """Of a registry that speaks TLS: files with whom to trust, and with what to show."""

    def __post_init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = self.auth
        if self.certificates is not None:
            self._session.verify, self._session.cert = self.certificates

    @property
    def url(self) -> str:
        return f"http{'s' if self.certificates is not None else ''}://{self.host}/v2/{self.path}"

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Put a blob there; its descriptor."""
        begun = self._session.post(f"{self.url}/blobs/uploads/")
        begun.raise_for_status()
        digest = sha256(data)
        self._session.put(begun.headers["Location"], params={"digest": digest}, data=data).raise_for_status()
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def manifest(self, content: Mapping[str, Any] | bytes, media_type: str, reference: str = "") -> dict[str, Any]:
        """Put a manifest or an index there; its descriptor."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        reference = reference or sha256(body)
        answer = self._session.put(f"{self.url}/manifests/{reference}", data=body, headers={"Content-Type": media_type})
        assert answer.status_code == 201, answer.text
        return {"mediaType": media_type, "digest": sha256(body), "size": len(body)}

    def image(
        self,
        layers: Sequence[bytes],
        tag: str = "",
        compress: Callable[[bytes], bytes] | None = packed,
        oci: bool = True,
        **config: Any,
    ) -> dict[str, Any]:
        """Put an image there; its manifest's descriptor."""
        suffix = "+gzip" if compress is not None else ""
        layer_type = OCI_LAYER + suffix if oci else DOCKER_LAYER
        blobs = [self.blob(compress(layer) if compress is not None else layer, layer_type) for layer in layers]
        about = self.blob(configuration(layers, **config), OCI_CONFIG if oci else DOCKER_CONFIG)
        kind = OCI_MANIFEST if oci else DOCKER_MANIFEST
        return self.manifest({"schemaVersion": 2, "mediaType": kind, "config": about, "layers": blobs}, kind, tag)


@dataclass
class Exchange:
    """A request to a front, and what becomes of it."""

    handler: BaseHTTPRequestHandler
    upstream: str
    body: bytes

    @property
    def method(self) -> str:
        return self.handler.command

    @property
    def path(self) -> str:
        return urlsplit(self.handler.path).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.handler.path).query)

    @property
    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body.decode())

    def header(self, name: str) -> str | None:
        value: str | None = self.handler.headers.get(name)
        return value

    @property
    def is_blob(self) -> bool:
        return "/blobs/" in self.path

    def forward(self) -> tuple[int, dict[str, str], bytes]:
        """What the registry behind answers."""
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        with_host = {name: value for name, value in self.handler.headers.items() if name.lower() != "host"}
        connection.request(self.method, self.handler.path, self.body or None, with_host)
        answer = connection.getresponse()
        body = answer.read()
        headers = {
            name: value for name, value in answer.getheaders() if name.lower() not in ("date", "transfer-encoding")
        }
        connection.close()
        return answer.status, headers, body

    def reply(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"", cut: int = -1) -> bool:
        """Answer; with `cut`, only so many bytes of the body before the connection is closed."""
        self.handler.send_response(status)
        given = {name.lower() for name in headers or {}}
        for name, value in (headers or {}).items():
            self.handler.send_header(name, value)
        if "content-length" not in given and "transfer-encoding" not in given:
            self.handler.send_header("Content-Length", str(len(body)))
        self.handler.end_headers()
        if self.method != "HEAD":
            with suppress(ConnectionError, ssl.SSLError):
                self.handler.wfile.write(body if cut < 0 else body[:cut])
        if cut >= 0:
            self.drop()
        return True

    def drop(self) -> None:
        """Close the connection."""
        self.handler.close_connection = True
        with suppress(OSError):
            self.handler.wfile.flush()
            self.handler.connection.shutdown(2)


Rule = Callable[[Exchange], bool]
"""Deals with a request, and says whether it has."""


@dataclass
class Front:
    """A server in front of a registry, with rules of its own."""

    upstream: str = ""
    rules: list[Rule] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"

    def __enter__(self) -> Front:
        self.log: list[tuple[str, str, dict[str, str]]] = []
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                front.log.append((self.command, self.path, dict(self.headers.items())))
                exchange = Exchange(self, front.upstream, body)
                if not any(rule(exchange) for rule in list(front.rules)):
                    exchange.reply(*exchange.forward())

            do_GET = do_HEAD = do_POST = handle_any

        self._server = ThreadingHTTPServer((self.host, 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"{self.host}:{self._server.server_address[1]}"

    @property
    def asked(self) -> list[str]:
        """The requests, as `METHOD kind`."""
        return [f"{method} {urlsplit(path).path}" for method, path, _ in self.log]


def once(rule: Rule, times: int = 1) -> Rule:
    """A rule that holds only so many times."""
    left = [times]
    lock = threading.Lock()

    def limited(exchange: Exchange) -> bool:
        if left[0] <= 0 or not rule(exchange):
            return False
        with lock:
            left[0] -= 1
        return True

    return limited
