"""Authentication at a registry: Basic, or with the tokens of the registry's token server.

https://distribution.github.io/distribution/spec/auth/token/ and .../spec/auth/oauth/; RFC 7235 for challenges.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ...errors import RegistryError
from .credentials import Credentials
from .transport import Transport
from .urls import host_of, is_loopback, split

_LIFETIME = 60.0
"""Seconds for which a token is valid if the server does not say, and the least that it may say."""
_MARGIN = 10.0
"""How many seconds before it expires a token is renewed."""
_ANSWER_LIMIT = 1 << 20
_HEADER_LIMIT = 8 << 10
_CLIENT = "arv-keepdocker"
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CHALLENGE_PART = re.compile(
    r"""[\s,]*(?P<word>[^\s,="]+)(?:\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]*)))?"""
)


class DeniedError(Exception):
    """The registry or its token server refuses this user access."""


@dataclass(frozen=True)
class Challenge:
    """One authentication scheme that a WWW-Authenticate header offers."""

    scheme: str
    """In lower case."""
    parameters: Mapping[str, str]


def challenges(header: str) -> list[Challenge]:
    """The challenges in a header, which can have several, or in several headers joined with commas."""
    header = header[:_HEADER_LIMIT]
    found: list[Challenge] = []
    for match in _CHALLENGE_PART.finditer(header):
        quoted, plain = match["quoted"], match["plain"]
        if quoted is None and plain is None:
            found.append(Challenge(match["word"].lower(), {}))
        elif found:
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1] = Challenge(found[-1].scheme, {**found[-1].parameters, match["word"].lower(): value})
    return found


class Authorization:
    """The Authorization header for one repository's requests, renewed when a token ends. For several threads."""

    def __init__(
        self, transport: Transport, scope: str, find: Callable[[], Credentials | None], plain: bool = False
    ) -> None:
        """`scope` is what to ask a token server for; `find` is called when the registry first wants credentials.
        `plain` says that the registry is asked by plain HTTP, which is then accepted for its token server, too."""
        self._transport = transport
        self._scope = scope
        self._find = find
        self.plain = plain
        self._lock = threading.Lock()
        self._asked = False
        self.credentials: Credentials | None = None
        """The credentials that were found; None if there are none, or before they are looked for."""
        self._header: str | None = None
        self._challenge: Challenge | None = None
        self._until = float("inf")
        self._identity_token = ""

    def header(self) -> str | None:
        """The header's value; None as long as the registry has not asked for authentication."""
        with self._lock:
            if self._challenge is not None and time.monotonic() > self._until:
                self._renew(self._challenge)
            return self._header

    def answer(self, header: str, sent: str | None) -> str:
        """The header's value after a request with the value `sent` was answered with 401 and WWW-Authenticate `header`.

        Raises DeniedError if there is nothing better to send, RegistryError, or TemporaryError.
        """
        with self._lock:
            if self._header is not None and self._header != sent:
                return self._header  # another thread has renewed it already
            offered = challenges(header)
            credentials = self._find_credentials()
            bearer = next((each for each in offered if each.scheme == "bearer" and "realm" in each.parameters), None)
            if credentials is not None and credentials.registry_token and sent is None:
                self._header = f"Bearer {_checked(credentials.registry_token)}"
            elif bearer is not None:
                self._renew(bearer)
            elif any(each.scheme == "basic" for each in offered) and credentials is not None and sent is None:
                self._header = credentials.basic
            else:
                raise DeniedError("")
            if self._header is None:
                raise DeniedError("")
            return self._header

    def _find_credentials(self) -> Credentials | None:
        if not self._asked:
            self._asked = True
            self.credentials = self._find()
            if self.credentials is not None:
                for secret in self.credentials.secrets:
                    self._transport.display.hide(secret)
                self._identity_token = self.credentials.identity_token
        return self.credentials

    def _renew(self, challenge: Challenge) -> None:
        answer = self._transport.with_retries(lambda: self._token(challenge))
        token = answer.get("token") or answer.get("access_token")
        self._transport.display.hide(str(token))
        self._header = f"Bearer {_checked(token)}"
        self._challenge = challenge
        lifetime = answer.get("expires_in")
        lifetime = float(lifetime) if isinstance(lifetime, (int, float)) else _LIFETIME
        self._until = time.monotonic() + max(lifetime, _LIFETIME) - _MARGIN
        if isinstance(answer.get("refresh_token"), str) and self._identity_token:
            self._identity_token = answer["refresh_token"]
            self._transport.display.hide(self._identity_token)

    def _token(self, challenge: Challenge) -> Mapping[str, Any]:
        """The token server's answer. Raises DeniedError if it refuses."""
        realm = challenge.parameters["realm"]
        self._check_realm(realm)
        scope = challenge.parameters.get("scope") or self._scope
        service = challenge.parameters.get("service")
        fields = {**({"service": service} if service else {}), "scope": scope}
        headers = {"Accept": "application/json"}
        if self._identity_token:
            form = {"grant_type": "refresh_token", "client_id": _CLIENT, "refresh_token": self._identity_token}
            answer = self._transport.send("POST", realm, headers, form={**fields, **form})
        else:
            basic = self.credentials.basic if self.credentials is not None else None
            answer = self._transport.send("GET", _with(realm, fields), headers, basic)
        with contextlib.closing(answer):
            body = answer.read(_ANSWER_LIMIT)
        if answer.status in (400, 401, 403, 404):
            raise DeniedError(f"{host_of(realm)} gives no token: {error_words(body) or answer.status}")
        if answer.status != 200:
            raise RegistryError(f"{host_of(realm)} answered {answer.status} instead of giving a token")
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(body)
            if isinstance(document, dict):
                return document
        raise RegistryError(f"{host_of(realm)} gave no token: its answer is not a JSON object")

    def _check_realm(self, realm: str) -> None:
        """Check that credentials are not sent in the clear. By the protocol, the registry names who receives them."""
        parts = split(realm)
        plain = self._transport.insecure or (self.plain and is_loopback(parts.hostname or ""))
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and plain)):
            raise RegistryError(f"the registry wants a token of {host_of(realm)}, which does not use HTTPS")


def error_words(body: bytes) -> str:
    """The error message in a registry's answer, on one line; empty if there is none.

    https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
    """
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(body)
        errors = document.get("errors") if isinstance(document, dict) else None
        if isinstance(errors, list) and errors and isinstance(errors[0], dict):
            words = [errors[0].get(key) for key in ("code", "message")]
            return ": ".join(word[:200] for word in words if isinstance(word, str) and word)
        if isinstance(document, dict):
            words = [document.get(key) for key in ("error_description", "details", "error", "message")]
            return next((word[:200] for word in words if isinstance(word, str) and word), "")
    return ""


def _checked(token: object) -> str:
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise RegistryError("the registry's token server gave no usable token")
    return token


def _with(url: str, fields: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    # A challenge may name several scopes, separated by spaces; in a query each is a field of its own.
    pairs = [(key, each) for key, value in fields.items() for each in (value.split() if key == "scope" else [value])]
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *pairs]), fragment=""))
