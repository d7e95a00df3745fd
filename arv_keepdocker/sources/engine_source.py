"""An image that an engine saves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import ArchiveError, ImageNotFoundError, IncompleteArchiveError, PlatformNotSavedError
from ..images import archive
from ..images.image import Image, Selection
from ..images.layers import LayerSink
from ..images.members import Members
from ..images.tar import Readable, scan
from .engine import Engine
from .engine_image import EngineImage
from .read_progress import COMPRESSION_RATIO, CountedStream, MeasuredSink, ReadProgress

_CHUNK = 1 << 20

Through = Callable[[Readable], Readable]


def _straight(stream: Readable) -> Readable:
    return stream


class EngineSource:
    """An image that an engine saves."""

    repeatable = True
    remote = False
    fetched = None

    def __init__(self, engine: Engine, image: EngineImage) -> None:
        self.what = f"image {image.id}"
        self.image_id: str | None = image.id
        self.layers = image.layers
        self.activity = f"{engine.name} is saving"
        # Of the containerd store, the engine tells the size of compressed layers.
        self.read_progress = ReadProgress(image.size, COMPRESSION_RATIO if image.containerd else 1.0)
        self.image = image
        self._engine = engine

    def deliver(self, sink: LayerSink, wanted: Selection) -> Image:
        return self.read(sink, wanted)[1]

    def read(self, sink: LayerSink, wanted: Selection, through: Through = _straight) -> tuple[Members, Image]:
        """Deliver the image, reading what `through` makes of the archive; also tells what the archive has."""
        broken: ArchiveError | None = None
        self.read_progress.begin(self.image.size)
        measured = MeasuredSink(sink, self.read_progress.unpack, self.read_progress.unpack)
        with self._explained(), self._engine.save(self.image) as stream:
            try:
                members = scan(through(CountedStream(stream, self.read_progress)), measured)
            except ArchiveError as error:
                # Read to its end, the engine may say itself what is wrong, which explains more.
                broken = error
                while stream.read(_CHUNK):
                    pass
        with self._explained():
            if broken is not None:
                raise broken
            return members, archive.select_image(members, sink, wanted)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except PlatformNotSavedError as error:
            what = f"{self._engine.name} does not have image {self.image.id} for {self.image.platform}"
            raise ImageNotFoundError(what) from error
        except ArchiveError as error:
            lacks = isinstance(error, IncompleteArchiveError)
            hint = self._engine.repair_hint(self.image) if lacks else error.hint
            raise type(error)(f"{self._engine.name} saved image {self.image.id}, but {error}", hint) from error
