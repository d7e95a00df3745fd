"""Reads the tar archive of an image, from its first byte to its last.

Nothing is ever unpacked to files. Members that may be layers go to a layer sink, uncompressed, while they are read;
which ones are layers may only be known at the end. JSON documents are kept in memory; of everything else, only the
digest is.
"""

import functools
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Protocol

from ..errors import ArchiveError, NoDecoderError, quoted
from . import candidates
from .compression import Allowance, Unpacker, can_unpack, detect
from .layers import LayerSink
from .members import File, Members
from .tar_headers import BLOCK, HeaderError, Headers, Kind, Member, begins_a_tar

_CHUNK = 1 << 20
_RECORD_LIMIT = 16 << 20
"""Bytes of zeros at the end at most; tar fills its last record, of 10 KiB unless told otherwise."""
_MEMBERS_LIMIT = 100_000
_BLOB = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.tar)?")


class Readable(Protocol):
    """A binary stream that is only read, forwards."""

    def read(self, size: int, /) -> bytes: ...


Seek = Callable[[int], int]


def scan(stream: Readable, sink: LayerSink, name: str = "FILE", pass_over: Seek | None = None) -> Members:
    """Read the archive, which may be compressed, to its end, and feed what may be layers to the sink.

    With `pass_over`, a function that seeks in the stream, members of a plain archive that are not documents are
    skipped, and can be read later. `name` is the archive's name for commands in hints.

    Raises ArchiveError if it is not a tar, is cut short or damaged, or has members that no engine writes. Passes on
    what `stream.read` and the sink raise.
    """
    source = _Source(stream, name, pass_over)
    members = Members()
    try:
        _read_members(source, members, sink)
        _read_end(source)
    except (HeaderError, EOFError) as error:
        if source.size == 0 and isinstance(error, EOFError):
            raise ArchiveError("the archive is empty") from error
        if source.size <= BLOCK and not begins_a_tar(source.first):
            raise ArchiveError(f"this is no tar, but {candidates.what_begins(source.first)}") from error
        raise ArchiveError(f"the archive is cut short or damaged near byte {source.size}: {error}") from error
    members.check()
    return members


