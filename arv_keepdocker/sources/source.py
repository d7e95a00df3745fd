"""What an image can come from."""

from typing import Protocol

from ..images.image import Image, Selection
from ..images.layers import LayerSink
from .read_progress import ReadProgress


class Source(Protocol):
    """Delivers one image."""

    what: str
    """For messages."""
    image_id: str | None
    """By which the user may know it, as far as that is known before it is delivered."""
    layers: int | None
    """How many it has, as far as that is known before it is delivered."""
    activity: str
    """What happens while the image is delivered, for a line that goes on with its name: `docker is saving`."""
    read_progress: ReadProgress
    """How much of it has been read, and how much there is; that may be known only while it is being delivered."""
    repeatable: bool
    """Whether it can be delivered again."""
    remote: bool
    """Whether it takes longer to get a layer from there than to read it back from Keep."""

    @property
    def fetched(self) -> int | None:
        """Bytes of layers that have come from a registry; None if it is none."""

    def deliver(self, sink: LayerSink, wanted: Selection) -> Image:
        """Read the image, check all of it, and feed its layers to the sink.

        Raises ArchiveError if it is not whole or there is no such image, what else of KeepdockerError the source has,
        and what the sink raises.
        """
