"""An image's entry in Arvados: what its collection and its links say."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import UsageError, quoted
from ..images.platform import Platform
from .links import ENGINE_ID, HASH_LINK, IMAGE_TIMESTAMP, NAME_LINK

NAME_PROPERTY = "docker-image-repo-tag"
NAME_LIMIT = 255
"""Characters of the name of a collection or link (Arvados: character varying(255))."""
PLATFORM = "arv:platform"
UNIVERSAL = "arv:universal"
_DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Unicode's classes of what sets the direction of the text that follows (https://www.unicode.org/reports/tr9/)."""
_FILE = re.compile(r"sha256(?::|\\072)([0-9a-f]{64})\.tar")


@dataclass(frozen=True)
class CatalogEntry:
    """What the collection and the links of an image will say."""

    project: str
    """UUID of the owner of them all: a project, or a user for the home project."""
    image_id: str
    name: str | None
    """`repository:tag`; None for an image that gets no name because it was given by its id."""
    title: str | None = None
    """The collection's name, if the user gave one."""
    link_properties: Mapping[str, object] = field(default_factory=dict)
    engine_id: str | None = None
    """The engine's Id of the image if it differs from `image_id`: the digest of a manifest or an index."""
    platform: Platform | None = None
    """The image's platform, if `engine_id` is the digest of an index."""
    universal: bool = False
    """Whether it is stored in the universal form, which to Arvados is another image than the plain form."""
    further_names: Sequence[str] = ()
    """Names besides `name`, each of which gets a link."""

    @property
    def collection_name(self) -> str:
        if self.title is not None:
            return self.title
        # The server refuses slashes in a name.
        words = ["Docker image", *([self.name.replace("/", " ")] if self.name else [])]
        image_id = self.image_id[:12]
        return f"{' '.join(words)[: NAME_LIMIT - len(image_id) - 1]} {image_id}"

    def with_timestamp(self, created: str | None) -> "CatalogEntry":
        """The entry with its links' properties: when the image was built, by which the scheduler finds the newest of
        several images, and what a later run recognizes the image by."""
        properties: dict[str, object] = {IMAGE_TIMESTAMP: created} if created else {}
        return replace(self, link_properties={**properties, **self.own_link_properties})

    @property
    def image_timestamp(self) -> object:
        """When the image was built, as its links will say; None if they will not."""
        return self.link_properties.get(IMAGE_TIMESTAMP)

    @property
    def own_link_properties(self) -> dict[str, object]:
        """The link properties that only this program uses."""
        properties: dict[str, object] = {UNIVERSAL: True} if self.universal else {}
        if self.engine_id is not None:
            properties[ENGINE_ID] = self.engine_id
            if self.platform is not None:
                properties[PLATFORM] = str(self.platform)
        return properties

    @property
    def filename(self) -> str:
        return f"{self.image_id}.tar"

    @property
    def properties(self) -> dict[str, object]:
        return {NAME_PROPERTY: self.name} if self.name is not None else {}

    @property
    def links(self) -> Sequence[tuple[str, str]]:
        """The classes and names of the links that make the collection an image, in the order of creation."""
        names = dict.fromkeys([self.name, *self.further_names] if self.name is not None else [])
        return [(HASH_LINK, self.image_id), *((NAME_LINK, name) for name in names if name is not None)]


def check_title(title: str) -> None:
    """Raise UsageError for a collection's name that every Arvados refuses, or that could not be shown as it is."""
    problem = None
    if len(title) > NAME_LIMIT:
        problem = f"it has {len(title)} characters; Arvados takes {NAME_LIMIT}"
    elif title in (".", ".."):
        problem = "no collection can have this name"
    elif any(unicodedata.category(char) == "Cs" for char in title):
        problem = "it is not UTF-8"
    elif unsafe := next((char for char in title if _is_control(char)), None):
        problem = f"it contains the control character {ascii(unsafe)[1:-1]}"
    if problem is not None:
        raise UsageError(f"--name {quoted(title)}: {problem}")


def _is_control(char: str) -> bool:
    """Whether it is not a character to see, but tells a terminal or a browser how to show others, or ends a line."""
    return unicodedata.category(char) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(char) in _DIRECTIONS


def image_id_in(manifest_text: str) -> str | None:
    """The image id in the name of a manifest's only file; None if that is not an image's.

    arv-put writes the colon as `\\072`; both are the same name (Keep manifest format).
    """
    lines = manifest_text.splitlines()
    if len(lines) != 1:
        return None
    names = {token.split(":", 2)[2] for token in lines[0].split(" ")[1:] if re.fullmatch(r"\d+:\d+:.+", token)}
    match = _FILE.fullmatch(names.pop()) if len(names) == 1 else None
    return f"sha256:{match[1]}" if match is not None else None
