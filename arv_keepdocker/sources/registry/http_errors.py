"""HTTP failures in words, without URLs: a query string may be as good as a password."""

import http.client
import socket
import ssl
from collections.abc import Iterator

from ...errors import RegistryError, missing_certificates
from .urls import host_of


class UnreachableError(RegistryError):
    """The host does not exist, refuses connections, or does not speak HTTP or TLS."""


class TemporaryError(Exception):
    """A failure after which a retry may succeed."""

    def __init__(self, words: str, wait: float | None = None, hint: str | None = None, lost: bool = False) -> None:
        """`wait` is how many seconds to wait before the retry, if known; `lost` says that the connection was lost."""
        super().__init__(words)
        self.wait = wait
        self.hint = hint
        self.lost = lost


def failures() -> tuple[type[Exception], ...]:
    """The exceptions by which requests and urllib3 report failures of servers, networks and settings; they include
    Python's own, for invalid host names and headers."""
    import requests
    import urllib3

    return (
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
        ValueError,
    )


def explained(error: BaseException, url: str, known: bool) -> TemporaryError | RegistryError:
    """The failure in our words, since the libraries' messages contain whole URLs; `known` says that the server has
    answered before."""
    host = host_of(url)
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            hint = "A registry's own authority goes into /etc/containers/certs.d/HOST/ca.crt; see also SSL_CERT_FILE."
            return RegistryError(
                f"the certificate of {host} is not trusted: {each.verify_message}", missing_certificates() + hint
            )
    kinds = [(type(each).__name__, each) for each in chain]
    via = " (through the proxy that the environment names)" if any(name == "ProxyError" for name, _ in kinds) else ""
    if any(isinstance(each, socket.gaierror) for each in chain):
        return UnreachableError(f"the host {host} was not found{via}")
    if any(isinstance(each, ConnectionRefusedError) for each in chain):
        message = f"{host} refuses connections{via}"
        return TemporaryError(message) if known else UnreachableError(message)
    if any("Timeout" in name or isinstance(each, TimeoutError) for name, each in kinds):
        connecting = any(name == "ConnectTimeout" for name, _ in kinds)
        return TemporaryError(f"{host} does not answer{via}", lost=connecting)
    temporary = ("ConnectionError", "ChunkedEncodingError", "ProtocolError", "IncompleteRead", "RemoteDisconnected")
    if any(isinstance(each, (http.client.HTTPException, OSError)) or name in temporary for name, each in kinds):
        if any(isinstance(each, ssl.SSLError) for each in chain) and not known:
            hint = "If it speaks plain HTTP only, --insecure-registry accepts that."
            return UnreachableError(f"{host} does not speak TLS as it should{via}", hint)
        if isinstance(error, ValueError):
            return RegistryError(f"{host} cannot be asked: the URL or the environment's proxy is not valid")
        return TemporaryError(f"the connection to {host} was lost{via}", lost=True)
    return RegistryError(f"{host} cannot be asked: {type(error).__name__}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes, which Python and the libraries keep in different attributes."""
    seen: list[BaseException] = []
    pending = [error]
    while pending and len(seen) < 20:
        each = pending.pop(0)
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            pending += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    return iter(seen)
