"""The commands that check images in Arvados, and how their verdicts are worded and printed."""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from ..errors import KeepdockerError
from ..push.check import Verdict
from ..push.check_images import check_images
from ..push.request import Request, Tools
from ..terminal.display import escaped
from . import json_results
from .results import Result

_STEP = "would make"
_WORDS = ("good", "mended", "incomplete", "mendable", "broken", "failed")


def check_one(options: argparse.Namespace, image: str, request: Request, tools: Tools) -> Result:
    """Check one image and print the verdict. Raises a KeepdockerError if it cannot be checked."""
    (verdict,) = check_images([request], tools)
    if isinstance(verdict, KeepdockerError):
        raise verdict
    if options.format == "json":
        return Result([json.dumps(json_results.of_verdict(image, verdict)) + "\n"], verdict.exit_status)
    lines = [_head(image, verdict), *(f"{kind}: {said}" for kind, said in _details(verdict))]
    return Result([f"{line}\n" for line in lines], verdict.exit_status)


def check_many(
    options: argparse.Namespace, images: Sequence[str], requests: Sequence[Request | KeepdockerError], tools: Tools
) -> Result:
    """Check the images and print a line for each; one that cannot be checked does not stop the others."""
    result = Result([])
    started = time.monotonic()

    def pieces() -> Iterator[str]:
        words: Counter[str] = Counter()
        failed = False
        for image, verdict in zip(images, check_images(requests, tools), strict=True):
            status = verdict.exit_status
            if isinstance(verdict, KeepdockerError):
                tools.display.error(f"{image}: {verdict}", verdict.hint)
                words["failed"] += 1
                if options.format == "json":
                    yield json.dumps(json_results.of_failure(image, verdict)) + "\n"
            else:
                words[verdict.word] += 1
                yield _line(options, image, verdict)
            # The status of the first failure; something to write is not a failure.
            broken = isinstance(verdict, KeepdockerError) or bool(verdict.facts.faults)
            if not failed and (broken or not result.status):
                result.status = status
            failed = failed or broken
        tools.display.note(_summary(words, time.monotonic() - started))

    result.pieces = pieces()
    return result


def _line(options: argparse.Namespace, image: str, verdict: Verdict) -> str:
    if options.format == "json":
        return json.dumps(json_results.of_verdict(image, verdict)) + "\n"
    details = "; ".join(f"{kind} {said}" if kind == _STEP else said for kind, said in _details(verdict))
    return f"{_head(image, verdict)}{': ' if details else ''}{details}\n"


def _head(image: str, verdict: Verdict) -> str:
    return f"{verdict.word} {verdict.located.uuid} {escaped(image)}"


def _details(verdict: Verdict) -> list[tuple[str, str]]:
    """The verdict's details, each with its kind: a fault, a finding or a step."""
    facts = verdict.facts
    details = [("fault", each) for each in facts.faults]
    details += [("finding", each) for each in facts.findings]
    details += [(_STEP, each) for each in verdict.steps]
    return [(kind, escaped(said)) for kind, said in details]


def _summary(words: Counter[str], seconds: float) -> str:
    count = sum(words.values())
    parts = [f"{words[word]} {word}" for word in _WORDS if words[word]]
    return f"{count} image{'s' if count != 1 else ''} checked: {', '.join(parts)} ({seconds:.1f} s)"
