"""A blob that holds a layer, on its way into a layer sink: compared with its digest, unpacked, and its layer with what
the image's configuration says."""

import hashlib
from dataclasses import replace

from ..errors import ArchiveError
from ..images import compression
from ..images.compression import Unpacker
from ..images.layers import Layer, LayerSink


class WrongDigestError(Exception):
    """What came is not the blob that was to come."""


class LayerBlob:
    """Takes one blob of a layer, plain or compressed. It is used by one thread at a time.

    A blob that cannot be unpacked is taken to its end all the same: its digest tells whether the image is broken, or
    something else came than its blob.
    """

    def __init__(self, sink: LayerSink, plain: bool = False) -> None:
        """`plain` says that it is known not to be compressed; else its first bytes tell."""
        self.size = 0
        """Bytes that have come."""
        self.unpacked = 0
        """Bytes that the sink was given of them."""
        self._writer = sink.begin()
        self._digest = hashlib.sha256()
        self._start: bytes | None = b"" if not plain else None
        self._compression: str | None = None
        self._unpacker: Unpacker | None = None
        self._problem: ArchiveError | None = None
        self._finished = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises what the sink raises."""
        self.size += len(data)
        self._digest.update(data)
        if self._problem is not None:
            return
        if self._start is not None:
            data = self._detect_compression(self._start + data, last=False)
        self._unpack(data)

    def finish(self, digest: str, diff_id: str | None = None) -> Layer:
        """The blob is whole. `digest` is what it should have, `diff_id` what its layer should have.

        Raises WrongDigestError, or ArchiveError for an image whose blob it is, and which is broken.
        """
        if self._start is not None:
            self._unpack(self._detect_compression(self._start, last=True))
        if f"sha256:{self._digest.hexdigest()}" != digest:
            raise WrongDigestError
        try:
            if self._unpacker is not None and self._problem is None:
                self._unpacker.finish()
        except ArchiveError as error:
            self._problem = error
        if self._problem is not None:
            raise ArchiveError(f"layer {digest} is broken: {self._problem}") from self._problem
        layer = self._writer.finish()
        self._finished = True
        if self._compression is not None and self._unpacker is None:
            return replace(layer, diff_id=diff_id or layer.diff_id, digest=digest, compression=self._compression)
        if diff_id is not None and layer.diff_id != diff_id:
            raise ArchiveError(f"layer {digest} is broken: it is not the configuration's {diff_id}")
        return layer

    def abandon(self) -> None:
        """It will not be finished, if it is not already."""
        if not self._finished:
            self._writer.abandon()

    def _detect_compression(self, start: bytes, last: bool) -> bytes:
        """What of its beginning can be unpacked, once it is enough to tell how."""
        if len(start) < compression.MAGIC_SIZE and not last:
            self._start = start
            return b""
        self._start = None
        self._compression = compression.detect(start)
        if self._compression is not None and compression.can_unpack(self._compression):
            self._unpacker = Unpacker(self._compression)
        return start

    def _unpack(self, data: bytes) -> None:
        if self._unpacker is None:
            self._write(data)
            return
        try:
            for piece in self._unpacker.feed(data):
                self._write(piece)
        except ArchiveError as error:
            self._problem = error

    def _write(self, data: bytes) -> None:
        if data:
            self._writer.write(data)
            self.unpacked += len(data)
