"""Connections to the API server: the SDK's client, one connection per thread, and no hidden retries."""

import contextlib
import copy
import errno
import functools
import itertools
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_CONNECTIONS = 8
"""Requests at a time: what a small server can take from one user."""
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of a disk, which no connection has."""


def api_client(cache: bool) -> Any:
    """The SDK's client, made from the user's settings, without its own retries."""
    import apiclient.errors
    import arvados

    try:
        return _for_threads(arvados.api("v1", cache=cache, num_retries=0))
    except OSError as error:
        if error.errno not in _OF_DISKS:
            raise
        # The SDK keeps the API's description in the home directory, whose disk takes nothing.
        return _for_threads(arvados.api("v1", cache=False, num_retries=0))
    except (TypeError, LookupError) as error:  # what the SDK makes of an answer that is no object
        if _is_described():
            raise ValueError(str(error)) from error
        raise apiclient.errors.InvalidJsonError(str(error)) from error


def _for_threads(api: Any) -> Any:
    """The SDK's client, which makes another client in every thread: from what the first one has read of the API, and no
    longer by asking the server for its description and its configuration again."""
    first = _client_with_copies(api)
    if first is None:
        return api
    unused = _copy_of(first._http)  # the first one's own is changed while it is used

    def localapi() -> Any:
        if not hasattr(api.local, "api"):
            api.local.api = _client_like(first, _copy_of(unused))
        return api.local.api

    api.localapi = localapi
    return api


def _client_with_copies(api: Any) -> Any:
    """This thread's client, whose HTTP client can be copied for others (see `_copy_of`); None if that is not known of
    `api`."""
    import arvados.api

    client = api.localapi() if isinstance(api, arvados.api.ThreadSafeAPIClient) else None
    return client if client is not None and hasattr(client._http, "orig_http_request") else None


def _client_like(first: Any, http: Any) -> Any:
    """A copy of an API client that sends its requests through `http`."""
    import arvados.util

    client = copy.copy(first)
    client._http = http
    # The SDK has bound these to the first one.
    client.config = functools.partial(arvados.util.get_config_once, client)
    client.vocabulary = functools.partial(arvados.util.get_vocabulary_once, client)
    client.close_connections = types.MethodType(first.close_connections.__func__, client)
    return client


def _is_described() -> bool:
    """Whether the discovery document can be read, so that it was a later answer that could not."""
    import arvados.api

    try:
        arvados.api.api_client(**arvados.api.api_kwargs_from_config("v1", num_retries=0))
    except (TypeError, LookupError):
        return False
    return True


class Resources:
    """What prepares requests, by resource: the SDK's client makes it anew each time, which takes longer than a request.

    Several threads may use it if they may use the client: each has its own.
    """

    def __init__(self, api: Any) -> None:
        self._api = api
        self._made = threading.local()

    def __getitem__(self, name: str) -> Any:
        made = vars(self._made)
        if name not in made:
            made[name] = getattr(self._api, name)()
        return made[name]


class Connection:
    """What one thread sends requests with."""

    def __init__(self, resources: Resources | Mapping[str, Any], http: Any = None) -> None:
        """Without `http`, use the SDK client's own connection."""
        self.resources = resources
        self.http = http

    def close(self) -> None:
        if self.http is not None:
            for connection in self.http.connections.values():
                connection.close()


def connections(api: Any, resources: Sequence[str]) -> Sequence[Connection]:
    """Connections with which several threads can list these resources; only one unless `api` is the SDK's thread-safe
    client."""
    # With a client that our caller has made, one for every thread would cost as much as several requests. Its own
    # connection is none of these, for after an error its owner may use it while other threads are still at work.
    client = _client_with_copies(api)
    if client is None:
        return [Connection(Resources(api))]
    # Made before the threads start: making them is not safe in several.
    made = {name: getattr(client, name)() for name in resources}
    return [Connection(made, _copy_of(client._http)) for _ in range(_CONNECTIONS)]


@contextlib.contextmanager
def without_sdk_retries(http: Any) -> Iterator[None]:
    """Switch off the SDK's own retries in the block: ours are shown to the user."""
    if not hasattr(http, "num_retries"):
        yield
        return
    retries, http.num_retries = http.num_retries, 0
    try:
        yield
    finally:
        http.num_retries = retries


@contextlib.contextmanager
def without_resending(http: Any) -> Iterator[None]:
    """Keep httplib2 from sending a request again after the server closed the connection without an answer."""
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


def _copy_of(http: Any) -> Any:
    """A copy of the SDK's HTTP client, with connections of its own.

    httplib2 copies no connections, but the SDK has set methods on the original that must be bound to the copy.
    """
    copied = copy.copy(http)
    copied.orig_http_request = types.MethodType(type(http).request, copied)
    copied.request = types.MethodType(http.request.__func__, copied)
    return copied
