"""The headers of a tar: the kind and the size of each member.

They are read as Go's archive/tar reads them, which engines use: headers of ustar, pax (POSIX.1, pax interchange
format), GNU tar, star, and from before ustar; numbers in octal or base 256. An archive may come from anyone, so what
is read is bounded, and what readers understand in different ways is refused.
"""

import enum
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import ArchiveError, quoted

BLOCK = 512
"""Bytes to a multiple of which everything in a tar is padded."""
_EXTENDED_LIMIT = 1 << 20
"""Bytes of an extended header; Go's archive/tar has the same limit."""
_ALL_EXTENDED_LIMIT = 64 << 20
"""Bytes of all extended headers of an archive together."""
_RECORDS_LIMIT = 500_000
"""Records of all pax headers of an archive together."""
_NAME_LIMIT = 4096
"""Bytes of a name; PATH_MAX of Linux."""
_SIZE_LIMIT = 1 << 44
"""Bytes of a member; no file system in use allows larger files."""
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_TARGET = b"x", b"g", b"L", b"K"
_EXTENDED = (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_TARGET)
_RECORD_LENGTH = re.compile(rb"\+?([0-9]{1,9}) ")
_OCTAL = re.compile(rb"[0-7]{1,12}")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,19}")
_TIME = re.compile(rb"[+-]?[0-9]{1,19}(\.[0-9]*)?")
_NUMBERS = ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148))
"""Where a header has the mode, owner, group, size and time."""
_DEVICE = ((329, 337), (337, 345))
_STAR_TIMES = ((476, 488), (488, 500))
_GNU_TIMES = ((345, 357), (357, 369))
_PAX_NUMBERS = {
    **dict.fromkeys((b"uid", b"gid", b"size"), _INTEGER),
    **dict.fromkeys((b"atime", b"mtime", b"ctime"), _TIME),
}
_PAX_TEXTS = (b"path", b"linkpath", b"uname", b"gname")


class Kind(enum.Enum):
    """What a member is."""

    FILE = enum.auto()
    DIRECTORY = enum.auto()
    HARD_LINK = enum.auto()
    SYMBOLIC_LINK = enum.auto()
    OTHER = enum.auto()
    """A device, a named pipe, or an unknown kind."""


_KINDS = {
    b"\0": Kind.FILE,
    b"0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMBOLIC_LINK,
    b"5": Kind.DIRECTORY,
}
_WITHOUT_BYTES = (b"3", b"4", b"6")


@dataclass(frozen=True, slots=True)
class Member:
    """A member, as its headers describe it."""

    name: str
    kind: Kind
    size: int
    """Bytes of content; 0 except for files and unknown kinds."""
    target: str
    """The target of a link."""


class HeaderError(Exception):
    """A header is damaged."""


class Headers:
    """Reads the headers of one tar, one member after the other."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """`read` returns exactly as many bytes as requested."""
        self._read = read
        self._extended_left = _ALL_EXTENDED_LIMIT
        self._records_left = _RECORDS_LIMIT

    def next(self) -> Member | None:
        """The next member; None at the block of zeros that ends the archive.

        Raises HeaderError if there is no valid header, ArchiveError for one that readers understand in different ways.
        """
        extended: dict[bytes, bytes] = {}
        while (block := self._read(BLOCK)) != bytes(BLOCK):
            check(block)
            kind = block[156:157]
            if kind not in _EXTENDED:
                return _member(block, kind, extended, self._records(extended.get(_PAX, b"")))
            if kind in extended or (extended and kind == _PAX_GLOBAL):
                raise ArchiveError("the archive has extended headers that contradict each other")
            data = self._data(block)
            if kind != _PAX_GLOBAL:
                extended[kind] = data
            elif self._records(data).keys() & {b"path", b"linkpath", b"size"}:
                # Go's archive/tar ignores it; other readers apply it.
                raise ArchiveError("the archive has a header that gives all its members the same name or size")
        if extended:
            raise HeaderError("an extended header without its member")
        return None

    def _data(self, block: bytes) -> bytes:
        size = _number(block[124:136])
        if size > _EXTENDED_LIMIT:
            raise ArchiveError(f"the archive has an extended header of {size} bytes; {_EXTENDED_LIMIT} are allowed")
        self._extended_left -= size + BLOCK
        if self._extended_left < 0:
            raise ArchiveError(f"the archive has more than {_ALL_EXTENDED_LIMIT >> 20} MiB of extended headers")
        return self._read(size + -size % BLOCK)[:size]

    def _records(self, data: bytes) -> dict[bytes, bytes]:
        """The records of a pax header, the last one of each keyword; an empty value removes earlier ones."""
        records: dict[bytes, bytes] = {}
        start = 0
        while start < len(data):
            self._records_left -= 1
            if self._records_left < 0:
                raise ArchiveError(f"the archive has more than {_RECORDS_LIMIT} records in extended headers")
            length = _RECORD_LENGTH.match(data, start)
            if length is None:
                raise HeaderError("a pax header with something other than a record")
            end = start + int(length[1])
            keyword, equals, value = data[length.end() : end - 1].partition(b"=")
            if end > len(data) or data[end - 1 : end] != b"\n" or not equals or not keyword:
                raise HeaderError("a pax header with a malformed record")
            records[keyword] = value
            start = end
        for keyword, value in records.items():
            _check_record(keyword, value)
        return {keyword: value for keyword, value in records.items() if value}


def begins_a_tar(data: bytes) -> bool:
    """Whether a file that begins with `data`, at least one block, can be a tar."""
    if len(data) < BLOCK:
        return False
    try:
        check(data[:BLOCK])
    except HeaderError:
        return data[:BLOCK] == bytes(BLOCK)
    return True


def check(block: bytes) -> None:
    """Raise HeaderError unless Go's archive/tar accepts the block as a header."""
    counted = (block[:148] + b" " * 8 + block[156:]).translate(None, b"\0")  # most are zeros, which add nothing
    total = sum(counted)
    told = _octal(block[148:156])
    # Some old programs counted the bytes as signed.
    if told != total and told != total - 256 * sum(byte > 127 for byte in counted):
        raise HeaderError("a block that is not a header")
    fields = [*_NUMBERS]
    if block[257:262] == b"ustar":
        fields += _DEVICE
    if _is_star(block):
        fields += _STAR_TIMES
    for start, end in fields:
        _number(block[start:end])


