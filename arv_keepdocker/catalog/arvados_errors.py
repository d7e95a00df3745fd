"""Errors of the API server and of Keep, in our words, and whether a retry may help."""

import contextlib
import http.client
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import ArvadosError, missing_certificates

_PASSING = {408, 409, 423, 429}
"""HTTP statuses below 500 after which a retry may succeed."""
_TLS_BREAKS_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_REQUEST_ID = re.compile(r"\[req-\w+\] ")
_RAILS = re.compile(r"(?:https?:)?//[\w.-]*\.internal\b\S*: ")
"""The internal address that the controller puts before Rails' messages."""
_QUERY = re.compile(r"((?:https?:)?//[^\s?]+)\?\S*?(?=:?(?:\s|$))")
_SCOPES = re.compile(r"(403 Forbidden: )?Forbidden( \(req-\w+\))?")
"""The answer to a request that the token's scopes do not allow."""
_TRUST_HINT = (
    "If an authority of your own issued the cluster's certificate, name the file with that authority's certificate in "
    "SSL_CERT_FILE, or put the certificate into /etc/arvados/ca-certificates.crt. "
    "ARVADOS_API_HOST_INSECURE=1 trusts any server, which then gets your token."
)
_HOST_HINT = "Is ARVADOS_API_HOST right?"
_TOKEN_HINT = "Is ARVADOS_API_TOKEN right, and not expired?"
_CURL = re.compile(r"\((\d+), (['\"])(.*)\2\)", re.DOTALL)
"""How pycurl formats an error: libcurl's number (CURLcode) and message."""
_CURL_NOT_FOUND = {5, 6}
_CURL_UNTRUSTED = {51, 60, 83, 90, 91}
_CURL_HOPELESS = {1, 3, 4, 43, 53, 54, 58, 59, 66, 77, 80, 82, *_CURL_UNTRUSTED}
"""Bad URLs and certificates, and options that this libcurl does not have: a retry cannot help."""
_CURL_TIMEOUT = 28


class UnreadableError(ArvadosError):
    """The answer is incomplete, or not one of Arvados."""


class ArvadosRefusedError(ArvadosError):
    """The API server answered with an error status."""

    def __init__(self, what: str, reason: str, http_status: int) -> None:
        hint = _TOKEN_HINT if http_status == 401 else None
        if http_status == 403 and _SCOPES.fullmatch(reason):
            hint = "The token may be limited to some requests (its scopes)."
        if str(http_status) not in reason:
            reason = f"{http_status} {reason}"
        super().__init__(f"{what}: {reason}", hint, f"Arvados answered {http_status}" if passes(http_status) else None)
        self.http_status = http_status


def passes(http_status: int) -> bool:
    """Whether a retry may succeed after this HTTP status."""
    return http_status in _PASSING or http_status >= 500


def worded(text: str) -> str:
    """Arvados' message, without internal addresses and query strings."""
    return _QUERY.sub(r"\1", _RAILS.sub("", text)).strip()


@contextlib.contextmanager
def explained(what: str, first: bool = False) -> Iterator[None]:
    """Turn what the SDK raises in the block into an ArvadosError whose message begins with `what`.

    `first` says that this is the first request: a host that cannot be found then does not exist. Later it may be the
    network, and a retry may help.
    """
    import apiclient.errors
    import httplib2

    try:
        yield
    except apiclient.errors.HttpError as error:
        raise ArvadosRefusedError(what, worded(error._get_reason()), error.resp.status) from error
    except http.client.IncompleteRead as error:
        raise UnreadableError(f"{what}: {error}", retry_reason="Arvados' answer broke off") from error
    except ssl.SSLError as error:
        raise _tls_error(what, error) from error
    except httplib2.ServerNotFoundError as error:
        retry_reason = None if first else "Arvados' host was not found"
        raise ArvadosError(f"{what}: its name does not resolve to an address", _HOST_HINT, retry_reason) from error
    except (apiclient.errors.InvalidJsonError, apiclient.errors.UnknownApiNameOrVersion) as error:
        raise ArvadosError(f"{what}: what answers there is not Arvados", _HOST_HINT) from error
    except (httplib2.HttpLib2Error, http.client.HTTPException, OSError) as error:
        reason = _reason(error)
        raise ArvadosError(
            f"{what}: {reason}", _HOST_HINT if first else None, f"no answer from Arvados ({reason})"
        ) from error
    except (apiclient.errors.Error, OverflowError) as error:
        raise ArvadosError(f"{what}: {error or type(error).__name__}") from error
    except (ValueError, RecursionError) as error:  # after OSError, for what is wrong with a certificate is both
        retry_reason = "Arvados' answer could not be read"
        raise UnreadableError(f"{what}: {retry_reason}: {error}", retry_reason=retry_reason) from error


