"""Checks one image or many: Arvados is asked once for all of them, and what they share is read once.

If a run is stopped, the next one does not read again what is noted as intact.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..catalog.located import Located, load
from ..errors import ArvadosError, CacheError, KeepdockerError
from ..keep.journal import Journal
from ..keep.journal_of_checks import CheckJournal
from ..keep.locators import expires_before
from ..parallel import in_order, side_by_side
from ..store import arv_put
from ..store.block_reader import block_checker
from ..store.checking import Checking
from ..terminal.progress import CheckProgress
from .check import Verdict, check, locate_image
from .from_arvados import looking, snapshot_of
from .request import Request, Tools

_AT_ONCE = 2
"""Images to read at a time: each takes the memory of two blocks."""
_LONG = 60 * 60
"""Seconds that reading one image may take."""

Result = Verdict | KeepdockerError


def check_images(requests: Sequence[Request | KeepdockerError], tools: Tools) -> Iterator[Result]:
    """Yield the verdicts in the order of the requests, which differ only in the image.

    An error in place of a request is its result. Raises a KeepdockerError if no image can be checked at all.
    """
    errors: dict[int, Result] = {n: each for n, each in enumerate(requests) if isinstance(each, KeepdockerError)}
    wanted = {number: each for number, each in enumerate(requests) if isinstance(each, Request)}
    arriving = _Pipeline(wanted, tools).results() if wanted else iter(())
    return in_order(len(requests), errors, arriving)


class _Pipeline:
    def __init__(self, requests: Mapping[int, Request], tools: Tools) -> None:
        self._requests = requests
        self._client = tools.catalog.client
        self._tools = looking(tools)
        self._first = next(iter(requests.values()))
        self._project = tools.catalog.projects.resolve(self._first.project)
        self._checks = CheckJournal(self._file(), self._first.resume)
        self._checking = Checking(block_checker(tools.catalog.client), self._checks)
        self._unclear = False
        self._warned = False

    def results(self) -> Iterator[tuple[int, Result]]:
        """As they come."""
        requests = self._requests.values()
        sought = [request.sought for request in requests if request.sought is not None]
        load(snapshot_of(self._tools), sought, [request.name for request in requests if request.name is not None])
        located: dict[int, Located] = {}
        for number, request in self._requests.items():
            try:
                located[number] = locate_image(request, self._project, self._tools)
            except KeepdockerError as error:
                yield number, error
        self._tell_what_is_known()
        alone = len(located) == 1
        what = str(self._first) if alone else f"{len(located)} images"
        total = sum({each.content: each.size for each in located.values()}.values())
        display = self._tools.display
        with CheckProgress(display, f"checking {what}", self._read, total, arv_put.machine_progress):
            work = [partial(self._result, number, each) for number, each in located.items()]
            at_once = _AT_ONCE if self._tools.catalog.client.is_for_threads else 1
            for number, result in side_by_side(work, at_once):
                if isinstance(result, Verdict) and result.steps:
                    self._warn_of_project()
                yield number, result
        if not self._unclear:
            self._checks.forget()

    def _warn_of_project(self) -> None:
        """Say once if what would be made cannot be."""
        if self._warned:
            return
        self._warned = True
        with suppress(ArvadosError):
            refusal = self._tools.catalog.projects.why_not_writable(self._project)
            if refusal is not None:
                self._tools.display.warning(f"nothing could be made: {refusal}")

    def _read(self) -> int:
        return self._checking.read

    def _result(self, number: int, located: Located) -> Iterator[tuple[int, Result]]:
        try:
            located = self._fresh(located)
            yield number, check(located, self._requests[number], self._project, self._tools, self._checking)
        except KeepdockerError as error:
            self._unclear = self._unclear or isinstance(error, ArvadosError)
            yield number, error

    def _fresh(self, located: Located) -> Located:
        """With signatures that are good for as long as it takes to read the image."""
        if not expires_before(located.record["manifest_text"], time.time() + _LONG):
            return located
        return replace(located, record=self._client.get("collections", located.uuid))

    def _file(self) -> Path | None:
        """The path of the check journal; None if there is none, or the cache directory cannot be used."""
        client = self._tools.catalog.client
        with suppress(CacheError):
            if self._first.remember:
                self._tools.cache.remove_leftovers()
                return self._tools.cache.path / CheckJournal.filename(
                    Journal.filename(client.uuid_prefix, client.api.api_token)
                )
        return None

    def _tell_what_is_known(self) -> None:
        if self._checks.count:
            self._tools.display.note("what an interrupted check found whole is not read again")