def _is_star(block: bytes) -> bool:
    return block[257:263] == b"ustar\0" and block[508:] == b"tar\0"


def _member(block: bytes, kind: bytes, extended: Mapping[bytes, bytes], records: Mapping[bytes, bytes]) -> Member:
    name = _one_of(records.get(b"path"), extended.get(_LONG_NAME)) or _short_name(block)
    target = _one_of(records.get(b"linkpath"), extended.get(_LONG_TARGET)) or _until_nul(block[157:257])
    known = _KINDS.get(kind, Kind.OTHER)
    if kind == b"\0" and name.endswith(b"/"):
        known = Kind.DIRECTORY  # before ustar there was no type for it
    size = int(records.get(b"size", b"-1"))
    if b"size" not in records:
        size = _number(block[124:136])
    if size < 0:
        raise HeaderError("a negative size")
    if size > _SIZE_LIMIT:
        raise ArchiveError(f"member {quoted(_text(name))} of the archive cannot have {size} bytes")
    # Links and directories have no bytes, whatever their headers say (Go's archive/tar, GNU tar).
    has_bytes = known is Kind.FILE or (known is Kind.OTHER and kind not in _WITHOUT_BYTES)
    return Member(_text(name), known, size if has_bytes else 0, _text(target))


def _one_of(pax: bytes | None, long: bytes | None) -> bytes:
    """A name from a pax header or a GNU header. If both differ, Go uses the latter, other readers the former."""
    from_long = _until_nul(long or b"")
    if pax and from_long and pax != from_long:
        raise ArchiveError("the archive has extended headers that contradict each other")
    return pax or from_long


def _short_name(block: bytes) -> bytes:
    name = _until_nul(block[:100])
    prefix = b""
    if block[257:263] == b"ustar\0":
        prefix = _until_nul(block[345 : 476 if _is_star(block) else 500])
    elif block[257:265] == b"ustar  \0" and not _has_gnu_times(block):
        prefix = _until_nul(block[345:500])
        prefix = prefix if prefix.isascii() else b""
    return prefix + b"/" + name if prefix else name


def _has_gnu_times(block: bytes) -> bool:
    """Whether the header has GNU tar's times where ustar has the prefix; archives of Go before 1.8 have the prefix."""
    try:
        for start, end in _GNU_TIMES:
            if block[start]:
                _number(block[start:end])
    except HeaderError:
        return False
    return True


def _check_record(keyword: bytes, value: bytes) -> None:
    if keyword.startswith(b"GNU.sparse."):
        raise ArchiveError("the archive has a sparse file, which no engine writes")
    if b"\0" in (value if keyword in _PAX_TEXTS else keyword):
        raise HeaderError("a name with a zero byte")
    number = _PAX_NUMBERS.get(keyword)
    if number is not None and value and not number.fullmatch(value):
        raise HeaderError(f"a malformed {keyword.decode()}")


def _number(field: bytes) -> int:
    """A number in octal digits, or in binary (GNU tar) if its first bit is set; the second bit makes it negative."""
    if not field[0] & 0x80:
        return _octal(field)
    value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    if field[0] & 0x40:
        value -= 1 << (8 * len(field) - 1)
    if not -1 << 63 <= value < 1 << 63:
        raise HeaderError("a number that is too large")
    return value


@functools.lru_cache  # modes, owners and times are nearly always those of the member before
def _octal(field: bytes) -> int:
    digits = _until_nul(field.strip(b" \0"))
    if digits and not _OCTAL.fullmatch(digits):
        raise HeaderError("a malformed or negative number")
    return int(digits or b"0", 8)


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _text(name: bytes) -> str:
    if len(name) > _NAME_LIMIT:
        raise ArchiveError(f"the archive has a name of {len(name)} bytes; {_NAME_LIMIT} are allowed")
    return name.decode("utf-8", "surrogateescape")
