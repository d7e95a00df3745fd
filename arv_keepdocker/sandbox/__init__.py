"""A stand-in Arvados cluster: Sandbox runs one in a process of its own and talks to its control interface."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Sandbox", "SandboxError", "User"]

_STOP_TIMEOUT = 10


class SandboxError(Exception):
    """The sandbox did not start, or refused a command."""


@dataclass(frozen=True)
class User:
    """A user of the cluster and the user's token."""

    uuid: str
    token: str


class Sandbox:
    """A running cluster, from construction to close(); also a context manager."""

    def __init__(
        self,
        *,
        directory: str | os.PathLike[str] | None = None,
        keep_services: int = 1,
        seed_images: int = 0,
        seed_owner: str = "active",
        discard_blocks: bool = False,
        arguments: tuple[str, ...] = (),
    ) -> None:
        command = [sys.executable, "-m", __name__, "--watch-stdin", f"--keep-services={keep_services}"]
        command += [f"--seed-images={seed_images}", f"--seed-owner={seed_owner}", *arguments]
        if directory is not None:
            command.append(f"--directory={os.fspath(directory)}")
        if discard_blocks:
            command.append("--discard-blocks")
        # The pipe to its standard input tells it when we are gone, however we go.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )
        try:
            self._exports, record = self._read_announcement()
            users = json.loads(Path(record).read_text())
        except BaseException:
            self.close()
            raise
        self.certificate = Path(record).with_name("certificate.pem")
        self.users = {name: User(**user) for name, user in users.items()}
        self.url = f"https://{self._exports['ARVADOS_API_HOST']}"
        self._opener = _opener()

    def _read_announcement(self) -> tuple[dict[str, str], str]:
        assert self._process.stdout is not None
        exports: dict[str, str] = {}
        record = ""
        for line in self._process.stdout:
            words = line.split()
            if words[:1] == ["export"]:
                name, _, value = words[1].partition("=")
                exports[name] = value
            elif line.startswith("# ready"):
                return exports, record
            else:
                record = line.rpartition(": ")[2].strip()
        raise SandboxError(f"the sandbox did not start; exit status {self._process.wait()}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def environment(self, user: str = "active", *, token: str | None = None) -> dict[str, str]:
        """The environment variables for a client of this cluster, with the user's first token or another one."""
        return {**self._exports, "ARVADOS_API_TOKEN": token or self.users[user].token}

    # Users, tokens, projects

    def api(self, method: str, path: str, body: object = None, user: str = "root") -> Any:
        """One request of a user to the API, e.g. `api("GET", "users/current")`; SandboxError if it is refused."""
        return self._request(method, f"arvados/v1/{path}", body, user)

    def add_user(self, name: str, *, is_active: bool = True, is_admin: bool = False) -> User:
        """A new user with a token, from now on also in `users`."""
        attributes = {"username": name, "email": f"{name}@sandbox.invalid", "is_active": is_active}
        uuid = self.api("POST", "users", {"user": {**attributes, "is_admin": is_admin}})["uuid"]
        self.users[name] = User(uuid, self._new_token(uuid))
        return self.users[name]

    def token(self, user: str = "active", *, scopes: Sequence[str] = ("all",), expires_at: str | None = None) -> str:
        """Another token of a user, valid for "all" or for some requests, as in `["GET /arvados/v1/users/current"]`."""
        return self._new_token(self.users[user].uuid, scopes=list(scopes), expires_at=expires_at)

    def _new_token(self, owner: str, **attributes: object) -> str:
        made = self.api("POST", "api_client_authorizations", {"owner_uuid": owner, **attributes})
        return f"v2/{made['uuid']}/{made['api_token']}"

    def freeze(self, project: str, frozen: bool = True) -> None:
        """Freeze a project, or unfreeze it, as an administrator."""
        self.api("PUT", f"groups/{project}", {"frozen_by_uuid": self.users["root"].uuid if frozen else None})

    # Control

    def control(self, method: str, name: str, body: object = None) -> Any:
        """One request to the control interface."""
        return self._request(method, f"sandbox/{name}", body, "root")

    def _request(self, method: str, path: str, body: object, user: str) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.users[user].token}", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise SandboxError(error.read().decode("utf-8", "replace")) from None

    def fault(self, action: str, **spec: Any) -> int:
        """Order a fault; see the module faults for its parameters."""
        return int(self.control("POST", "faults", {"action": action, **spec})["id"])

    def faults(self) -> list[dict[str, Any]]:
        """The faults in force, with how many requests each has seen and struck."""
        return list(self.control("GET", "faults"))

    def clear_faults(self) -> None:
        self.control("DELETE", "faults")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change some of the settings in the module cluster; all settings as they are now."""
        return dict(self.control("POST", "settings", changes))

    @contextmanager
    def changed(self, **changes: Any) -> Iterator[None]:
        """Change some settings until the block ends."""
        before = self.settings()
        self.settings(**changes)
        try:
            yield
        finally:
            self.settings(**{name: before[name] for name in changes})

    @contextmanager
    def keep_stopped(self) -> Iterator[None]:
        """Let Keep stand still: connections are accepted, but nothing is read or answered until the block ends."""
        with self.changed(keep_paused=True):
            yield

    def blocks(self) -> list[str]:
        """The MD5 hashes of all blocks that Keep has."""
        return list(self.control("GET", "blocks"))

    def lose_block(self, locator: str) -> bool:
        """Delete a block from Keep, whatever collections refer to it. Returns whether it was there."""
        return bool(self.control("DELETE", f"blocks?md5={locator[:32]}"))

    def requests(self) -> list[dict[str, Any]]:
        """The requests since the last clear_requests(), oldest first."""
        return list(self.control("GET", "requests"))

    def clear_requests(self) -> None:
        self.control("DELETE", "requests")

    # End

    def close(self) -> None:
        """Stop the cluster."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _opener() -> urllib.request.OpenerDirector:
    """The TLS context for a self-signed certificate; made once, without loading the system's authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Never through a proxy, whatever the environment says.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


def _environment() -> dict[str, str]:
    """The environment in which the child finds this very package, wherever it was imported from."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
