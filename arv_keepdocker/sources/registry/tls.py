"""TLS trust: the system's authorities, and the certificates in the container engines' certs.d directories."""

import os
import ssl
from collections.abc import Iterator, Sequence

from ...errors import RegistryError

CERTIFICATES = ("/etc/docker/certs.d", "/etc/containers/certs.d", "~/.config/containers/certs.d")
"""See docker's "Verify repository client with certificates", and containers-certs.d(5)."""
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Environment variables with further authorities; OpenSSL itself reads SSL_CERT_FILE and SSL_CERT_DIR."""


def context(authority: str, directories: Sequence[str] = CERTIFICATES, verify: bool = True) -> ssl.SSLContext:
    """The TLS context for a host and port: the trusted authorities, and the client certificate if there is one.

    Raises RegistryError if a certificate cannot be read.
    """
    made = ssl.create_default_context()
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if not _system_has_authorities():
        import certifi  # comes with requests

        _load(made, certifi.where())
    for variable in _BUNDLES:
        if path := os.environ.get(variable):
            _load(made, path, f" ({variable})")
    for directory in _directories(authority, directories):
        _load_directory(made, directory)
    return made


def _system_has_authorities() -> bool:
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or (paths.capath and os.path.isdir(paths.capath) and os.listdir(paths.capath)))


def _directories(authority: str, parents: Sequence[str]) -> Iterator[str]:
    """The directories for the host and its port or, without any, those for the host."""
    host = authority.rpartition(":")[0] if not authority.endswith("]") else authority
    for parent in parents:
        for name in (authority, f"{authority}:443", host):
            directory = os.path.join(os.path.expanduser(parent), name) if name else ""
            if os.path.isdir(directory):
                yield directory
                break


def _load_directory(made: ssl.SSLContext, directory: str) -> None:
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise RegistryError(f"the certificates in {directory} cannot be read: {error.strerror}") from error
    for name in names:
        path = os.path.join(directory, name)
        stem, extension = os.path.splitext(path)
        if extension == ".crt":
            _load(made, path)
        elif extension == ".cert":
            _show(made, path, f"{stem}.key")


def _load(made: ssl.SSLContext, path: str, given_by: str = "") -> None:
    try:
        if os.path.isdir(path):
            made.load_verify_locations(capath=path)
        else:
            made.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise RegistryError(f"the certificates in {path}{given_by} cannot be read: {_words(error)}") from error


def _show(made: ssl.SSLContext, certificate: str, key: str) -> None:
    try:
        # If it were given no password, OpenSSL would ask for that of an encrypted key on the terminal.
        made.load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        what = f"the client certificate {certificate} and its key {key}"
        raise RegistryError(f"{what} cannot be read: {_words(error)}") from error


def _words(error: OSError) -> str:
    return "they are not in PEM form" if isinstance(error, ssl.SSLError) else error.strerror or "unknown error"
