"""A sandbox of its own for these tests, and plain HTTP to talk to it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import requests

from arv_keepdocker.sandbox import Sandbox

Json = Any
_numbers = itertools.count(1)


def unique(prefix: str = "t") -> str:
    return f"{prefix} {next(_numbers)}"


class Http:
    """A user's requests, without the SDK between."""

    def __init__(self, sandbox: Sandbox, user: str | None) -> None:
        self.sandbox = sandbox
        self.uuid = sandbox.users[user].uuid if user else ""
        self.token = sandbox.users[user].token if user else ""
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(sandbox.certificate)

    def __call__(
        self, method: str, path: str, body: object = None, *, token: str | None = None, **options: Any
    ) -> requests.Response:
        """One request; a body that is given is sent as JSON."""
        token = self.token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers.update(options.pop("headers", {}))
        if body is not None:
            options["data"] = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        if path.startswith("/"):
            url = self.sandbox.url + path
        elif path.startswith("http"):
            url = path
        else:
            url = f"{self.sandbox.url}/arvados/v1/{path}"
        return self.session.request(method, url, headers=headers, timeout=30, **options)

    def good(self, method: str, path: str, body: object = None, **options: Any) -> Json:
        response = self(method, path, body, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def bad(self, method: str, path: str, body: object = None, **options: Any) -> tuple[int, str]:
        """Status and message of a refusal."""
        response = self(method, path, body, **options)
        assert response.status_code >= 400, response.text
        return response.status_code, response.json()["errors"][0]

    def list(self, kind: str, **parameters: Any) -> Json:
        return self.good("GET", kind, params=encoded(parameters))

    def names(self, kind: str, **parameters: Any) -> Sequence[str]:
        return [item["name"] for item in self.list(kind, **parameters)["items"]]

    def create(self, kind: str, **attributes: Any) -> Json:
        singular = "api_client_authorization" if kind == "api_client_authorizations" else kind[:-1]
        return self.good("POST", kind, {singular: attributes})

    def project(self, **attributes: Any) -> str:
        name = attributes.pop("name", unique("project"))
        return str(self.create("groups", group_class="project", name=name, **attributes)["uuid"])

    def share(self, head: str, tail: str, level: str = "can_read") -> Json:
        return self.create("links", link_class="permission", name=level, tail_uuid=tail, head_uuid=head)

    def put_block(self, data: bytes) -> str:
        response = self("PUT", f"{keep_url(self)}{hashlib.md5(data).hexdigest()}", data=data)
        assert response.status_code == 200, response.text
        return response.text.strip()

    def file(self, path: str = "f", data: bytes = b"foo", /, **attributes: Any) -> Json:
        """A collection of one file."""
        locator = self.put_block(data)
        attributes.setdefault("name", unique("collection"))
        return self.create("collections", manifest_text=f". {locator} 0:{len(data)}:{path}\n", **attributes)

    def image(self, digit: str, **attributes: Any) -> Json:
        """A collection that looks like an image."""
        return self.file(f"sha256\\072{digit * 64}.tar", unique().encode(), **attributes)


def encoded(parameters: dict[str, Any]) -> dict[str, str]:
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in parameters.items()}


def keep_url(http: Http, number: int = 0) -> str:
    service = http.good("GET", "keep_services/accessible")["items"][number]
    return f"http://{service['service_host']}:{service['service_port']}/"


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def _user(name: str | None) -> Any:
    @pytest.fixture(scope="session", name=name or "nobody")
    def user(sandbox: Sandbox) -> Iterator[Http]:
        http = Http(sandbox, name)
        yield http
        http.session.close()

    return user


root = _user("root")
admin = _user("admin")
active = _user("active")
spectator = _user("spectator")
inactive = _user("inactive")
nobody = _user(None)


@pytest.fixture
def clean(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The sandbox without faults and with an empty log, before and after."""
    defaults = sandbox.settings()
    sandbox.clear_faults()
    sandbox.clear_requests()
    yield sandbox
    sandbox.settings(**defaults)
    sandbox.clear_faults()
