"""arv-put's Python interface, as the installed version of arvados-python-client has it.

Up to 3.2, the options are `arvados.commands.put.run_opts`, and `put.main()` does the work and returns the UUID. Later
versions have `put.get_run_opts()` and `put.do_put()`, and their `put.main()` never returns. No other module knows
arv-put.
"""

import argparse
import contextlib
import copy
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import ArvadosError

_LOGGER = "arvados.arv_put"


def option_parsers() -> list[argparse.ArgumentParser]:
    """The parsers of arv-put's options for a run and of --retries, to use as `parents`."""
    from arvados.commands import _util, put  # which reads the settings

    get_run_opts = getattr(put, "get_run_opts", None)
    run_opts = get_run_opts() if get_run_opts is not None else _copy(put.run_opts)
    retry_opt = _copy(_util.retry_opt)
    for action in retry_opt._actions:
        if action.dest == "retries":
            action.type = _retries  # whose name the SDK's class would have in the error message
    return [run_opts, retry_opt]


def _copy(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """A copy whose options can be given other help texts: others in this process may use arv-put's own parsers."""
    # What the options consist of is not changed, and copying all of it takes longer than parsing a command line.
    options = {id(action): copy.copy(action) for action in parser._actions}
    return copy.deepcopy(parser, {**options, id(parser._registries): parser._registries})


def _retries(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return int(text)


def arguments(options: Mapping[str, object]) -> list[str]:
    """The arguments for arv-put that have the effect of the parsed `options`.

    They are made from the parsed options, not from the command line: only the parser knows which words are values.
    """
    words: list[str] = []
    for parser in option_parsers():
        for action in parser._actions:
            value = options.get(action.dest, action.default)
            if not action.option_strings or value is None or value == action.default:
                continue
            flag = action.option_strings[-1]
            if action.nargs == 0:
                words += [flag] if value == action.const else []
            else:
                words += [f"{flag}={each}" for each in (value if isinstance(value, list) else [value])]
    return words


def machine_progress(written: int, expected: int | None) -> str:
    """arv-put's line of progress for programs: `written` of `expected` bytes."""
    import arvados.commands.put as arv_put

    line: str = arv_put.machine_progress(written, expected)
    return line


def put(path: str, filename: str, words: Sequence[str], api: Any) -> str:
    """Store the file at `path` as the only file, called `filename`, of a new collection, and return its UUID.

    Raises ArvadosError, with arv-put's words, when it fails. Its progress and notes go to stderr.
    """
    import arvados.commands.put as arv_put

    output = io.StringIO()
    command = [*words, "--batch", f"--filename={filename}", "--", path]
    if hasattr(arv_put, "api_client"):
        arv_put.api_client = api
    do_put = getattr(arv_put, "do_put", None) or arv_put.main
    with _complaints() as complaints:
        try:
            result = do_put(command, stdout=output, install_sig_handlers=False)
        except SystemExit as end:
            if type(end) is not SystemExit:
                raise  # a signal's, not arv-put's
            if end.code:
                raise ArvadosError("arv-put failed: " + ("; ".join(complaints) or f"exit status {end.code}")) from end
            result = output.getvalue()
        except Exception as error:
            raise ArvadosError(f"arv-put failed: {error}") from error
    # With --silent nothing is written to `output`.
    uuid = str(result or output.getvalue()).strip()
    if not uuid:
        raise ArvadosError("arv-put failed: " + ("; ".join(complaints) or "it did not create a collection"))
    return uuid


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect arv-put's error messages, to become part of ours, and keep its tracebacks from the user."""
    logger = logging.getLogger(_LOGGER)
    complaints: list[str] = []

    def passes(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.levelno >= logging.ERROR:
            complaints.append(" ".join(message.split()))
            return False
        debugging = logging.getLogger("arvados").isEnabledFor(logging.DEBUG)
        return debugging or not message.startswith("Abnormal termination")

    logger.addFilter(passes)
    try:
        yield complaints
    finally:
        logger.removeFilter(passes)
