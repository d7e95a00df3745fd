"""Parts of URLs; messages show no more than the host."""

import ipaddress
from urllib.parse import SplitResult, urlsplit


def split(url: str) -> SplitResult:
    """The parts of a URL; those of an empty URL if the text is not one."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return urlsplit("")
    return parts


def origin(url: str) -> str:
    """Scheme, host and port; the port only if it is not the scheme's default."""
    parts = split(url)
    port = parts.port
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, usual) else "")


def host_of(url: str) -> str:
    """The host of a URL, for messages: the query string may be as good as a password."""
    return origin(url).rpartition("/")[2] or "nowhere"


def is_loopback(hostname: str) -> bool:
    """Whether a host (without a port) is this machine; only there is plain HTTP safe."""
    try:
        return ipaddress.ip_address(hostname.strip("[]")).is_loopback
    except ValueError:
        return hostname == "localhost"
