"""Detects how archives and layers are compressed, and unpacks them while they are read.

The first bytes of a file tell, as they do to docker: gzip (RFC 1952), bzip2, xz or Zstandard (RFC 8878). Python has
decoders for the first three and, from 3.14 on, for Zstandard; before, that comes with the extra `zstd`. The extra
`fast` unpacks gzip three times as fast. A small file may unpack to terabytes, and need any amount of memory: both are
bounded.
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
"""How many of the first bytes are needed to tell."""
_MAGIC = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_SKIPPABLE = b"\x2a\x4d\x18"
"""What follows 0x50 to 0x5f in a Zstandard file that begins with a skippable frame."""
_PIECE = 64 << 10
_SMALL_PIECE = 16 << 10
_CHUNK = 256 << 10
_MEMORY = 160 << 20
"""Bytes of memory that unpacking may take; `xz -9` wants 65 MiB. Zstandard's decoder itself takes at most 128."""
_UNPACKED = 2080 << 20
"""Bytes that a small file may unpack to: 2 GiB of zeros are real, as empty space in databases. To unpack, hash and cut
them takes less than 10 s of CPU time."""
_RATIO = 200
"""How many times its size a file may unpack to beyond that. gzip can reach 1032 times (RFC 1951), but real data is far
from it."""


class CompressionError(ArchiveError):
    """Compressed data is damaged, cut short, or a decompression bomb."""


class Allowance:
    """How much compressed data may still unpack to, given how much was read."""

    def __init__(self) -> None:
        self._left = _UNPACKED

    def read(self, count: int) -> None:
        """Allow more, since `count` compressed bytes were read."""
        self._left += _RATIO * count

    def unpacked(self, count: int) -> None:
        """Count unpacked bytes. Raises CompressionError if they are far more than an image has."""
        self._left -= count
        if self._left < 0:
            raise CompressionError("compressed data that unpacks to far more than an image holds")


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
    """The compression of a file that begins with `start`: `gzip`, `bzip2`, `xz`, `zstd`, or None."""
    if start[1:4] == _SKIPPABLE and start[0] & 0xF0 == 0x50:
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


def can_unpack(compression: str) -> bool:
    """Whether there is a decoder for it."""
    return compression != "zstd" or _zstd() is not None


class Unpacker:
    """Unpacks one file, which may consist of several streams, while it is read."""

    def __init__(self, compression: str, allowance: Allowance | None = None) -> None:
        """`can_unpack` must be true for `compression`. The caller of an `allowance` tells it what is read."""
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
        """End the file. Raises CompressionError if its end is missing."""
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
