"""What a stored image is as a collection."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..catalog.client import Record

if TYPE_CHECKING:  # not needed for an image that is there already
    from ..keep.keep_sink import LayerState


@dataclass(frozen=True)
class Content:
    """What a collection with an image holds, and what it took to get that there."""

    portable_data_hash: str | None
    """None if it is not known yet."""
    size: int | None
    """Bytes of the collection's file; None if that is not known yet."""
    sent: int = 0
    """Bytes that were sent to Keep; those that a dry run would have sent."""
    reused: int = 0
    """Bytes of the image that Keep had already."""
    fetched: int = 0
    """Bytes that came from a registry."""
    layers: Sequence["LayerState"] | None = None
    """Base first; None if the image was not read."""

    @classmethod
    def of(cls, record: Record) -> "Content":
        """That of a collection of which nothing was sent."""
        size = int(record["file_size_total"])
        return cls(str(record["portable_data_hash"]), size, reused=size)
