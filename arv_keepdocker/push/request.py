"""What is asked for, what that needs, and what comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..catalog.catalog import Catalog
from ..catalog.located import Sought
from ..catalog.plan import Plan
from ..images.platform import Platform
from ..images.reference import Reference
from ..keep.cache import Cache
from ..sources.engine import Engine
from ..store.content import Content
from ..terminal.display import Display

if TYPE_CHECKING:
    from ..store.shared_upload import SharedUpload


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    reference: Reference | None
    """None only for what may have names of its own: an archive, or an image in Arvados."""
    sought: Sought | None = None
    """What of Arvados the image comes from, instead of an engine."""
    archive: str | None = None
    """The file, or `-`, that the image is in, instead of an engine."""
    registry: bool = False
    """Get the image from its registry, instead of an engine."""
    insecure: bool = False
    """Take a registry that cannot prove who it is."""
    platform: Platform | None = None
    universal: bool | None = None
    """Whether to store the universal form; None lets the engine decide."""
    project: str | None = None
    title: str | None = None
    """The collection's name."""
    pull: bool = False
    force: bool = False
    """Store the image even if Arvados has it already."""
    force_image_format: bool = False
    resume: bool = True
    """Go on with what an interrupted run has left."""
    remember: bool = True
    """Note what is sent, so that an interrupted run can go on."""
    threads: int = 2
    """How many blocks are sent at a time, by default as many as arv-put sends."""
    dry_run: bool = False
    """Write nothing to Arvados."""
    via_push: bool | None = None
    """Whether the engine is to push the image instead of saving it; None lets the engine decide."""
    via_arv_put: bool = False
    put_arguments: Sequence[str] = ()
    """Options for arv-put."""

    @property
    def name(self) -> str | None:
        """The name that the image gets; None if there was none, or only an id."""
        return self.reference.name if self.reference is not None else None

    def __str__(self) -> str:
        """What the user calls it."""
        return self.sought.text if self.sought is not None else str(self.reference)


@dataclass(frozen=True)
class Tools:
    """What a run works with."""

    engine: Engine
    catalog: Catalog
    cache: Cache
    display: Display
    python: str = "python3"
    """The Python that has the SDK, for commands that the user is told."""
    shared_upload: "SharedUpload | None" = None
    """What the image shares with others that are stored in the same run."""


@dataclass(frozen=True)
class Outcome:
    """What has become of an image; after a dry run, what would have."""

    plan: Plan
    """What Arvados lacked, apart from blocks."""
    collection: str | None
    """UUID of the collection that holds the image; None if a dry run would have made it."""
    content: Content | None = None
    """What the collection holds, or would hold."""
    seconds: float = 0.0
    """For which it took."""

    @property
    def image_id(self) -> str:
        return self.plan.entry.image_id

    @property
    def name(self) -> str | None:
        return self.plan.entry.name
