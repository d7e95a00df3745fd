"""A tar, read once from its first byte to its last: where its members are, and what they hash to.

Nothing is ever extracted to disk, and of the members only small JSON documents are kept in memory.
"""

import gzip
import hashlib
import posixpath
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .errors import ArchiveError, quoted
from .headers import BLOCK, HeaderError, Kind, Member, read_member

_CHUNK = 1 << 20
_PIECE = 16 << 10
DOCUMENT_LIMIT = 4 << 20
"""Bytes of a member that may be kept as a JSON document. Real configurations have a few kilobytes, and registries need
not take manifests of more (OCI distribution specification); parsed, it may take forty times its size."""
_DOCUMENTS_LIMIT = 64 << 20
_MEMBERS_LIMIT = 100_000
_NAMES_LIMIT = 16 << 20
_RECORD_LIMIT = 16 << 20
"""Bytes of zeros at the end; tar fills up to 10 KiB, or what it has been told to write at once."""
_INFLATED_LIMIT = 1 << 30
_INFLATED_RATIO = 100
"""What compressed layers may hold in all: more than this and so many times their size is no image but a trap."""
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""How gzip (RFC 1952) and Zstandard (RFC 8878) files begin."""


class Readable(Protocol):
    """The part of a binary file that is used here: it is only read, forwards."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class File:
    """Where a member's bytes are, and what they are."""

    offset: int
    size: int
    sha256: str
    """Hexadecimal digest of the bytes."""
    compression: str | None
    """`gzip` or `zstd`, by how the bytes begin."""
    content_sha256: str | None
    """Of a gzip file that is not named by its digest: the digest of what it holds."""


@dataclass
class Tarball:
    """What is remembered of a tar's members, by name."""

    files: dict[str, File] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    """Of files that look like JSON: their bytes."""
    links: dict[str, str] = field(default_factory=dict)
    """Of symbolic and hard links: the name of the member they point to."""
    documents_size: int = 0
    inflated_allowed: int = _INFLATED_LIMIT
    """Bytes that compressed layers may still hold."""
    size: int = 0
    """The tar's length in bytes."""

    def target(self, name: str) -> str:
        """The file that `name` stands for; docker writes a layer that occurs twice as a symbolic link."""
        name = posixpath.normpath(name)
        return self.links.get(name, name)


def _ignore(offset: int, size: int) -> None:
    pass


