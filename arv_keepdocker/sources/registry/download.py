"""The download of one blob, which continues where a connection broke."""

import re
from collections.abc import Iterator, Mapping

from ...errors import RegistryError
from .http_errors import TemporaryError
from .transport import Answer
from .urls import host_of

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)


class Download:
    """The state of one blob's download."""

    def __init__(self, digest: str, size: int) -> None:
        self.digest = digest
        self.size = size
        self.done = 0
        self.whole = False
        self.by_range = True
        """Whether to ask for the rest only."""

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Range": f"bytes={self.done}-"} if self.done and self.by_range else {}

    def take(self, answer: Answer) -> Iterator[bytes]:
        """The bytes of an answer that have not been received before."""
        host = host_of(answer.url)
        skip = self.done - self._start(answer)
        if answer.status == 200 and answer.length not in (None, self.size):
            said = f"{host} has {answer.length} bytes of blob {self.digest}"
            raise RegistryError(f"{said}; the manifest says {self.size}")
        for data in answer.chunks():
            skipped = min(skip, len(data))
            skip -= skipped
            self.done += len(data) - skipped
            if self.done > self.size:
                raise RegistryError(f"{host} sent more than the {self.size} bytes of blob {self.digest}")
            if len(data) > skipped:
                yield data[skipped:]
        if self.done < self.size:
            raise TemporaryError(f"{host} sent {self.done} of the {self.size} bytes of blob {self.digest}")
        self.whole = True

    def _start(self, answer: Answer) -> int:
        """The offset in the blob at which an answer begins."""
        if answer.status == 200:
            return 0
        found = _CONTENT_RANGE.fullmatch(answer.header("Content-Range").strip())
        if found is None or int(found[1]) > self.done or found[3] not in ("*", str(self.size)):
            self.by_range = False
            raise TemporaryError(f"{host_of(answer.url)} sent a part of a blob that was not asked for", wait=0.0)
        return int(found[1])
