"""The repository that an engine pushes to: blobs, and the manifests that make an image of them."""

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
"""Bytes of all configurations, manifests and other blobs that are not layers."""
_UPLOADS_LIMIT = 32
"""Blobs that may be uploaded at a time; engines send 3 to 5."""
_BLOBS_LIMIT = 10_000
_PATIENCE = 10.0
"""Seconds in which a thread notices that its connection was closed."""
_MANIFESTS_LIMIT = 2000


class RefusedError(Exception):
    """A request of the engine is refused."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """`code` is an error code of the OCI distribution specification."""
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
        """The error after which nothing more is accepted."""
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
        """Accept nothing more, and wait until the current uploads have been discarded."""
        with self._lock:
            self._closed = True
            left = list(self._uploads.values())
            self._uploads.clear()
        for upload in left:
            if upload.busy.acquire(timeout=_PATIENCE):
                upload.abandon()
                upload.busy.release()

    def fail(self, error: BaseException) -> None:
        """Accept nothing more because of this error."""
        with self._lock:
            self.failure = self.failure or error

    # Lookups

    def size_of(self, digest: str) -> int | None:
        """The size of a blob that need not be sent; None if it must be. For a layer that Arvados has, this is the size
        of the uncompressed layer: the blob's own size is not known here."""
        with self._lock:
            document = self._documents.get(digest)
        if document is not None:
            return len(document)
        layer = self._layer(digest)
        return layer.size if layer is not None else None

    def found_manifest(self, reference: str) -> Document | None:
        return self._manifests.get(reference)

    # Uploads

    def begin(self) -> str:
        """Begin the upload of a blob; returns the upload's name."""
        with self._lock:
            taken = len(self._layers) + len(self._documents) + len(self._broken)
            if self._closed or len(self._uploads) >= _UPLOADS_LIMIT or taken >= _BLOBS_LIMIT:
                raise RefusedError(429, "TOOMANYREQUESTS", "too many blobs")
            identifier = secrets.token_hex(16)
            self._uploads[identifier] = BlobUpload(self._sink, self._memory)
            return identifier

    @contextmanager
    def upload(self, identifier: str) -> Iterator[BlobUpload]:
        """The upload, for this thread alone; it is discarded if the block fails."""
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
        """Take in a complete blob; the caller holds its upload by `upload`."""
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

    # The parts of the image, in the form that `registry.manifests` reads

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
        """The layer that a manifest names by its blob's digest, and a configuration by its diff id."""
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
        """The layer in a blob that need not be sent; None if it must be."""
        with self._lock:
            layer = self._layers.get(digest)
        if layer is not None:
            return layer
        diff_id = self._notes.diff_id(digest)
        found = self._sink.has(diff_id) if diff_id is not None else None
        return found or self._sink.has(digest)  # an uncompressed blob's digest is its diff id

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
