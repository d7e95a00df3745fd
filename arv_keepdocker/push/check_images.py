"""The check of one image or of many: one look at Arvados for all, and what they share is read once.

When a run is stopped, what it has found whole is not read again by the next one that has notes of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..catalog.located import Located, load
from ..errors import ArvadosError, CacheError, KeepdockerError
from ..keep.checks import Checks
from ..keep.journal import Journal
from ..parallel import in_order, side_by_side
from ..store import arv_put
from ..store.block_reader import block_checker
from ..store.checking import Checking
from ..terminal.progress import CheckProgress
from .check import Verdict, check, locate_image
from .from_arvados import looking, snapshot_of
from .request import Request, Tools

_AT_ONCE = 2
"""How many images are read at a time: each takes the memory of two blocks."""

Result = Verdict | KeepdockerError


def check_images(requests: Sequence[Request | KeepdockerError], tools: Tools) -> Iterator[Result]:
    """The verdicts, in the order of the requests, which differ only in what they ask for.

    An error in the place of a request is its result. Raises a KeepdockerError for what no image can be checked without.
    """
    errors: dict[int, Result] = {n: each for n, each in enumerate(requests) if isinstance(each, KeepdockerError)}
    wanted = {number: each for number, each in enumerate(requests) if isinstance(each, Request)}
    arriving = _Run(wanted, tools).results() if wanted else iter(())
    return in_order(len(requests), errors, arriving)


class _Run:
    def __init__(self, requests: Mapping[int, Request], tools: Tools) -> None:
        self._requests = requests
        self._tools = looking(tools)
        self._first = next(iter(requests.values()))
        self._project = tools.catalog.projects.resolve(self._first.project)
        self._checks = Checks(self._file(), self._first.resume)
        self._checking = Checking(block_checker(tools.catalog.client), self._checks)
        self._unclear = False

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
            yield from side_by_side(work, at_once)
        if not self._unclear:
            self._checks.forget()

    def _read(self) -> int:
        return self._checking.read

    def _result(self, number: int, located: Located) -> Iterator[tuple[int, Result]]:
        try:
            yield number, check(located, self._requests[number], self._project, self._tools, self._checking)
        except KeepdockerError as error:
            self._unclear = self._unclear or isinstance(error, ArvadosError)
            yield number, error

    def _file(self) -> Path | None:
        """Where the notes are; None if there are to be none, or if the cache directory cannot be used."""
        client = self._tools.catalog.client
        with suppress(CacheError):
            if self._first.remember:
                self._tools.cache.remove_leftovers()
                return self._tools.cache.path / Checks.filename(
                    Journal.filename(client.uuid_prefix, client.api.api_token)
                )
        return None

    def _tell_what_is_known(self) -> None:
        if self._checks.count:
            self._tools.display.note("what a check that was stopped has found whole is not read again")
