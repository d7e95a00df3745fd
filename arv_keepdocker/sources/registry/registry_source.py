"""The source for an image in a registry. It downloads only the layers that the sink does not have, two at a time."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ...errors import ArchiveError, ImageNotFoundError, RegistryError
from ...images import configuration
from ...images.configuration import Configuration
from ...images.image import Image, Selection
from ...images.layers import Layer, LayerSink, sha256
from ...images.media_types import INDEX_TYPES
from ...images.platform import Platform
from ...images.reference import DEFAULT_TAG, Reference
from ...parallel import Workers
from ...terminal.display import Display
from ..layer_blob import LayerBlob, WrongDigestError
from ..read_progress import COMPRESSION_RATIO, ReadProgress
from . import credentials, manifests
from .client import RegistryClient
from .manifests import ImageManifest
from .repository_name import RepositoryName
from .transport import Transport


@dataclass(frozen=True)
class RemoteLayer:
    """A layer as the registry has it."""

    diff_id: str
    digest: str
    """The blob's digest."""
    size: int
    """The blob's size: the bytes to download."""


@dataclass(frozen=True)
class Description:
    """An image as its manifest and configuration describe it, before any layer is downloaded."""

    config: bytes
    configuration: Configuration
    layers: tuple[RemoteLayer, ...]
    digests: tuple[str, ...]
    """The digests of the manifest and of the index that names it."""

    @property
    def image_id(self) -> str:
        """Digest of the configuration."""
        return sha256(self.config)


def open_registry(
    reference: Reference, platform: Platform | None, display: Display, retries: int, insecure: bool
) -> "RegistrySource":
    """The source for a name, with the credentials from the user's environment. It sends no request yet."""
    assert reference.repository is not None
    name = RepositoryName.of(reference.repository)
    transport = Transport(display, retries, insecure)
    client = RegistryClient(name, transport, partial(credentials.find, name, os.environ, display))
    return RegistrySource(client, reference.digest or reference.tag or DEFAULT_TAG, platform, reference.name)


class RegistrySource:
    """One image of a repository. Its methods raise ImageNotFoundError, RegistryError, or ArchiveError for a broken
    image."""

    repeatable = True
    remote = True

    def __init__(
        self, client: RegistryClient, reference: str, platform: Platform | None = None, name: str | None = None
    ) -> None:
        """`reference` is a tag or a digest; if it names an index, `platform` chooses the image, by default linux/amd64.
        `name` is what the user calls it."""
        self.what = f"image {name or client.name}"
        self.image_id: str | None = None
        self.layers: int | None = None
        self.activity = "downloading"
        self.read_progress = ReadProgress(growth=COMPRESSION_RATIO)
        self.fetched = 0
        """Bytes of layers that have been downloaded."""
        self.is_index: bool | None = None
        """Whether the name means an index of several images; None while that is unknown."""
        self._client = client
        self._platform = platform
        self._digest = reference if ":" in reference else None
        self._reference = reference
        self._manifest: ImageManifest | manifests.Index | None = None
        self._description: Description | None = None
        self._counting = threading.Lock()

    def head(self) -> str:
        """The digest that the name has in the registry now: of a manifest or of an index.

        It sends at most one request, a HEAD, which Docker Hub does not count.
        """
        if self._digest is None and (found := self._client.head(self._reference)) is not None:
            self._digest, media_type = found
            self.is_index = media_type in INDEX_TYPES
        if self._digest is None:
            self._manifest = manifests.fetch(self._client, self._reference, self.what)
            self._digest = self._manifest.digest
            self.is_index = isinstance(self._manifest, manifests.Index)
        return self._digest

    def describe(self) -> Description:
        """The image's description, from its manifest and configuration."""
        if self._description is None:
            found = self._manifest or manifests.fetch(self._client, self.head(), self.what)
            digests = [found.digest]
            if isinstance(found, manifests.Index):
                found = manifests.choose_platform(self._client, found, self._platform, self.what)
                digests.insert(0, found.digest)
            self._description = self._describe(found, digests)
            self.image_id, self.layers = self._description.image_id, len(self._description.layers)
            self.read_progress.begin(sum({layer.digest: layer.size for layer in self._description.layers}.values()))
        return self._description

    def deliver(self, sink: LayerSink, wanted: Selection) -> Image:
        """Feed the sink the layers that it does not have, and return the verified image.

        `wanted` is not used: the constructor was told which image to read.
        """
        description = self.describe()
        remote = {layer.diff_id: layer for layer in description.layers}
        self.read_progress.begin(sum(layer.size for layer in remote.values()))
        found: dict[str, Layer] = {}
        # The largest first, so that the download does not end with one large layer alone.
        work = [partial(self._layer, sink, layer) for layer in sorted(remote.values(), key=lambda layer: -layer.size)]
        with self._explained(), self._client.watched(), Workers([self._client, self._client][: len(work)]) as workers:
            try:
                for layer in workers.each(work):
                    found[layer.diff_id] = layer
            except BaseException:
                self._client.stop()
                raise
        read = description.configuration
        return Image(
            config=description.config,
            layers=tuple(found[layer.diff_id] for layer in description.layers),
            platform=read.platform,
            created=read.created,
            universal_of=configuration.universal_of(read),
            digests=description.digests,
            warnings=read.warnings,
        )

    def _describe(self, manifest: ImageManifest, digests: Sequence[str]) -> Description:
        config = manifests.config_of(self._client, manifest)
        with self._explained():
            read = configuration.read(config)
        # The index from which it was chosen states the platform, perhaps more precisely.
        alone = len(digests) == 1
        if alone and self._platform is not None and not read.platform.matches(self._platform):
            raise ImageNotFoundError(f"{self.what} is for {read.platform}, not for {self._platform}")
        if len(read.diff_ids) != len(manifest.layers):
            raise ArchiveError(
                f"the configuration of {self.what} has {len(read.diff_ids)} layers, its manifest {len(manifest.layers)}"
            )
        pairs = zip(read.diff_ids, manifest.layers, strict=True)
        layers = tuple(RemoteLayer(diff_id, blob.digest, blob.size) for diff_id, blob in pairs)
        return Description(config, read, layers, tuple(digests))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ArchiveError as error:
            raise ArchiveError(f"{self.what}: {error}", error.hint) from error

    def _layer(self, sink: LayerSink, layer: RemoteLayer, client: RegistryClient) -> Layer:
        known = sink.has(layer.diff_id)
        if known is not None:
            self.read_progress.add(layer.size, known.size)
        return known or self._download(sink, layer, client, again=True)

    def _download(self, sink: LayerSink, layer: RemoteLayer, client: RegistryClient, again: bool) -> Layer:
        blob = LayerBlob(sink, plain=layer.digest == layer.diff_id)
        try:
            for data in client.blob(layer.digest, layer.size):
                before = blob.unpacked
                blob.feed(data)
                self.read_progress.add(len(data), blob.unpacked - before)
                with self._counting:
                    self.fetched += len(data)
            return blob.finish(layer.digest, layer.diff_id)
        except WrongDigestError:
            if not again:
                raise RegistryError(f"{client.name.host} sent something other than blob {layer.digest}") from None
        finally:
            blob.abandon()
        return self._download(sink, layer, client, again=False)
