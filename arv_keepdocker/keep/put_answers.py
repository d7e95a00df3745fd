"""Keep's answer to a block, compared with what was sent."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from ..errors import ArvadosError, quoted
from .locators import block_key_of

_HINTS = re.compile(r"(?:\+[B-Z][\w@-]*)*(?:\+A[0-9a-f]{40}@[0-9a-f]{8}(?:\+[B-Z][\w@-]*)*)?", re.ASCII)
"""What follows md5 and size in a locator; a cluster may be configured not to sign (Collections.BlobSigning)."""


def check(sent: str, locator: str) -> None:
    """Raise ArvadosError unless it is a locator of the block that was sent, whose md5 and size are `sent`."""
    if not locator.startswith(sent) or not _HINTS.fullmatch(locator, len(sent)):
        raise ArvadosError(f"Keep was sent the block {sent} and answered that it has {quoted(locator)}")


@contextlib.contextmanager
def checked(client: Any) -> Iterator[None]:
    """Have arv-put, too, believe only Keep's right answers to what it sends with this client of Keep."""
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
