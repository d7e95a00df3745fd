"""Block locators, their signatures, and manifests of collections with one file.

See https://doc.arvados.org/main/architecture/manifest-format.html.
"""

import bisect
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

_LOCATOR = re.compile(r"[0-9a-f]{32}\+(\d+)\S*")
_SIGNED = re.compile(r"[0-9a-f]{32}\+\d+(?:\+[B-Z][^\s+]*)*\+A[0-9a-f]{40}@([0-9a-f]{8})(?:\+[B-Z][^\s+]*)*")
_EXPIRY = re.compile(r"\+A[0-9a-f]{40}@([0-9a-f]{8})")
_FILE = re.compile(r"(\d+):(\d+):(.+)")
_ESCAPED = re.compile(r"\\([0-3][0-7]{2})")
_DIRECTORY = "."
"""The name that an empty directory's placeholder has."""
_HINTS = re.compile(r"(\b[0-9a-f]{32}\+\d+)(?:\+[A-Z][^\s+]*)+")


def manifest(filename: str, size: int, locators: Iterable[str]) -> str:
    """The manifest of a collection with one file of `size` bytes, which consists of the blocks in order."""
    name = filename.replace(":", "\\072")  # as arv-put writes it
    return " ".join([".", *locators, f"0:{size}:{name}"]) + "\n"


def locators(manifests: Iterable[str]) -> Iterator[str]:
    """All locators in the manifests. A file's name may look like one, but is only a part of a word."""
    return filter(_LOCATOR.fullmatch, " ".join(manifests).split())


def blocks_of_one_file(manifest_text: str) -> Sequence[str]:
    """The locators of a manifest whose only file consists of its blocks, in order and completely; empty for any other
    manifest."""
    words = manifest_text.split()
    found = list(locators([manifest_text]))
    size = sum(map(block_size, found))
    whole = len(words) == len(found) + 2 and words[0] == "." and words[-1].startswith(f"0:{size}:")
    whole = whole and all(map(block_size, found))  # empty blocks stand for nothing, and need not be in Keep
    return found if whole else ()


@dataclass(frozen=True)
class Piece:
    """A part of a file: bytes of one block."""

    locator: str
    start: int
    size: int


def files(manifest_text: str) -> dict[str, list[Piece]]:
    """The files of a manifest, by path, with the pieces of each. Raises ValueError if it is not a manifest."""
    found: dict[str, list[Piece]] = {}
    for line in manifest_text.splitlines():
        stream, *words = line.split(" ")
        blocks = [word for word in words if _LOCATOR.fullmatch(word)]
        ends = list(accumulate(map(block_size, blocks)))
        for word in words[len(blocks) :]:
            token = _FILE.fullmatch(word)
            if token is None:
                raise ValueError(f"{word} is no part of a manifest")
            name = _unescaped(token[3])
            if name != _DIRECTORY:
                path = f"{_unescaped(stream)}/{name}".removeprefix("./")
                found.setdefault(path, []).extend(_pieces(blocks, ends, int(token[1]), int(token[2])))
    return found


def _pieces(blocks: Sequence[str], ends: Sequence[int], start: int, size: int) -> Iterator[Piece]:
    """What `size` bytes of a stream consist of, whose blocks have these `ends`."""
    if size and start + size > (ends[-1] if ends else 0):
        raise ValueError("a file is longer than its blocks")
    number = bisect.bisect_right(ends, start)
    while size:
        count = min(size, ends[number] - start)
        if count:
            yield Piece(blocks[number], start - ends[number] + block_size(blocks[number]), count)
        start, size, number = start + count, size - count, number + 1


def _unescaped(name: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), name)


def block_key_of(data: bytes) -> str:
    """The beginning of a locator for a block with these bytes: `md5+size`."""
    return f"{hashlib.md5(data).hexdigest()}+{len(data)}"


def block_key(locator: str) -> str:
    """The beginning that all locators of a block share: `md5+size`."""
    return "+".join(locator.split("+", 2)[:2])


def block_size(locator: str) -> int:
    """The size of a block, in bytes."""
    return int(locator.split("+", 2)[1])


def is_signed_until(locator: str, until: float = 0) -> bool:
    """Whether it is a locator whose signature is valid until `until` (seconds since 1970) or longer."""
    match = _SIGNED.fullmatch(locator)
    return match is not None and int(match[1], 16) >= until


def expires_before(manifest_text: str, time: float) -> bool:
    """Whether a signature in the manifest expires before `time` (seconds since 1970)."""
    return any(int(expiry, 16) < time for expiry in _EXPIRY.findall(manifest_text))


def portable_data_hash(manifest_text: str) -> str:
    """The portable data hash: MD5 and length of the manifest without the hints of its locators."""
    bare = _HINTS.sub(r"\1", manifest_text).encode()
    return f"{hashlib.md5(bare).hexdigest()}+{len(bare)}"