class _Source:
    """The bytes of the tar, unpacked if need be, and counted."""

    def __init__(self, stream: Readable, name: str, seek: Seek | None) -> None:
        self.allowance = Allowance()
        self.size = 0
        self.first = b""
        """The first block, or less if the stream is shorter."""
        self._stream = stream
        self._start = b""
        while len(self._start) < BLOCK and (data := stream.read(BLOCK - len(self._start))):
            self._start += data
        self.allowance.read(len(self._start))
        self._unread = self._start
        compression = detect(self._start)
        self._unpacked = self._unpack(compression, name) if compression is not None else None
        self._seek = seek if compression is None else None

    def read(self, size: int) -> bytes:
        """Read at least one byte and at most `size`. Raises EOFError at the end."""
        data = self._unread[:size]
        if data:
            self._unread = self._unread[size:]
        else:
            data = self._next(size)
        if self.size < BLOCK:
            self.first += data[: BLOCK - self.size]
        self.size += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        chunks: list[bytes] = []
        while size:
            chunks.append(self.read(size))
            size -= len(chunks[-1])
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @property
    def is_seekable(self) -> bool:
        return self._seek is not None

    def seek(self, offset: int) -> None:
        """Go to another byte of the tar, if it is seekable."""
        assert self._seek is not None
        self._seek(offset)
        self._unread = b""
        self.size = offset

    def _next(self, size: int) -> bytes:
        if self._unpacked is None:
            data = self._read_raw(size)
        else:
            data = next(self._unpacked, b"")
            data, self._unread = data[:size], data[size:]
        if not data:
            raise EOFError("it ends here")
        return data

    def _read_raw(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.allowance.read(len(data))
        return data

    def _unpack(self, compression: str, name: str) -> Iterator[bytes]:
        if not can_unpack(compression):
            file = f" {shlex.quote(name)}" if name != "-" else ""
            raise NoDecoderError(
                f"the archive is compressed with {compression}, and there is no decoder for it here",
                f"Unpack it on the way: {compression} -dc{file} | arv-keepdocker --from-archive - ... "
                "Or install the decoder: pip install 'arv-keepdocker[zstd]'",
            )
        unpacker = Unpacker(compression, self.allowance)
        data, self._unread = self._unread, b""
        return self._pieces(unpacker, data)

    def _pieces(self, unpacker: Unpacker, data: bytes) -> Iterator[bytes]:
        while data:
            yield from unpacker.feed(data)
            data = self._read_raw(_CHUNK)
        unpacker.finish()


def _read_members(source: _Source, members: Members, sink: LayerSink) -> None:
    headers = Headers(source.exactly)
    count = 0
    while (member := headers.next()) is not None:
        count += 1
        if count > _MEMBERS_LIMIT:
            raise members.not_an_image() or ArchiveError(f"the archive has more than {_MEMBERS_LIMIT} members")
        if member.kind is Kind.FILE:
            members.add_file(member.name, _read_file(source, member, sink))
            continue
        if member.kind is Kind.OTHER:
            members.problem(f"member {quoted(member.name)} of the archive is neither a file, a directory nor a link")
            _skip(source, member.size)
        else:
            members.add(member)


def _skip(source: _Source, size: int) -> None:
    left = size + -size % BLOCK
    while left:
        left -= len(source.read(min(_CHUNK, left)))


def _read_end(source: _Source) -> None:
    """Read the end: two blocks of zeros, the first of which has been read, and zeros that fill the last record.

    A tar without them has been cut short (POSIX.1, pax interchange format).
    """
    zeros = source.exactly(BLOCK)
    limit = source.size + _RECORD_LIMIT
    while not zeros.strip(b"\0"):
        if source.size > limit:
            raise ArchiveError(f"the archive has more than {_RECORD_LIMIT >> 20} MiB of zeros at its end")
        try:
            zeros = source.read(_CHUNK)
        except EOFError:
            return
    raise HeaderError("there is something after the end")


def _read_file(source: _Source, member: Member, sink: LayerSink) -> File:
    named = _BLOB.fullmatch(posixpath.normpath(member.name))
    known = sink.has(f"sha256:{named[1]}") if named is not None and not source.is_seekable else None
    if known is not None:
        _skip(source, member.size)
        return File(member.size, known.diff_id.removeprefix("sha256:"), layer=known)
    offset = source.size
    start = source.exactly(min(BLOCK, member.size))
    if source.is_seekable and not candidates.may_be_document(start, member.size):
        source.seek(offset + member.size + -member.size % BLOCK)
        compression = candidates.without_decoder(start)
        later = functools.partial(_read_later, source, offset, member)
        return File(member.size, named[1] if named else f"at byte {offset}", kept=compression, later=later)
    return _read_content(source, member, sink, start)


def _read_later(source: _Source, offset: int, member: Member, sink: LayerSink) -> File:
    source.seek(offset)
    try:
        found = _read_content(source, member, sink, source.exactly(min(BLOCK, member.size)))
    except EOFError as error:
        raise ArchiveError(f"the archive is cut short near byte {source.size}") from error
    named = _BLOB.fullmatch(posixpath.normpath(member.name))
    if member.name.startswith("blobs/") and named is not None and found.sha256 != named[1]:
        raise ArchiveError(
            f"member {quoted(member.name)} of the archive is damaged: its digest is sha256:{found.sha256}"
        )
    return found


def _read_content(source: _Source, member: Member, sink: LayerSink, start: bytes) -> File:
    left = member.size
    content = candidates.begin(start, member.size, source.allowance, sink)
    try:
        content.update(start)
        left -= len(start)
        while left:
            data = source.read(min(_CHUNK, left))
            content.update(data)
            left -= len(data)
        source.exactly(-member.size % BLOCK)
        return content.file(member.size)
    except BaseException:
        content.close()
        raise
