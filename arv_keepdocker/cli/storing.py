"""The command that stores an image, according to the options, and prints its collection's UUID."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace

from ..catalog.catalog import Catalog
from ..catalog.client import ArvadosClient
from ..catalog.entry import check_title
from ..catalog.located import Sought
from ..errors import KeepdockerError, UsageError
from ..images import reference
from ..images.platform import Platform
from ..images.reference import Reference
from ..keep.cache import Cache
from ..push.request import Outcome, Request, Tools
from ..push.story import push
from ..sources.engine import Engine
from ..terminal.display import Display, escaped
from . import json_results
from .parser import ENGINE, UNIVERSAL, VIA_PUSH, invoked_as
from .results import Result

_SWITCH = {
    "": None,
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_WOULD_WRITE = 7
"""The exit status of a dry run that would have written something."""
_AS_IN = {
    "--from-archive": "Give it an archive, as in: docker save IMAGE | {} --from-archive -",
    "--images-from": "Give it lines, as in: echo IMAGE | {} --images-from -",
}
_ARV_PUT_THREADS = 64
"""The most threads that arv-put is given: it starts all of them at once, whether needed or not."""


def store_image(options: argparse.Namespace, connect: Callable[[], ArvadosClient], display: Display) -> Result:
    """Store the image, or for a dry run say what would be written; `connect` is called once the options are checked."""
    request = make_request(options)
    tools = make_tools(options, connect, display)
    image = " ".join(filter(None, (options.from_arvados, options.image, options.tag))) or None
    if request.sought is not None and request.dry_run:
        from .verdicts import check_one

        return check_one(options, str(image), request, tools)
    outcome = push(request, tools)
    return Result([shown(options, image, outcome)], status_of(request, outcome))


def status_of(request: Request, outcome: Outcome) -> int:
    """The exit status for an image that was stored, or would be."""
    return _WOULD_WRITE if request.dry_run and outcome.plan.steps else 0


def make_tools(options: argparse.Namespace, connect: Callable[[], ArvadosClient], display: Display) -> Tools:
    """The engine, the catalog and the other tools that the options choose."""
    engine = Engine(options.engine or os.environ.get(ENGINE), display.waiting)
    return Tools(engine, Catalog(connect()), Cache(os.environ), display, sys.executable or "python3")


def shown(options: argparse.Namespace, image: str | None, outcome: Outcome) -> str:
    """What is printed for an image; `image` is how it was given."""
    if options.format == "json":
        return json.dumps(json_results.of_outcome(image, outcome, options.dry_run)) + "\n"
    if options.dry_run:
        return _preview(outcome)
    content = outcome.content
    if options.portable_data_hash and content is not None:
        return f"{content.portable_data_hash}\n"
    return f"{outcome.collection}\n"


def make_request(options: argparse.Namespace) -> Request:
    """The options as a request. Raises KeepdockerError if they are invalid or standard input cannot be read."""
    from ..store import arv_put

    if options.dry_run and options.via_arv_put:
        raise UsageError("--dry-run is not for --via-arv-put")
    if options.name is not None:
        check_title(options.name)
    if options.from_archive == "-":
        check_stdin("--from-archive")
    return Request(
        reference=None if options.image is None else make_reference(options, options.image, options.tag),
        sought=Sought.parse(options.from_arvados) if isinstance(options.from_arvados, str) else None,
        archive=options.from_archive,
        registry=options.from_registry,
        insecure=options.insecure_registry,
        platform=Platform.parse(options.platform) if options.platform is not None else None,
        universal=_switch(options.universal, UNIVERSAL),
        project=options.project_uuid,
        title=options.name,
        pull=options.pull,
        force=options.force,
        force_image_format=options.force_image_format,
        resume=options.resume and options.use_cache,
        remember=options.use_cache,
        threads=options.threads,
        dry_run=options.dry_run,
        via_push=_switch(options.via_push, VIA_PUSH),
        via_arv_put=options.via_arv_put,
        put_arguments=[*arv_put.arguments(vars(options)), f"--threads={min(options.threads, _ARV_PUT_THREADS)}"],
    )


def check_stdin(option: str) -> None:
    """Raise KeepdockerError if standard input has nothing that the option can read."""
    if sys.stdin is None or sys.stdin.closed:
        raise KeepdockerError(f"standard input, which {option} - reads, is closed")
    if sys.stdin.isatty():
        raise UsageError(f"standard input, which {option} - reads, is a terminal", _AS_IN[option].format(invoked_as()))


def make_reference(options: argparse.Namespace, image: str, tag: str | None) -> Reference:
    """The reference that IMAGE [TAG] means with these options. Raises UsageError if it is none or does not fit them."""
    found = reference.parse(image, tag)
    if options.from_registry:
        if found.name is None:
            raise UsageError(f"{found} is an id, and registries know images only by name; give the name")
    elif options.from_archive is None and options.from_arvados is None:
        return found
    elif found.name is None:
        option = "--from-archive" if options.from_archive is not None else "--from-arvados"
        raise UsageError(f"{found} is an id; with {option}, IMAGE is the name that the image gets")
    return replace(found, id_prefix=None)


def _switch(option: bool | None, variable: str) -> bool | None:
    """The value of an option or, without it, of the environment variable; None if neither is set."""
    if option is not None:
        return option
    setting = os.environ.get(variable, "").lower()
    if setting not in _SWITCH:
        raise UsageError(f"{variable} is {setting!r}; it must be 1 or 0")
    return _SWITCH[setting]


def _preview(outcome: Outcome) -> str:
    name = f" ({escaped(outcome.name)})" if outcome.name is not None else ""
    where = f"in Arvados, in {outcome.collection}" if outcome.collection is not None else "not in Arvados"
    content = outcome.content
    layers = content.layers or () if content is not None else ()
    lines = [f"image {outcome.image_id}{name}: {where}"]
    lines += [f"layer {layer.diff_id}: {layer.size} bytes, {'new' if layer.new else 'known'}" for layer in layers]
    lines += [f"would make {escaped(step)}" for step in outcome.plan.steps]
    return "\n".join([*lines, f"{content.sent if content is not None else 0} bytes would be sent"]) + "\n"
