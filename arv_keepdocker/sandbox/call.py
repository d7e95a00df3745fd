"""One API request as the handlers see it: effective method, parameters from all places, and the caller."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from .errors import ApiError, not_logged_in
from .resources import CLUSTER, Resource

# Names in a flat body that are parameters, not attributes.
PARAMETERS = frozenset(
    [
        "api_token",
        "async",
        "bypass_federation",
        "cluster_id",
        "count",
        "distinct",
        "ensure_unique_name",
        "exclude_home_project",
        "filters",
        "include",
        "include_old_versions",
        "include_trash",
        "limit",
        "offset",
        "order",
        "recursive",
        "replace_files",
        "replace_segments",
        "select",
        "where",
    ]
)
_TRUE = (True, 1, "true", "1", "True", "TRUE", "t", "yes")
_FLAGS = ("distinct", "exclude_home_project", "include_old_versions", "include_trash", "recursive")
_ID_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Caller:
    """A user, and the token by which the user is known."""

    uuid: str
    is_admin: bool
    is_active: bool
    token: str
    token_uuid: str
    scopes: tuple[str, ...]
    token_expires_at: int | None = None


@dataclass
class Call:
    """An API request, decoded."""

    method: str
    path: str
    params: dict[str, Any]
    # What the log and the faults see as the request's query, wherever it was given.
    effective_query: dict[str, Any]
    body: dict[str, Any]
    token: str | None
    request_id: str
    caller_or_none: Caller | None = None
    groups: tuple[str, ...] = field(default=())

    @property
    def caller(self) -> Caller:
        if self.caller_or_none is None:
            raise not_logged_in()
        return self.caller_or_none

    @property
    def uuid(self) -> str:
        """The object that the path names."""
        return self.groups[0]

    @property
    def reported_path(self) -> str:
        """The path with which errors from behind the controller begin: with the query that the controller sent."""
        query = urlencode(sorted(self._forwarded().items()))
        # A longer one goes into the body (sdk/go/arvados/client.go).
        return f"{self.path}?{query}" if 0 < len(query) < 1000 else self.path

    def _forwarded(self) -> dict[str, str]:
        """The parameters as the controller hands them on to Rails in a query."""
        if self.method not in ("GET", "HEAD"):
            return {}
        sent = {name: "true" for name in _FLAGS if self.flag(name)}
        for name in ("filters", "include", "order", "select", "where"):
            with suppress(ApiError):
                if (value := self._as_listed(name)) is not None:
                    sent[name] = json.dumps(value, separators=(",", ":"))
        if self.path.count("/") == 3 or self.path.endswith(("/contents", "/shared")):
            sent.update(cluster_id="", forwarded_for=f"{CLUSTER}-", offset=str(self.params.get("offset") or 0))
            sent["count"] = str(self.params.get("count") or "")
            if not str(self.params.get("limit", -1)).startswith("-"):
                sent["limit"] = str(self.params["limit"])
        return sent

    def _as_listed(self, name: str) -> Any:
        value = self.params.get(name)
        if name == "order" and isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
            return [part.strip() for part in value.split(",")]
        return self.decoded(name)

    def with_params(self, params: dict[str, Any]) -> Call:
        return replace(self, params=params)

    def flag(self, name: str) -> bool:
        return self.params.get(name) in _TRUE

    def decoded(self, name: str) -> Any:
        """A structured parameter: as it is from a JSON body, parsed from a query or form."""
        value = self.params.get(name)
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value) if value else None
        except ValueError as error:
            raise ApiError(500, f"transcode: invalid {name} {value!r}: {error}") from None

    def array(self, name: str) -> list[Any] | None:
        value = self.decoded(name)
        if value is not None and not isinstance(value, list):
            raise ApiError(500, f"transcode: {name} is not an array")
        return value

    def attributes(self, resource: Resource) -> dict[str, Any]:
        """The attributes to create or change, from {"link": {...}} or the flat body."""
        if resource.singular not in self.params:
            return {k: v for k, v in self.body.items() if k not in PARAMETERS}
        given = self.params[resource.singular]
        if isinstance(given, str):
            with suppress(ValueError):
                given = json.loads(given)
        if given is not None and not isinstance(given, dict):
            raise ApiError(500, f"transcode: cannot decode {type(given).__name__} into a {resource.singular}")
        return given or {}


def _token(headers: Mapping[str, str], params: Mapping[str, Any]) -> str | None:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme in ("Bearer", "OAuth2") and token:
        return token.strip()
    given = params.get("api_token")
    return given if isinstance(given, str) and given else None


def new_request_id() -> str:
    return "req-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(20))


def _json_body(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data) if data.strip() else {}
    except ValueError as error:
        raise ApiError(400, str(error)) from None
    if not isinstance(body, dict):
        raise ApiError(400, "request body is not a JSON object")
    return body


def _split_body(content_type: str, data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The form's and the JSON body's members; a body of any other type is ignored (measured on Arvados 3.2.1)."""
    if content_type.startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True)), {}
    if content_type.startswith("application/json"):
        return {}, _json_body(data)
    return {}, {}


def parse(method: str, raw_path: str, headers: Mapping[str, str], data: bytes) -> Call:
    """Decode a request; ApiError if its body cannot be read."""
    path, _, query = raw_path.partition("?")
    in_query: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    form, body = _split_body(headers.get("Content-Type", "").lower(), data)
    if method == "POST":
        override = headers.get("X-Http-Method-Override") if form else None
        method = str(form.get("_method") or in_query.get("_method") or override or "POST").upper()
    # "_method" inside a JSON body is an attribute like any other (measured on Arvados 3.2.1).
    params = {**in_query, **form, **body}
    visible = params if method in ("GET", "HEAD") else {**in_query, **form}
    return Call(
        method="PUT" if method == "PATCH" else method,
        path=unquote(path),
        params=params,
        effective_query={k: v for k, v in visible.items() if k not in ("api_token", "_method")},
        body=body,
        token=_token(headers, params),
        request_id=headers.get("X-Request-Id") or new_request_id(),
    )
