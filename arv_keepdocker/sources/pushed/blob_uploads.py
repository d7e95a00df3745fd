"""Blobs that an engine uploads: layers go to the sink as they arrive, documents are kept in memory."""

import hashlib
import threading

from ...errors import ArchiveError
from ...images import json
from ...images.layers import Layer, LayerSink
from ..layer_blob import LayerBlob, WrongDigestError

_DOCUMENT_STARTS = b"{ \t\r\n"


class MemoryBudget:
    """The memory that all documents may take together, more than any image needs."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Reserve `size` more bytes; False if there is no room for them."""
        with self._lock:
            taken = size <= self._left
            self._left -= size if taken else 0
            return taken

    def give(self, size: int) -> None:
        with self._lock:
            self._left += size


class BlobUpload:
    """One blob that is being uploaded. Only the thread that holds `busy` may use it.

    What a blob is becomes known only from the manifest, which comes last. A blob that begins as JSON does, and is no
    longer than a document may be, is kept, and may turn out to be a layer; every other blob is taken for a layer.
    """

    def __init__(self, sink: LayerSink, memory: MemoryBudget) -> None:
        self.busy = threading.Lock()
        self.size = 0
        """Bytes that have arrived."""
        self._sink = sink
        self._memory = memory
        self._kept = b""
        self._digest = hashlib.sha256()
        self._blob: LayerBlob | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises what the sink raises."""
        self.size += len(data)
        if self._blob is None and self._is_kept(data):
            self._digest.update(data)
            self._kept += data
            return
        if self._blob is None:
            self._blob = LayerBlob(self._sink)
            self._blob.feed(self._kept)
            self._forget()
        self._blob.feed(data)

    def finish(self, digest: str) -> bytes | Layer | ArchiveError:
        """What the blob was: a document, a layer that the sink has now, or a broken layer.

        Raises WrongDigestError, or what the sink raises.
        """
        if self._blob is None:
            if f"sha256:{self._digest.hexdigest()}" != digest:
                self.abandon()
                raise WrongDigestError
            return self._kept
        try:
            return self._blob.finish(digest)
        except ArchiveError as error:
            return error
        finally:
            self._blob.abandon()

    def abandon(self) -> None:
        """Discard the upload."""
        self._forget()
        if self._blob is not None:
            self._blob.abandon()

    def _is_kept(self, data: bytes) -> bool:
        start = (self._kept + data[:1])[:1]
        if start not in _DOCUMENT_STARTS or self.size > json.DOCUMENT_LIMIT:
            return False
        return self._memory.take(len(data))

    def _forget(self) -> None:
        self._memory.give(len(self._kept))
        self._kept = b""
