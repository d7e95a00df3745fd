"""Compares Keep's answer to a PUT with the block that was sent."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from ..errors import ArvadosError, quoted
from .locators import block_key_of

_HINTS = re.compile(r"(?:\+[B-Z][\w@-]*)*(?:\+A[0-9a-f]{40}@[0-9a-f]{8}(?:\+[B-Z][\w@-]*)*)?", re.ASCII)
"""What follows MD5 and size in a locator; a cluster may be configured not to sign (Collections.BlobSigning)."""


def check(sent: str, locator: str) -> None:
    """Raise ArvadosError unless `locator` is one of the block that was sent; `sent` is its `md5+size`."""
    if not locator.startswith(sent) or not _HINTS.fullmatch(locator, len(sent)):
        raise ArvadosError(f"Keep was sent the block {sent} and answered that it has {quoted(locator)}")


@contextlib.contextmanager
def checked(client: Any) -> Iterator[None]:
    """Check the answers to what arv-put sends with this Keep client, too. For one thread at a time."""
    put = client.put

    def put_checked(data: bytes, *arguments: Any, **options: Any) -> str:
        locator: str = put(data, *arguments, **options)
        check(block_key_of(data), locator)
        return locator

    client.put = put_checked
    try:
        yield
    finally:
        del client.put
