"""The command: arguments in, options to the library, result and errors out, exit status."""

import argparse
import contextlib
import gc
import io
import itertools
import os
import resource
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, NoReturn, TextIO

from .. import __version__
from ..catalog import sdk_logs, settings, stored_images
from ..catalog.client import Cluster
from ..catalog.records import Catalog
from ..catalog.stored_images import StoredImage
from ..errors import EngineError, ImageNotFoundError, KeepdockerError, UsageError
from ..images import reference
from ..images.platform import Platform
from ..images.reference import Reference
from ..keep.cache import Cache, distrusted
from ..push.request import Outcome, Request, Tools
from ..push.story import push
from ..sources.engine import Engine
from ..terminal import interrupts, streams
from ..terminal.display import PROGRAM, Display, Style, escaped
from . import usage
from .filters import ORDERS, Filters
from .formats import FORMATS, QUIET
from .parser import ENGINE, UNIVERSAL, VIA_PUSH, HelpAskedFor, option_parser

_SWITCH = {
    "": None,
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_WOULD_WRITE = 7
"""The exit status of a dry run that would have written something."""
_ARV_PUT_THREADS = 64
"""It starts all that it may at once, whether they are needed or not."""
_TAGS = 10
"""Tags that are named where another was looked for."""
_SCRIPT = 4096
"""Bytes at the begin of an installed script that tell whose it is."""
_LINES = 1000
"""Lines of a listing that are written at a time."""


def main(
    arguments: Sequence[str] | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    install_sig_handlers: bool = True,
    api: Any = None,
) -> NoReturn:
    """Run the command and end with SystemExit; see `arv_keepdocker.main`."""
    stderr = sys.stderr if stderr is None else stderr
    display = Display(stderr if stderr is not None else io.StringIO())  # it may be closed
    if install_sig_handlers:  # the process is ours
        # A core file would have the token in it; docker, which inherits this, would have it in its environment.
        core_limits = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, core_limits[1]))
        handlers = {number: signal.signal(number, _interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.ExitStack() as stack:  # a listing is asked for while it is printed
            result = _run(sys.argv[1:] if arguments is None else arguments, display, api, stack)
            _print(result, sys.stdout if stdout is None else stdout)
    except (Exception, _Interrupted) as error:
        interrupted = _interruption(error)
        if interrupted is not None:
            display.error(f"stopped by {interrupted.signal.name}")
            raise interrupted from None
        _show_traceback(display)
        if isinstance(error, KeepdockerError):
            display.error(str(error), error.hint)
            sys.exit(error.exit_status)
        display.error(f"{type(error).__name__}: {error}", "This is a bug; ARVADOS_DEBUG=1 shows where.")
        sys.exit(1)
    finally:
        if install_sig_handlers:
            for number, handler in handlers.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, core_limits)
            streams.empty(sys.stdout)
            streams.empty(sys.stderr)
    sys.exit(result.status)


class _Interrupted(SystemExit):
    """A signal asks for the end. A SystemExit, since arv-put would save half a file after a KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


def _interruption(error: BaseException | None) -> _Interrupted | None:
    """The signal's, also where something that was cleaning up after it (the SDK's cache does) has failed in turn."""
    while error is not None and not isinstance(error, _Interrupted):
        error = error.__cause__ or error.__context__
    return error


def _interrupted(number: int, frame: FrameType | None) -> None:
    interrupts.interrupt(_Interrupted(number))


@dataclass(frozen=True)
class _Result:
    """What goes to stdout, in pieces."""

    pieces: Iterable[str]
    status: int = 0
    """The exit status."""
    whole: bool = True
    """Whether it is an error if nobody reads it to its end."""


def _run(arguments: Sequence[str], display: Display, api: Any, stack: contextlib.ExitStack) -> _Result:
    """Do what the arguments ask for. The `stack` is closed when the result has been printed."""
    if "--version" in _before_dashes(arguments):
        _tell_of_another_program(display)
        return _version()  # without the half second that importing the SDK for the parser takes
    stack.enter_context(sdk_logs.in_our_words(display))
    for token in settings.tokens(api):
        display.hide(token)
    try:
        options, given = _parse(arguments)
    except HelpAskedFor as asked:
        return _Result([str(asked)])
    if options.version:
        return _version()
    display.quiet = options.silent
    display.progress = _style(options, display)
    _tell_of_another_program(display)
    if usage.lists(options, given):
        with _without_garbage_collection():
            return _Result(_listing(options, display, api), whole=False)
    with _mistakes_hinted_at(options.image):
        return _push(options, display, api)


def _style(options: argparse.Namespace, display: Display) -> Style:
    if options.no_progress or options.silent:
        return Style.NONE
    if options.batch_progress:
        return Style.BATCH
    redrawn = (options.progress or display.stream.isatty()) and os.environ.get("TERM") != "dumb"
    return Style.LINE if redrawn else Style.PLAIN


def _tell_of_another_program(display: Display) -> None:
    """Who runs `keepdocker` may run `arv-keepdocker` tomorrow, which may be arvados-python-client's."""
    directory, name = os.path.split(sys.argv[0])
    beside = os.path.join(directory, PROGRAM)
    if name != "keepdocker":
        return
    with contextlib.suppress(OSError), open(beside, "rb") as file:
        if not any(word in file.read(_SCRIPT) for word in (b"arv_keepdocker", b"arv-keepdocker==")):
            display.note(f"{beside} is another program, probably arvados-python-client's; keepdocker is this one")


