"""The headers of a tar: what its members are, and how many bytes each has.

Read are ustar, its pax extension (POSIX.1, pax interchange format) and GNU tar's long names, which is what engines and
the tools around them write. An archive may come from anyone. Python's tarfile takes extended headers of any size into
memory, follows chains of them by recursion, and some versions need quadratic time for them; here they are bounded. What
readers of tars understand differently, so that a compute node might see other members than those that were checked, is
refused.
"""

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .errors import ArchiveError, quoted

BLOCK = 512
"""Everything in a tar is padded to this many bytes."""
_EXTENDED_LIMIT = 1 << 20
"""Bytes of an extended header; Go's archive/tar, with which engines read, has the same limit."""
_NAME_LIMIT = 4096
"""Bytes of a name; PATH_MAX of Linux."""
_SIZE_LIMIT = 1 << 44
"""Bytes of a member; more than any file system in use takes in one file."""
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_TARGET = b"x", b"g", b"L", b"K"
_EXTENDED = (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_TARGET)
_RECORD_LENGTH = re.compile(rb"([1-9][0-9]{0,6}) ")
_OCTAL = re.compile(rb"[0-7]{1,12}")
_DECIMAL = re.compile(rb"[0-9]{1,19}")


class Kind(enum.Enum):
    """What a member is."""

    FILE = enum.auto()
    DIRECTORY = enum.auto()
    HARD_LINK = enum.auto()
    SYMBOLIC_LINK = enum.auto()


_KINDS = {
    b"\0": Kind.FILE,
    b"0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMBOLIC_LINK,
    b"5": Kind.DIRECTORY,
}


@dataclass(frozen=True)
class Member:
    """What a member's headers say of it."""

    name: str
    kind: Kind
    size: int
    """How many bytes follow; none but those of a file."""
    target: str
    """What a link names."""


class HeaderError(Exception):
    """A header is damaged."""


def read_member(read: Callable[[int], bytes]) -> Member | None:
    """Read the headers of the next member; None where a block of zeros says that there is none.

    `read` gives exactly as many bytes as it is asked for. Raises HeaderError for what is no header, and ArchiveError
    for a member that no engine writes.
    """
    extended: dict[bytes, bytes] = {}
    while (block := read(BLOCK)) != bytes(BLOCK):
        _check_sum(block)
        kind = block[156:157]
        if kind not in _EXTENDED:
            return _member(block, kind, extended)
        if kind in extended or (extended and {kind, *extended} != {_LONG_NAME, _LONG_TARGET}):
            raise ArchiveError("the archive has extended headers that contradict each other")
        data = _extended_data(block, read)
        if kind != _PAX_GLOBAL:
            extended[kind] = data
        elif _records(data).keys() & {b"path", b"linkpath", b"size"}:
            # Go's archive/tar does not apply it, others do.
            raise ArchiveError("the archive has a header that gives all its members the same name or size")
    if extended:
        raise HeaderError("an extended header without its member")
    return None


def _check_sum(block: bytes) -> None:
    expected = _number(block[148:156])
    counted = block[:148] + b" " * 8 + block[156:]
    # Some old programs counted the bytes as signed.
    if expected != sum(counted) and expected != sum(counted) - 256 * sum(byte > 127 for byte in counted):
        raise HeaderError("no header where one should be")


def _extended_data(block: bytes, read: Callable[[int], bytes]) -> bytes:
    size = _number(block[124:136])
    if size > _EXTENDED_LIMIT:
        raise ArchiveError(f"the archive has an extended header of {size} bytes; {_EXTENDED_LIMIT} are allowed")
    return read(size + -size % BLOCK)[:size]


def _member(block: bytes, kind: bytes, extended: Mapping[bytes, bytes]) -> Member:
    records = _records(extended.get(_PAX, b""))
    long_name, long_target = (_until_nul(extended.get(each, b"")) for each in (_LONG_NAME, _LONG_TARGET))
    name = _text(records.get(b"path") or long_name or _short_name(block))
    target = _text(records.get(b"linkpath") or long_target or _until_nul(block[157:257]))
    known = _KINDS.get(kind)
    if known is None:
        raise ArchiveError(f"member {quoted(name)} of the archive is neither a file, a directory nor a link")
    if kind == b"\0" and name.endswith("/"):
        known = Kind.DIRECTORY  # before ustar there was no type for it
    size = _number(block[124:136])
    if b"size" in records:
        size = _decimal(records[b"size"])
    if size > _SIZE_LIMIT:
        raise ArchiveError(f"member {quoted(name)} of the archive cannot have {size} bytes")
    # Links and directories have no bytes, whatever their headers say (Go's archive/tar, GNU tar).
    return Member(name, known, size if known is Kind.FILE else 0, target)


def _short_name(block: bytes) -> bytes:
    name = _until_nul(block[:100])
    # GNU tar has times where ustar has the name's beginning.
    prefix = _until_nul(block[345:500]) if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header, of each keyword the last; an empty value takes back what was said before."""
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(data):
        length = _RECORD_LENGTH.match(data, start)
        if length is None:
            raise HeaderError("no record in a pax header where one should be")
        end = start + int(length[1])
        keyword, equals, value = data[length.end() : end - 1].partition(b"=")
        if end > len(data) or data[end - 1 : end] != b"\n" or not equals or not keyword:
            raise HeaderError("a pax header has a record that is none")
        if keyword.startswith(b"GNU.sparse."):
            raise ArchiveError("the archive has a sparse file, which no engine writes")
        records[keyword] = value
        start = end
    return {keyword: value for keyword, value in records.items() if value}


def _number(field: bytes) -> int:
    """Octal digits, or what does not fit in these: a binary number after a byte that says so (GNU tar)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits and not _OCTAL.fullmatch(digits):
        raise HeaderError("a number that is none, or a negative one")
    return int(digits or b"0", 8)


def _decimal(value: bytes) -> int:
    if not _DECIMAL.fullmatch(value):
        raise HeaderError("a size that is none")
    return int(value)


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _text(name: bytes) -> str:
    if len(name) > _NAME_LIMIT:
        raise ArchiveError(f"the archive has a name of {len(name)} bytes; {_NAME_LIMIT} are allowed")
    if b"\0" in name:
        raise HeaderError("a name with a zero byte")
    return name.decode("utf-8", "surrogateescape")
