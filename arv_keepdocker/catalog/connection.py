"""How the API server is talked to through the SDK's client: what is made of it, and how often a request is sent."""

import contextlib
import copy
import errno
import itertools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_CONNECTIONS = 8
"""Requests at a time: what a small server takes from one user."""
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors that no connection has."""


def api_client(cache: bool) -> Any:
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


class Connection:
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


def connections(api: Any, resources: Sequence[str]) -> Sequence[Connection]:
    """What several threads can ask for lists of these resources with: one alone unless `api` is the SDK's thread-safe
    client."""
    import arvados.api

    if not isinstance(api, arvados.api.ThreadSafeAPIClient):
        return [Connection(api)]
    # Its way is another client for every thread, which costs as much as several requests. Its own connection is none
    # of these, for after an error its owner may use it while other threads are still at work.
    client = api.localapi()
    if not hasattr(client._http, "orig_http_request"):
        return [Connection(api)]
    methods = {resource: getattr(client, resource)().list for resource in resources}
    return [Connection(client, _copy_of(client._http), methods) for _ in range(_CONNECTIONS)]


@contextlib.contextmanager
def without_sdk_retries(http: Any) -> Iterator[None]:
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
def without_resending(http: Any) -> Iterator[None]:
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


def _copy_of(http: Any) -> Any:
    """An HTTP client like the SDK's, with connections of its own.

    A copy has none (httplib2 sees to that), but the SDK has put methods into it that belong to the original.
    """
    copied = copy.copy(http)
    copied.orig_http_request = types.MethodType(type(http).request, copied)
    copied.request = types.MethodType(http.request.__func__, copied)
    return copied
