"""An image as `docker image inspect` describes it."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ImageNotFoundError, quoted
from ..images.media_types import INDEX_TYPES
from ..images.platform import Platform
from ..images.reference import familiar

MISREAD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading JSON raises that is not what was expected."""
_LONGEST = 1000
"""Characters of anything in the engine's description of an image."""
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
COMMON = (
    Platform("linux", "amd64"),
    Platform("linux", "arm64"),
    Platform("linux", "arm", "v7"),
    Platform("linux", "arm", "v6"),
    Platform("linux", "386"),
    Platform("linux", "ppc64le"),
    Platform("linux", "s390x"),
    Platform("linux", "riscv64"),
)
"""What is asked for to know the platforms of an index, of which docker has no list."""


@dataclass(frozen=True)
class EngineImage:
    """An image that the engine has."""

    id: str
    """What the engine calls the image's Id: `sha256:` and 64 hexadecimal digits. In docker's containerd image store it
    is the digest of a manifest or an index, elsewhere of the image's configuration."""
    size: int | None
    """The engine's estimate of the bytes that saving it gives."""
    created: str | None
    """When the image was made, ISO 8601, as its configuration has it; some images do not say."""
    names: tuple[str, ...]
    """The `repo:tag` names that the engine has for it, the one by which it was found first."""
    platform: Platform | None
    """What it runs on; docker 29 does not say it of an image of which it only has the index."""
    containerd: bool = False
    """Whether it is in docker's containerd image store."""
    several_platforms: bool | None = False
    """Whether the Id is that of an index, which may have images for several platforms; None where docker's API is too
    old to tell."""
    layers: int | None = None
    """How many it has, if the engine says so."""
    podman: bool = False
    """Whether the engine is podman, whatever its program is called."""
    diff_ids: tuple[str, ...] = ()
    """Diff ids of its layers, base first, as far as the engine tells."""

    def is_for(self, platform: Platform) -> bool:
        return self.platform is not None and self.platform.matches(platform)


class PlatformNotFoundError(ImageNotFoundError):
    """The engine has the image, but not for the platform that was asked for, or without that, for its own."""

    def __init__(self, message: str, image: EngineImage, wanted: Platform, there: Sequence[Platform]) -> None:
        super().__init__(message)
        self.image = image
        self.wanted = wanted
        self.there = there
        """For which it is there, as far as is known."""


def read(stdout: str, reference: str, has_containerd_store: Callable[[], bool]) -> EngineImage:
    """The image that `docker image inspect REFERENCE` has described; `has_containerd_store` is called where the
    description does not tell. Raises one of MISREAD for anything else."""
    image = json.loads(stdout)[0]
    descriptor = image.get("Descriptor") or {}
    platform = Platform(*(_text(image.get(key)) or "" for key in ("Os", "Architecture", "Variant")))
    # The descriptor of an Id is told from API 1.48 on, and only of what is in the containerd store.
    containerd = bool(descriptor) or (not _is_elsewhere(image) and has_containerd_store())
    names = filter(_text, image.get("RepoTags") or ())
    several: bool | None = str(descriptor.get("mediaType")) in INDEX_TYPES
    if containerd and not descriptor:
        # Docker 29 says no platform only of an index without the image for its own.
        several = None if platform.architecture else True
    return EngineImage(
        id=_checked_id(image["Id"]),
        size=_count(image.get("Size")),
        created=_text(image.get("Created")),
        names=tuple(sorted(names, key=lambda name: familiar(name) != familiar(reference))),
        platform=platform if platform.architecture else None,
        containerd=containerd,
        several_platforms=several,
        layers=_layers(image),
        podman=_is_podmans(image),
        diff_ids=tuple(filter(_text, (image.get("RootFS") or {}).get("Layers") or ())),
    )


def _is_elsewhere(image: dict[str, Any]) -> bool:
    """Whether the image is certainly not in the containerd store: graph drivers, of which most have data on an image,
    belong to docker's classic store."""
    graph = image.get("GraphDriver")
    return _is_podmans(image) or (isinstance(graph, dict) and bool(graph.get("Data")))


def _is_podmans(image: dict[str, Any]) -> bool:
    """Podman's Ids have no prefix."""
    return not str(image["Id"]).startswith("sha256:")


def _layers(image: dict[str, Any]) -> int | None:
    layers = (image.get("RootFS") or {}).get("Layers")
    return len(layers) if isinstance(layers, list) else None


def _checked_id(image_id: str) -> str:
    """With the prefix that podman leaves out; it becomes part of a file's name."""
    if not _ID.fullmatch(image_id):
        raise ValueError(f"no image id: {quoted(image_id)}")
    return "sha256:" + image_id.removeprefix("sha256:")


def _text(value: object) -> str | None:
    """Of what may be of any type and length."""
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 else None
