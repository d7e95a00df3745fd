"""The links that make a collection a container image."""

import contextlib
import datetime
import json
from typing import Any, NamedTuple

import ciso8601

from .client import Record

HASH_LINK = "docker_image_hash"
NAME_LINK = "docker_image_repo+tag"
ENGINE_ID = "arv:engine_image_id"
"""The property for what the engine calls the image where that is not its id."""
FIELDS = ("created_at", "head_uuid", "link_class", "name", "properties")
"""All that is needed of a link."""
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_TIME = "image_timestamp"
_LONGEST = 1000
"""Characters of a property that is read, and given to other links: anybody may have written anything."""
_NOTHING: Record = {}


class Link(NamedTuple):
    """A link that says the id or a name of a collection. There may be many, so it holds no more than is needed."""

    collection: str
    """The collection's UUID, or whatever else the link points to."""
    name: str
    created: datetime.datetime
    time: Any
    """The image's, as recorded."""
    more: Record
    """The other properties."""

    @classmethod
    def of(cls, record: Record) -> "Link":
        properties = record.get("properties") or _NOTHING
        time = properties.get(_TIME)
        more = _NOTHING
        if len(properties) > (time is not None):
            more = {name: value for name, value in properties.items() if name != _TIME and _is_short(name, value)}
        if time is not None and not _is_short(_TIME, time):
            time = None
        created = parse_time(record.get("created_at")) or EPOCH
        return cls(record["head_uuid"] or "", record["name"] or "", created, time, more)

    @property
    def properties(self) -> Record:
        """All of them that are not too long, as recorded."""
        return self.more if self.time is None else {_TIME: self.time, **self.more}


def _is_short(name: str, value: object) -> bool:
    if isinstance(value, str):
        return len(name) + len(value) <= _LONGEST
    try:
        return len(name) + len(json.dumps(value)) <= _LONGEST
    except RecursionError:
        return False


def text(value: object) -> str | None:
    """A property that should be text; None if it is anything else."""
    return value if isinstance(value, str) else None


def age_key(link: Link) -> tuple[datetime.datetime, str]:
    """Less is older; what is of the same age has at least a fixed order."""
    return link.created, str(link.time)


def parse_time(value: object) -> datetime.datetime | None:
    """A time as ISO 8601 has it, in UTC if it names no zone; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        time: datetime.datetime = ciso8601.parse_datetime(value)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=datetime.timezone.utc)


def to_utc(time: datetime.datetime) -> datetime.datetime:
    """The same time in UTC, where the first and the last hours of all time may have no place."""
    with contextlib.suppress(OverflowError):
        return time.astimezone(datetime.timezone.utc)
    return time


def format_utc(time: datetime.datetime, precision: str = "auto") -> str:
    """The time in ISO 8601, in UTC; `precision` as datetime.isoformat has it."""
    return to_utc(time).isoformat(timespec=precision).replace("+00:00", "Z")
