"""One repository of a registry: its manifests and blobs, as the OCI distribution specification has them."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from ...errors import ImageNotFoundError, RegistryError
from ...images.layers import sha256
from ...images.media_types import INDEX_TYPES, MANIFEST_TYPES
from .auth import Authorization, DeniedError, error_words
from .credentials import Credentials
from .download import Download
from .http_errors import TemporaryError, UnreachableError
from .repository_name import RepositoryName
from .stalls import Stalls
from .transport import Answer, Transport
from .urls import host_of, is_loopback, origin, split

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MANIFEST_LIMIT = 4 << 20
"""Bytes of the longest manifest; the specification does not require registries to accept longer ones."""
_ACCEPT = {"Accept": ", ".join([*MANIFEST_TYPES, *INDEX_TYPES])}
_WORDS_LIMIT = 64 << 10
_PROGRESS = 1 << 20
"""Bytes of progress after which retries are counted from the first again."""
_PROBE_SECONDS = 3.0
"""Seconds to wait for a connection while it is unknown whether the server speaks TLS."""


@dataclass(frozen=True)
class Document:
    """A manifest or an index."""

    body: bytes
    """The bytes as received, from which the digest is computed."""
    digest: str
    media_type: str
    """The media type according to the registry; may be empty."""


class RegistryClient:
    """Reads from one repository. Its methods may be called by several threads.

    They raise ImageNotFoundError if the registry says that there is no such image or that the user may not see it, and
    RegistryError for all other failures.
    """

    def __init__(
        self,
        name: RepositoryName,
        transport: Transport,
        find_credentials: Callable[[], Credentials | None] = lambda: None,
    ) -> None:
        """`find_credentials` is called when the registry first wants credentials."""
        self.name = name
        self._transport = transport
        self._authorization = Authorization(transport, f"repository:{name.path}:pull", find_credentials)
        may_be_plain = transport.insecure or is_loopback(split(f"//{name.host}").hostname or "")
        self._base = None if may_be_plain else f"https://{name.host}"
        self._probing = threading.Lock()

    def head(self, reference: str) -> tuple[str, str] | None:
        """The digest and media type of the manifest that a tag or digest names; None if a HEAD request does not tell.

        Some registries do not support HEAD. Docker Hub's limit does not count HEAD requests for manifests.
        """
        try:
            answer = self._transport.with_retries(lambda: self._send("HEAD", f"manifests/{reference}", _ACCEPT))
        except DeniedError:
            return None  # only the answer to a GET has a message
        with contextlib.closing(answer):
            digest = answer.header("Docker-Content-Digest")
            known = answer.status == 200 and DIGEST.fullmatch(digest)
            return (digest, _media_type(answer)) if known else None

    def manifest(self, reference: str) -> Document:
        """The manifest or index that a tag or digest names, verified against its digest."""

        def fetch() -> Document:
            with contextlib.closing(self._send("GET", f"manifests/{reference}", _ACCEPT)) as answer:
                if answer.status in (401, 403, 404):
                    raise DeniedError(_words(answer))
                if answer.status != 200:
                    raise self._failed(f"manifest {reference}", answer)
                body = answer.read(MANIFEST_LIMIT)
                return Document(body, self._verified(reference, body, answer), _media_type(answer))

        with self._explained(reference):
            return self._transport.with_retries(fetch)

    def document(self, digest: str, size: int) -> bytes:
        """A small blob, read into memory and verified against its digest."""
        body = b"".join(self.blob(digest, size))
        if sha256(body) != digest:
            raise RegistryError(f"{self.name.host} sent something other than blob {digest}")
        return body

    def blob(self, digest: str, size: int) -> Iterator[bytes]:
        """The bytes of a blob, exactly `size` of them; after a lost connection, the download continues where it broke.

        The caller must verify the digest.
        """
        download = Download(digest, size)
        attempt = 0
        while not download.whole:
            attempt += 1
            before = download.done
            try:
                yield from self._rest(download)
            except DeniedError as error:
                raise RegistryError(f"{self.name.host} refuses blob {digest}: {error}") from error
            except TemporaryError as error:
                if download.done - before >= _PROGRESS:
                    attempt = 1
                self._transport.wait(error, attempt)

    def watched(self) -> Stalls:
        """A context in which stalled downloads are reported."""
        return self._transport.stalls

    def stop(self) -> None:
        """Make all threads give up soon."""
        self._transport.stop()

    def close(self) -> None:
        """Do nothing: connections end with the process."""

    def _rest(self, download: "Download") -> Iterator[bytes]:
        """The bytes of a blob that one request delivers."""
        headers = download.headers
        with contextlib.closing(self._send("GET", f"blobs/{download.digest}", headers)) as answer:
            if answer.status == 416 and headers:
                download.by_range = False
                raise TemporaryError(f"{host_of(answer.url)} cannot send the rest of blob {download.digest}", wait=0.0)
            if answer.status not in (200, 206):
                raise self._failed(f"blob {download.digest}", answer)
            pieces = download.take(answer)
            while True:
                with self._transport.stalls.reading(host_of(answer.url)):
                    data = next(pieces, None)
                if data is None:
                    return
                if self._transport.stopped:
                    raise RegistryError("the download was given up")
                yield data

    def _send(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        """Send one request, authenticated if the registry asks for it. Raises DeniedError if it is refused anyway."""
        path = f"/v2/{self.name.path}/{path}"
        answer = self._probed(method, path, headers)
        sent = self._authorization.header() if answer is None else None
        if answer is None:
            answer = self._transport.send(method, f"{self._base}{path}", headers, sent)
        if not _asks_who(answer):
            return answer
        words = _words(answer)
        try:
            secret = self._authorization.answer(answer.header("WWW-Authenticate"), sent)
        except DeniedError as error:
            raise DeniedError(str(error) or words) from error
        answer = self._transport.send(method, f"{self._base}{path}", headers, secret)
        if _asks_who(answer):
            raise DeniedError(_words(answer))
        return answer

    def _probed(self, method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        """Find out, without sending credentials, whether a registry that may speak plain HTTP speaks TLS.

        Returns the answer if it answers this request; None if the scheme is known already.
        """
        with self._probing:
            if self._base is not None:
                return None
            plain, secure = f"http://{self.name.host}", f"https://{self.name.host}"
            # Plain HTTP first: some plain HTTP servers take a TLS handshake for a line, and wait for the rest of it.
            answer, problem = self._tried(method, f"{plain}{path}", headers)
            moved = answer is not None and origin(answer.url) == origin(secure)
            if answer is not None and answer.status != 400 and not moved:  # TLS servers answer plain HTTP with 400
                self._base, self._authorization.plain = plain, True
                return answer
            if answer is not None:
                answer.close()
            answer, _ = self._tried(method, f"{secure}{path}", headers)
            if answer is None and problem is not None:
                raise problem
            self._base = secure if answer is not None else plain
            self._authorization.plain = answer is None
            return answer

    def _tried(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[Answer | None, Exception | None]:
        """The answer, or the reason why there is no connection."""
        try:
            return self._transport.send(method, url, headers, connect=_PROBE_SECONDS), None
        except UnreachableError as error:
            return None, error
        except TemporaryError as error:
            if not error.lost:
                raise
            return None, error

    def _verified(self, reference: str, body: bytes, answer: Answer) -> str:
        found = sha256(body)
        for digest in (reference, answer.header("Docker-Content-Digest")):
            if DIGEST.fullmatch(digest) and digest != found:
                raise RegistryError(f"{self.name.host} sent something other than manifest {digest}")
        return found

    def _failed(self, what: str, answer: Answer) -> RegistryError:
        words = _words(answer)
        answered = f"answered {answer.status}" + (f" ({words})" if words else "")
        return RegistryError(f"{host_of(answer.url)} does not send {what} of {self.name}: it {answered}")

    @contextlib.contextmanager
    def _explained(self, reference: str) -> Iterator[None]:
        try:
            yield
        except DeniedError as error:
            self._raise_absent(reference, str(error))

    def _raise_absent(self, reference: str, words: str) -> NoReturn:
        image = f"{self.name.path}{'@' if ':' in reference else ':'}{reference}"
        host = "Docker Hub" if self.name.is_hub else self.name.host
        credentials = self._authorization.credentials
        if credentials is not None:
            hint = f"It was asked with the credentials from {credentials.origin}."
        else:
            where = "" if self.name.is_hub else f" {self.name.host}"
            hint = f"If it is private, log in: docker login{where}, or podman login{where or ' docker.io'}"
        said = f": {words}" if words else ""
        raise ImageNotFoundError(f"{host} has no image {image}, or you may not see it{said}", hint)


def _asks_who(answer: Answer) -> bool:
    """Whether the registry itself asks for authentication; servers that it redirects to are not given any."""
    return answer.status == 401 and answer.ours


def _words(answer: Answer) -> str:
    with contextlib.closing(answer):
        return error_words(answer.read(_WORDS_LIMIT))


def _media_type(answer: Answer) -> str:
    return answer.header("Content-Type").partition(";")[0].strip().lower()
