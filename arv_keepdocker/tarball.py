"""A tar, read once from its first byte to its last: where its members are, and what they hash to.

Nothing is ever extracted to disk, and of the members only small JSON documents are kept in memory.
"""

import gzip
import hashlib
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Protocol, cast

from .errors import ArchiveError

_CHUNK = 1 << 20
_BLOCK = 512
_END_OF_ARCHIVE = 2 * _BLOCK
"""Two blocks of zeros end a tar (POSIX.1, pax interchange format); without them it has been cut short."""
DOCUMENT_LIMIT = 8 << 20
"""Bytes of a member that may be kept as a JSON document. Real configurations have a few kilobytes."""
_DOCUMENTS_LIMIT = 64 << 20
_MEMBERS_LIMIT = 100_000
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""How gzip (RFC 1952) and Zstandard (RFC 8878) files begin."""
_READ_ERRORS = (tarfile.TarError, EOFError, ValueError, OverflowError, zlib.error, gzip.BadGzipFile)


class Readable(Protocol):
    """The part of a binary file that is used here: it is only read, forwards."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
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

    `announce` is called with the offset and the size of each file before its last byte is read. Raises ArchiveError
    when the tar is cut short or damaged, or has members that no engine writes. What `stream.read` raises comes through.
    """
    source = _Source(stream)
    tarball = Tarball()
    try:
        with tarfile.open(mode="r|", fileobj=cast("IO[bytes]", source), bufsize=_CHUNK) as tar:
            end = _read_members(tar, tarball, announce)
        source.drain()
    except _READ_ERRORS as error:
        if source.size == 0:
            raise ArchiveError("the archive is empty") from error
        raise ArchiveError(f"the archive is cut short or damaged: {error}") from error
    # tarfile takes a header that it does not understand for the end of the archive.
    if source.size < end + _END_OF_ARCHIVE or source.last_non_zero > end:
        raise ArchiveError(f"the archive is cut short or damaged near byte {end}")
    tarball.size = source.size
    return tarball


class _Source:
    """Counts what is read and remembers where the last byte that is not zero was."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.size = 0
        self.last_non_zero = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        kept = len(data.rstrip(b"\0"))
        if kept:
            self.last_non_zero = self.size + kept
        self.size += len(data)
        return data

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass


def _read_members(tar: tarfile.TarFile, tarball: Tarball, announce: Callable[[int, int], None]) -> int:
    end = 0
    for count, member in enumerate(tar):
        if count >= _MEMBERS_LIMIT:
            raise ArchiveError(f"the archive has more than {_MEMBERS_LIMIT} members")
        tar.members = []  # type: ignore[attr-defined]  # or tarfile keeps all of them
        name = _checked_name(member.name)
        end = member.offset_data
        if member.issym():
            tarball.links[name] = _checked_name(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            tarball.links[name] = _checked_name(member.linkname)
        elif member.isreg() and not member.issparse() and member.size >= 0:
            end += -(-member.size // _BLOCK) * _BLOCK
            announce(member.offset_data, member.size)
            _read_file(tar, member, name, tarball)
        elif not member.isdir():
            raise ArchiveError(f"member {name!r} of the archive is neither a file, a directory nor a link")
    return end


def _checked_name(name: str) -> str:
    normal = posixpath.normpath(name)
    if normal.startswith(("/", "../")) or normal == "..":
        raise ArchiveError(f"member {name!r} of the archive points outside of it")
    return normal


def _read_file(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, tarball: Tarball) -> None:
    file = tar.extractfile(member)
    if file is None:
        raise ArchiveError(f"member {name!r} of the archive is damaged")
    content = _Content(name, member.size)
    while chunk := file.read(_CHUNK):
        content.update(chunk)
    if content.size != member.size:
        raise ArchiveError(f"the archive is cut short in member {name!r}")
    found = content.file(member.offset_data)
    blob = _BLOB.fullmatch(name)
    if blob is not None and found.sha256 != blob[1]:
        raise ArchiveError(f"member {name!r} of the archive is damaged: its digest is sha256:{found.sha256}")
    if tarball.files.setdefault(name, found).sha256 != found.sha256:
        raise ArchiveError(f"the archive has two different members {name!r}")
    if content.document:
        tarball.documents[name] = b"".join(content.document)
        tarball.documents_size += content.size
        if tarball.documents_size > _DOCUMENTS_LIMIT:
            raise ArchiveError(f"the archive has more than {_DOCUMENTS_LIMIT >> 20} MiB of JSON")


class _Content:
    """The bytes of one member, as they come by."""

    def __init__(self, name: str, expected_size: int) -> None:
        self.size = 0
        self.document: list[bytes] = []
        self._named_by_digest = _BLOB.fullmatch(name) is not None
        self._may_be_document = expected_size <= DOCUMENT_LIMIT
        self._digest = hashlib.sha256()
        self._compression: str | None = None
        self._inflated: _Gunzip | None = None

    def update(self, chunk: bytes) -> None:
        if self.size == 0:
            self._compression = next((kind for magic, kind in _MAGIC.items() if chunk.startswith(magic)), None)
            if self._compression == "gzip" and not self._named_by_digest:
                self._inflated = _Gunzip()
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
    """The digest of what a gzip stream holds, in bounded memory."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._inflate = zlib.decompressobj(wbits=31)

    def update(self, data: bytes) -> None:
        while data:
            if self._inflate.eof:  # a gzip file may be several streams, one after the other
                self._inflate = zlib.decompressobj(wbits=31)
            self._digest.update(self._inflate.decompress(data, _CHUNK))
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def hexdigest(self) -> str:
        if not self._inflate.eof:
            raise EOFError("a compressed layer ends too early")
        return self._digest.hexdigest()
