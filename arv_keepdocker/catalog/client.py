"""The Arvados cluster: a client for its API, and its refusals in our words."""

import contextlib
import copy
import errno
import itertools
import re
import reprlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import ArvadosError, quoted
from ..parallel import Lanes
from ..terminal.display import Display
from . import settings
from .attempts import Attempts
from .troubles import ArvadosRefusedError, explained

_PAGE = 1000
"""Items that one answer may have at most; a server may cut that down, and says so."""
_CHUNK = _PAGE - 1
"""Values that one request names: the answer to a full page of them would look as if there were more."""
_LANES = 8
"""Requests at a time: what a small server takes from one user."""

_NONE = type(None)
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("link_class", "manifest_text", "owner_uuid", "portable_data_hash", "uuid"), str),
    **dict.fromkeys(("created_at", "first_name", "group_class", "head_uuid", "last_name", "name"), (str, _NONE)),
    "modified_by_user_uuid": (str, _NONE),
    "file_size_total": int,
    "items": list,
    "items_available": int,
    "properties": (dict, _NONE),
}
"""What the fields are that are asked for."""
_FIELDS = {
    "collections": ("uuid", "file_size_total", "manifest_text", "portable_data_hash", "properties"),
    "groups": ("uuid", "group_class"),
    "users": ("uuid",),
}
"""What an object that is read as a whole has at least."""

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors that no connection has."""

Record = Mapping[str, Any]


class Cluster:
    """What the API server is asked and told. Every method raises ArvadosError, which says what for."""

    def __init__(self, api: Any, retries: int, display: Display | None = None) -> None:
        """Talk through `api`, an Arvados API client, trying again up to `retries` times after temporary failures.

        The `display`, if there is one, tells of that, and of what is waited for. Raises ArvadosError for a token that
        cannot be sent.
        """
        settings.check_token(getattr(api, "api_token", None))
        self.api = api
        self.attempts = Attempts(retries, display)

    @classmethod
    def connect(cls, retries: int, display: Display | None = None, cache: bool = True) -> "Cluster":
        """The cluster that the user's environment or settings.conf names (ARVADOS_API_HOST, ARVADOS_API_TOKEN).

        Without `cache` the SDK asks for the API's description instead of taking it from the disk.
        """
        host = settings.check()
        whom = f"Arvados at {host}"

        def connected() -> Any:
            with explained(f"connecting to {whom}", first=True):
                return _client(cache)

        return cls(Attempts(retries, display)(whom, connected), retries, display)

    @property
    def retries(self) -> int:
        """How often to try again what fails for a while."""
        return self.attempts.retries

    def image_formats(self) -> Sequence[str]:
        """The image formats that the cluster says it takes; empty if it does not say."""
        formats = self.api._rootDesc.get("dockerImageFormats")
        return formats if isinstance(formats, list) else []

    @property
    def uuid_prefix(self) -> str:
        """The five characters that begin the UUIDs of this cluster's objects."""
        return str(self._described("uuidPrefix", lambda value: re.fullmatch("[0-9a-z]{5}", str(value))))

    def own_collections(self, uuids: Iterable[str]) -> list[str]:
        """Those that are UUIDs of the cluster's collections.

        A link may point to anything, and a UUID of another cluster would make the server ask that one.
        """
        pattern = re.compile(rf"{self.uuid_prefix}-4zz18-[0-9a-z]{{15}}")
        return [uuid for uuid in uuids if pattern.fullmatch(uuid)]

    @property
    def replication(self) -> int:
        """How many copies of a block the cluster wants by default."""
        return int(self._described("defaultCollectionReplication", lambda value: type(value) is int and value > 0))

    @property
    def signature_seconds(self) -> int | None:
        """For how long a block's signature is good; None if Arvados does not say."""
        seconds = self.api._rootDesc.get("blobSignatureTtl")
        return seconds if isinstance(seconds, int) else None

    @property
    def takes_slashes(self) -> bool:
        """Whether a collection's name may have a slash in it (Collections.ForwardSlashNameSubstitution)."""
        collections = self.api.config().get("Collections")
        return isinstance(collections, dict) and bool(collections.get("ForwardSlashNameSubstitution"))

    def scopes(self) -> Sequence[str] | None:
        """What the token is good for: `all`, or methods and paths; None for a token that may not even ask that."""
        try:
            token = self.ask("asking what the token is good for", self.api.api_client_authorizations().current())
        except ArvadosRefusedError as error:
            if error.http_status not in (403, 404):  # 404: a token of another cluster, or from the configuration
                raise
            return None
        scopes = token.get("scopes")
        return [str(scope) for scope in scopes] if isinstance(scopes, list) else ["all"]

    def may_create_collections(self) -> bool:
        """Whether the token is good for that, by trying to create one that cannot be."""
        request = self.api.collections().create(body={"collection": {"manifest_text": "no manifest"}})
        try:
            self.ask("trying what the token is good for", request)
        except ArvadosRefusedError as error:
            return error.http_status != 403
        return True

    def _described(self, what: str, is_right: Callable[[Any], object]) -> Any:
        if what not in self.api._rootDesc:
            raise ArvadosError(f"Arvados' description of its API does not have its {what}")
        value = self.api._rootDesc[what]
        if not is_right(value):
            raise ArvadosError(f"Arvados' description of its API says that its {what} is {quoted(str(value))}")
        return value

    def current_user(self) -> Record:
        """The user whose token is used."""
        return self.ask("asking who the user is", self.api.users().current(), fields=["uuid"])

    def get(self, resource: str, uuid: str, **parameters: object) -> Record:
        """One object, a collection with its signed manifest."""
        request = getattr(self.api, resource)().get(uuid=uuid, **parameters)
        return self.ask(f"reading {uuid}", request, fields=_FIELDS[resource])

    def create(
        self, resource: str, what: str, body: Record, made: Callable[[], Record | None], **parameters: object
    ) -> Record:
        """Make an object, once; `what` says which for the error message.

        An attempt may have done its work though its answer was lost. So before another one, or giving up, `made` looks
        whether the object is there.
        """
        whom = f"Arvados: creating {what}"

        def attempt() -> Record:
            request = getattr(self.api, resource)().create(body=body, **parameters)
            try:
                with _sent_once(request.http):
                    return self.ask(f"creating {what}", request, retries=0, fields=["uuid"])
            except ArvadosError as error:
                if error.trouble is not None:
                    with contextlib.suppress(ArvadosError):
                        record = made()
                        if record is not None:
                            return record
                raise

        return self.attempts(whom, attempt)

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
            if after == (after := [["uuid", ">", items[-1]["uuid"]]]):
                raise ArvadosError(f"listing {resource}: Arvados gives the same page again and again")

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
        limit = page.get("limit")
        return items, bool(items) and len(items) >= (limit if type(limit) is int and limit > 0 else 1)

    def count(self, resource: str, filters: Sequence[Sequence[object]], lane: "Lane | None" = None) -> int:
        """How many objects pass the `filters`; the server need not read any of them."""
        lane = lane or Lane(self.api)
        request = lane.method(resource)(filters=filters, select=["uuid"], limit=0, count="exact")
        return int(self.ask(f"counting {resource}", request, lane, fields=["items_available"])["items_available"])

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
        http = lane.http if lane is not None and lane.http is not None else getattr(request, "http", None)
        connection = {} if http is None else {"http": http}

        def answer() -> Record:
            with explained(what), once(http):
                found = request.execute(num_retries=0, **connection)
                _check([found], fields if items is None else ["items"])
                if items is not None:
                    _check(found["items"], items)
                return found  # type: ignore[no-any-return]

        return self.attempts(f"Arvados: {what}", answer, retries)


