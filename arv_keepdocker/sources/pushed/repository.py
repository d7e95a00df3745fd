"""What an engine has pushed: blobs, and the manifests that make an image of them."""

import hashlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import ArchiveError, EngineError
from ...images.layers import Layer, LayerSink
from ..layer_blob import LayerBlob, WrongDigestError
from ..registry.client import DIGEST, Document
from .blob_uploads import BlobUpload, MemoryBudget
from .push_notes import PushNotes

_DOCUMENTS_LIMIT = 64 << 20
"""Bytes of configurations, manifests and what else is no layer, all together."""
_UPLOADS_LIMIT = 32
"""Blobs that come at a time; engines send 3 to 5."""
_BLOBS_LIMIT = 10_000
_PATIENCE = 10.0
"""Seconds for a thread to see that its connection was cut."""
_MANIFESTS_LIMIT = 2000


class RefusedError(Exception):
    """A request cannot be granted."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """`code` is one of the OCI distribution specification's."""
        super().__init__(message)
        self.status = status
        self.code = code


NOT_FOUND = RefusedError(404, "NAME_UNKNOWN", "there is nothing here")


class Repository:
    """Takes one image, whose manifest comes last, under the tag. Its methods may be called by several threads.

    They raise RefusedError, or what the sink raises.
    """

    def __init__(self, path: str, tag: str, sink: LayerSink, notes: PushNotes) -> None:
        self.name = f"what was pushed to {path}:{tag}"  # for messages
        self.path = path
        self.tag = tag
        self.pushed: Document | None = None
        """The manifest or index that the tag names."""
        self.failure: BaseException | None = None
        """Why it takes nothing any more."""
        self._closed = False
        self._sink = sink
        self._notes = notes
        self._lock = threading.Lock()
        self._memory = MemoryBudget(_DOCUMENTS_LIMIT)
        self._uploads: dict[str, BlobUpload] = {}
        self._documents: dict[str, bytes] = {}
        self._layers: dict[str, Layer] = {}
        self._broken: dict[str, ArchiveError] = {}
        self._manifests: dict[str, Document] = {}

    def close(self) -> None:
        """Take nothing any more, and wait until what is on its way has been given up."""
        with self._lock:
            self._closed = True
            left = list(self._uploads.values())
            self._uploads.clear()
        for upload in left:
            if upload.busy.acquire(timeout=_PATIENCE):
                upload.abandon()
                upload.busy.release()

    def fail(self, error: BaseException) -> None:
        """Let nothing go on."""
        with self._lock:
            self.failure = self.failure or error

    # What is asked for

    def size_of(self, digest: str) -> int | None:
        """The size of a blob that need not be sent; None if it must be. Of a layer that Arvados has, it is the
        uncompressed layer's: nobody here knows the blob's."""
        with self._lock:
            document = self._documents.get(digest)
        if document is not None:
            return len(document)
        layer = self._layer(digest)
        return layer.size if layer is not None else None

    def found_manifest(self, reference: str) -> Document | None:
        return self._manifests.get(reference)

    # What is sent

    def begin(self) -> str:
        """Expect a blob; returns what its upload is called."""
        with self._lock:
            taken = len(self._layers) + len(self._documents) + len(self._broken)
            if self._closed or len(self._uploads) >= _UPLOADS_LIMIT or taken >= _BLOBS_LIMIT:
                raise RefusedError(429, "TOOMANYREQUESTS", "too many blobs")
            identifier = secrets.token_hex(16)
            self._uploads[identifier] = BlobUpload(self._sink, self._memory)
            return identifier

    @contextmanager
    def upload(self, identifier: str) -> Iterator[BlobUpload]:
        """The upload, for this thread alone; it is over if the block fails."""
        with self._lock:
            upload = self._uploads.get(identifier)
        if upload is None:
            raise RefusedError(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        if not upload.busy.acquire(blocking=False):
            raise RefusedError(409, "BLOB_UPLOAD_INVALID", "another request is sending that blob")
        try:
            yield upload
        except BaseException:
            self._end(identifier)
            upload.abandon()
            raise
        finally:
            upload.busy.release()

    def abandon(self, identifier: str) -> None:
        with self.upload(identifier) as upload:
            self._end(identifier)
            upload.abandon()

    def finish(self, identifier: str, upload: BlobUpload, digest: str) -> None:
        """The blob is whole; the caller has it by `upload`."""
        self._end(identifier)
        if not DIGEST.fullmatch(digest):
            raise RefusedError(400, "DIGEST_INVALID", "only sha256 digests are taken")
        try:
            found = upload.finish(digest)
        except WrongDigestError:
            raise RefusedError(400, "DIGEST_INVALID", "the blob does not have that digest") from None
        with self._lock:
            if isinstance(found, bytes):
                self._documents[digest] = found
            elif isinstance(found, Layer):
                self._layers[digest] = found
            else:
                self._broken[digest] = found
        if isinstance(found, Layer):
            self._note(digest, found)

    def take_manifest(self, reference: str, body: bytes, media_type: str) -> Document:
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if reference not in (digest, self.tag):
            raise RefusedError(400, "MANIFEST_INVALID", "the manifest does not have that digest, or the tag is another")
        document = Document(body, digest, media_type)
        with self._lock:
            if len(self._manifests) >= _MANIFESTS_LIMIT or not self._memory.take(len(body)):
                raise RefusedError(413, "TOOMANYREQUESTS", "too many manifests")
            self._manifests[digest] = document
            if reference == self.tag:
                self.pushed = document
        return document

    # What the image is made of, as `registry.manifests` asks for it

    def manifest(self, reference: str) -> Document:
        found = self._manifests.get(reference)
        if found is None:
            raise EngineError(f"manifest {reference} was not pushed")
        return found

    def document(self, digest: str, size: int) -> bytes:
        found = self._documents.get(digest)
        if found is None or len(found) != size:
            raise EngineError(f"blob {digest} of {size} bytes was not pushed")
        return found

    def layer(self, digest: str, diff_id: str) -> Layer:
        """The layer that a manifest has by its blob, and the configuration by its diff id."""
        if digest in self._broken:
            raise self._broken[digest]
        layer = self._layer(digest)
        if layer is None and digest in self._documents:
            layer = self._layer_of_document(digest)
        if layer is None:
            raise EngineError(f"layer {digest} was not pushed")
        if layer.compression is not None:
            raise EngineError(f"layer {digest} is compressed with {layer.compression}, and there is no decoder here")
        if layer.diff_id != diff_id:
            raise ArchiveError(f"layer {digest} is broken: it is not the configuration's {diff_id}")
        return layer

    def _layer(self, digest: str) -> Layer | None:
        """The layer of a blob that need not be sent."""
        with self._lock:
            layer = self._layers.get(digest)
        if layer is not None:
            return layer
        diff_id = self._notes.diff_id(digest)
        found = self._sink.has(diff_id) if diff_id is not None else None
        return found or self._sink.has(digest)  # which is that of a blob that is not compressed, too

    def _layer_of_document(self, digest: str) -> Layer:
        blob = LayerBlob(self._sink)
        try:
            blob.feed(self._documents[digest])
            return blob.finish(digest)
        finally:
            blob.abandon()

    def _note(self, digest: str, layer: Layer) -> None:
        if layer.compression is None:
            self._notes.add_blob(digest, layer.diff_id)

    def _end(self, identifier: str) -> None:
        with self._lock:
            self._uploads.pop(identifier, None)
