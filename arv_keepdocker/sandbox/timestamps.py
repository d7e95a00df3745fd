"""Times: microseconds since 1970 in the database, ISO 8601 with nine digits on the wire."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone

_ISO = re.compile(
    r"\s*(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?\s*",
    re.IGNORECASE,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def now() -> int:
    return time.time_ns() // 1000


def parse(text: str) -> int:
    """Microseconds since 1970; further digits are cut off. Raises ValueError if the text is not a time."""
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(f'no time information in "{text}"')
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    microsecond = int(((match[7] or "") + "000000")[:6])
    moment = datetime(year, month, day, hour, minute, second, microsecond, tzinfo=timezone.utc)
    return (moment - _EPOCH) // _MICROSECOND - _offset(match[8] or "Z") * 1_000_000


def _offset(zone: str) -> int:
    if zone.upper() in ("Z", "UTC"):
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if zone[0] == "-" else seconds


def render(microseconds: int, nanoseconds: int = 0) -> str:
    """The time as the API writes it, e.g. 2026-11-24T11:05:20.874178000Z."""
    moment = (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")
    return f"{moment[:26]}{nanoseconds:03d}Z"
