"""The credentials that `docker login`, `podman login` and credential helpers keep for a registry.

See containers-auth.json(5), docker's config.json (https://docs.docker.com/reference/cli/docker/login/) and the protocol
of credential helpers (https://github.com/docker/docker-credential-helpers).
"""

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...terminal.display import Display
from . import credential_helpers
from .repository_name import HUB_HOSTS, RepositoryName

_FILE_LIMIT = 4 << 20
_HUB_KEY = "https://index.docker.io/v1/"
"""Docker Hub's name in files and for credential helpers."""
_IDENTITY_TOKEN_USER = "<token>"


@dataclass(frozen=True)
class Credentials:
    """A user name and password, or a token, for a registry."""

    origin: str
    """The file or credential helper that they come from, for messages."""
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """A refresh token, for which the registry's token server gives tokens instead of for a password."""
    registry_token: str = field(default="", repr=False)
    """A token that the registry itself accepts."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The parts that must not be shown."""
        return tuple(filter(None, (self.password, self.identity_token, self.registry_token, self._basic)))

    @property
    def basic(self) -> str | None:
        """The value of an Authorization header for HTTP's Basic authentication (RFC 7617)."""
        return f"Basic {self._basic}" if self.username or self.password else None

    @property
    def _basic(self) -> str:
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find(name: RepositoryName, environment: Mapping[str, str], display: Display) -> Credentials | None:
    """The credentials for a repository, from the first file that has any.

    A file that is not JSON, and a helper that is missing, fails or hangs, is skipped with a warning: the registry may
    not need credentials.
    """
    for origin, document in _documents(environment, display):
        found = _from_helper(name, document, display) or _from_document(name, origin, document, display)
        if found is not None:
            return found
    return None


def _documents(environment: Mapping[str, str], display: Display) -> Iterator[tuple[str, dict[str, Any]]]:
    home = environment.get("HOME") or os.path.expanduser("~")
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    configuration = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    given = environment.get("REGISTRY_AUTH_FILE")
    files = [
        *([given] if given else []),
        os.path.join(environment.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json"),
        os.path.join(runtime, "containers", "auth.json"),
        os.path.join(configuration, "containers", "auth.json"),
    ]
    if given and not os.path.exists(given):
        display.warning(f"REGISTRY_AUTH_FILE names {given}, which does not exist")
    for path in files:
        try:
            document = _read(path)
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a JSON object"
            display.warning(f"credentials in {path} cannot be read: {reason}")
            continue
        if document is not None:
            yield path, document


def _read(path: str) -> dict[str, Any] | None:
    if not os.path.exists(path):
        return None
    if not os.path.isfile(path):
        raise ValueError  # reading a pipe could block
    with open(path, "rb") as file:
        content = file.read(_FILE_LIMIT + 1)
    if not content.strip():
        return None
    document = json.loads(content) if len(content) <= _FILE_LIMIT else None
    if not isinstance(document, dict):
        raise ValueError
    return document


def _from_helper(name: RepositoryName, document: Mapping[str, Any], display: Display) -> Credentials | None:
    """The credentials from the helper that a file names for the registry or, without it, for all registries."""
    special = _mapping(document.get("credHelpers"))
    hosts = [_HUB_KEY, *HUB_HOSTS] if name.is_hub else [name.host]
    wanted = {_key_host(host) for host in hosts}
    helper = next((special[key] for key in special if _key_host(key) in wanted), None) or document.get("credsStore")
    if not helper:
        return None
    program = f"docker-credential-{helper}"
    try:
        for server in hosts:
            with display.waiting(program):
                answer = credential_helpers.ask(program, server)
            if answer is not None:
                return _credentials(program, *answer)
    except credential_helpers.HelperError as error:
        display.warning(f"no credentials for {name.host} from {program}: {error}")
    return None


def _from_document(
    name: RepositoryName, origin: str, document: Mapping[str, Any], display: Display
) -> Credentials | None:
    """The credentials from the entry whose key matches the repository most specifically."""
    entries: dict[str, Mapping[str, Any]] = {}
    for key, entry in _mapping(document.get("auths")).items():
        if isinstance(entry, dict):
            entries.setdefault(_normalized(key), entry)
    for key in _keys(name):
        if key in entries:
            try:
                found = _entry(origin, entries[key])
            except ValueError:
                display.warning(
                    f"credentials for {key} in {origin} cannot be used: they are not a user name and a password"
                )
                continue
            if found is not None:
                return found
    return None


def _keys(name: RepositoryName) -> Iterator[str]:
    hosts = HUB_HOSTS if name.is_hub else (name.host,)
    parts = name.path.split("/")
    for length in range(len(parts), -1, -1):
        for host in hosts:
            yield "/".join([_key_host(host), *parts[:length]])


def _normalized(key: str) -> str:
    """A key in the form of containers-auth.json(5); of the URLs that old versions of docker wrote, only the host."""
    host = _key_host(key)
    if "://" in key:
        return host
    path = key.partition("/")[2].strip("/")
    return host if path in ("", "v1", "v2") else f"{host}/{path}"


def _key_host(key: str) -> str:
    return key.rpartition("://")[2].partition("/")[0].lower().removesuffix(":443")


def _entry(origin: str, entry: Mapping[str, Any]) -> Credentials | None:
    texts = {key: value for key, value in entry.items() if isinstance(value, str)}
    username, password = texts.get("username", ""), texts.get("password", "")
    if texts.get("auth"):
        username, colon, password = base64.b64decode(texts["auth"]).decode().partition(":")
        if not colon:
            raise ValueError("no colon")
        password = password.strip("\0")  # as docker does, for files of old versions
    if texts.get("registrytoken"):
        return Credentials(origin, registry_token=texts["registrytoken"])
    if texts.get("identitytoken"):
        return Credentials(origin, username, identity_token=texts["identitytoken"])
    return _credentials(origin, username, password) if username or password else None


def _credentials(origin: str, username: str, secret: str) -> Credentials:
    if username == _IDENTITY_TOKEN_USER:
        return Credentials(origin, identity_token=secret)
    return Credentials(origin, username, secret)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
