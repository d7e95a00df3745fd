"""The request, the tools to carry it out, and the outcome."""

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
    """The archive to read the image from, instead of an engine: a file, or `-`."""
    registry: bool = False
    """Download the image from its registry, instead of asking an engine."""
    insecure: bool = False
    """Accept plain HTTP and any certificate from the registry."""
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
    """Do not send again what an interrupted run has sent."""
    remember: bool = True
    """Write to the journal what is sent, so that the next run can resume."""
    threads: int = 2
    """Blocks to send at a time; arv-put's default."""
    dry_run: bool = False
    """Write nothing to Arvados."""
    via_push: bool | None = None
    """Whether the engine pushes the image instead of saving it; None leaves that to the engine's kind of store."""
    via_arv_put: bool = False
    put_arguments: Sequence[str] = ()
    """Options for arv-put."""

    @property
    def name(self) -> str | None:
        """The name to record; None if the user gave none, or an id."""
        return self.reference.name if self.reference is not None else None

    def __str__(self) -> str:
        """What the user calls it."""
        return self.sought.text if self.sought is not None else str(self.reference)


@dataclass(frozen=True)
class Tools:
    """What a run needs to carry out a request."""

    engine: Engine
    catalog: Catalog
    cache: Cache
    display: Display
    python: str = "python3"
    """The Python that has the SDK, for commands that the user is told."""
    shared_upload: "SharedUpload | None" = None
    """What the image shares with others of the same run, if any."""


@dataclass(frozen=True)
class Outcome:
    """What was done with an image or, after a dry run, what would be done."""

    plan: Plan
    """The records that Arvados lacked."""
    collection: str | None
    """UUID of the image's collection; None if a dry run would create it."""
    content: Content | None = None
    """What the collection holds, or would hold, and what was sent."""
    seconds: float = 0.0
    """How long it took."""

    @property
    def image_id(self) -> str:
        return self.plan.entry.image_id

    @property
    def name(self) -> str | None:
        return self.plan.entry.name
