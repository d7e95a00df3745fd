"""The Arvados cluster: a client for its API, and its refusals in our words."""

import contextlib
import http.client
import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .errors import ArvadosError

_PAGE = 1000
"""Items that one answer may have at most; a server may cut that down, and says so."""

_LONGEST_PAUSE = 64
"""Seconds between two attempts, as in the SDK."""

Record = Mapping[str, Any]


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
        with _explained(f"connecting to Arvados at {arvados.config.get('ARVADOS_API_HOST')}"):
            return cls(arvados.api("v1", num_retries=retries), retries)

    def image_formats(self) -> Sequence[str]:
        """The image formats that the cluster says it takes; empty if it does not say."""
        formats = self.api._rootDesc.get("dockerImageFormats")
        return formats if isinstance(formats, list) else []

    @property
    def uuid_prefix(self) -> str:
        """The five characters that begin the UUIDs of this cluster's objects."""
        return str(self.api._rootDesc["uuidPrefix"])

    @property
    def replication(self) -> int:
        """How many copies of a block the cluster wants by default."""
        return int(self.api._rootDesc["defaultCollectionReplication"])

    def current_user(self) -> Record:
        """The user whose token is used."""
        return self.ask("asking who the user is", self.api.users().current())

    def get(self, resource: str, uuid: str) -> Record:
        """One object, a collection with its signed manifest."""
        return self.ask(f"reading {uuid}", getattr(self.api, resource)().get(uuid=uuid))

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
                    return self.ask(f"creating {what}", request, retries=0)
            except ArvadosError as error:
                if isinstance(error, ArvadosRefusedError) and not error.is_temporary:
                    raise
                with contextlib.suppress(ArvadosError):
                    record = made()
                    if record is not None:
                        return record
                if attempt >= self.retries:
                    raise
            # At once, for a connection that was idle may just have gone stale; later with more patience.
            time.sleep(random.random() * min(2**attempt, _LONGEST_PAUSE) if attempt else 0)
        raise AssertionError

    def update(self, resource: str, uuid: str, body: Record) -> Record:
        """Change the fields of an object that `body` has."""
        return self.ask(f"updating {uuid}", getattr(self.api, resource)().update(uuid=uuid, body=body))

    def find(self, resource: str, filters: Sequence[Sequence[object]], select: Sequence[str]) -> Iterator[Record]:
        """All objects that pass the `filters`, with the fields of `select` and their uuid.

        Pages by uuid, which is unique, so that nothing is skipped or doubled however many there are; a result of one
        page costs one request.
        """
        method = getattr(self.api, resource)().list
        after: list[list[object]] = []
        while True:
            page = self.ask(
                f"listing {resource}",
                method(
                    filters=[*filters, *after],
                    select=sorted({*select, "uuid"}),
                    order=["uuid asc"],
                    limit=_PAGE,
                    count="none",
                ),
            )
            items = page["items"]
            yield from items
            if len(items) < (page.get("limit") or 1):
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
        items: Sequence[Record] = self.ask(f"listing {resource}", request)["items"]
        return items

    def find_in(
        self,
        resource: str,
        field: str,
        values: Sequence[str],
        filters: Sequence[Sequence[object]],
        select: Sequence[str],
    ) -> Iterator[Record]:
        """As `find`, of the objects whose `field` is one of `values`, however many these are."""
        for start in range(0, len(values), _PAGE):
            chunk = values[start : start + _PAGE]
            yield from self.find(resource, [*filters, [field, "in", chunk]], select)

    def ask(self, what: str, request: Any, retries: int | None = None) -> Record:
        """Send a request that the API client has prepared."""
        with _explained(what):
            answer = request.execute(num_retries=self.retries if retries is None else retries)
        if not isinstance(answer, dict):
            raise ArvadosError(f"{what}: Arvados' answer is not an object")
        return answer


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


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    import apiclient.errors
    import httplib2

    try:
        yield
    except apiclient.errors.HttpError as error:
        raise ArvadosRefusedError(f"{what}: {error._get_reason().strip()}", error.resp.status) from error
    except (apiclient.errors.Error, httplib2.HttpLib2Error, http.client.HTTPException, OSError) as error:
        raise ArvadosError(f"{what}: {error or type(error).__name__}") from error
    except ValueError as error:
        raise ArvadosError(f"{what}: Arvados' answer could not be read: {error}") from error


class ArvadosRefusedError(ArvadosError):
    """The API server answered with an error."""

    def __init__(self, message: str, http_status: int) -> None:
        super().__init__(message, "Is ARVADOS_API_TOKEN right, and not expired?" if http_status == 401 else None)
        self.http_status = http_status

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may be answered otherwise soon."""
        return self.http_status in (408, 429) or self.http_status >= 500