def _client(cache: bool) -> Any:
    """A client made from the user's settings, which does not try again by itself."""
    import apiclient.errors
    import arvados

    try:
        return arvados.api("v1", cache=cache, num_retries=0)
    except OSError as error:
        if error.errno not in _OF_DISKS:
            raise
        # The SDK keeps the API's description in the home directory, whose disk takes nothing.
        return arvados.api("v1", cache=False, num_retries=0)
    except (TypeError, LookupError) as error:  # what the SDK makes of an answer that is no object
        if _is_described():
            raise ValueError(str(error)) from error
        raise apiclient.errors.InvalidJsonError(str(error)) from error


def _is_described() -> bool:
    """Whether it was not the API's description that could not be read, but what was asked for after that."""
    import arvados.api

    try:
        arvados.api.api_client(**arvados.api.api_kwargs_from_config("v1", num_retries=0))
    except (TypeError, LookupError):
        return False
    return True


def _check(records: Sequence[object], fields: Sequence[str]) -> None:
    """Raise ValueError unless each is an object that has these fields as Arvados has them."""
    types = [(name, _TYPES[name]) for name in fields]
    for record in records:
        if not isinstance(record, dict):
            raise ValueError("it is not an object")
        for name, kind in types:
            if not isinstance(record.get(name, ...), kind):
                raise ValueError(
                    f"its {name} is {reprlib.repr(record[name])}" if name in record else f"it has no {name}"
                )


@contextlib.contextmanager
def once(http: Any) -> Iterator[None]:
    """Keep the SDK from trying again, which is done here, where it can be told."""
    if not hasattr(http, "num_retries"):
        yield
        return
    retries, http.num_retries = http.num_retries, 0
    try:
        yield
    finally:
        http.num_retries = retries


@contextlib.contextmanager
def _sent_once(http: Any) -> Iterator[None]:
    """Keep httplib2 from sending again what was not answered."""
    send = http._conn_request

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

    http._conn_request = send_once
    try:
        yield
    finally:
        http._conn_request = send


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
