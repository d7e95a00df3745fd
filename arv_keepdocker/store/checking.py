"""Reads images from Keep to check them; what several images share is read once."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from ..images.canonical import HEADER, Arrangement, Segment, padding, unit_header
from ..keep.journal_of_checks import CheckJournal, key_of
from ..keep.locators import Piece, block_key, block_size
from ..sources.arvados import BlockError, Blocks, Get

Found = TypeVar("Found")


class Checking:
    """What one run has read. Safe for use in several threads."""

    def __init__(self, get: Get, checks: CheckJournal) -> None:
        self._get = get
        self.checks = checks
        self._lock = threading.Lock()
        self._results: dict[str, Future[Any]] = {}
        self.read = 0
        """Bytes read, or known to be intact."""

    def get(self, locator: str) -> bytes:
        """Read a block, and count its bytes."""
        data = self._get(locator)
        self.count(len(data))
        return data

    def count(self, size: int) -> None:
        with self._lock:
            self.read += size

    def once(self, key: str, find: Callable[[], Found]) -> Found:
        """The result of `find`, which is called once for each key; raises what it raised."""
        with self._lock:
            first = key not in self._results
            future: Future[Found] = self._results.setdefault(key, Future())
        if first:
            try:
                future.set_result(find())
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def faults(self, arrangement: Arrangement, blocks: Sequence[str]) -> list[str]:
        """What is wrong with the layers of a canonical archive with these blocks. Raises ArvadosError."""
        left = list(blocks)
        found: list[str] = []
        for segment in arrangement.segments:
            own, left = left[: len(segment.blocks)], left[len(segment.blocks) :]
            words = [f"{layer.stored_digest} {layer.size}" for layer in segment.layers]
            key = key_of(["segment", *words, *map(block_key, own)])
            if key in self._results:
                self.count(segment.size)  # of which another image takes care
            found += self.once(key, partial(self._segment_faults, key, segment, own))
        return found

    def lost(self, blocks: Sequence[str]) -> list[str]:
        """What is wrong with these blocks in Keep. Raises ArvadosError."""
        problems = [
            self.once(f"block {block_key(block)}", partial(self._problem, block)) for block in dict.fromkeys(blocks)
        ]
        return [problem for problem in problems if problem is not None]

    def _problem(self, block: str) -> str | None:
        try:
            self.get(block)
        except BlockError as error:
            return str(error)
        return None

    def _segment_faults(self, key: str, segment: Segment, blocks: Sequence[str]) -> list[str]:
        if self.checks.find(key) is not None:
            self.count(segment.size)
            return []
        try:
            with Blocks([Piece(block, 0, block_size(block)) for block in blocks], self.get) as data:
                faults = list(_damaged(segment, data))
        except BlockError as error:
            return self.lost(blocks) or [str(error)]
        if not faults:
            self.checks.add(key)
        return faults


def _damaged(segment: Segment, data: Blocks) -> Iterator[str]:
    """Messages for the layers of a segment whose digests are wrong."""
    for layer in segment.layers:
        digest = hashlib.sha256()
        header = data.exactly(HEADER)
        for piece in data.pieces(layer.size):
            digest.update(piece)
        whole = header == unit_header(layer) and not any(data.exactly(padding(layer.size)))
        if not whole or f"sha256:{digest.hexdigest()}" != layer.stored_digest:
            yield f"layer {layer.diff_id} is damaged: its bytes are sha256:{digest.hexdigest()}"
