"""What archives and layers are compressed with, and how they are unpacked while they are read.

A file tells by its first bytes: gzip (RFC 1952), bzip2, xz and Zstandard (RFC 8878), as docker has it. All but the last
are in Python's library; that is from Python 3.14 on, before it comes with the extra `zstd`. The extra `fast` unpacks
gzip three times as fast. A small file may hold terabytes and may want any memory to be unpacked: both are bounded.
"""

import bz2
import functools
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

from ..errors import ArchiveError

MAGIC_SIZE = 6
"""How many of the first bytes tell."""
_MAGIC = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_SKIPPABLE = b"\x2a\x4d\x18"
"""What follows 0x50 to 0x5f at the beginning of a Zstandard file whose first frame says nothing."""
_PIECE = 64 << 10
_SMALL_PIECE = 16 << 10
_CHUNK = 256 << 10
_MEMORY = 160 << 20
"""Bytes of memory that unpacking may take; `xz -9` wants 65 MiB. Zstandard's decoder itself takes at most 128."""
_UNPACKED = 2080 << 20
"""Bytes that a small file may hold: files of 2 GiB of zeros are real, as empty space of data bases. To unpack, hash and
cut them takes less than 10 s of CPU."""
_RATIO = 200
"""How many times its size a file may hold beyond that. gzip can hold 1032 times its size (RFC 1951), but what is not
empty does not come near it."""


class CompressionError(ArchiveError):
    """What is compressed is damaged, cut short, or a trap."""


class Allowance:
    """How much may come out of compressed files, given how much went in."""

    def __init__(self) -> None:
        self._left = _UNPACKED

    def read(self, count: int) -> None:
        """So many bytes have come from where nothing is compressed."""
        self._left += _RATIO * count

    def unpacked(self, count: int) -> None:
        """So many bytes have come out. Raises CompressionError when they are far more than an image has."""
        self._left -= count
        if self._left < 0:
            raise CompressionError("what is compressed holds far more than an image does")


class _Decoder(Protocol):
    """How Python's library unpacks one stream, but for gzip."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class _Gzip:
    """A decoder of gzip like those of the other formats."""

    def __init__(self) -> None:
        self._inflate: zlib._Decompress = _zlib().decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        unpacked = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self.needs_input = len(unpacked) < max_length and not self._inflate.unconsumed_tail
        return unpacked


@functools.cache
def _zlib() -> Any:
    """The module that unpacks gzip: isal's does what zlib does, in a third of the time."""
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib


@functools.cache
def _zstd() -> Any:
    """The module that unpacks Zstandard; None if there is none."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    return None


_DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": _Gzip,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
    "zstd": lambda: _zstd().ZstdDecompressor(),
}


def detect(start: bytes) -> str | None:
    """The compression of a file that begins so: `gzip`, `bzip2`, `xz`, `zstd`, or None."""
    if start[1:4] == _SKIPPABLE and start[0] & 0xF0 == 0x50:
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


def can_unpack(compression: str) -> bool:
    """Whether there is a decoder for it."""
    return compression != "zstd" or _zstd() is not None


class Unpacker:
    """Unpacks one file, which may be several streams one after the other, while it comes."""

    def __init__(self, compression: str, allowance: Allowance | None = None) -> None:
        """`compression` is one that `can_unpack`. An `allowance` given has been told what was read."""
        self._compression = compression
        self._own = Allowance() if allowance is None else None
        self._allowance = allowance or self._own or Allowance()
        self._decoder: _Decoder | None = None
        self._between = b""
        self._streams = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes hold, in pieces of at most 256 KiB; to be taken before more is fed.

        Raises CompressionError where it is damaged, or holds far more than an image has.
        """
        if self._own is not None:
            self._own.read(len(data))
        # Smaller pieces where there are several streams: each stream that ends in a piece copies the rest of it.
        piece = _SMALL_PIECE if self._streams else _PIECE
        for start in range(0, len(data), piece):
            yield from self._unpacked(data[start : start + piece])

    def finish(self) -> None:
        """There are no more bytes. Raises CompressionError if the file's end is missing."""
        if self._decoder is not None or self._between or not self._streams:
            raise CompressionError(f"{self._compression} data is cut short or damaged: its end is missing")

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._decoder is None:
                data = self._begin_stream(data)
                if self._decoder is None:
                    return
            unpacked = self._decompressed(self._decoder, data)
            data = b""
            if unpacked:
                self._allowance.unpacked(len(unpacked))
                yield unpacked
            if self._decoder.eof:
                data, self._decoder = self._decoder.unused_data, None
                self._streams += 1
            elif self._decoder.needs_input:
                return

    def _begin_stream(self, data: bytes) -> bytes:
        """Begin with the next stream, if there is one; the bytes that it begins with."""
        data = self._between + data
        if self._compression == "xz" and self._streams:
            data = data.lstrip(b"\0")  # which may be between streams
        self._between = data if len(data) < MAGIC_SIZE else b""
        if self._between:
            return b""
        if data and (not self._streams or detect(data) == self._compression):
            self._decoder = cast(_Decoder, _DECODERS[self._compression]())
        elif data:
            raise CompressionError(f"{self._compression} data is damaged: something else follows it")
        return data

    def _decompressed(self, decoder: _Decoder, data: bytes) -> bytes:
        try:
            return decoder.decompress(data, _CHUNK)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise CompressionError(f"{self._compression} data is cut short or damaged: {error}") from error
        except MemoryError as error:
            raise CompressionError(f"{self._compression} data needs more than {_MEMORY >> 20} MiB to unpack") from error
        except Exception as error:
            if type(error).__name__ not in ("IsalError", "ZstdError"):
                raise
            raise CompressionError(f"{self._compression} data is cut short or damaged: {error}") from error
