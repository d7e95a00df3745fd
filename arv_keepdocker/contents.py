"""What is stored of an archive: one image, and the archive as it is or another one around the same layers."""

from collections.abc import Callable
from dataclasses import dataclass

from . import archive, repack, tarball
from .archive import Image
from .errors import ArchiveError
from .platforms import Platform
from .repack import Repacked
from .source import Source
from .tarball import Readable, Tarball

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """Which image of an archive is to be stored, and how."""

    name: str | None = None
    """What it is called, to choose one of several images by and to write into an archive that is made."""
    platform: Platform | None = None
    universal: bool = False
    layout: bool = False
    """Whether an OCI image layout will do that has no manifest.json; it gets one."""

    @property
    def may_change(self) -> bool:
        """Whether the archive may have to be another one."""
        return self.universal or self.layout


@dataclass(frozen=True)
class Contents:
    """A whole, checked image."""

    image: Image
    repacked: Repacked | None
    """What is stored instead, where the archive cannot stay as it is."""
    universal: bool
    """Whether what is stored is in the universal form."""

    @property
    def image_id(self) -> str:
        """The id of the image as it will be stored."""
        return self.repacked.image_id if self.repacked is not None else self.image.id


def read(
    source: Source,
    wanted: Wanted,
    through: Callable[[Readable], Readable] = lambda stream: stream,
    announce: Callable[[int, int], None] = lambda offset, size: None,
) -> Contents:
    """Read the archive once and check it.

    It is read from what `through` makes of its stream; `announce` is told where its files are (see `tarball.scan`).
    Raises ArchiveError when there is no such image, or it is not whole; and what the source raises.
    """
    broken: ArchiveError | None = None
    with source.explained():
        with source.open() as stream:
            try:
                found = tarball.scan(through(stream), announce)
            except ArchiveError as error:
                broken = error
                while source.says_why and stream.read(_CHUNK):
                    pass
        if broken is not None:
            raise broken
        return _chosen(found, wanted)


def _chosen(found: Tarball, wanted: Wanted) -> Contents:
    image = archive.find(found, wanted.name, wanted.platform, wanted.layout)
    universal = repack.is_universal(image) and archive.indexed(found, image)
    stays = archive.loadable(found, image) and (universal or not wanted.universal)
    name = wanted.name or next(iter(image.names), None)
    if stays:
        return Contents(image, None, universal)
    return Contents(image, repack.repack(image, name, wanted.universal), wanted.universal)
