"""Reads blocks back from Keep."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ..catalog.arvados_errors import KeepProblem, explained, keep_error, services_answered
from ..catalog.client import ArvadosClient
from ..catalog.keep_services import find_keep_services
from ..errors import ArvadosError
from ..keep.locators import block_key, block_size
from ..sources.arvados import BlockError, WrongBlockError

_READ_RETRIES = 5
"""Retries of a read that only saves sending: with growing pauses, about a minute."""
_MISSING = {404, 410}
_CHECKSUM = "Checksum fail"
"""The SDK's word for a block whose bytes do not have its hash."""


def block_reader(client: ArvadosClient) -> Callable[[str], bytes]:
    """What reads a block by its signed locator, or raises ArvadosError.

    Without the block, more is sent: while Keep does not answer, it is asked again for about a minute.
    """
    get = block_checker(client, min(client.retries, _READ_RETRIES))

    def read(locator: str) -> bytes:
        try:
            return get(locator)
        except BlockError as error:
            raise ArvadosError(str(error)) from error

    return read


def block_checker(client: ArvadosClient, retries: int | None = None) -> Callable[[str], bytes]:
    """What reads a block by its signed locator, and tells what Keep has lost from what it does not give now.

    It raises BlockError where every Keep service says that it does not have the block, or has other bytes in its place;
    else ArvadosError, after `retries` more attempts, by default as many as the user wants.
    """
    keep_client = _keep_client(client)
    found = threading.Event()  # Keep has answered: who has never done so may not be there

    def get(locator: str) -> bytes:
        read = partial(client.retry, "Keep to give a block", partial(_get, keep_client, found, locator), retries)
        try:
            return read()
        except WrongBlockError:  # it may have been damaged on the way
            return read()

    return get


def _keep_client(client: ArvadosClient) -> Callable[[], Any]:
    """The API client's own Keep client would keep up to 256 MiB of what it has read."""
    lock = threading.Lock()
    made: list[Any] = []

    def keep_client() -> Any:
        from arvados.keep import KeepBlockCache, KeepClient

        with lock:
            if not made:
                cache = KeepBlockCache()
                cache.cache_max = 0
                with explained("connecting to Arvados"):  # a client of our caller's connects anew in every thread
                    keep_client: Any = KeepClient(api_client=client.api, block_cache=cache)
                if not hasattr(keep_client, "local_store"):
                    # Once, not in several threads.
                    find_keep_services(client, keep_client)
                made.append(keep_client)
            return made[0]

    return keep_client


def _get(keep_client: Callable[[], Any], found: threading.Event, locator: str) -> bytes:
    from arvados.errors import KeepRequestError

    key = block_key(locator)
    reader = keep_client()
    try:
        data: bytes = reader.get(locator, num_retries=0)
    except KeepRequestError as error:
        raise _explained(key, error, found.is_set()) from error
    except Exception as error:  # the client lets through what the API client and libcurl raise
        raise ArvadosError(f"Keep did not give block {key}: {error}") from error
    found.set()
    if len(data) != block_size(locator):
        raise WrongBlockError(f"block {key} has {len(data)} bytes in Keep")
    return data


def _explained(key: str, error: Any, found: bool) -> ArvadosError | BlockError:
    problems = {service: KeepProblem.of(each) for service, each in error.request_errors().items()}
    others = {
        service: problem
        for service, problem in problems.items()
        if problem.status not in _MISSING and problem.words != _CHECKSUM
    }
    if problems and not others:
        if any(problem.words == _CHECKSUM for problem in problems.values()):
            return WrongBlockError(f"Keep has other bytes in the place of block {key}")
        return BlockError(f"Keep has no block {key}")
    message = f"Keep did not give block {key}"
    if not problems:
        return ArvadosError(f"{message}: {error}", retry_reason="no answer from Keep")
    return keep_error(f"{message}: {services_answered(others)}", others.values(), found)
