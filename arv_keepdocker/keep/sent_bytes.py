"""Counts the bytes of a block while the SDK sends it to Keep.

The SDK itself counts a block when all of it has been sent, which on a slow line is a minute later. It takes its pycurl
handles from a pool, and sets on each the function that reads the block: that is where the bytes are counted.
"""

import contextlib
import fcntl
import queue
import struct
import termios
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any


class SentBytes:
    """The counts of one Keep client. Safe for use in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._transfers: defaultdict[str, list[BlockTransfer]] = defaultdict(list)

    @staticmethod
    def of(keep: Any) -> "SentBytes":
        """The counts of an `arvados.keep.KeepClient`, always the same object. They stay 0 if the SDK has no pool."""
        pool = getattr(keep, "_user_agent_pool", None)
        if isinstance(pool, _Pool):
            return pool.sent_bytes
        sent_bytes = SentBytes()
        if pool is not None:
            keep._user_agent_pool = _Pool(sent_bytes)
        return sent_bytes

    def sent(self, key: str) -> int:
        """Bytes of the block `md5+size` sent so far; with several services, to the slowest."""
        with self._lock:
            transfers = self._transfers.get(key.partition("+")[0], ())
            return min((transfer.sent for transfer in transfers), default=0)

    @contextlib.contextmanager
    def sending(self, md5: str) -> "Iterator[BlockTransfer]":
        """The block is being sent to one service. Its bytes still count afterwards if it has `arrived`."""
        transfer = BlockTransfer()
        with self._lock:
            self._transfers[md5].append(transfer)
        try:
            yield transfer
        finally:
            transfer.descriptor = -1
            if not transfer.arrived:
                with self._lock:
                    self._transfers[md5].remove(transfer)


class BlockTransfer:
    """A block on its way to one service."""

    def __init__(self) -> None:
        self.read = 0
        self.descriptor = -1
        """Of the socket."""
        self.arrived = False

    @property
    def sent(self) -> int:
        """What was read, minus what the kernel has not sent yet."""
        return max(self.read - _unsent(self.descriptor), 0)


def _unsent(descriptor: int) -> int:
    """Bytes in a socket's send queue that the other side has not acknowledged (SIOCOUTQ, tcp(7))."""
    with contextlib.suppress(OSError, ValueError):  # it may be closed meanwhile; not every system tells
        return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0])
    return 0


class _Pool(queue.LifoQueue[Any]):
    """The SDK's pool of handles, which creates handles that count."""

    def __init__(self, sent_bytes: SentBytes) -> None:
        super().__init__()
        self.sent_bytes = sent_bytes
        self._handle = _handle_type(sent_bytes)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return super().get(block=False)
        except queue.Empty:
            return self._handle()


def _handle_type(sent_bytes: SentBytes) -> Callable[[], Any]:
    import pycurl

    class Handle(pycurl.Curl):  # type: ignore[misc]
        """A pycurl handle that counts what it sends of a block."""

        def __init__(self) -> None:
            super().__init__()
            # A pycurl.Curl finds attributes of its class first.
            self.md5 = ""
            self.transfer = BlockTransfer()
            self.connection = -1

        def setopt(self, option: int, value: Any) -> Any:
            if option == pycurl.URL:
                self.md5 = value.decode().rpartition("/")[2]
            elif option == pycurl.OPENSOCKETFUNCTION:
                value = partial(self._opened, value)
            elif option == pycurl.READFUNCTION:
                value = partial(self._read, value)
            return super().setopt(option, value)

        def perform(self) -> None:
            with sent_bytes.sending(self.md5) as self.transfer:
                self.transfer.descriptor = self.connection  # if it uses that again, which nobody tells
                super().perform()
                self.connection = self.getinfo(pycurl.ACTIVESOCKET)
                self.transfer.arrived = self.getinfo(pycurl.RESPONSE_CODE) == HTTPStatus.OK

        def _opened(self, open_socket: Callable[..., Any], *arguments: Any) -> Any:
            opened = open_socket(*arguments)
            self.transfer.descriptor = opened.fileno()
            return opened

        def _read(self, read: Callable[[int], bytes], size: int) -> bytes:
            data = read(size)
            self.transfer.read += len(data)
            return data

    return Handle
