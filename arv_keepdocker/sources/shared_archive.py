"""Images that are read together: several of one archive, in which layers that they share are once."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import ArchiveError, EngineError, KeepdockerError
from ..images import archive
from ..images.image import Image, Selection
from ..images.layers import LayerSink, NoSink
from ..images.members import Members
from ..images.tar import scan
from ..terminal.waiting import Waiting, unsaid
from .engine import Engine
from .engine_image import EngineImage
from .engine_source import EngineSource
from .file_source import FileSource
from .read_progress import CountedStream, MeasuredSink, ReadProgress


class SharedScan:
    """An archive that is read once for all images in it, as long as the layers go to the same sink."""

    def __init__(self, read: Callable[[LayerSink], Members], repeatable: bool = True) -> None:
        self._read = read
        self._repeatable = repeatable
        self._lock = threading.Lock()
        self._sink: object = ...
        self._members: Members | None = None
        self._failure: KeepdockerError | None = None

    def members(self, sink: LayerSink) -> Members:
        """What is in the archive. Raises what reading it raises, and again what it has raised."""
        key = None if isinstance(sink, NoSink) else sink
        with self._lock:
            if self._sink is ... or (self._sink is not key and self._repeatable):
                self._sink, self._members, self._failure = key, None, None
                try:
                    self._members = self._read(sink)
                except KeepdockerError as error:
                    self._failure = error
            if self._failure is not None:
                raise self._failure
            if self._members is None or self._sink is not key:
                raise KeepdockerError("the archive can be read only once")
            return self._members


class JointSave:
    """Images that an engine saves in one archive. Each has its configuration's digest as Id."""

    def __init__(self, engine: Engine, images: Sequence[EngineImage]) -> None:
        self._engine = engine
        self._images = images
        self._scan = SharedScan(self._read)
        self._size = sum(image.size or 0 for image in images)
        self._reading = ReadProgress(self._size)

    def source(self, image: EngineImage) -> "JointlySavedSource":
        """One of them."""
        return JointlySavedSource(EngineSource(self._engine, image), self._scan, self._reading)

    def _read(self, sink: LayerSink) -> Members:
        self._reading.begin(self._size)
        measured = MeasuredSink(sink, self._reading.unpack, self._reading.unpack)
        with self._engine.save(*self._images) as stream:
            return scan(CountedStream(stream, self._reading), measured)


class JointlySavedSource:
    """An image that is saved together with others, or alone if that fails."""

    repeatable = True
    remote = False
    fetched = None

    def __init__(self, alone: EngineSource, together: SharedScan, read_progress: ReadProgress) -> None:
        self.what = alone.what
        self.image_id = alone.image_id
        self.layers = alone.layers
        self.activity = alone.activity
        self.read_progress = alone.read_progress
        """Of this image alone, until it is read with the others."""
        self._alone = alone
        self._together = together
        self._joint_progress = read_progress

    def deliver(self, sink: LayerSink, wanted: Selection) -> Image:
        self.read_progress = self._joint_progress
        try:
            members = self._together.members(sink)
            return archive.select_image(members, sink, replace(wanted, image_id=self._alone.image.id))
        except (ArchiveError, EngineError):
            self.read_progress = self._alone.read_progress
            return self._alone.deliver(sink, wanted)  # another image may be to blame


class SharedFileSource(FileSource):
    """An archive of which several images are wanted. What can only be read from its begin to its end is read once."""

    def __init__(self, file: str, waiting: Waiting = unsaid) -> None:
        super().__init__(file, waiting)
        self._scan = SharedScan(self._read, self.repeatable)

    def _read_all(self, sink: LayerSink, wanted: Selection) -> Image:
        return self._noting_id(archive.select_image(self._scan.members(sink), sink, wanted))

    def _read(self, sink: LayerSink) -> Members:
        with self._open() as file:
            return scan(file, MeasuredSink(sink, self.read_progress.unpack, self.read_progress.unpack), self.file)
