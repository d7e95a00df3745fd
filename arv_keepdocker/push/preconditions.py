"""Checks before anything is saved or sent, and warnings."""

import time as clock
from collections.abc import Sequence

from ..catalog.entry import NAME_LIMIT
from ..catalog.links import format_utc, parse_time
from ..errors import ArchiveError, ArvadosError, UsageError
from ..images.image import Image
from ..images.platform import USUAL, Platform
from .found_image import FoundImage
from .request import Outcome, Request, Tools

_CLOCK_TOLERANCE = 24 * 60 * 60
"""Seconds that another machine's clock may be ahead."""
_FORMAT = "v2"
"""Arvados' name for images whose id is `sha256:` and a digest (`dockerImageFormats` in the discovery document)."""


def check_names(names: Sequence[str | None]) -> None:
    """Raise UsageError for an image name that is too long for a link. Links are made last, so check names first."""
    for name in names:
        if name is not None and len(name) > NAME_LIMIT:
            raise UsageError(f"the name {name} has {len(name)} characters; Arvados takes {NAME_LIMIT}")


def check_storable(project: str, request: Request, tools: Tools) -> None:
    """Raise ArvadosError if the project is not writable, ArchiveError if the cluster does not accept the format."""
    tools.catalog.projects.check_writable(project)
    formats = tools.catalog.image_formats
    if _FORMAT in formats:
        return
    takes = f"takes the formats {', '.join(map(repr, formats))}" if formats else "does not say which formats it takes"
    problem = f"the cluster {takes}; the image's is {_FORMAT!r}"
    if not request.force_image_format:
        raise ArchiveError(problem, "To store it anyway, use --force-image-format.")
    tools.display.warning(problem)


def warn_of_found(found: FoundImage, request: Request, tools: Tools) -> None:
    """Print the warnings that are known before the image is read."""
    if found.substitute_warning is not None:
        tools.display.warning(found.substitute_warning)
    _warn_of_platform(found.platform, request, tools)
    _warn_of_time(found.created, tools)


def warn_of_read(image: Image, found: FoundImage, request: Request, tools: Tools) -> None:
    """Print the warnings that only reading the image could show."""
    if found.platform is None:
        _warn_of_platform(image.platform, request, tools)
    for warning in image.warnings:
        tools.display.warning(warning)
    if image.created != found.created:
        _warn_of_time(image.created, tools)


def warn_of_preferred(outcome: Outcome, tools: Tools) -> None:
    """Warn if Arvados prefers another image of the same name, so that a workflow gets that one."""
    name, catalog = outcome.name, tools.catalog
    assert outcome.collection is not None
    try:
        other = catalog.preferred_instead(outcome.plan, outcome.collection)
        if other is None:
            return
        content = catalog.client.get("collections", outcome.collection)["portable_data_hash"]
    except ArvadosError as error:
        tools.display.warning(f"could not find out which image a workflow that asks for {name} gets: {error}")
        return
    tools.display.warning(
        f"a workflow that asks for {name} gets another image, {other.image_id} in {other.collection} "
        f"(made {format_utc(other.created)}), which Arvados prefers; for this one, ask for {content}, or store "
        "it under another tag"
    )


def _warn_of_platform(platform: Platform | None, request: Request, tools: Tools) -> None:
    if request.platform is None and platform is not None and not platform.matches(USUAL):
        tools.display.warning(f"the image is for {platform}, which the cluster's compute nodes may not be")


def _warn_of_time(created: str | None, tools: Tools) -> None:
    """The scheduler takes the newest of several images of one name."""
    time = parse_time(created)
    if time is not None and time.timestamp() > clock.time() + _CLOCK_TOLERANCE:
        tools.display.warning(
            f"the image says that it was made in the future, at {created}: "
            "until then, workflows prefer it to newer images of the same name"
        )
