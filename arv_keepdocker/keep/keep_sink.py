"""The layer sink that sends layers to Keep, as the blocks of their units (see `images.canonical`)."""

import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from ..errors import ArvadosError
from ..images.canonical import OWN_BLOCKS, Arrangement, Segment, padding, unit_header, unit_size
from ..images.layers import Layer, LayerWriter
from .block_sender import BlockSender, StoredBlock
from .block_writer import BlockWriter
from .journal import Journal, Notes
from .known_layers import KnownLayer, KnownLayers
from .locators import block_key, block_size
from .small_layers import LIMIT, SmallLayers

WRITERS = 2
"""Layers that are written at a time: each may need memory for two blocks."""


class LostLayerError(ArvadosError):
    """A layer that `has` reported cannot be read from Keep, so its bytes are needed after all."""


@dataclass(frozen=True)
class LayerState:
    """A layer of an image, and whether it must be sent."""

    diff_id: str
    size: int
    """Bytes."""
    new: bool


@dataclass(frozen=True)
class Composed:
    """The blocks of an archive."""

    locators: tuple[str, ...]
    layers: tuple[LayerState, ...]
    """The image's layers, base first."""
    sent: int
    """Bytes sent for it; blocks that several images share count for the first."""


class KeepSink:
    """Sends layers while they arrive; then `compose` puts the archive together from them and from what is in Keep.

    The header contains the layer's digest, so the first block is held back until the last byte has arrived. Small
    layers, which have no blocks of their own, are kept until `compose` tells their order.
    """

    def __init__(
        self,
        sender: BlockSender,
        known: KnownLayers | None,
        journal: Journal | None,
        writers: int = WRITERS,
        read_back: bool = True,
        small_limit: int = LIMIT,
    ) -> None:
        """Without `known`, everything is sent. Finished layers are noted in the `journal`. With `read_back`, layers
        that other users stored are read from Keep and verified, so that the source need not deliver them."""
        self._sender = sender
        self._known = known
        self._journal = journal
        self._read_back = read_back
        self._free_writers = threading.Semaphore(writers)
        self._lock = threading.RLock()
        self._sent: dict[str, list[Future[StoredBlock]]] = {}
        self._held: dict[str, KnownLayer] = {}
        self._layers: dict[str, Layer] = {}
        self._counted: set[Future[StoredBlock]] = set()
        self._small = SmallLayers(small_limit)
        self.taken = 0
        """Bytes of layers that were written to the sink."""
        self.skipped = 0
        """Bytes of layers that are in Keep and not yet counted as reused."""

    def has(self, diff_id: str) -> Layer | None:
        with self._lock:
            if diff_id in self._layers:
                return self._layers[diff_id]
        held = next(filter(self._usable, self._known.copies_of(diff_id)), None) if self._known is not None else None
        if held is None:
            return None
        with self._lock:
            if diff_id not in self._layers:
                self._held[diff_id] = held
                self.skipped += held.layer.size
            return self._layers.setdefault(diff_id, held.layer)

    def begin(self) -> LayerWriter:
        self._free_writers.acquire()
        return BlockWriter(self._sender, self._take, self._finished, self._free_writers.release)

    def compose(self, arrangement: Arrangement, layers: Sequence[Layer]) -> Composed:
        """Send the rest of the archive, and wait until everything is stored.

        Raises ArvadosError; LostLayerError if a layer that `has` reported is needed after all.
        """
        composed: list[tuple[Segment, Sequence[Future[StoredBlock]]]] = []
        self.skipped = sum(map(self._skipped, arrangement.segments))  # without those of other images
        for segment in arrangement.segments:
            composed.append((segment, self._blocks(segment)))
            self.skipped -= self._skipped(segment)
        self._sender.take_slot()
        end = self._sender.send(arrangement.end)
        new: set[str] = set()
        locators: list[str] = []
        sent = self._sent_now(end)
        for segment, blocks in composed:
            stored = [block.result().locator for block in blocks]
            locators += stored
            bytes_sent = sum(map(self._sent_now, blocks))
            if bytes_sent:
                new.update(layer.stored_digest for layer in segment.layers)
            sent += bytes_sent
            if self._known is not None:
                self._known.add(segment, stored)
        self._note(arrangement, end.result().locator)
        states = tuple(LayerState(layer.diff_id, layer.size, layer.stored_digest in new) for layer in layers)
        return Composed((*locators, end.result().locator), states, sent)

    def _sent_now(self, block: "Future[StoredBlock]") -> int:
        """Bytes sent for the block, once for all images that share it."""
        first = block not in self._counted
        self._counted.add(block)
        stored = block.result()
        return block_size(stored.locator) if first and not stored.reused else 0

    def close(self) -> None:
        """Free what was kept for small layers."""
        self._small.close()

    def _take(self, size: int) -> None:
        with self._lock:
            self.taken += size

    def _finished(
        self, layer: Layer, first: io.BytesIO, later: "list[Future[StoredBlock]]", rest: io.BytesIO | None
    ) -> None:
        first.seek(0)
        first.write(unit_header(layer))
        digest = layer.stored_digest
        small = unit_size(layer) < OWN_BLOCKS
        if small:
            self._small.put(digest, first.getvalue())
            self._sender.release_slot()
        else:
            blocks = [self._sender.send(first.getvalue()), *later]
            if rest is not None:
                blocks.append(self._sender.send(rest.getvalue()))
            if self._journal is not None and digest not in self._notes.layers:
                _note_when_stored(self._journal, layer, blocks)
        with self._lock:
            self._layers[digest] = layer
            if not small:
                self._sent.setdefault(digest, blocks)

    def _usable(self, held: KnownLayer) -> bool:
        """Whether a layer in Keep may be used without its bytes from the source."""
        if held.mine or not self._read_back:
            return held.mine
        with suppress(ArvadosError):
            for _piece in self._read(held):
                pass
            return True
        return False

    def _read(self, held: KnownLayer) -> Iterator[bytes]:
        assert self._known is not None
        with self._sender.slot():
            yield from held.read(self._known.get)

    def _blocks(self, segment: Segment) -> Sequence[Future[StoredBlock]]:
        """The segment's blocks, sent or in Keep."""
        digests = [layer.stored_digest for layer in segment.layers]
        if digests[0] in self._sent:
            return self._sent[digests[0]]
        locators: Sequence[str] | None = None
        if segment.size >= OWN_BLOCKS and len(digests) == 1:
            locators = self._held[digests[0]].locators
        elif self._known is not None and not self._held.keys().isdisjoint(digests):
            locators = self._known.segment_locators(segment)
        if locators is None:
            return list(self._packed(segment))
        self._sender.count_reused(segment.size)
        return list(map(_already_stored, locators))

    def _skipped(self, segment: Segment) -> int:
        return sum(layer.size for layer in segment.layers if layer.stored_digest in self._held)

    def _packed(self, segment: Segment) -> Iterator[Future[StoredBlock]]:
        left = iter(segment.blocks)
        data = io.BytesIO()
        size = 0
        for layer in segment.layers:
            unit = memoryview(self._unit(layer))
            while unit:
                if not data.tell():
                    self._sender.take_slot()
                    size = next(left)
                piece = unit[: size - data.tell()]
                data.write(piece)
                unit = unit[len(piece) :]
                if data.tell() == size:
                    yield self._sender.send(data.getvalue())
                    data = io.BytesIO()

    def _unit(self, layer: Layer) -> bytes:
        unit = self._small.get(layer.stored_digest)
        if unit is not None:
            return unit
        try:
            data = b"".join(self._read(self._held[layer.stored_digest]))
        except ArvadosError as error:
            raise LostLayerError(str(error)) from error
        return unit_header(layer) + data + bytes(padding(layer.size))

    def _note(self, arrangement: Arrangement, locator: str) -> None:
        key, layers = block_key(locator), [layer for segment in arrangement.segments for layer in segment.layers]
        if self._journal is None:
            return
        if key not in self._notes.forms:
            self._journal.add_form(key, arrangement.image_id, arrangement.universal)
        if key not in self._notes.images and all(layer.compression is None for layer in layers):
            self._journal.add_image(key, {layer.stored_digest: layer.size for layer in layers})

    @property
    def _notes(self) -> Notes:
        """What the journal said at the start."""
        return self._known.notes if self._known is not None else Notes()


def _already_stored(locator: str) -> "Future[StoredBlock]":
    stored: Future[StoredBlock] = Future()
    stored.set_result(StoredBlock(locator, reused=True))
    return stored


def _note_when_stored(journal: Journal, layer: Layer, blocks: Sequence["Future[StoredBlock]"]) -> None:
    left = len(blocks)
    counting = threading.Lock()

    def stored(_: "Future[StoredBlock]") -> None:
        nonlocal left
        with counting:
            left -= 1
            last = left == 0
        if last and not any(block.exception() for block in blocks):
            keys = [block_key(block.result().locator) for block in blocks]
            journal.add_layer(layer.stored_digest, layer.size, keys)

    for block in blocks:
        block.add_done_callback(stored)
