"""Collections of one file as Keep has them: a manifest that names its blocks."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

_LOCATOR = re.compile(r"[0-9a-f]{32}\+(\d+)\S*")
_SIGNED = re.compile(r"[0-9a-f]{32}\+\d+(?:\+[B-Z][^\s+]*)*\+A[0-9a-f]{40}@([0-9a-f]{8})(?:\+[B-Z][^\s+]*)*")
_EXPIRY = re.compile(r"\+A[0-9a-f]{40}@([0-9a-f]{8})")
_HINTS = re.compile(r"(\b[0-9a-f]{32}\+\d+)(?:\+[A-Z][^\s+]*)+")


def manifest(filename: str, size: int, locators: Iterable[str]) -> str:
    """The text of a collection of one file of `size` bytes, which are its blocks one after the other (see Arvados: Keep
    manifest format)."""
    name = filename.replace(":", "\\072")  # as arv-put writes it
    return " ".join([".", *locators, f"0:{size}:{name}"]) + "\n"


def locators(manifests: Iterable[str]) -> Iterator[str]:
    """All that are in the manifests. A file may be called what looks like one; but its name is only part of a word."""
    return filter(_LOCATOR.fullmatch, " ".join(manifests).split())


def blocks_of_one_file(manifest_text: str) -> Sequence[str]:
    """The locators of the blocks that a collection's one file is, from their first byte to their last; none for any
    other collection."""
    words = manifest_text.split()
    found = list(locators([manifest_text]))
    size = sum(map(block_size, found))
    whole = len(words) == len(found) + 2 and words[0] == "." and words[-1].startswith(f"0:{size}:")
    return found if whole else ()


def block_key_of(data: bytes) -> str:
    """What a locator of a block with these bytes begins with: `md5+size`."""
    return f"{hashlib.md5(data).hexdigest()}+{len(data)}"


def block_key(locator: str) -> str:
    """What all locators of a block have in common: `md5+size`."""
    return "+".join(locator.split("+", 2)[:2])


def block_size(locator: str) -> int:
    """The size of a block, in bytes."""
    return int(locator.split("+", 2)[1])


def is_signed_until(locator: str, until: float = 0) -> bool:
    """Whether it is a signed locator whose signature is good until the time `until` at least."""
    match = _SIGNED.fullmatch(locator)
    return match is not None and int(match[1], 16) >= until


def expires_before(manifest_text: str, time: float) -> bool:
    """Whether a block's signature in the manifest is not good any more at that time, in seconds since 1970."""
    return any(int(expiry, 16) < time for expiry in _EXPIRY.findall(manifest_text))


def portable_data_hash(manifest_text: str) -> str:
    """By which a collection with this text is known: the hash and length of the text without hints at locators."""
    bare = _HINTS.sub(r"\1", manifest_text).encode()
    return f"{hashlib.md5(bare).hexdigest()}+{len(bare)}"