def scan(stream: Readable, announce: Callable[[int, int], None] = _ignore) -> Tarball:
    """Read the tar to its end.

    `announce` is called with the offset and the size of each file before its first byte is read. Raises ArchiveError
    when the tar is cut short or damaged, or has members that no engine writes. What `stream.read` raises comes through.
    """
    source = _Source(stream)
    tarball = Tarball()
    try:
        _read_members(source, tarball, announce)
        _read_end(source)
    except (HeaderError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        if source.size == 0 and isinstance(error, EOFError):
            raise ArchiveError("the archive is empty") from error
        raise ArchiveError(f"the archive is cut short or damaged near byte {source.size}: {error}") from error
    tarball.size = source.size
    return tarball


class _Source:
    """Counts what is read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.size = 0

    def read(self, size: int) -> bytes:
        """At least one byte and at most `size`; raises EOFError when there are no more."""
        data = self._stream.read(size)
        if not data:
            raise EOFError("it ends here")
        self.size += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        chunks: list[bytes] = []
        while size:
            chunks.append(self.read(size))
            size -= len(chunks[-1])
        return b"".join(chunks)


def _read_members(source: _Source, tarball: Tarball, announce: Callable[[int, int], None]) -> None:
    names = _Names()
    while (member := read_member(source.exactly)) is not None:
        name = names.add(member)
        if member.kind is Kind.FILE:
            announce(source.size, member.size)
            _read_file(source, member, name, tarball)
        elif member.kind is not Kind.DIRECTORY:
            _remember_link(member, name, tarball)


class _Names:
    """What there is by which name; a name means one thing, and nothing is below what is not a directory."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}
        self._count = 0
        self._size = 0

    def add(self, member: Member) -> str:
        name = _checked_name(member.name)
        self._count += 1
        self._size += len(member.target)
        self._put(name, member.kind)
        parent = posixpath.dirname(name)
        while parent:
            self._put(parent, Kind.DIRECTORY)
            parent = posixpath.dirname(parent)
        return name

    def _put(self, name: str, kind: Kind) -> None:
        if name not in self._kinds:
            self._size += len(name)
        if self._count > _MEMBERS_LIMIT or self._size > _NAMES_LIMIT:
            raise ArchiveError(
                f"the archive has more than {_MEMBERS_LIMIT} members, or {_NAMES_LIMIT >> 20} MiB of names"
            )
        if self._kinds.setdefault(name, kind) is not kind:
            raise ArchiveError(f"the archive has two different members {quoted(name)}")


def _remember_link(member: Member, name: str, tarball: Tarball) -> None:
    symbolic = member.kind is Kind.SYMBOLIC_LINK
    target = _checked_name(posixpath.join(posixpath.dirname(name), member.target) if symbolic else member.target)
    if tarball.links.setdefault(name, target) != target:
        raise ArchiveError(f"the archive has two different members {quoted(name)}")


def _read_end(source: _Source) -> None:
    """Two blocks of zeros end a tar (POSIX.1, pax interchange format), one of which has been read; without them it has
    been cut short. What follows are zeros that fill the last record."""
    zeros = source.exactly(BLOCK)
    limit = source.size + _RECORD_LIMIT
    while not zeros.strip(b"\0"):
        if source.size > limit:
            raise ArchiveError(f"the archive has more than {_RECORD_LIMIT >> 20} MiB of nothing at its end")
        try:
            zeros = source.read(_CHUNK)
        except EOFError:
            return
    raise HeaderError("there is something after the end")


def _checked_name(name: str) -> str:
    normal = posixpath.normpath(name)
    if normal.startswith(("/", "../")) or normal == "..":
        raise ArchiveError(f"member {quoted(name)} of the archive points outside of it")
    return normal


def _read_file(source: _Source, member: Member, name: str, tarball: Tarball) -> None:
    content = _Content(name, member.size, tarball)
    offset = source.size
    while left := offset + member.size - source.size:
        content.update(source.read(min(_CHUNK, left)))
    source.exactly(-member.size % BLOCK)
    found = content.file(offset)
    blob = _BLOB.fullmatch(name)
    if blob is not None and found.sha256 != blob[1]:
        raise ArchiveError(f"member {quoted(name)} of the archive is damaged: its digest is sha256:{found.sha256}")
    if tarball.files.setdefault(name, found).sha256 != found.sha256:
        raise ArchiveError(f"the archive has two different members {quoted(name)}")
    if content.document:
        tarball.documents[name] = b"".join(content.document)
        tarball.documents_size += content.size
        if tarball.documents_size > _DOCUMENTS_LIMIT:
            raise ArchiveError(f"the archive has more than {_DOCUMENTS_LIMIT >> 20} MiB of JSON")


class _Content:
    """The bytes of one member, as they come by."""

    def __init__(self, name: str, expected_size: int, tarball: Tarball) -> None:
        self.size = 0
        self.document: list[bytes] = []
        self._named_by_digest = _BLOB.fullmatch(name) is not None
        self._may_be_document = expected_size <= DOCUMENT_LIMIT
        self._digest = hashlib.sha256()
        self._compression: str | None = None
        self._inflated: _Gunzip | None = None
        self._tarball = tarball

    def update(self, chunk: bytes) -> None:
        if self.size == 0:
            self._compression = next((kind for magic, kind in _MAGIC.items() if chunk.startswith(magic)), None)
            if self._compression == "gzip" and not self._named_by_digest:
                self._inflated = _Gunzip(self._tarball)
            self._may_be_document = self._may_be_document and chunk[:1] in b"[{"
        self.size += len(chunk)
        self._digest.update(chunk)
        if self._inflated is not None:
            self._inflated.update(chunk)
        if self._may_be_document:
            self.document.append(chunk)

    def file(self, offset: int) -> File:
        inflated = self._inflated.hexdigest() if self._inflated is not None else None
        return File(offset, self.size, self._digest.hexdigest(), self._compression, inflated)


class _Gunzip:
    """The digest of what a gzip stream holds, in bounded memory and time."""

    def __init__(self, tarball: Tarball) -> None:
        self._digest = hashlib.sha256()
        self._inflate = zlib.decompressobj(wbits=31)
        self._tarball = tarball

    def update(self, chunk: bytes) -> None:
        self._tarball.inflated_allowed += _INFLATED_RATIO * len(chunk)
        # In small pieces, for of each the rest is copied as often as something comes out.
        for start in range(0, len(chunk), _PIECE):
            self._update(chunk[start : start + _PIECE])

    def _update(self, data: bytes) -> None:
        while data:
            if self._inflate.eof:  # a gzip file may be several streams, one after the other
                self._inflate = zlib.decompressobj(wbits=31)
            inflated = self._inflate.decompress(data, _CHUNK)
            self._tarball.inflated_allowed -= len(inflated)
            if self._tarball.inflated_allowed < 0:
                raise ArchiveError("the archive's compressed layers hold far more than an image does")
            self._digest.update(inflated)
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def hexdigest(self) -> str:
        if not self._inflate.eof:
            raise EOFError("a compressed layer ends too early")
        return self._digest.hexdigest()
