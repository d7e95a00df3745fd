"""The user's settings for Arvados, from the environment and settings.conf, checked before they are used."""

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..errors import ArvadosError, quoted

_BAD_IN_TOKEN = (
    (r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", "a line break"),
    (r"\s", "white space"),
    (r"[\x00-\x1f\x7f]", "a control character"),
    (r"^['\"]|['\"]$", "a quotation mark"),
    (r"[^!-~]", "a character that is not ASCII"),
    (r"\\", "a backslash"),  # httplib2 takes it for an escape, and sends something else or nothing
)
_DIRECTORIES = ("CONFIGURATION_DIRECTORY", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS")
"""The variables by which the SDK finds settings.conf (arvados._internal.basedirs)."""
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\[\]:]+)(?::(?P<port>[^:]*))?")
_HOST_HINT = "It is a name or an address, and perhaps a port: ARVADOS_API_HOST=arvados.example.org or HOST:PORT."


def load() -> str | None:
    """Import the SDK, which reads the settings. Without a settings.conf that can be read, the environment has to do.

    Returns what is wrong if settings.conf is something other than a file, such as a pipe, for which the SDK would wait.
    Raises ArvadosError if its content is not what it should be.
    """
    path, status = _file()
    irregular = status is not None and not stat.S_ISREG(status.st_mode)
    try:
        try:
            if irregular:
                raise OSError
            import arvados
        except OSError:  # or the home directory is somebody else's
            with _no_file():
                import arvados.config

                arvados.config.initialize()  # it takes what it could not read for read
    except ValueError as error:  # a line has no =, or is not text
        raise ArvadosError(f"the settings of Arvados' client, settings.conf, could not be read: {error}") from error
    return f"{path} is not a regular file, and was not read" if irregular else None


def _file() -> tuple[str, os.stat_result | None]:
    """The settings.conf that the SDK reads, the first that there is, and what it is; None if that cannot be known."""
    systemd, home, others = (os.environ.get(name, "") for name in _DIRECTORIES)
    if not home.startswith("/"):
        home = os.path.expanduser("~/.config")
    shared = [os.path.join(directory, "arvados") for directory in [home, *(others or "/etc/xdg").split(":")]]
    for directory in [*systemd.split(":"), *shared]:
        path = os.path.join(directory, "settings.conf")
        try:
            if directory.startswith("/"):
                return path, os.stat(path)
        except PermissionError:
            return path, None
        except OSError:
            continue
    return "", None


@contextlib.contextmanager
def _no_file() -> Iterator[None]:
    """Let the SDK find no settings.conf."""
    usual = {name: os.environ.pop(name, None) for name in ("HOME", *_DIRECTORIES)}
    os.environ.update(HOME=os.devnull, XDG_CONFIG_DIRS=os.devnull)
    try:
        yield
    finally:
        del os.environ["HOME"], os.environ["XDG_CONFIG_DIRS"]
        os.environ.update({name: value for name, value in usual.items() if value is not None})


def tokens(api: Any) -> list[str]:
    """The user's tokens, which must never be shown: from the settings, and from the SDK's client if given."""
    import arvados.config

    found = (arvados.config.get("ARVADOS_API_TOKEN"), getattr(api, "api_token", None))
    return [token for token in found if isinstance(token, str)]


def check() -> str:
    """The cluster's host, perhaps with a port. Raises ArvadosError for settings that cannot work."""
    import arvados.config

    load()
    missing = [key for key in ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN") if not arvados.config.get(key)]
    if missing:
        raise ArvadosError(
            f"{' and '.join(missing)} not set{_unread(missing)}",
            f"Set {'it' if len(missing) == 1 else 'them'} in the environment or in ~/.config/arvados/settings.conf; "
            "the Arvados Workbench shows yours under 'Get API token'.",
        )
    host: str = arvados.config.get("ARVADOS_API_HOST")
    check_token(arvados.config.get("ARVADOS_API_TOKEN"))
    _check_host(host)
    for name in ("ARVADOS_KEEP_SERVICES", "ARVADOS_KEEP_PROXY"):
        for url in (arvados.config.get(name) or "").split():
            _check_keep_service(name, url)
    return host


def _unread(missing: Sequence[str]) -> str:
    """Why settings.conf does not set them, to end a message; empty if nothing is known. The SDK does not say."""
    path, status = _file()
    if status is not None and not stat.S_ISREG(status.st_mode):
        return f", and {path} is not a regular file"
    try:
        if path:
            open(path, "rb").close()
    except OSError as error:
        return f", and {path} cannot be read: {error.strerror}"
    import arvados.config

    odd = [key for key in arvados.config.settings() if key not in missing and key.strip().split(" ")[-1] in missing]
    return f"; {path} has a line for it, which must be NAME=VALUE, without spaces or 'export'" if odd else ""


def check_token(token: object) -> None:
    """Raise ArvadosError, which does not show it, for a token that no HTTP header can carry."""
    if not isinstance(token, str):
        return
    for pattern, what in _BAD_IN_TOKEN:
        if re.search(pattern, token):
            raise ArvadosError(
                f"ARVADOS_API_TOKEN has {what} in it, which no token has",
                "Copy the token again, all of it and nothing else; the Workbench shows it under 'Get API token'.",
            )


def _check_host(host: str) -> None:
    problem = _problem_of_host(host)
    if problem is not None:
        shown = f"ARVADOS_API_HOST is {quoted(host)}" if "@" not in host else "ARVADOS_API_HOST"  # a password?
        raise ArvadosError(f"{shown}: {problem}", _HOST_HINT)


def _problem_of_host(host: str) -> str | None:
    if "@" in host:
        return "it has a user name in it"
    if "://" in host:
        return f"it is a URL; leave out {host[: host.index('://') + 3]}"
    if re.search(r"\s", host):
        return "it has white space in it"
    if bad := re.search(r"[/\\?#]", host):
        return f"it has a {bad[0]} in it"
    match = _HOST.fullmatch(host)
    if match is None:
        ipv6 = host.count(":") > 1
        return "an IPv6 address goes into brackets, as in [::1]:8000" if ipv6 else "it is not a host name"
    port = match["port"]
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        return f"{port!r} is not a port number (1 to 65535)"
    return None if _is_name(match["name"]) else "it is not a host name"


def _is_name(name: str) -> bool:
    if name.startswith("["):
        return ":" in name
    try:
        encoded = name.encode("idna").decode()
    except UnicodeError:  # also for a part of it that is empty or too long
        return False
    return re.fullmatch(r"[A-Za-z0-9_.-]+", encoded) is not None and not encoded.startswith(("-", "."))


def _check_keep_service(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port, or no IPv6 address
        good = False
    if not good:
        shown = quoted(url) if "@" not in url else "a word"  # there may be a password in it
        hint = f"{name} is a list of URLs, separated by white space."
        raise ArvadosError(f"{name} has {shown} in it, which is not a URL", hint)
