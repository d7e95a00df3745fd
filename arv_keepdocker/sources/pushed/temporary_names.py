"""The temporary tags by which images are pushed; each is removed at the end of the run or by the next run.

What was named is noted in the cache directory before, in a file whose lock says that the run still lives.
"""

import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ...errors import CacheError, EngineError
from ...keep.cache import LEFTOVER_DAYS, Cache, locked
from ..engine import Engine

_NOTE = re.compile(
    r"(127\.0\.0\.1:\d{1,5}/arv-keepdocker-[0-9a-f]{32}:[0-9a-f]{32}) (sha256:[0-9a-f]{64}) ([0-9a-f]{64})\n"
)
_SUFFIX = ".pushing"
_LONGEST_NOTE = 1000


class TemporaryNames:
    """The temporary tags of all runs of a user."""

    def __init__(self, cache: Cache, warn: Callable[[str], None]) -> None:
        self._cache = cache
        self._warn = warn

    @contextmanager
    def given(self, engine: Engine, image_id: str, name: str) -> Iterator[None]:
        """Tag the image with the name until the block ends. Raises EngineError, or CacheError if the name could not be
        noted for the next run."""
        path = self._cache.path / f"{secrets.token_hex(16)}{_SUFFIX}"
        with self._cache.writing():
            descriptor = locked(path, lambda _: nullcontext())
        try:
            with self._cache.writing():
                os.pwrite(descriptor, f"{name} {image_id} {_of(engine)}\n".encode(), 0)
            is_answered = False
            try:
                engine.tag(image_id, name)
                is_answered = True
                yield
            except EngineError:
                is_answered = True
                raise
            finally:
                # The engine may still add the tag after we stopped waiting; then the next run removes it.
                self._take_back(engine, image_id, name, path, anyway=is_answered)
        finally:
            os.close(descriptor)

    def take_back(self, engine: Engine) -> None:
        """Remove the tags that killed runs have left."""
        with suppress(OSError, CacheError):
            for path in self._cache.path.glob(f"*{_SUFFIX}"):
                with suppress(OSError):
                    self._take_back_noted(engine, path)

    def _take_back_noted(self, engine: Engine, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            note = _NOTE.fullmatch(os.pread(descriptor, _LONGEST_NOTE, 0).decode("ascii", "replace"))
            if note is None:  # the tag was not added yet
                path.unlink()
                return
            # The tag may be in another engine.
            is_old = os.fstat(descriptor).st_mtime < time.time() - LEFTOVER_DAYS * 24 * 60 * 60
            self._take_back(engine, note[2], note[1], path, anyway=is_old or note[3] == _of(engine))
        finally:
            os.close(descriptor)

    def _take_back(self, engine: Engine, image_id: str, name: str, path: Path, anyway: bool = True) -> None:
        """Remove the tag and the note. If the engine does not have the tag, remove the note only with `anyway`."""
        try:
            was_there = engine.untag(image_id, name)
        except EngineError as error:
            self._warn(f"the temporary name {name} stays in {engine.name} until the next run: {error}")
            return
        if was_there or anyway:
            path.unlink(missing_ok=True)


def _of(engine: Engine) -> str:
    """A key that identifies an engine."""
    return hashlib.sha256(f"{engine.name} {engine.address}".encode()).hexdigest()
