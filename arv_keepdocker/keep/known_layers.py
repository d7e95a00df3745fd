"""What is in Keep already: blocks, and the layers in stored canonical archives."""

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ..errors import ArvadosError
from ..images.canonical import BLOCK_SIZE, HEADER, Segment, parse, segments, unit_size
from ..images.layers import Layer
from .journal import Journal, Notes
from .locators import block_key, block_size, blocks_of_one_file, is_signed_until, locators

END_LIMIT = 1 << 20
"""Bytes of a last block to read at most; only images with thousands of layers have longer ones."""
_READERS = 8


@dataclass(frozen=True)
class StoredManifest:
    """The manifest of a stored image that the user can read."""

    text: str
    """With signed locators."""
    mine: bool
    """Whether this user was the last to modify it."""


@dataclass(frozen=True)
class KnownLayer:
    """A layer that is in Keep."""

    layer: Layer
    segment: Segment
    """The segment that it is stored in."""
    locators: tuple[str, ...]
    """The signed locators of the segment's blocks."""
    mine: bool
    """Whether this user has stored it, so that it can be reused without being verified."""

    def read(self, get: Callable[[str], bytes]) -> Iterator[bytes]:
        """Read the layer, in pieces. Raises what `get` raises, and ArvadosError if the digest is wrong."""
        number = self.segment.layers.index(self.layer)
        start = sum(map(unit_size, self.segment.layers[:number])) + HEADER
        end = start + self.layer.size
        digest = hashlib.sha256()
        for index in range(start // BLOCK_SIZE, -(-end // BLOCK_SIZE)):
            offset = index * BLOCK_SIZE
            piece = get(self.locators[index])[max(start - offset, 0) : end - offset]
            digest.update(piece)
            yield piece
        if self.layer.stored_digest != f"sha256:{digest.hexdigest()}":
            raise ArvadosError(f"what Arvados has as layer {self.layer.diff_id} is something else")


class KnownLayers:
    """Knows which blocks need not be sent, and which layers need not even be read. Safe for use in several threads.

    Nothing is asked for before it is needed. Without `journal`, earlier runs on this machine are not known.
    """

    def __init__(
        self,
        manifests: Callable[[], Sequence[StoredManifest]],
        journal: Journal | None,
        get: Callable[[str], bytes],
        until: float,
        remember: bool = True,
    ) -> None:
        """`manifests` returns those of stored images, the most promising first; `get` reads a block from Keep. Locators
        must be valid until `until` (seconds since 1970). The journal is written only with `remember`."""
        self._load = manifests
        self._journal = journal
        self._remember = remember
        self.get = get
        self._until = until
        self._lock = threading.RLock()
        self._manifests: Sequence[StoredManifest] | None = None
        self._read_notes: Notes | None = None
        self._sent_blocks: dict[str, str] = {}
        self._held: dict[str, list[KnownLayer]] | None = None
        self._added: dict[str, KnownLayer] = {}
        self._keep_fails = False
        """Whether Keep was asked again and again in vain: it is not asked for another image's last block."""

    @property
    def notes(self) -> Notes:
        """What the journal says."""
        with self._lock:
            if self._read_notes is None:
                self._read_notes = self._journal.read(self._until) if self._journal is not None else Notes()
                self._sent_blocks = {block_key(each): each for each in self._read_notes.locators}
            return self._read_notes

    @property
    def manifests(self) -> Sequence[StoredManifest]:
        """The manifests of stored images. Raises ArvadosError."""
        with self._lock:
            if self._manifests is None:
                self._manifests = self._load()
            return self._manifests

    def blocks(self) -> dict[str, str]:
        """The locators of all known blocks, by `md5+size`. Raises ArvadosError."""
        sent = self.notes.locators
        there = [
            each
            for each in locators(manifest.text for manifest in self.manifests)
            if is_signed_until(each, self._until)
        ]
        added = [each for held in list(self._added.values()) for each in held.locators]
        return {block_key(each): each for each in (*sent, *there, *added)}

    def add(self, segment: Segment, locators: Sequence[str]) -> None:
        """Add a segment that is in Keep now, for the next images."""
        if all(layer.compression is None for layer in segment.layers):  # or their diff ids were not checked
            self._added.update(
                (layer.stored_digest, KnownLayer(layer, segment, tuple(locators), True)) for layer in segment.layers
            )

    def copies_of(self, digest: str) -> Sequence[KnownLayer]:
        """The copies of the layer with this digest, the best first. Raises ArvadosError."""
        sent = self._added.get(digest) or self._sent(digest)
        return [sent] if sent is not None else self._stored().get(digest, [])

    def segment_locators(self, segment: Segment) -> Sequence[str] | None:
        """The locators of the segment's blocks, if this user has stored exactly this segment. Raises ArvadosError."""
        for held in self.copies_of(segment.layers[0].stored_digest):
            if held.mine and held.segment == segment:
                return held.locators
        return None

    def _sent(self, digest: str) -> KnownLayer | None:
        """The layer, if it is in the journal."""
        noted = self.notes.layers.get(digest)
        if noted is None:
            return None
        size, keys = noted
        segment = Segment((Layer(digest, size),))
        found = tuple(self._sent_blocks[key] for key in keys)
        return (
            KnownLayer(segment.layers[0], segment, found, mine=True)
            if list(map(block_size, found)) == segment.blocks
            else None
        )

    def _stored(self) -> dict[str, list[KnownLayer]]:
        """The layers of stored images, by their digests."""
        with self._lock:
            if self._held is None:
                found: dict[str, list[KnownLayer]] = defaultdict(list)
                candidates = [(each, blocks_of_one_file(each.text)) for each in self.manifests]
                good = [
                    (each, blocks)
                    for each, blocks in candidates
                    if all(is_signed_until(b, self._until) for b in blocks)
                ]
                noted = self.notes.images  # the readers do not get the lock
                layers = _side_by_side(partial(self._layers, noted), [blocks for _, blocks in good])
                for (each, blocks), those in sorted(
                    zip(good, layers, strict=True), key=lambda pair: not pair[0][0].mine
                ):
                    for held in _held(those, blocks, each.mine):
                        found[held.layer.stored_digest].append(held)
                self._held = found
            return self._held

    def _layers(self, noted: Mapping[str, Mapping[str, int]], blocks: Sequence[str]) -> Mapping[str, int]:
        """The layers of the canonical archive in these blocks; empty if they are not one."""
        if not blocks or block_size(blocks[-1]) > END_LIMIT:
            return {}
        key = block_key(blocks[-1])
        if key in noted:
            return noted[key]
        if self._keep_fails:
            return {}
        try:
            end = self.get(blocks[-1])
        except ArvadosError as error:
            self._keep_fails |= error.retry_reason is not None
            return {}  # then it is not reused
        found = parse(end, list(map(block_size, blocks)))
        stored = [layer for segment in found.segments for layer in segment.layers] if found is not None else []
        if any(layer.compression is not None for layer in stored):
            stored = []  # their diff ids were not checked
        layers = {layer.stored_digest: layer.size for layer in stored}
        if self._journal is not None and self._remember:
            self._journal.add_image(key, layers)
        return layers


def _side_by_side(
    read: Callable[[Sequence[str]], Mapping[str, int]], candidates: Sequence[Sequence[str]]
) -> list[Mapping[str, int]]:
    try:
        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(read, candidates))
    except RuntimeError:  # the system gives no more threads
        return list(map(read, candidates))


def _held(layers: Mapping[str, int], blocks: Sequence[str], mine: bool) -> Iterator[KnownLayer]:
    """The layers of a canonical archive, with their blocks."""
    left = list(blocks)
    for segment in segments(Layer(digest, size) for digest, size in layers.items()):
        count = len(segment.blocks)
        own, left = tuple(left[:count]), left[count:]
        if list(map(block_size, own)) != segment.blocks:
            return  # the notes are not of this archive
        for layer in segment.layers:
            yield KnownLayer(layer, segment, own, mine)
