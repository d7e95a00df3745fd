"""The command as a process: it chooses the command, handles signals, reports errors, and sets the exit status."""

import argparse
import contextlib
import io
import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TextIO

from .. import __version__
from ..catalog import sdk_logs, settings
from ..catalog.client import ArvadosClient
from ..errors import EngineError, ImageNotFoundError, KeepdockerError, UsageError
from ..keep.cache import distrusted
from ..terminal import interrupts, streams
from ..terminal.display import PROGRAM, Display, Style
from ..terminal.interrupts import Interrupted
from . import usage
from .images_from import store_images
from .listing import list_images
from .parser import HelpAskedFor, option_parser
from .results import Result, print_result
from .storing import store_image

_SCRIPT = 4096
"""Bytes to read of an installed script to see which package it belongs to."""


def main(
    arguments: Sequence[str] | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    install_sig_handlers: bool = True,
    api: Any = None,
) -> NoReturn:
    """Run the command and end with SystemExit; see `arv_keepdocker.main`."""
    stdout = sys.stdout if stdout is None else stdout
    stderr = sys.stderr if stderr is None else stderr
    display = Display(stderr if stderr is not None else io.StringIO())  # stderr may be closed
    with _whole_process() if install_sig_handlers else contextlib.nullcontext():
        try:
            with contextlib.ExitStack() as stack:  # a listing is requested while it is printed
                result = _run(sys.argv[1:] if arguments is None else arguments, display, stdout, api, stack)
                print_result(result, stdout, display)
        except (Exception, Interrupted) as error:
            _end(error, display)
    sys.exit(result.status)


@contextlib.contextmanager
def _whole_process() -> Iterator[None]:
    """Set up signal handlers and limits for a process that runs nothing but this command, and restore them."""
    # A core file would contain the token: in our memory, and in the environment of docker, which inherits the limit.
    core_limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, core_limits[1]))
    try:
        with interrupts.by_signals():
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, core_limits)
        streams.empty(sys.stdout)
        streams.empty(sys.stderr)


def _end(error: BaseException, display: Display) -> NoReturn:
    """Report the error, and exit with its status."""
    display.close()
    interrupted = _interruption(error)
    if interrupted is not None:
        display.error(f"stopped by {interrupted.signal.name}", interrupted.hint)
        raise interrupted from None
    if os.environ.get("ARVADOS_DEBUG"):
        import traceback

        display.write(display.clean("".join(traceback.format_exception(error))))
    if isinstance(error, KeepdockerError):
        display.error(str(error), error.hint)
        sys.exit(error.exit_status)
    display.error(f"{type(error).__name__}: {error}", "This is a bug; ARVADOS_DEBUG=1 shows where.")
    sys.exit(1)


def _interruption(error: BaseException | None) -> Interrupted | None:
    """The interruption that led to the error, if any: a cleanup after it, as of the SDK's cache, may have failed."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error


def _run(
    arguments: Sequence[str], display: Display, stdout: TextIO | None, api: Any, stack: contextlib.ExitStack
) -> Result:
    """Run what the arguments ask for. The `stack` is closed after the result has been printed."""
    if "--version" in _before_dashes(arguments):
        _tell_of_another_program(display)
        return _version()  # without the half second that importing the SDK for the parser takes
    stack.enter_context(sdk_logs.in_our_words(display))
    for token in settings.tokens(api):
        display.hide(token)
    try:
        options, given = _parse(arguments)
    except HelpAskedFor as asked:
        return Result([str(asked)])
    if options.version:
        return _version()
    display.quiet = options.silent
    display.progress = _style(options, display)
    _tell_of_another_program(display)
    connect = partial(_connect, options, display, api)
    if usage.lists(options, given):
        return list_images(options, connect, streams.columns(stdout))
    if options.images_from is not None:
        stack.enter_context(_stops_explained(options))  # the images are stored while the results are printed
        return store_images(options, connect, display)
    with _mistakes_hinted_at(options.image), _stops_explained(options):
        return store_image(options, connect, display)


def _version() -> Result:
    import importlib.metadata

    client = importlib.metadata.version("arvados-python-client")
    return Result([f"arv-keepdocker {__version__} (arvados-python-client {client})\n"])


def _before_dashes(arguments: Sequence[str]) -> Sequence[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _style(options: argparse.Namespace, display: Display) -> Style:
    if options.no_progress or options.silent:
        return Style.NONE
    if options.batch_progress:
        return Style.BATCH
    redrawn = (options.progress or display.stream.isatty()) and os.environ.get("TERM") != "dumb"
    return Style.LINE if redrawn else Style.PLAIN


def _tell_of_another_program(display: Display) -> None:
    """Tell users of `keepdocker` if the `arv-keepdocker` beside it is another program, such as upstream's."""
    directory, name = os.path.split(sys.argv[0])
    beside = os.path.join(directory, PROGRAM)
    if name != "keepdocker":
        return
    with contextlib.suppress(OSError), open(beside, "rb") as file:
        if not any(word in file.read(_SCRIPT) for word in (b"arv_keepdocker", b"arv-keepdocker==")):
            display.note(f"{beside} is another program, probably arvados-python-client's; keepdocker is this one")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Mapping[str, str]]:
    """The options, and which of them were given; see `usage.lists`."""
    parser = option_parser()
    before = _before_dashes(arguments)
    # Intermixed parsing allows options between IMAGE and TAG, but would also parse what follows `--` as options.
    options = parser.parse_intermixed_args(before)
    for word in arguments[len(before) + 1 :]:
        if options.image is None:
            options.image = word
        elif options.tag is None:
            options.tag = word
        else:
            parser.error(f"unrecognized arguments: {word}")
    return options, parser.given


def _connect(options: argparse.Namespace, display: Display, api: Any) -> ArvadosClient:
    if api is not None:
        return ArvadosClient(api, options.retries, display)
    problem = distrusted(os.environ)
    if problem is not None:
        display.warning(f"{problem}: the cached description of Arvados' API is not used")
    return ArvadosClient.connect(options.retries, display, cache=problem is None)


@contextlib.contextmanager
def _mistakes_hinted_at(word: str | None) -> Iterator[None]:
    try:
        yield
    except (EngineError, ImageNotFoundError, UsageError) as error:
        error.hint = (usage.probably_meant(word) if word is not None else None) or error.hint
        raise


@contextlib.contextmanager
def _stops_explained(options: argparse.Namespace) -> Iterator[None]:
    """If a signal stops the run and its work is kept, say that the same command continues it."""
    try:
        yield
    except BaseException as error:
        stop = _interruption(error)
        checks = options.from_arvados is not None and options.dry_run
        writes = not options.force and not options.dry_run
        if stop is not None and options.resume and options.use_cache and (checks or writes):
            stop.hint = "The same command continues where this one stopped."
        raise
