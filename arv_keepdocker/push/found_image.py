"""An image that was found, before any of its layers is read: what every kind of source gives the story."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from ..catalog.entry import CatalogEntry
from ..catalog.located import Located
from ..catalog.plan import Plan
from ..catalog.stored_images import StoredImage
from ..errors import KeepdockerError
from ..images.image import Selection
from ..images.platform import Platform
from ..sources.engine_image import EngineImage

if TYPE_CHECKING:
    from ..keep.known_layers import StoredManifest
    from ..sources.source import Source


class Lookup(Enum):
    """How Arvados is asked for an image before it is read."""

    BY_ID = 1
    """By `entry.image_id`, the id under which Arvados has it, or would have it."""
    BY_DIGEST = 2
    """By the digest of a manifest or an index, which links may name."""
    AFTER_READING = 3
    """Not at all: only reading tells what it could be asked for."""


@dataclass(frozen=True)
class FoundImage:
    """What is known of an image, which decides whether it needs to be read."""

    entry: CatalogEntry
    """How it will be recorded, as far as that is known; its `image_id` is empty if only reading the image tells it."""
    source: Callable[[], "Source"] | None
    """Opens what it can be read from; None if only Arvados has it."""
    wanted: Selection = field(default_factory=Selection)
    """What is read of the source."""
    lookup: Lookup = Lookup.AFTER_READING
    single_image: bool = True
    """Whether its digest belongs to the image of one platform, not to an index that may name several."""
    also_recorded_as: Sequence[CatalogEntry] = ()
    """Other entries under which Arvados may have it."""
    stored: StoredImage | None = None
    """One that Arvados is known to have, though perhaps without a link for its id."""
    unavailable: KeepdockerError | None = None
    """Why it cannot be read from the source, so that only Arvados may have it."""
    substitute_warning: str | None = None
    """What to tell the user if Arvados does have it then."""
    takes_names: bool = False
    """Whether it gets the names that its source has for it if the user gave none."""
    created: str | None = None
    """When it was made, if that is known."""
    platform: Platform | None = None
    """What it runs on, if that is known."""
    layers: Sequence[tuple[str, int]] | None = None
    """The diff ids of its layers and the bytes that they take to read, if that is known."""
    in_engine: EngineImage | None = None
    """For an image that the engine saves, which may save others with it."""
    records_digests: bool = False
    """Whether other digests by which the source knows it get links, too, since an engine may know it by them."""
    in_place: Callable[[], Plan] | None = None
    """For what Arvados has as it is wanted: what is missing to it, so that it need not be read."""
    in_arvados: Located | None = None
    """Where it comes from, if that is Arvados: it is stored again unless Arvados has it in just the same archive."""
    manifests: Sequence["StoredManifest"] = ()
    """Of canonical archives in Arvados that have layers of it."""
    describe: Callable[[], "FoundImage"] | None = None
    """Finds out more, and may need more requests; called only if Arvados does not know the
    image by its digest."""

    @property
    def digest(self) -> str | None:
        """By which its source knows it; None if only reading the image tells."""
        return self.entry.engine_id or self.entry.image_id or None

    @property
    def digests(self) -> Sequence[str]:
        """All by which it is known already."""
        return list(dict.fromkeys(filter(None, (self.entry.engine_id, self.entry.image_id))))
