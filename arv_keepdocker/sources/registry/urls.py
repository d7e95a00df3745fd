"""URLs, of which a message may have no more than the host."""

import ipaddress
from urllib.parse import SplitResult, urlsplit


def split(url: str) -> SplitResult:
    """The parts of a URL that may be any text; those of an empty one where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return urlsplit("")
    return parts


def origin(url: str) -> str:
    """Scheme, host and port, the port only where it is not the scheme's own."""
    parts = split(url)
    port = parts.port
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, usual) else "")


def host_of(url: str) -> str:
    """What of a URL a message may have: its query string may be as good as a password."""
    return origin(url).rpartition("/")[2] or "nowhere"


def is_loopback(hostname: str) -> bool:
    """Whether a host, without its port, is this machine: only there plain HTTP is safe."""
    try:
        return ipaddress.ip_address(hostname.strip("[]")).is_loopback
    except ValueError:
        return hostname == "localhost"