def _tls_error(what: str, error: ssl.SSLError) -> ArvadosError:
    text = _REQUEST_ID.sub("", str(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        # The SDK has put it into words of its own, and makes a new exception that has nothing but them.
        match = re.search(r"certificate verify failed: (.+?) \(_ssl", text)
        reason = match[1] if match is not None else text.partition("\n")[0]
        return ArvadosError(f"{what}: the server's certificate is not trusted: {reason}", _trust_hint())
    broken_off = isinstance(error, _TLS_BREAKS_OFF) or "EOF" in text or "timed out" in text
    if broken_off:
        return ArvadosError(f"{what}: {text}", retry_reason="the connection to Arvados broke off")
    if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text:
        return ArvadosError(f"{what}: what answers there does not speak HTTPS", _HOST_HINT)
    return ArvadosError(f"{what}: {text}", "SSL_CERT_FILE, if it is set, is a file with certificates.")


def _reason(error: Exception) -> str:
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return _REQUEST_ID.sub("", words)


@dataclass(frozen=True)
class KeepProblem:
    """Why a request to a Keep service failed."""

    status: int
    """The HTTP status; 0 if there was no answer."""
    curl: int
    """libcurl's error number (CURLcode), if there was no answer."""
    words: str

    @classmethod
    def of(cls, error: object) -> "KeepProblem":
        """Made from the SDK's HttpError, or whatever else it reports for a service."""
        status = getattr(error, "status_code", 0)
        match = _CURL.fullmatch(str(getattr(error, "reason", "")))
        if match is not None:
            return cls(status, int(match[1]), match[3])
        return cls(status, 0, re.sub(r"^HTTP/[\d.]+ ", "", str(getattr(error, "reason", error))))

    @property
    def timed_out(self) -> bool:
        return self.curl == _CURL_TIMEOUT

    def passes(self, found: bool) -> bool:
        """Whether a retry may succeed; `found` says that Keep has answered before."""
        if self.status:
            return passes(self.status)
        return self.curl not in _CURL_HOPELESS and (found or self.curl not in _CURL_NOT_FOUND)

    @property
    def summary(self) -> str:
        return f"Keep answered {self.status}" if self.status else f"no answer from Keep ({self.words})"

    @property
    def hint(self) -> str | None:
        if self.status == 401:
            return _TOKEN_HINT
        return _trust_hint() if self.curl in _CURL_UNTRUSTED else None


def _trust_hint() -> str:
    return missing_certificates() + _TRUST_HINT


def keep_error(message: str, problems: Iterable[KeepProblem], found: bool) -> ArvadosError:
    """The error for what Keep services answered, with the first hint, and the first reason to retry.

    `found` says that Keep has answered before.
    """
    known = list(problems)
    hints = (problem.hint for problem in known if problem.hint is not None)
    reasons = (problem.summary for problem in known if problem.passes(found))
    return ArvadosError(message, next(hints, None), next(reasons, None))


def services_answered(problems: Mapping[str, KeepProblem]) -> str:
    """What each service answered; empty if none was asked."""
    return "; ".join(f"{service.rstrip('/')}: {problem.words}" for service, problem in problems.items())