def _version() -> _Result:
    import importlib.metadata

    client = importlib.metadata.version("arvados-python-client")
    return _Result([f"arv-keepdocker {__version__} (arvados-python-client {client})\n"])


def _before_dashes(arguments: Sequence[str]) -> Sequence[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Mapping[str, str]]:
    """The options, and which of them were given; see `usage.lists`."""
    parser = option_parser()
    before = _before_dashes(arguments)
    # Intermixed, so that options may stand between IMAGE and TAG; it would take what follows `--` for options too.
    options = parser.parse_intermixed_args(before)
    for word in arguments[len(before) + 1 :]:
        if options.image is None:
            options.image = word
        elif options.tag is None:
            options.tag = word
        else:
            parser.error(f"unrecognized arguments: {word}")
    return options, parser.given


def _cluster(options: argparse.Namespace, display: Display, api: Any) -> Cluster:
    if api is not None:
        return Cluster(api, options.retries, display)
    problem = distrusted(os.environ)
    if problem is not None:
        display.warning(f"{problem}: what is kept there of Arvados' API is not used")
    return Cluster.connect(options.retries, display, cache=problem is None)


def _push(options: argparse.Namespace, display: Display, api: Any) -> _Result:
    from ..store import arv_put

    if options.dry_run and options.via_arv_put:
        raise UsageError("--dry-run is not for --via-arv-put")
    if options.from_archive == "-":
        _check_stdin()
    outcome = push(
        Request(
            reference=_reference(options),
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
        ),
        Tools(
            Engine(options.engine or os.environ.get(ENGINE), display.waiting),
            Catalog(_cluster(options, display, api)),
            Cache(os.environ),
            display,
        ),
    )
    if not options.dry_run:
        return _Result([f"{outcome.collection}\n"])
    return _Result([_preview(outcome)], _WOULD_WRITE if outcome.plan.steps else 0)


def _check_stdin() -> None:
    if sys.stdin is None or sys.stdin.closed:
        raise KeepdockerError("standard input, which --from-archive - reads, is closed")
    if sys.stdin.isatty():
        raise UsageError(
            "standard input, which --from-archive - reads, is a terminal",
            f"Give it an archive, as in: docker save IMAGE | {PROGRAM} --from-archive -",
        )


def _preview(outcome: Outcome) -> str:
    name = f" ({escaped(outcome.name)})" if outcome.name is not None else ""
    where = f"in Arvados, in {outcome.collection}" if outcome.collection is not None else "not in Arvados"
    lines = [f"image {outcome.image_id}{name}: {where}"]
    lines += [
        f"layer {layer.diff_id}: {layer.size} bytes, {'new' if layer.new else 'known'}" for layer in outcome.layers
    ]
    lines += [f"would make {escaped(step)}" for step in outcome.plan.steps]
    return "\n".join([*lines, f"{outcome.sent} bytes would be sent"]) + "\n"


