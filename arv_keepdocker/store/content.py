"""What a stored image's collection holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..catalog.client import Record

if TYPE_CHECKING:  # not needed for an image that is there already
    from ..keep.keep_sink import LayerState


@dataclass(frozen=True)
class Content:
    """What an image's collection holds, and how many bytes it took to store it."""

    portable_data_hash: str | None
    """None if not known yet."""
    size: int | None
    """Bytes of the collection's file; None if not known yet."""
    sent: int = 0
    """Bytes that were sent to Keep, or that a dry run would send."""
    reused: int = 0
    """Bytes of the image that Keep had already."""
    fetched: int = 0
    """Bytes that were downloaded from a registry."""
    layers: Sequence["LayerState"] | None = None
    """Base first; None if the image was not read."""

    @classmethod
    def of(cls, record: Record) -> "Content":
        """The content of a collection that was there already."""
        size = int(record["file_size_total"])
        return cls(str(record["portable_data_hash"]), size, reused=size)
