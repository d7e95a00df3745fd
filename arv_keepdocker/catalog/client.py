"""The Arvados cluster: a client for its API, and its refusals in our words."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import ArvadosError, quoted
from ..parallel import Workers
from ..terminal.display import Display
from . import settings
from .arvados_errors import ArvadosRefusedError, explained
from .connection import Connection, api_client, connections, without_resending, without_sdk_retries
from .retry import Retry
from .validation import FIELDS, check

_PAGE = 1000
"""Items that one answer may have at most; a server may cut that down, and says so."""
_CHUNK = _PAGE - 1
"""Values that one request names: the answer to a full page of them would look as if there were more."""

Record = Mapping[str, Any]


class ArvadosClient:
    """What the API server is asked and told. Every method raises ArvadosError, which says what for."""

    def __init__(self, api: Any, retries: int, display: Display | None = None) -> None:
        """Talk through `api`, an Arvados API client, trying again up to `retries` times after temporary failures.

        The `display`, if there is one, tells of that, and of what is waited for. Raises ArvadosError for a token that
        cannot be sent.
        """
        settings.check_token(getattr(api, "api_token", None))
        self.api = api
        self.retry = Retry(retries, display)

    @classmethod
    def connect(cls, retries: int, display: Display | None = None, cache: bool = True) -> "ArvadosClient":
        """The cluster that the user's environment or settings.conf names (ARVADOS_API_HOST, ARVADOS_API_TOKEN).

        Without `cache` the SDK asks for the API's description instead of taking it from the disk.
        """
        host = settings.check()
        whom = f"Arvados at {host}"

        def connected() -> Any:
            with explained(f"connecting to {whom}", first=True):
                return api_client(cache)

        return cls(Retry(retries, display)(whom, connected), retries, display)

    @property
    def retries(self) -> int:
        """How often to try again what fails for a while."""
        return self.retry.retries

    def image_formats(self) -> Sequence[str]:
        """The image formats that the cluster says it takes; empty if it does not say."""
        formats = self.api._rootDesc.get("dockerImageFormats")
        return formats if isinstance(formats, list) else []

    @property
    def uuid_prefix(self) -> str:
        """The five characters that begin the UUIDs of this cluster's objects."""
        return str(self._from_discovery_document("uuidPrefix", lambda value: re.fullmatch("[0-9a-z]{5}", str(value))))

    def own_collections(self, uuids: Iterable[str]) -> list[str]:
        """Those that are UUIDs of the cluster's collections.

        A link may point to anything, and a UUID of another cluster would make the server ask that one.
        """
        pattern = re.compile(rf"{self.uuid_prefix}-4zz18-[0-9a-z]{{15}}")
        return [uuid for uuid in uuids if pattern.fullmatch(uuid)]

    @property
    def replication(self) -> int:
        """How many copies of a block the cluster wants by default."""
        return int(
            self._from_discovery_document(
                "defaultCollectionReplication", lambda value: type(value) is int and value > 0
            )
        )

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
            token = self.execute("asking what the token is good for", self.api.api_client_authorizations().current())
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
            self.execute("trying what the token is good for", request)
        except ArvadosRefusedError as error:
            return error.http_status != 403
        return True

    def _from_discovery_document(self, what: str, is_right: Callable[[Any], object]) -> Any:
        if what not in self.api._rootDesc:
            raise ArvadosError(f"Arvados' description of its API does not have its {what}")
        value = self.api._rootDesc[what]
        if not is_right(value):
            raise ArvadosError(f"Arvados' description of its API says that its {what} is {quoted(str(value))}")
        return value

    def current_user(self) -> Record:
        """The user whose token is used."""
        return self.execute("asking who the user is", self.api.users().current(), fields=["uuid"])

    def get(self, resource: str, uuid: str, **parameters: object) -> Record:
        """One object, a collection with its signed manifest."""
        request = getattr(self.api, resource)().get(uuid=uuid, **parameters)
        return self.execute(f"reading {uuid}", request, fields=FIELDS[resource])

    def create(
        self, resource: str, what: str, body: Record, find_existing: Callable[[], Record | None], **parameters: object
    ) -> Record:
        """Make an object, once; `what` says which for the error message.

        An attempt may have done its work though its answer was lost. So before another one, or giving up,
        `find_existing` looks whether the object is there.
        """
        whom = f"Arvados: creating {what}"

        def attempt() -> Record:
            request = getattr(self.api, resource)().create(body=body, **parameters)
            try:
                with without_resending(request.http):
                    return self.execute(f"creating {what}", request, retries=0, fields=["uuid"])
            except ArvadosError as error:
                if error.retry_reason is not None:
                    with contextlib.suppress(ArvadosError):
                        record = find_existing()
                        if record is not None:
                            return record
                raise

        return self.retry(whom, attempt)

    def update(self, resource: str, uuid: str, body: Record) -> Record:
        """Change the fields of an object that `body` has."""
        return self.execute(f"updating {uuid}", getattr(self.api, resource)().update(uuid=uuid, body=body))

    def list_all(
        self,
        resource: str,
        filters: Sequence[Sequence[object]],
        select: Sequence[str],
        connection: Connection | None = None,
    ) -> Iterator[Record]:
        """All objects that pass the `filters`, with the fields of `select` and their uuid.

        Pages by uuid, which is unique, so that nothing is skipped or doubled however many there are; a result of one
        page costs one request.
        """
        after: list[list[object]] = []
        while True:
            items, more = self.list_page(resource, [*filters, *after], select, connection)
            yield from items
            if not more:
                return
            if after == (after := [["uuid", ">", items[-1]["uuid"]]]):
                raise ArvadosError(f"listing {resource}: Arvados gives the same page again and again")

    def list_newest(
        self, resource: str, filters: Sequence[Sequence[object]], select: Sequence[str], limit: int
    ) -> Sequence[Record]:
        """Those that were made last of the objects that pass the `filters`, `limit` (up to 1000) or fewer."""
        method = getattr(self.api, resource)().list
        request = method(
            filters=filters, select=[*select, "created_at"], order=["created_at desc"], limit=limit, count="none"
        )
        items: Sequence[Record] = self.execute(f"listing {resource}", request, items=select)["items"]
        return items

    def list_page(
        self,
        resource: str,
        filters: Sequence[Sequence[object]],
        select: Sequence[str],
        connection: Connection | None = None,
    ) -> tuple[list[Record], bool]:
        """The first of the objects that `list_all` finds, by uuid, and whether there may be more."""
        connection = connection or Connection(self.api)
        fields = sorted({*select, "uuid"})
        request = connection.method(resource)(
            filters=filters, select=fields, order=["uuid asc"], limit=_PAGE, count="none"
        )
        page = self.execute(f"listing {resource}", request, connection, items=fields)
        items = page["items"]
        limit = page.get("limit")
        return items, bool(items) and len(items) >= (limit if type(limit) is int and limit > 0 else 1)

    def count(self, resource: str, filters: Sequence[Sequence[object]], connection: Connection | None = None) -> int:
        """How many objects pass the `filters`; the server need not read any of them."""
        connection = connection or Connection(self.api)
        request = connection.method(resource)(filters=filters, select=["uuid"], limit=0, count="exact")
        return int(
            self.execute(f"counting {resource}", request, connection, fields=["items_available"])["items_available"]
        )

    def list_in(
        self,
        resource: str,
        field: str,
        values: Sequence[str],
        filters: Sequence[Sequence[object]],
        select: Sequence[str],
    ) -> Iterator[Record]:
        """As `list_all`, of the objects whose `field` is one of `values`, however many these are."""
        if len(values) <= _CHUNK:
            if values:
                yield from self.list_all(resource, [*filters, [field, "in", values]], select)
            return
        with self.workers([resource]) as workers:
            queries = [
                partial(self._all, resource, [*filters, [field, "in", chunk]], select) for chunk in chunks(values)
            ]
            for records in workers.each(queries):
                yield from records

    def _all(self, *query: Any) -> list[Record]:
        return list(self.list_all(*query))

    @property
    def is_for_threads(self) -> bool:
        """Whether several threads may ask and tell at a time."""
        import arvados.api

        return isinstance(self.api, arvados.api.ThreadSafeAPIClient)

    def workers(self, resources: Sequence[str]) -> "Workers[Connection]":
        """Requests for lists of these resources side by side, where the API client allows that."""
        return Workers(connections(self.api, resources))

    def execute(
        self,
        what: str,
        request: Any,
        connection: Connection | None = None,
        retries: int | None = None,
        fields: Sequence[str] = (),
        items: Sequence[str] | None = None,
    ) -> Record:
        """Send a request that the API client has prepared, on the `connection` if there is one.

        It may be sent more than once unless `retries` is 0. The answer has these `fields`; that of a list has `items`
        that have those.
        """
        own = connection.http if connection is not None else None
        http = own if own is not None else getattr(request, "http", None)
        through = {} if http is None else {"http": http}

        def answer() -> Record:
            with explained(what), without_sdk_retries(http):
                found = request.execute(num_retries=0, **through)
                check([found], fields if items is None else ["items"])
                if items is not None:
                    check(found["items"], items)
                return found  # type: ignore[no-any-return]

        return self.retry(f"Arvados: {what}", answer, retries)


def like(text: str) -> str:
    """The pattern for a `like` filter that matches just `text`."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """The values in portions of which one request can name each."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
