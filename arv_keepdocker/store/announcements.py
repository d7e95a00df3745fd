"""The lines that announce that an image is being stored, and that it is stored."""

import re

from ..catalog.catalog import Catalog
from ..catalog.entry import CatalogEntry
from ..images.image import Selection
from ..sources.source import Source

_DIGEST = re.compile(r"\bsha256:[0-9a-f]{64}\b")
_SHOWN = len("sha256:") + 12
"""Characters of an id to show: as many as docker shows."""


def called(wanted: Selection, source: Source) -> str:
    """What to call the image: the user's name for it."""
    return wanted.name or short(source.what)


def described(wanted: Selection, source: Source) -> str:
    """The image with its id, size and number of layers, as far as they are known."""
    name = called(wanted, source)
    image_id = short(source.image_id) if source.image_id is not None else ""
    known = f" ({image_id})" if image_id and image_id not in name else ""
    size = source.read_progress.size
    parts = [f"{'about ' if source.read_progress.is_guess else ''}{_about(size)}"] if size else []
    parts += [f"{source.layers} layer{'s' if source.layers != 1 else ''}"] if source.layers is not None else []
    return f"{name}{known}{', ' if parts else ''}{' in '.join(parts)}"


def stored(entry: CatalogEntry, catalog: Catalog) -> str:
    """That the image is stored, and where; with its id if the universal form has given it a new one."""
    name = entry.name or f"image {short(entry.image_id)}"
    new_id = f" ({short(entry.image_id)})" if entry.universal and entry.name is not None else ""
    projects = catalog.projects
    where = "Home" if entry.project == projects.user["uuid"] else projects.display_name(entry.project)
    return f"stored {name}{new_id} in {where}"


def short(text: str) -> str:
    """The text with its digests cut to 12 digits, as docker shows them."""
    return _DIGEST.sub(lambda match: match[0][:_SHOWN], text)


def _about(count: int) -> str:
    return f"{count / (1 << 20):.{0 if count >= 10 << 20 else 1}f} MiB"


def mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
