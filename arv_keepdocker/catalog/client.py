"""A client of the Arvados API: requests, retries, and errors in our words."""

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
from .connection import Connection, Resources, api_client, connections, without_resending, without_sdk_retries
from .retry import Retry
from .validation import FIELDS, check

_PAGE = 1000
"""Items to ask for in one answer; the server may have a lower limit, which its answer states."""
_CHUNK = _PAGE - 1
"""Values to name in one request: one less than a page, since a full page looks as if there were more."""

Record = Mapping[str, Any]


class ArvadosClient:
    """Reads and writes objects of one cluster. Every method raises ArvadosError, which names the request."""

    def __init__(self, api: Any, retries: int, display: Display | None = None) -> None:
        """Use `api`, the SDK's client, and repeat requests that fail for a while up to `retries` times.

        The `display`, if given, shows retries and long waits. Raises ArvadosError for a token that no HTTP header can
        carry.
        """
        settings.check_token(getattr(api, "api_token", None))
        self.api = api
        self.resources = Resources(api)
        self.retry = Retry(retries, display)

    @classmethod
    def connect(cls, retries: int, display: Display | None = None, cache: bool = True) -> "ArvadosClient":
        """A client of the cluster that the environment or settings.conf names (ARVADOS_API_HOST, ARVADOS_API_TOKEN).

        Without `cache`, the SDK requests the discovery document instead of reading it from disk.
        """
        host = settings.check()
        whom = f"Arvados at {host}"

        def connected() -> Any:
            with explained(f"connecting to {whom}", first=True):
                return api_client(cache)

        return cls(Retry(retries, display)(whom, connected), retries, display)

    @property
    def retries(self) -> int:
        """How many times to retry a request after a temporary failure."""
        return self.retry.retries

    def image_formats(self) -> Sequence[str]:
        """The image formats that the cluster accepts (`dockerImageFormats`); empty if it does not say."""
        formats = self.api._rootDesc.get("dockerImageFormats")
        return formats if isinstance(formats, list) else []

    @property
    def uuid_prefix(self) -> str:
        """The five characters with which the UUIDs of this cluster's objects begin."""
        return str(self._from_discovery_document("uuidPrefix", lambda value: re.fullmatch("[0-9a-z]{5}", str(value))))

    def own_collections(self, uuids: Iterable[str]) -> list[str]:
        """The UUIDs that are those of this cluster's collections.

        A link may point to anything, and for the UUID of another cluster the server would ask that cluster.
        """
        pattern = re.compile(rf"{self.uuid_prefix}-4zz18-[0-9a-z]{{15}}")
        return [uuid for uuid in uuids if pattern.fullmatch(uuid)]

    @property
    def replication(self) -> int:
        """How many copies of a block the cluster keeps by default."""
        return int(
            self._from_discovery_document(
                "defaultCollectionReplication", lambda value: type(value) is int and value > 0
            )
        )

    @property
    def signature_seconds(self) -> int | None:
        """Seconds for which a block's signature is valid; None if Arvados does not say."""
        seconds = self.api._rootDesc.get("blobSignatureTtl")
        return seconds if isinstance(seconds, int) else None

    @property
    def takes_slashes(self) -> bool:
        """Whether a collection's name may contain a slash (Collections.ForwardSlashNameSubstitution)."""
        collections = self.api.config().get("Collections")
        return isinstance(collections, dict) and bool(collections.get("ForwardSlashNameSubstitution"))

    def scopes(self) -> Sequence[str] | None:
        """The token's scopes: `all`, or methods and paths; None if the token may not ask for them."""
        try:
            token = self.execute(
                "asking what the token is good for", self.resources["api_client_authorizations"].current()
            )
        except ArvadosRefusedError as error:
            if error.http_status not in (403, 404):  # 404: a token of another cluster, or from the configuration
                raise
            return None
        scopes = token.get("scopes")
        return [str(scope) for scope in scopes] if isinstance(scopes, list) else ["all"]

    def may_create_collections(self) -> bool:
        """Whether the token may create collections: tried with a manifest that cannot be stored."""
        request = self.resources["collections"].create(body={"collection": {"manifest_text": "no manifest"}})
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
        """The user to whom the token belongs."""
        return self.execute("asking who the user is", self.resources["users"].current(), fields=["uuid"])

    def get(self, resource: str, uuid: str, **parameters: object) -> Record:
        """One object; a collection comes with its signed manifest."""
        request = self.resources[resource].get(uuid=uuid, **parameters)
        return self.execute(f"reading {uuid}", request, fields=FIELDS[resource])

    def create(
        self, resource: str, what: str, body: Record, find_existing: Callable[[], Record | None], **parameters: object
    ) -> Record:
        """Create an object, once; `what` names it in error messages.

        The object may exist although the answer was lost. So before each retry, and before giving up, `find_existing`
        looks for it.
        """
        whom = f"Arvados: creating {what}"

        def attempt() -> Record:
            request = self.resources[resource].create(body=body, **parameters)
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
        """Set the fields of an object that are in `body`."""
        return self.execute(f"updating {uuid}", self.resources[resource].update(uuid=uuid, body=body))

    def list_all(
        self,
        resource: str,
        filters: Sequence[Sequence[object]],
        select: Sequence[str],
        connection: Connection | None = None,
    ) -> Iterator[Record]:
        """All objects that match the `filters`, with their uuid and the fields in `select`.

        Pages are ordered by uuid, which is unique, so that no object is skipped or listed twice. A result of one page
        takes one request.
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
        """The newest of the objects that match the `filters`, at most `limit` (up to 1000) of them."""
        request = self.resources[resource].list(
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
        """The first page of what `list_all` lists, and whether there may be more."""
        connection = connection or Connection(self.resources)
        fields = sorted({*select, "uuid"})
        request = connection.resources[resource].list(
            filters=filters, select=fields, order=["uuid asc"], limit=_PAGE, count="none"
        )
        page = self.execute(f"listing {resource}", request, connection, items=fields)
        items = page["items"]
        limit = page.get("limit")
        return items, bool(items) and len(items) >= (limit if type(limit) is int and limit > 0 else 1)

    def count(self, resource: str, filters: Sequence[Sequence[object]], connection: Connection | None = None) -> int:
        """How many objects match the `filters`; the server reads none of them."""
        connection = connection or Connection(self.resources)
        request = connection.resources[resource].list(filters=filters, select=["uuid"], limit=0, count="exact")
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
        """As `list_all`, for the objects whose `field` is one of `values`, of which there may be any number."""
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
        """Whether several threads may use the client at a time."""
        import arvados.api

        return isinstance(self.api, arvados.api.ThreadSafeAPIClient)

    def workers(self, resources: Sequence[str]) -> "Workers[Connection]":
        """Threads that list these resources side by side, if the SDK's client allows that."""
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
        """Send a request that the SDK's client has prepared, on the `connection` if given.

        It is repeated after temporary failures, unless `retries` is 0. The answer must have these `fields`; `items` are
        the fields that each item of a list must have.
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
    """The pattern of a `like` filter that matches exactly `text`."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """The values in portions that one request can name."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
