"""The Arvados cluster: a client for its API, and its refusals in our words."""

import contextlib
import copy
import errno
import http.client
import itertools
import random
import re
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from .errors import ArvadosError
from .lanes import Lanes

_PAGE = 1000
"""Items that one answer may have at most; a server may cut that down, and says so."""
_CHUNK = _PAGE - 1
"""Values that one request names: the answer to a full page of them would look as if there were more."""
_LANES = 8
"""Requests at a time: what a small server takes from one user."""

_LONGEST_PAUSE = 64
"""Seconds between two attempts, as in the SDK."""

_NONE = type(None)
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("link_class", "manifest_text", "owner_uuid", "portable_data_hash", "uuid"), str),
    **dict.fromkeys(("created_at", "first_name", "group_class", "head_uuid", "last_name", "name"), (str, _NONE)),
    "file_size_total": int,
    "items": list,
    "properties": (dict, _NONE),
}
"""What the fields are that are asked for."""
_FIELDS = {
    "collections": ("uuid", "manifest_text", "portable_data_hash", "properties"),
    "groups": ("uuid", "group_class"),
    "users": ("uuid",),
}
"""What an object that is read as a whole has at least."""

Record = Mapping[str, Any]
_Answer = TypeVar("_Answer")


class Cluster:
    """What the API server is asked and told. Every method raises ArvadosError, which says what for."""

    def __init__(self, api: Any, retries: int) -> None:
        """Talk through `api`, an Arvados API client, trying again up to `retries` times after temporary failures."""
        self.api = api
        self.retries = retries

    @classmethod
    def connect(cls, retries: int) -> "Cluster":
        """The cluster that the user's environment or settings.conf names (ARVADOS_API_HOST, ARVADOS_API_TOKEN)."""
        import arvados

        missing = [key for key in ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN") if not arvados.config.get(key)]
        if missing:
            raise ArvadosError(
                f"{' and '.join(missing)} not set",
                "Set them in the environment or in ~/.config/arvados/settings.conf; "
                "the Arvados Workbench shows yours under 'Get API token'.",
            )

        def client() -> Any:
            with _explained(f"connecting to Arvados at {arvados.config.get('ARVADOS_API_HOST')}"):
                try:
                    return arvados.api("v1", num_retries=retries)
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    # The SDK keeps the API's description in the home directory, whose disk is full.
                    return arvados.api("v1", cache=False, num_retries=retries)
                except (TypeError, LookupError) as error:  # what the SDK makes of an answer that is no object
                    raise ValueError(str(error)) from error

        return cls(_read_again(client, retries), retries)

    def image_formats(self) -> Sequence[str]:
        """The image formats that the cluster says it takes; empty if it does not say."""
        formats = self.api._rootDesc.get("dockerImageFormats")
        return formats if isinstance(formats, list) else []

    @property
    def uuid_prefix(self) -> str:
        """The five characters that begin the UUIDs of this cluster's objects."""
        return str(self._described("uuidPrefix"))

    def own_collections(self, uuids: Iterable[str]) -> list[str]:
        """Those that are UUIDs of the cluster's collections.

        A link may point to anything, and a UUID of another cluster would make the server ask that one.
        """
        pattern = re.compile(rf"{self.uuid_prefix}-4zz18-[0-9a-z]{{15}}")
        return [uuid for uuid in uuids if pattern.fullmatch(uuid)]

    @property
    def replication(self) -> int:
        """How many copies of a block the cluster wants by default."""
        return int(self._described("defaultCollectionReplication"))

    def _described(self, what: str) -> Any:
        if what not in self.api._rootDesc:
            raise ArvadosError(f"Arvados' description of its API does not have its {what}")
        return self.api._rootDesc[what]

    def current_user(self) -> Record:
        """The user whose token is used."""
        return self.ask("asking who the user is", self.api.users().current(), fields=["uuid"])

    def get(self, resource: str, uuid: str) -> Record:
        """One object, a collection with its signed manifest."""
        request = getattr(self.api, resource)().get(uuid=uuid)
        return self.ask(f"reading {uuid}", request, fields=_FIELDS[resource])

    def create(
        self, resource: str, what: str, body: Record, made: Callable[[], Record | None], **parameters: object
    ) -> Record:
        """Make an object, once; `what` says which for the error message.

        An attempt may have done its work though its answer was lost. So before another one, or giving up, `made` looks
        whether the object is there.
        """
        for attempt in itertools.count():
            request = getattr(self.api, resource)().create(body=body, **parameters)
            try:
                with _sent_once(request.http):
                    return self.ask(f"creating {what}", request, retries=0, fields=["uuid"])
            except ArvadosError as error:
                if isinstance(error, ArvadosRefusedError) and not error.is_temporary:
                    raise
                with contextlib.suppress(ArvadosError):
                    record = made()
                    if record is not None:
                        return record
                if attempt >= self.retries:
                    raise
            _pause(attempt)
        raise AssertionError

    def update(self, resource: str, uuid: str, body: Record) -> Record:
        """Change the fields of an object that `body` has."""
        return self.ask(f"updating {uuid}", getattr(self.api, resource)().update(uuid=uuid, body=body))

    def delete(self, resource: str, uuid: str) -> None:
        """Delete an object; a collection goes to the trash."""
        self.ask(f"deleting {uuid}", getattr(self.api, resource)().delete(uuid=uuid))

    def find(
        self,
        resource: str,
        filters: Sequence[Sequence[object]],
        select: Sequence[str],
        lane: "Lane | None" = None,
    ) -> Iterator[Record]:
        """All objects that pass the `filters`, with the fields of `select` and their uuid.

        Pages by uuid, which is unique, so that nothing is skipped or doubled however many there are; a result of one
        page costs one request.
        """
        after: list[list[object]] = []
        while True:
            items, more = self.page(resource, [*filters, *after], select, lane)
            yield from items
            if not more:
                return
            after = [["uuid", ">", items[-1]["uuid"]]]

    def newest(
        self, resource: str, filters: Sequence[Sequence[object]], select: Sequence[str], limit: int
    ) -> Sequence[Record]:
        """Those that were made last of the objects that pass the `filters`, `limit` (up to 1000) or fewer."""
        method = getattr(self.api, resource)().list
        request = method(
            filters=filters, select=[*select, "created_at"], order=["created_at desc"], limit=limit, count="none"
        )
        items: Sequence[Record] = self.ask(f"listing {resource}", request, items=select)["items"]
        return items

    def page(
        self,
        resource: str,
        filters: Sequence[Sequence[object]],
        select: Sequence[str],
        lane: "Lane | None" = None,
    ) -> tuple[list[Record], bool]:
        """The first of the objects that `find` finds, by uuid, and whether there may be more."""
        lane = lane or Lane(self.api)
        fields = sorted({*select, "uuid"})
        request = lane.method(resource)(filters=filters, select=fields, order=["uuid asc"], limit=_PAGE, count="none")
        page = self.ask(f"listing {resource}", request, lane, items=fields)
        items = page["items"]
        return items, bool(items) and len(items) >= (page.get("limit") or 1)

    def find_in(
        self,
        resource: str,
        field: str,
        values: Sequence[str],
        filters: Sequence[Sequence[object]],
        select: Sequence[str],
    ) -> Iterator[Record]:
        """As `find`, of the objects whose `field` is one of `values`, however many these are."""
        if len(values) <= _CHUNK:
            if values:
                yield from self.find(resource, [*filters, [field, "in", values]], select)
            return
        with self.lanes([resource]) as lanes:
            queries = [
                partial(self._all, resource, [*filters, [field, "in", chunk]], select) for chunk in chunks(values)
            ]
            for records in lanes.each(queries):
                yield from records

    def _all(self, *query: Any) -> list[Record]:
        return list(self.find(*query))

    def lanes(self, resources: Sequence[str]) -> "Lanes[Lane]":
        """Requests for lists of these resources side by side, where the API client allows that: the SDK's thread-safe
        one does."""
        import arvados.api

        if not isinstance(self.api, arvados.api.ThreadSafeAPIClient):
            return Lanes([Lane(self.api)])
        # Its way is another client for every thread, which costs as much as several requests. Its own connection is
        # none of the lanes, for after an error its owner may use it while others are still at work.
        client = self.api.localapi()
        if not hasattr(client._http, "orig_http_request"):
            return Lanes([Lane(self.api)])
        methods = {resource: getattr(client, resource)().list for resource in resources}
        return Lanes([Lane(client, _twin(client._http), methods) for _ in range(_LANES)])

    def ask(
        self,
        what: str,
        request: Any,
        lane: "Lane | None" = None,
        retries: int | None = None,
        fields: Sequence[str] = (),
        items: Sequence[str] | None = None,
    ) -> Record:
        """Send a request that the API client has prepared, on the connection of the `lane` if there is one.

        It may be sent more than once unless `retries` is 0. The answer has these `fields`; that of a list has `items`
        that have those.
        """
        connection = {} if lane is None or lane.http is None else {"http": lane.http}
        tries = self.retries if retries is None else retries

        def answer() -> Record:
            with _explained(what):
                found = request.execute(num_retries=tries, **connection)
                _check([found], fields if items is None else ["items"])
                if items is not None:
                    _check(found["items"], items)
                return found  # type: ignore[no-any-return]

        return _read_again(answer, tries)


def _check(records: Sequence[object], fields: Sequence[str]) -> None:
    """Raise ValueError unless each is an object that has these fields as Arvados has them."""
    types = [(name, _TYPES[name]) for name in fields]
    for record in records:
        if not isinstance(record, dict):
            raise ValueError("it is not an object")
        for name, kind in types:
            if not isinstance(record.get(name, ...), kind):
                raise ValueError(f"its {name} is {record[name]!r}" if name in record else f"it has no {name}")


def _read_again(ask: Callable[[], _Answer], retries: int) -> _Answer:
    """Ask again up to `retries` times when an answer came that is not whole, or not Arvados': the SDK does not."""
    for attempt in range(retries):
        with contextlib.suppress(_UnreadableError):
            return ask()
        _pause(attempt)
    return ask()


def _pause(attempt: int) -> None:
    # At first none, for a connection that was idle may just have gone stale; later with more patience.
    time.sleep(random.random() * min(2**attempt, _LONGEST_PAUSE) if attempt else 0)


def tokens(api: Any) -> list[str]:
    """What must not be shown to anybody: the user's tokens, in the configuration and in the client if there is one."""
    import arvados

    found = (arvados.config.get("ARVADOS_API_TOKEN"), getattr(api, "api_token", None))
    return [token for token in found if isinstance(token, str)]


@contextlib.contextmanager
def logs_cleaned(clean: Callable[[str], str]) -> Iterator[None]:
    """Pass what the SDK logs through `clean`: it has words of servers in it, and with ARVADOS_DEBUG much else."""
    import logging

    import arvados

    formatter = logging.Formatter()

    def passes(record: logging.LogRecord) -> bool:
        record.msg, record.args = clean(record.getMessage()), None
        if record.exc_info:
            record.exc_text = clean(formatter.formatException(record.exc_info))
        return True

    arvados.log_handler.addFilter(passes)
    try:
        yield
    finally:
        arvados.log_handler.removeFilter(passes)


@contextlib.contextmanager
def _sent_once(http: Any) -> Iterator[None]:
    """Keep the SDK, and httplib2 below it, from sending again what was not answered."""
    retries, send = http.num_retries, http._conn_request

    def send_once(connection: Any, *arguments: Any) -> Any:
        request, attempts = connection.request, itertools.count()

        def request_once(*parts: Any) -> None:
            if next(attempts):
                raise ConnectionAbortedError("the connection was closed without an answer")
            request(*parts)

        connection.request = request_once
        try:
            return send(connection, *arguments)
        finally:
            connection.request = request

    http.num_retries, http._conn_request = 0, send_once
    try:
        yield
    finally:
        http.num_retries, http._conn_request = retries, send


def like(text: str) -> str:
    """The pattern for a `like` filter that matches just `text`."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


class Lane:
    """What one thread asks the API with."""

    def __init__(self, api: Any, http: Any = None, methods: Mapping[str, Callable[..., Any]] | None = None) -> None:
        """Without `http`, the API client's own connection is used.

        `methods` prepare requests for lists, by resource. The client makes them anew whenever it is asked, which takes
        long and is not for several threads at once.
        """
        self.http = http
        self._api = api
        self._methods = methods or {}

    def method(self, resource: str) -> Callable[..., Any]:
        """What prepares a request for a list."""
        if resource in self._methods:
            return self._methods[resource]
        method: Callable[..., Any] = getattr(self._api, resource)().list
        return method

    def close(self) -> None:
        if self.http is not None:
            for connection in self.http.connections.values():
                connection.close()


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """The values in portions of which one request can name each."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def _twin(http: Any) -> Any:
    """An HTTP client like the SDK's, with connections of its own.

    A copy has none (httplib2 sees to that), but the SDK has put methods into it that belong to the original.
    """
    twin = copy.copy(http)
    twin.orig_http_request = types.MethodType(type(http).request, twin)
    twin.request = types.MethodType(http.request.__func__, twin)
    return twin


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    import apiclient.errors
    import httplib2

    try:
        yield
    except apiclient.errors.HttpError as error:
        raise ArvadosRefusedError(f"{what}: {error._get_reason().strip()}", error.resp.status) from error
    except http.client.IncompleteRead as error:
        raise _UnreadableError(f"{what}: {error}") from error
    except (apiclient.errors.Error, httplib2.HttpLib2Error, http.client.HTTPException, OSError, OverflowError) as error:
        raise ArvadosError(f"{what}: {error or type(error).__name__}") from error
    except ValueError as error:  # after OSError, for what is wrong with a certificate is both
        raise _UnreadableError(f"{what}: Arvados' answer could not be read: {error}") from error


class _UnreadableError(ArvadosError):
    """There was an answer, and it is not whole or not what Arvados answers."""


class ArvadosRefusedError(ArvadosError):
    """The API server answered with an error."""

    def __init__(self, message: str, http_status: int) -> None:
        super().__init__(message, "Is ARVADOS_API_TOKEN right, and not expired?" if http_status == 401 else None)
        self.http_status = http_status

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may be answered otherwise soon."""
        return self.http_status in (408, 429) or self.http_status >= 500
