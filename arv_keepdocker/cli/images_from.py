"""The command that stores many images: it reads their names, and prints a line for each."""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..catalog.client import ArvadosClient
from ..catalog.located import Sought
from ..catalog.plan import Action
from ..errors import EngineError, ImageNotFoundError, KeepdockerError, UsageError
from ..push.many_images import push_many
from ..push.request import Outcome, Request
from ..terminal.display import Display, escaped
from . import json_results, usage
from .results import Result
from .storing import check_stdin, make_reference, make_request, make_tools, shown, status_of

_MADE = {
    Action.STORED: "stored",
    Action.COMPLETED: "completed",
    Action.COPIED: "copied from other projects",
    Action.LINKED: "given a name",
    Action.FOUND: "there already",
}
_LONGEST_LINE = 1000
"""Characters; a reference has less."""


def store_images(options: argparse.Namespace, connect: Callable[[], ArvadosClient], display: Display) -> Result:
    """Store the images that the lines of a file name; a failure does not stop the others."""
    with display.waiting("standard input" if options.images_from == "-" else options.images_from):
        images = _images(options.images_from)
    common = make_request(options)
    requests = [_request(options, common, image) for image in images]
    tools = make_tools(options, connect, display)
    if options.from_arvados is not None and options.dry_run:
        from .verdicts import check_many

        return check_many(options, images, requests, tools)
    result = Result([])
    started = time.monotonic()

    def pieces() -> Iterator[str]:
        outcomes: list[Outcome | KeepdockerError] = []
        for image, request, outcome in zip(images, requests, push_many(requests, tools), strict=True):
            outcomes.append(outcome)
            if isinstance(outcome, KeepdockerError):
                display.error(f"{image}: {outcome}", _hint(image, outcome))
                result.status = _first_failure(outcomes)
                if options.format == "json":
                    yield json.dumps(json_results.of_failure(image, outcome)) + "\n"
                continue
            assert isinstance(request, Request)
            result.status = result.status or status_of(request, outcome)
            line = shown(options, image, outcome)
            plain = options.format != "json" and not options.dry_run
            yield f"{line.rstrip()} {escaped(image)}\n" if plain else line
        display.note(_summary(outcomes, time.monotonic() - started, options.dry_run))

    result.pieces = pieces()
    return result


def _images(file: str) -> list[str]:
    """The images that the lines name. Raises KeepdockerError if there are none, or the file cannot be read."""
    if file == "-":
        check_stdin("--images-from")
    try:
        with open(0 if file == "-" else file, encoding="utf-8", closefd=file != "-") as lines:
            images = [" ".join(line.partition("#")[0].split()) for line in lines]
    except OSError as error:
        raise KeepdockerError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not a list of images: {error}") from error
    images = [image for image in images if image]
    if not images:
        raise UsageError(f"{'standard input' if file == '-' else file} lists no images")
    return images


def _request(options: argparse.Namespace, common: Request, image: str) -> Request | KeepdockerError:
    source, words = [], image.split()
    form = "IMAGE [TAG]"
    if options.from_arvados is not None:
        source, words = words[:1], words[1:]
        form = f"SOURCE [{form}]"
    try:
        if len(words) > 2 or len(image) > _LONGEST_LINE:
            raise UsageError(f"this line is not {form}")
        reference = make_reference(options, words[0], words[1] if words[1:] else None) if words else None
        # Pushes come one at a time, which is faster than saving only where somebody knows that.
        pushes = bool(common.via_push)
        sought = Sought.parse(source[0]) if source else None
        return replace(common, sought=sought, reference=reference, via_push=pushes)
    except UsageError as error:
        return error


def _hint(image: str, error: KeepdockerError) -> str | None:
    likely = isinstance(error, EngineError | ImageNotFoundError | UsageError)
    return (usage.probably_meant(image) if likely else None) or error.hint


def _first_failure(outcomes: Sequence[Outcome | KeepdockerError]) -> int:
    return next(outcome.exit_status for outcome in outcomes if isinstance(outcome, KeepdockerError))


def _summary(outcomes: Sequence[Outcome | KeepdockerError], seconds: float, dry_run: bool) -> str:
    done = [outcome for outcome in outcomes if isinstance(outcome, Outcome)]
    counts = Counter(outcome.plan.action for outcome in done)
    would = "would be " if dry_run else ""
    parts = [
        f"{counts[made]} {would if made is not Action.FOUND else ''}{words}"
        for made, words in _MADE.items()
        if counts[made]
    ]
    if len(done) < len(outcomes):
        parts.append(f"{len(outcomes) - len(done)} failed")
    sent = sum(outcome.content.sent for outcome in done if outcome.content is not None)
    images = "1 image" if len(outcomes) == 1 else f"{len(outcomes)} images"
    return f"{images}: {', '.join(parts)}; {sent / (1 << 20):.1f} MiB {would}sent ({seconds:.1f} s)"
