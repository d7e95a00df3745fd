"""Finds an image in an archive, a file or standard input; only reading the archive tells its id."""

from functools import partial

from ..catalog.entry import CatalogEntry
from ..images.image import Selection
from ..sources.file_source import FileSource
from .found_image import FoundImage
from .request import Request, Tools


def find_in_archive(file: str, request: Request, project: str, tools: Tools) -> FoundImage:
    """The image that the request names or, if it names none, the archive's only image."""
    entry = CatalogEntry(project, "", request.name, request.title, universal=bool(request.universal))
    wanted = Selection(request.name, request.platform)
    return FoundImage(entry, partial(FileSource, file, tools.display.waiting), wanted, takes_names=request.name is None)
