"""Finding an image in an archive file, or on standard input: only reading it tells which image it is."""

from functools import partial

from ..catalog.entry import Entry
from ..images.image import Selection
from ..sources.archives import FileSource
from .found import Found
from .request import Request, Tools


def find_in_archive(file: str, request: Request, project: str, tools: Tools) -> Found:
    """The image of the archive that the request names or, if that names none, the only one."""
    entry = Entry(project, "", request.name, request.title, universal=bool(request.universal))
    wanted = Selection(request.name, request.platform)
    return Found(entry, partial(FileSource, file, tools.display.waiting), wanted, takes_names=request.name is None)
