"""An image that was found in its source, before any of its layers is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from ..catalog.catalog import Catalog
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
    """How to look the image up in Arvados before it is read."""

    BY_ID = 1
    """By `entry.image_id`, the id that Arvados records."""
    BY_DIGEST = 2
    """By the digest of its manifest or index, which a link's properties may name."""
    AFTER_READING = 3
    """Not before it is read: only then is its id known."""


@dataclass(frozen=True)
class FoundImage:
    """What is known of an image: enough to decide whether it must be read."""

    entry: CatalogEntry
    """How it will be recorded; `image_id` is empty if only reading the image tells it."""
    source: Callable[[], "Source"] | None
    """Opens the source to read it from; None if only Arvados has the image."""
    wanted: Selection = field(default_factory=Selection)
    """Which of the source's images is meant."""
    lookup: Lookup = Lookup.AFTER_READING
    single_image: bool = True
    """Whether its digest is that of one platform's image, not of an index that may name several."""
    also_recorded_as: Sequence[CatalogEntry] = ()
    """Other entries under which Arvados may have recorded it."""
    stored: StoredImage | None = None
    """The image as Arvados has it, perhaps without a link for its id; None if that is not known."""
    unavailable: KeepdockerError | None = None
    """Why the source cannot be read; the image must then be in Arvados."""
    substitute_warning: str | None = None
    """The warning to print if Arvados has the image that the source lacks."""
    takes_names: bool = False
    """Whether it gets the source's names, because the user gave none."""
    created: str | None = None
    """When it was built (ISO 8601), if known."""
    platform: Platform | None = None
    """The platform that it runs on, if known."""
    layers: Sequence[tuple[str, int]] | None = None
    """For each layer the diff id and the bytes to download, if known."""
    in_engine: EngineImage | None = None
    """The engine's description, if the engine saves the image and may save others with it."""
    records_digests: bool = False
    """Whether to record the source's other digests, too, since an engine may know the image by them."""
    in_place: Callable[[Catalog | None], Plan] | None = None
    """For what Arvados has as it is wanted: what is missing to it, so that it need not be read."""
    located: Located | None = None
    """Where it comes from, if that is Arvados: it is stored again unless Arvados has it in just the same archive."""
    manifests: Sequence["StoredManifest"] = ()
    """Of canonical archives in Arvados that have layers of it."""
    describe: Callable[[], "FoundImage"] | None = None
    """Reads manifest and configuration; called only if Arvados does not know the image by its digest."""

    @property
    def digest(self) -> str | None:
        """The digest by which its source knows it; None if only reading the image tells."""
        return self.entry.engine_id or self.entry.image_id or None

    @property
    def digests(self) -> Sequence[str]:
        """All digests that are known before the image is read."""
        return list(dict.fromkeys(filter(None, (self.entry.engine_id, self.entry.image_id))))
