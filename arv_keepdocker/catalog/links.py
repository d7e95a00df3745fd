"""The links that make a collection an image, and their properties."""

import contextlib
import datetime
import json
from typing import Any, NamedTuple

import ciso8601

from .client import Record

HASH_LINK = "docker_image_hash"
NAME_LINK = "docker_image_repo+tag"
ENGINE_ID = "arv:engine_image_id"
"""The property with a digest by which an engine or a registry knows the image."""
IMAGE_TIMESTAMP = "image_timestamp"
FIELDS = ("created_at", "head_uuid", "link_class", "name", "properties")
"""The fields of a link that are read."""
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_LONGEST = 1000
"""Characters of a property that is read or copied at most: anybody may have written anything."""
_NOTHING: Record = {}


class Link(NamedTuple):
    """A link that gives a collection an image id or a name. There may be many, so it holds only what is needed."""

    collection: str
    """The collection's UUID, or whatever else the link points to."""
    name: str
    created: datetime.datetime
    time: Any
    """The image's `image_timestamp`, as recorded."""
    more: Record
    """Its other properties."""

    @classmethod
    def of(cls, record: Record) -> "Link":
        properties = record.get("properties") or _NOTHING
        time = properties.get(IMAGE_TIMESTAMP)
        more = _NOTHING
        if len(properties) > (time is not None):
            more = {
                name: value for name, value in properties.items() if name != IMAGE_TIMESTAMP and _is_short(name, value)
            }
        if time is not None and not _is_short(IMAGE_TIMESTAMP, time):
            time = None
        created = parse_time(record.get("created_at")) or EPOCH
        return cls(record["head_uuid"] or "", record["name"] or "", created, time, more)

    @property
    def properties(self) -> Record:
        """Its properties as recorded, without those that are too long."""
        return self.more if self.time is None else {IMAGE_TIMESTAMP: self.time, **self.more}


def _is_short(name: str, value: object) -> bool:
    if isinstance(value, str):
        return len(name) + len(value) <= _LONGEST
    try:
        return len(name) + len(json.dumps(value)) <= _LONGEST
    except RecursionError:
        return False


def text(value: object) -> str | None:
    """The value if it is text; None if it is anything else."""
    return value if isinstance(value, str) else None


def age_key(link: Link) -> tuple[datetime.datetime, str]:
    """A sort key: the oldest link first, and links of the same age in a fixed order."""
    return link.created, str(link.time)


def parse_time(value: object) -> datetime.datetime | None:
    """The ISO 8601 time, taken for UTC if it has no zone; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        time: datetime.datetime = ciso8601.parse_datetime(value)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=datetime.timezone.utc)


def to_utc(time: datetime.datetime) -> datetime.datetime:
    """The same time in UTC; unchanged if datetime cannot represent that (years 1 and 9999)."""
    with contextlib.suppress(OverflowError):
        return time.astimezone(datetime.timezone.utc)
    return time


def format_utc(time: datetime.datetime, precision: str = "auto") -> str:
    """The time in ISO 8601, in UTC; `precision` is isoformat's `timespec`."""
    return to_utc(time).isoformat(timespec=precision).replace("+00:00", "Z")
