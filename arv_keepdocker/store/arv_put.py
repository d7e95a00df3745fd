"""arv-put's Python interface, in whichever shape the installed arvados-python-client has it.

To 3.2 the options are `arvados.commands.put.run_opts` and the work is `put.main()`, which returns the UUID; after
that they are `put.get_run_opts()` and `put.do_put()`, and `put.main()` never returns. Nothing else of this program
knows about arv-put.
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
    """Parsers of the options that arv-put has for a run, and of --retries, to be used as `parents`."""
    from arvados.commands import _util, put  # which reads the settings

    get_run_opts = getattr(put, "get_run_opts", None)
    # Copies: help texts are changed, and others in this process may use arv-put's.
    run_opts: argparse.ArgumentParser = get_run_opts() if get_run_opts is not None else copy.deepcopy(put.run_opts)
    retry_opt: argparse.ArgumentParser = copy.deepcopy(_util.retry_opt)
    for action in retry_opt._actions:
        if action.dest == "retries":
            action.type = _retries  # whose name the SDK's class would have in the error message
    return [run_opts, retry_opt]


def _retries(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)


def arguments(options: Mapping[str, object]) -> list[str]:
    """The command line for arv-put that has the effect of the parsed `options`.

    Made from what was parsed, not from what was typed: only the parser knows which words are values of options.
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
    """arv-put's line that tells a program how many bytes of how many are written."""
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
        raise ArvadosError("arv-put failed: " + ("; ".join(complaints) or "it made no collection"))
    return uuid


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect arv-put's error messages for our own, and keep its tracebacks from the user."""
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
