"""The source for an image that the engine pushes to this program or, if it cannot, saves."""

import secrets
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace

from ...errors import ArchiveError, ArvadosError, EngineError, ImageNotFoundError, KeepdockerError
from ...images import canonical, configuration
from ...images.image import Image, Selection
from ...images.layers import LayerSink
from ..engine import Engine
from ..engine_image import EngineImage
from ..engine_source import EngineSource
from ..read_progress import MeasuredSink, ReadProgress
from ..registry import manifests
from .push_notes import Address, PushNotes
from .repository import Repository
from .server import HOST, PushServer
from .temporary_names import TemporaryNames

_TURN = 100
"""Milliseconds between two checks of whether layers can still be taken."""


class PushSource:
    """An image of an engine; it is saved if it cannot be pushed."""

    repeatable = True
    remote = False
    fetched = None

    def __init__(
        self,
        engine: Engine,
        image: EngineImage,
        names: TemporaryNames,
        notes: PushNotes,
        say: Callable[[str], None],
    ) -> None:
        """`say` is called with the reason if the image is saved."""
        self._saved = EngineSource(engine, image)
        self.what = self._saved.what
        self.activity = f"{engine.name} is pushing"
        self.read_progress = ReadProgress(self._saved.read_progress.size)
        self.image_id, self.layers = self._saved.image_id, self._saved.layers
        self._engine = engine
        self._image = image
        self._names = names
        self._notes = notes
        self._say = say

    def deliver(self, sink: LayerSink, wanted: Selection) -> Image:
        address = self._notes.address()
        measured = MeasuredSink(sink, self._count, self._count)
        repository = Repository(address.repository, secrets.token_hex(16), measured, self._notes)
        try:
            image = self._pushed(repository, address.port, wanted)
        except ArvadosError:
            raise
        except (KeepdockerError, OSError) as error:
            self._say(f"{self._engine.name} could not push {wanted.name or self.what} ({error}); saving it instead")
            repository.close()  # frees what it holds of the sink, which saving needs
            self.activity, self.read_progress = self._saved.activity, self._saved.read_progress
            return self._saved.deliver(sink, wanted)
        repository.close()
        return image

    def _count(self, size: int) -> None:
        self.read_progress.add(size, size)

    def _pushed(self, repository: Repository, port: int, wanted: Selection) -> Image:
        """The pushed image. Raises EngineError or CacheError if it was not pushed, ArchiveError or ImageNotFoundError
        if something else was, OSError if no port can be opened, and what the sink raises."""
        image, engine = self._image, self._engine
        if engine.is_elsewhere(image.podman):
            raise EngineError("it is on another machine, from where it cannot reach this program")
        with ExitStack() as stack:
            server = stack.enter_context(PushServer(repository, port, answers_ping=image.podman))
            if not port:
                self._notes.add_address(Address(server.port, repository.path))
            name = f"{HOST}:{server.port}/{repository.path}:{repository.tag}"
            if not image.podman:
                stack.enter_context(self._names.given(engine, image.id, name))
            self._push(repository, name)
            return self._delivered(repository, wanted)

    def _push(self, repository: Repository, name: str) -> None:
        with self._engine.pushing(self._image, name) as run:
            while run.goes_on(_TURN):
                if repository.failure is not None:
                    raise repository.failure
        if repository.failure is not None:
            raise repository.failure
        if repository.pushed is None:
            raise self._engine.push_failure(self._image, run)

    def _delivered(self, repository: Repository, wanted: Selection) -> Image:
        """The image that was pushed, verified."""
        assert repository.pushed is not None
        found = manifests.parse(repository.pushed, repository.name)
        digests = [found.digest]
        if isinstance(found, manifests.Index):
            found = manifests.choose_platform(repository, found, wanted.platform, repository.name)
            digests.insert(0, found.digest)
        config = manifests.config_of(repository, found)
        read = configuration.read(config)
        if wanted.platform is not None and not read.platform.matches(wanted.platform):
            raise ImageNotFoundError(f"{repository.name} is for {read.platform}, not for {wanted.platform}")
        if len(read.diff_ids) != len(found.layers):
            raise EngineError(f"{repository.name} has {len(found.layers)} layers, not {len(read.diff_ids)}")
        pairs = zip(found.layers, read.diff_ids, strict=True)
        image = Image(
            config=config,
            layers=tuple(repository.layer(layer.digest, diff_id) for layer, diff_id in pairs),
            platform=read.platform,
            created=read.created,
            universal_of=configuration.universal_of(read),
            digests=tuple(digests),
            warnings=read.warnings,
        )
        if not self._image.containerd and image.id != self._image.id:
            raise EngineError(f"{repository.name} is {image.id}")
        return _universal(image, repository.manifest(found.digest).body) or image


def _universal(image: Image, manifest: bytes) -> Image | None:
    """The image in the universal form, if its manifest is a universal document."""
    if image.universal_of is None and image.id.encode() in manifest:
        with suppress(ArchiveError):
            universal = replace(image, config=manifest, universal_of=image.config)
            if canonical.arrange(universal, universal=False).universal:
                return universal
    return None
