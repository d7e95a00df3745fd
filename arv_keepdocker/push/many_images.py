"""Many images in one run: Arvados is asked once for all of them, and shared layers are read and sent once.

First, every image is found in its source, and Arvados is asked for all of them at once. Those that it has are done. The
others are stored as `story` tells it, two at a time, but one after the other if they share layers. An image that fails
does not stop the others. If the run is stopped, the images stored so far are complete, and up to two others leave
behind what `story` says.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ..catalog.catalog import Catalog
from ..catalog.located import load
from ..catalog.snapshot import Snapshot
from ..errors import KeepdockerError
from ..keep.run_lock import RunLock
from ..parallel import in_order, side_by_side
from ..store.content import Content
from ..terminal.image_display import ImageDisplay
from . import preconditions
from .found_image import FoundImage
from .groups import Groups
from .lookup import look_up
from .request import Outcome, Request, Tools
from .story import find_image, report, store_found

AT_ONCE = 2
"""How many images are stored at a time."""

Result = Outcome | KeepdockerError


def push_many(requests: Sequence[Request | KeepdockerError], tools: Tools) -> Iterator[Result]:
    """Store the images, and yield their results in the order of the requests, which differ only in their references.

    An error in place of a request is its result. Raises a KeepdockerError if no image can be stored at all.
    """
    results: dict[int, Result] = {}
    wanted: dict[int, Request] = {}
    for number, request in enumerate(requests):
        if isinstance(request, Request):
            wanted[number] = request
        else:
            results[number] = request
    arriving = _Pipeline(wanted, tools).results() if wanted else iter(())
    yield from in_order(len(requests), results, arriving)


class _Pipeline:
    """Takes all images from request to result; images are known by the numbers of their requests."""

    def __init__(self, requests: Mapping[int, Request], tools: Tools) -> None:
        self._requests = requests
        first = next(iter(requests.values()))
        if first.title is not None:
            tools.catalog.check_title(first.title)
        self._project = tools.catalog.projects.resolve(first.project)
        self._force = first.force
        self._snapshot = Snapshot(tools.catalog.client)
        self._tools = {
            number: replace(tools, display=ImageDisplay(tools.display, str(request)))
            for number, request in requests.items()
        }
        self._looking = Catalog(self._snapshot, tools.catalog.projects)
        # Pushes all come to the one address that docker knows; and neither arv-put nor every client is for threads.
        one = first.via_push or first.via_arv_put or not tools.catalog.client.is_for_threads
        self._at_once = 1 if one else AT_ONCE
        self._groups = Groups(first, tools, self._at_once)
        self._started: dict[int, float] = {}

    def results(self) -> Iterator[tuple[int, Result]]:
        """The results in the order in which they are ready."""
        if not self._force:
            self._load(list(self._requests.values()))
        found = yield from self._each(self._requests, self._find)
        waiting: dict[int, FoundImage] = {}
        while found:
            left = yield from self._look_up_all(found)
            waiting |= {number: each for number, each in left.items() if each.describe is None}
            undescribed = [number for number, each in left.items() if each.describe is not None]
            found = yield from self._each(undescribed, partial(self._describe, left))
        groups = self._groups.of(dict(sorted(waiting.items())))
        yield from side_by_side([partial(self._store_group, group) for group in groups], self._at_once)

    def _load(self, requests: Sequence[Request]) -> None:
        """Ask Arvados for all that the requests name."""
        references = [request.reference for request in requests if request.reference is not None]
        names = [each.name for each in references if each.name is not None]
        sought = [request.sought for request in requests if request.sought is not None]
        if sought:
            load(self._snapshot, sought, names)
        else:
            self._snapshot.load(names, [each.id_prefix for each in references if each.id_prefix is not None])

    def _each(
        self, numbers: Iterable[int], find: Callable[[int], FoundImage]
    ) -> Generator[tuple[int, Result], None, dict[int, FoundImage]]:
        """The images found, in the order of the numbers; yields those that fail as results."""
        found: dict[int, FoundImage] = {}

        def attempt(number: int) -> Iterator[tuple[int, FoundImage | KeepdockerError]]:
            try:
                yield number, find(number)
            except KeepdockerError as error:
                yield number, error

        for number, result in side_by_side([partial(attempt, number) for number in numbers], self._at_once):
            if isinstance(result, KeepdockerError):
                yield number, result
            else:
                found[number] = result
        return dict(sorted(found.items()))

    def _find(self, number: int) -> FoundImage:
        """The image in its source; if that is an archive, with its id."""
        request = self._requests[number]
        self._started[number] = time.monotonic()
        preconditions.check_names([request.name])
        tools = replace(self._tools[number], catalog=self._looking)
        return self._groups.identified(find_image(request, self._project, tools))

    def _describe(self, found: Mapping[int, FoundImage], number: int) -> FoundImage:
        describe = found[number].describe
        assert describe is not None
        return describe()

    def _look_up_all(
        self, found: Mapping[int, FoundImage]
    ) -> Generator[tuple[int, Result], None, dict[int, FoundImage]]:
        """Look all of them up in Arvados at once; returns those that are not there, or not as requested."""
        if self._force:
            return dict(found)
        entries = [each.entry for each in found.values()]
        digests = [digest for each in found.values() for digest in each.digests]
        self._snapshot.load([entry.name for entry in entries if entry.name is not None], digests)
        left: dict[int, FoundImage] = {}
        for number, each in found.items():
            try:
                outcome = self._already_stored(number, each)
            except KeepdockerError as error:
                yield number, error
                continue
            if outcome is not None:
                yield number, outcome
            else:
                left[number] = each
        return left

    def _already_stored(self, number: int, found: FoundImage) -> Outcome | None:
        """The outcome for an image to which nothing is missing in Arvados; None for any other."""
        request, tools = self._requests[number], replace(self._tools[number], catalog=self._looking)
        plan = look_up(found, request, self._looking, incomplete=False)
        if plan is None or plan.steps or plan.record is None:
            return None
        preconditions.warn_of_found(found, request, tools)
        outcome = Outcome(plan, plan.source, Content.of(plan.record), time.monotonic() - self._started[number])
        if not request.dry_run:
            report(outcome, tools)
        return outcome

    def _store_group(self, group: Mapping[int, FoundImage]) -> Iterator[tuple[int, Result]]:
        """Store images that share layers, one after the other."""
        with self._groups.shared_upload() as shared_upload:
            for number, found in group.items():
                request, tools = self._requests[number], replace(self._tools[number], shared_upload=shared_upload)
                try:
                    with RunLock(tools.cache, tools.display, enabled=not request.dry_run) as lock:
                        outcome = store_found(found, request, tools, lock)
                    if not request.dry_run:
                        report(outcome, tools)
                    yield number, replace(outcome, seconds=time.monotonic() - self._started[number])
                except KeepdockerError as error:
                    yield number, error
