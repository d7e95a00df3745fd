"""HTTP for registries: trust, proxies, redirects without credentials, and retries (Retry-After)."""

import contextlib
import email.utils
import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin

from ...errors import RegistryError
from ...terminal.display import Display
from . import tls
from .http_errors import TemporaryError, explained, failures
from .stalls import Stalls
from .urls import host_of, is_loopback, origin, split

if TYPE_CHECKING:  # imported late: it takes a tenth of a second, which only this source should cost
    from requests import Response, Session

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 60.0
"""Seconds for which a server may be silent in the middle of an answer."""
_REDIRECTS = 5
_LONGEST_WAIT = 120.0
"""The longest wait in seconds; if a server asks for more, the request fails."""
_LONGEST_STEP = 30.0
_REDIRECT = (301, 302, 303, 307, 308)
_TEMPORARY = (408, 429)
_CHUNK = 1 << 18

T = TypeVar("T")
Form = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """A response whose body is still to be read."""

    response: "Response"
    url: str
    ours: bool
    """Whether it comes from the server that was asked, not from one that it redirected to."""

    @property
    def status(self) -> int:
        return self.response.status_code

    def header(self, name: str) -> str:
        """The header's value; empty if there is none."""
        return str(self.response.headers.get(name, ""))

    @property
    def length(self) -> int | None:
        """The announced length of the body in bytes; None if there is none."""
        text = self.header("Content-Length")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, with any content encoding left in place. Raises TemporaryError or RegistryError."""
        try:
            while data := self.response.raw.read(_CHUNK, decode_content=False):
                yield data
        except failures() as error:
            raise explained(error, self.url, known=True) from error

    def read(self, limit: int) -> bytes:
        """The whole body. Raises RegistryError if it is longer than `limit` bytes, TemporaryError if it ends early."""
        body = b""
        if self.response.request.method == "HEAD":
            return body
        for data in self.chunks():
            body += data
            if len(body) > limit:
                raise RegistryError(f"{host_of(self.url)} sent a document of more than {limit >> 10} KiB")
        if self.length is not None and len(body) < self.length:
            raise TemporaryError(f"{host_of(self.url)} sent {len(body)} of {self.length} bytes")
        return body

    def close(self) -> None:
        self.response.close()


class Transport:
    """Sends requests to several servers, for several threads."""

    def __init__(
        self,
        display: Display,
        retries: int,
        insecure: bool = False,
        certificates: Sequence[str] = tls.CERTIFICATES,
        silence: float = _SILENCE_SECONDS,
        first_wait: float = 1.0,
    ) -> None:
        """`retries` is how often a request is tried again. With `insecure` no certificate is verified, and plain HTTP
        will do. `certificates` are directories such as /etc/docker/certs.d. `silence` is how many seconds a server may
        say nothing, `first_wait` how many to wait before the second try; each wait is twice as long as the last one."""
        self.display = display
        self.retries = retries
        self.insecure = insecure
        self._certificates = certificates
        self._silence = silence
        self._first_wait = first_wait
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._answered: set[str] = set()
        self._stopped = threading.Event()
        self.stalls = Stalls(display)

    def with_retries(self, action: Callable[[], T]) -> T:
        """Call the function, and retry it after a TemporaryError. Raises RegistryError after the last try."""
        for attempt in range(1, self.retries + 2):
            try:
                return action()
            except TemporaryError as error:
                self.wait(error, attempt)
        raise AssertionError("the last try raises")

    def wait(self, error: TemporaryError, attempt: int) -> None:
        """Report the failure and wait before try `attempt` + 1. Raises RegistryError if there is no further try."""
        wait = min(self._first_wait * 2.0 ** (attempt - 1), _LONGEST_STEP) if error.wait is None else error.wait
        if wait > _LONGEST_WAIT:
            raise RegistryError(f"{error}, and asks to wait for {wait:.0f} s", error.hint) from error
        if attempt > self.retries or self._stopped.is_set():
            tries = f" (tried {attempt} times)" if attempt > 1 else ""
            raise RegistryError(f"{error}{tries}", error.hint) from error
        self.display.note(f"{error}; trying again in {wait:.0f} s ({attempt} of {self.retries})")
        self._stopped.wait(wait)

    def stop(self) -> None:
        """Make all threads give up soon, whatever they are doing."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        secret: str | None = None,
        form: Form | None = None,
        connect: float = _CONNECT_SECONDS,
    ) -> Answer:
        """Send one request, and follow its redirects. The caller closes the answer.

        `secret` is the Authorization header, which goes to the server of `url` only; so does the `form` of a POST.
        Raises TemporaryError, also for a status that stands for one, or RegistryError.
        """
        ours = True
        server, plain = origin(url), split(url).scheme == "http"
        for _ in range(_REDIRECTS + 1):
            authorization = {"Authorization": secret} if secret is not None and ours else {}
            answer = Answer(self._sent(method, url, {**headers, **authorization}, form, connect), url, ours)
            if answer.status not in _REDIRECT or not answer.header("Location"):
                self._check(answer)
                return answer
            answer.close()
            target = _joined(url, answer.header("Location"))
            ours = ours and origin(target) == server  # after a redirect elsewhere, credentials are not sent again
            self._check_redirect(url, target, plain, form is not None and not ours)
            url = target
        raise RegistryError(f"{host_of(url)} redirects more than {_REDIRECTS} times")

    def _check_redirect(self, url: str, target: str, plain: bool, has_form: bool) -> None:
        parts = split(target)
        allowed = parts.scheme == "https" or (
            parts.scheme == "http" and (self.insecure or (plain and is_loopback(parts.hostname or "")))
        )
        if has_form or not allowed or not parts.hostname:
            raise RegistryError(f"{host_of(url)} redirects to {host_of(target)}, which is not safe to follow")

    def _check(self, answer: Answer) -> None:
        status = answer.status
        if status not in _TEMPORARY and (status < 500 or status == http.client.NOT_IMPLEMENTED):
            return
        with contextlib.closing(answer):
            remaining = _remaining(answer) if status == 429 else ""
            hint = "Log in for a higher limit: docker login, or podman login." if status == 429 else None
            wait = _seconds(answer.header("Retry-After"))
            raise TemporaryError(f"{host_of(answer.url)} answered {_status(status)}{remaining}", wait, hint)

    def _sent(self, method: str, url: str, headers: Mapping[str, str], form: Form | None, connect: float) -> "Response":
        from requests.utils import get_environ_proxies

        if self._stopped.is_set():
            raise RegistryError("the download was given up")
        server = origin(url)
        try:
            with self.display.waiting(host_of(url)):
                response = self._session(server).request(
                    method,
                    url,
                    headers={"Accept-Encoding": "identity", "User-Agent": "arv-keepdocker", **headers},
                    data=form,
                    proxies=get_environ_proxies(url),
                    timeout=(connect, self._silence),
                    allow_redirects=False,
                    stream=True,
                )
        except failures() as error:
            raise explained(error, url, server in self._answered) from error
        self._answered.add(server)
        return response

    def _session(self, server: str) -> "Session":
        """The session for a server; each may have certificates of its own."""
        with self._lock:
            if server not in self._sessions:
                from .session import session

                made = None
                if server.startswith("https:"):
                    made = tls.context(server.removeprefix("https://"), self._certificates, not self.insecure)
                self._sessions[server] = session(made)
            return self._sessions[server]


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _seconds(retry_after: str) -> float | None:
    """The seconds to wait that a Retry-After header asks for, as a number or by a date; None if it is invalid."""
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after[:9])
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    return None


def _remaining(answer: Answer) -> str:
    """Docker Hub's remaining downloads in words, from a header such as `0;w=21600`: a number in so many seconds."""
    parts: list[str] = []
    for header, word in (("RateLimit-Limit", "of"), ("RateLimit-Remaining", "")):
        count = answer.header(header).partition(";")[0].strip()
        if count.isascii() and count.isdecimal():
            parts.insert(0, f"{word} {count[:12]}".strip())
    return f", {' '.join(parts)} downloads left" if len(parts) == 2 else ""


def _status(status: int) -> str:
    words = http.client.responses.get(status)
    return f"{status} ({words})" if words else str(status)
