"""Locks that let only one run at a time on a machine store an image: others wait, and then find it in Arvados."""

import contextlib
from contextlib import AbstractContextManager
from types import TracebackType

from ..errors import CacheError
from ..terminal.display import Display
from .cache import Cache


class RunLock:
    """The locks that a run holds until its `with` block ends, by ids and digests of images."""

    def __init__(self, cache: Cache, display: Display, enabled: bool = True) -> None:
        """Unless `enabled`, nothing is locked."""
        self._enabled = enabled
        self._cache = cache
        self._display = display
        self._held: set[str] = set()
        self._stack = contextlib.ExitStack()
        self.has_waited = False
        """Whether another run had one of them, and may have changed what Arvados has."""

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def hold(self, digest: str) -> None:
        """Wait until no other run stores this image. If locking is impossible, print a warning and go on."""
        if digest in self._held or not self._enabled:
            return

        def waiting(pid: int | None) -> AbstractContextManager[None]:
            self.has_waited = True
            who = f"process {pid}" if pid is not None else "another run"
            return self._display.waiting(f"{who}, which is storing image {digest}", at_once=True)

        try:
            self._stack.enter_context(self._cache.lock(digest, waiting))
        except CacheError as error:
            self._display.warning(
                f"{error}; continuing without a lock: another run may store the same image at the same time"
            )
        self._held.add(digest)
