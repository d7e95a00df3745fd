"""Finding an image in an archive file, or on standard input: only reading it tells which image it is."""

from functools import partial

from ..catalog.entry import CatalogEntry
from ..images.image import Selection
from ..sources.file_source import FileSource
from .found_image import FoundImage
from .request import Request, Tools


def find_in_archive(file: str, request: Request, project: str, tools: Tools) -> FoundImage:
    """The image of the archive that the request names or, if that names none, the only one."""
    entry = CatalogEntry(project, "", request.name, request.title, universal=bool(request.universal))
    wanted = Selection(request.name, request.platform)
    return FoundImage(entry, partial(FileSource, file, tools.display.waiting), wanted, takes_names=request.name is None)
