"""Decides, while a member of an archive is read, whether it is a layer, a document or neither."""

import hashlib
from typing import Protocol

from .compression import MAGIC_SIZE, Allowance, CompressionError, Unpacker, can_unpack, detect
from .json import DOCUMENT_LIMIT
from .layers import Layer, LayerSink, LayerWriter
from .members import File
from .tar_headers import BLOCK, begins_a_tar


class Candidate(Protocol):
    """Takes the bytes of one member."""

    def update(self, chunk: bytes) -> None:
        """Take the next bytes. Raises what the layer sink raises."""

    def file(self, size: int) -> File:
        """What the member, of `size` bytes, has turned out to be."""

    def close(self) -> None:
        """The member is given up; `file` will not be called."""


def begin(start: bytes, size: int, allowance: Allowance, sink: LayerSink) -> Candidate:
    """Begin to read a member of `size` bytes; `start` are its first bytes, at most a block."""
    if may_be_document(start, size):
        return _Document()
    compression = detect(start[:MAGIC_SIZE])
    if compression is None:
        return _Plain(sink.begin()) if begins_a_tar(start) else _Other()
    if can_unpack(compression):
        return _Compressed(Unpacker(compression, allowance), sink)
    return _Plain(sink.begin(), compression)


def without_decoder(start: bytes) -> str | None:
    """The compression of a member that begins with `start`, if there is no decoder for it."""
    compression = detect(start[:MAGIC_SIZE])
    return compression if compression is not None and not can_unpack(compression) else None


def may_be_document(start: bytes, size: int) -> bool:
    """Whether a member of `size` bytes that begins with `start` may be a JSON document."""
    return size <= DOCUMENT_LIMIT and start.lstrip(b" \t\r\n")[:1] in (b"", b"[", b"{") and b"\0" not in start


class _Document:
    """A member that may be a JSON document, or is empty."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def update(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def file(self, size: int) -> File:
        data = b"".join(self._chunks)
        return File(size, hashlib.sha256(data).hexdigest(), document=data)

    def close(self) -> None:
        pass


class _Other:
    """A member that is neither a layer nor a document."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, chunk: bytes) -> None:
        self._digest.update(chunk)

    def file(self, size: int) -> File:
        return File(size, self._digest.hexdigest(), problem="it is no tar")

    def close(self) -> None:
        pass


class _Plain:
    """A tar, or a compressed layer that is kept as it is because there is no decoder."""

    def __init__(self, writer: LayerWriter, compression: str | None = None) -> None:
        self._writer = writer
        self._compression = compression

    def update(self, chunk: bytes) -> None:
        self._writer.write(chunk)

    def file(self, size: int) -> File:
        layer = self._writer.finish()
        return File(size, layer.diff_id.removeprefix("sha256:"), layer=layer, kept=self._compression)

    def close(self) -> None:
        self._writer.abandon()


class _Compressed:
    """A compressed member that may contain a tar."""

    def __init__(self, unpacker: Unpacker, sink: LayerSink) -> None:
        self._unpacker = unpacker
        self._sink = sink
        self._digest = hashlib.sha256()
        self._start = b""
        self._writer: LayerWriter | None = None
        self._problem: str | None = None

    def update(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        if self._problem is not None:
            return
        try:
            for unpacked in self._unpacker.feed(chunk):
                self._write(unpacked)
        except CompressionError as error:
            self._problem = str(error)

    def file(self, size: int) -> File:
        layer: Layer | None = None
        try:
            self._unpacker.finish()
        except CompressionError as error:
            self._problem = self._problem or str(error)
        if self._problem is not None:
            self.close()
        elif self._writer is not None:
            layer = self._writer.finish()
        return File(size, self._digest.hexdigest(), layer=layer, problem=self._problem or "it is no tar")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.abandon()

    def _write(self, data: bytes) -> None:
        if self._writer is None:
            data = self._start = self._start + data
            if len(data) < BLOCK:
                return
            if not begins_a_tar(data):
                raise CompressionError("it is no tar")
            self._writer = self._sink.begin()
        self._writer.write(data)


_STARTS = {
    b"hsqs": "a squashfs image",
    b"PK\x03\x04": "a zip file",
    b"7z\xbc\xaf\x27\x1c": "a 7z file",
    b"\x1f\x9d": "a file in compress's old format",
    b"\x04\x22\x4d\x18": "a file in lz4",
    b"LZIP": "a file in lzip",
    b"\x89LZO": "a file in lzop",
    b"\x7fELF": "a program",
    b"QFI\xfb": "a disk image (qcow2)",
    b"!<arch>\n": "an ar archive or Debian package",
    b"070701": "a cpio archive",
    b"\xed\xab\xee\xdb": "an RPM package",
}


def what_begins(start: bytes) -> str:
    """What kind of file begins with `start`, for a message that it is no tar."""
    if b"SIF_MAGIC" in start[:64]:
        return "a SIF (an image of Singularity's or Apptainer's)"
    for magic, what in _STARTS.items():
        if start.startswith(magic):
            return what
    if start.startswith(b"#!"):
        return "a script"
    if start.lstrip()[:1] in (b"{", b"["):
        return "JSON"
    return "text" if _is_text(start) else "something else"


def _is_text(start: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)