def _reference(options: argparse.Namespace) -> Reference | None:
    if options.image is None:
        return None
    found = reference.parse(options.image, options.tag)
    if options.from_registry:
        if found.name is None:
            raise UsageError(f"{found} is an id, by which no registry knows an image; give its name")
    elif options.from_archive is None:
        return found
    elif found.name is None:
        raise UsageError(f"{found} is an id; with --from-archive, IMAGE is the name that the image gets")
    return replace(found, id_prefix=None)


def _switch(option: bool | None, variable: str) -> bool | None:
    """What the option says, else the environment's variable; None if neither does."""
    if option is not None:
        return option
    setting = os.environ.get(variable, "").lower()
    if setting not in _SWITCH:
        raise UsageError(f"{variable} is {setting!r}; it can be 1 or 0")
    return _SWITCH[setting]


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Python would look again and again through tens of thousands of images, of which none is garbage: a quarter of
    the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _listing(options: argparse.Namespace, display: Display, api: Any) -> Iterator[str]:
    form = QUIET if options.quiet else FORMATS[options.format or "table"]
    filters = Filters.parse(options.filter)
    order = ORDERS.get(options.sort)
    cluster = _cluster(options, display, api)
    if options.project_uuid is not None:
        Catalog(cluster).projects.owner(options.project_uuid)  # what is not there is not empty
    fields = {*form.fields, *(order.fields if order is not None else ())}

    def find(name: str) -> list[StoredImage]:
        return stored_images.matching(cluster, *reference.split_query(name), options.project_uuid, sorted(fields))

    images = (
        stored_images.every(cluster, options.project_uuid, sorted(fields)) if options.tag is None else find(options.tag)
    )
    if options.tag is not None and not images:
        raise _not_listed(cluster, options.tag, options.project_uuid)
    for condition in filters.conditions(find):
        images = [image for image in images if condition(image)]
    if order is not None:
        order.sort(images)
    images = images[: options.limit]
    owners = stored_images.owner_names(cluster, images) if form.owners else {}
    lines = iter(form.write(images, owners, options.trunc))
    return iter(lambda: "".join(itertools.islice(lines, _LINES)), "")


def _not_listed(cluster: Cluster, text: str, project: str | None) -> ImageNotFoundError:
    """Says what was looked for, and what there is of that repository."""
    name, tag = reference.split_query(text)
    repository = name.partition("@")[0]
    looked_for = text if text.lower().startswith("sha256:") else f"{name}:{tag or reference.DEFAULT_TAG}"
    where = f" in {project}" if project is not None else ""
    tags = stored_images.tags(cluster, repository, project)
    more = f" and {len(tags) - _TAGS} more" if len(tags) > _TAGS else ""
    hint = f"There is {', '.join(tags[:_TAGS])}{more}." if tags else usage.probably_meant(text)
    return ImageNotFoundError(f"Arvados has no image {looked_for} that you may read{where}", hint)


@contextlib.contextmanager
def _mistakes_hinted_at(word: str | None) -> Iterator[None]:
    try:
        yield
    except (EngineError, ImageNotFoundError, UsageError) as error:
        error.hint = (usage.probably_meant(word) if word is not None else None) or error.hint
        raise


def _print(result: _Result, stdout: TextIO | None) -> None:
    shown = f", which is: {''.join(result.pieces)}" if result.whole else ""
    if stdout is None:  # closed when Python started
        raise KeepdockerError(f"there is no standard output for the result{shown}")
    for piece in result.pieces:
        try:
            streams.write(piece, stdout)
        except BrokenPipeError as error:
            if result.whole:
                raise KeepdockerError(f"nobody reads the result{shown}") from error
            return  # whoever reads has seen enough, as in `| head`
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise KeepdockerError(f"{reason} while writing the result{shown}") from error


def _show_traceback(display: Display) -> None:
    if os.environ.get("ARVADOS_DEBUG"):
        import traceback

        display.write(display.clean(traceback.format_exc()))
