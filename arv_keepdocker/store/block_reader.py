"""Blocks read back from Keep."""

import threading
from collections.abc import Callable
from typing import Any

from ..catalog.client import ArvadosClient
from ..errors import ArvadosError


def block_reader(client: ArvadosClient, retries: int | None = None) -> Callable[[str], bytes]:
    """What reads a block by its signed locator, or raises ArvadosError. The SDK compares its bytes with its hash.

    The API client's own Keep client would keep up to 256 MiB of what it has read.
    """
    lock = threading.Lock()
    made: list[Any] = []

    def keep_client() -> Any:
        from arvados.keep import KeepBlockCache, KeepClient

        with lock:
            if not made:
                cache = KeepBlockCache()
                cache.cache_max = 0
                made.append(KeepClient(api_client=client.api, block_cache=cache))
            return made[0]

    def get(locator: str) -> bytes:
        try:
            data: bytes | None = keep_client().get(locator, num_retries=client.retries if retries is None else retries)
        except Exception as error:  # the client lets through what the API client and libcurl raise
            raise ArvadosError(f"Keep did not give a block: {error}") from error
        if data is None:
            raise ArvadosError(f"Keep did not give block {locator.partition('+A')[0]}")
        return data

    return get
