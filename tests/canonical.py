"""What is to be stored of an archive, told apart from how it is sent."""

from __future__ import annotations

import hashlib
import io

from arv_keepdocker.images import archive
from arv_keepdocker.images.canonical import Arrangement, arrange, padding, unit_header
from arv_keepdocker.images.image import Selection
from arv_keepdocker.images.layers import Layer, LayerWriter


class Kept:
    """A layer sink that keeps everything in memory, by digest."""

    def __init__(self) -> None:
        self.layers: dict[str, bytes] = {}

    def has(self, diff_id: str) -> Layer | None:
        return None

    def begin(self) -> LayerWriter:
        return _Writer(self.layers)


class _Writer:
    def __init__(self, layers: dict[str, bytes]) -> None:
        self._layers = layers
        self._data = io.BytesIO()

    def write(self, data: bytes) -> None:
        self._data.write(data)

    def finish(self) -> Layer:
        data = self._data.getvalue()
        layer = Layer(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
        self._layers[layer.diff_id] = data
        return layer

    def abandon(self) -> None:
        pass


def archive_of(data: bytes, universal: bool = False, wanted: Selection | None = None) -> bytes:
    """The canonical archive of the image in another archive."""
    kept = Kept()
    image = archive.read_image(io.BytesIO(data), kept, wanted or Selection())
    return put_together(arrange(image, universal), kept)


def put_together(arrangement: Arrangement, kept: Kept) -> bytes:
    """The archive, with the layers that were kept."""
    units = [
        unit_header(layer) + kept.layers[layer.stored_digest] + bytes(padding(layer.size))
        for run in arrangement.segments
        for layer in run.layers
    ]
    return b"".join(units) + arrangement.end
