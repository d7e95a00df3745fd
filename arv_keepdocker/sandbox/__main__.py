"""The command that runs a sandbox: python -m arv_keepdocker.sandbox."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

_DESCRIPTION = """\
A stand-in Arvados cluster on this machine's loopback, for trying arv-keepdocker and for its tests: the API over
HTTPS and Keep over HTTP, with the data in a directory. It prints what to put into the environment, and runs until
it is told to stop by SIGTERM or SIGINT."""
_USAGE = """\
in the shell:
  python -m arv_keepdocker.sandbox > sandbox.env &
  until grep -q '^# ready' sandbox.env; do sleep 0.1; done
  eval "$(cat sandbox.env)"
  arv-keepdocker hello-world
  kill %1
The environment is that of the user "active"; the file named in the output has the tokens of the other users."""


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m arv_keepdocker.sandbox",
        description=_DESCRIPTION,
        epilog=_USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--directory", type=Path, help="keep users, tokens and data here between runs (default: forget them)"
    )
    parser.add_argument("--api-port", type=int, default=0, help="default: that of the last run, or any free one")
    parser.add_argument("--keep-port", type=int, default=0, help="of the first Keep service; the others follow it")
    parser.add_argument(
        "--keep-services", type=_positive, default=1, metavar="N", help="default: 1, which keeps two copies"
    )
    parser.add_argument("--seed-images", type=int, default=0, metavar="N", help="begin with N made-up images")
    parser.add_argument("--seed-owner", default="active", metavar="USER", help="who owns them (default: active)")
    parser.add_argument("--seed-number", type=int, default=1, metavar="N", help="other numbers give other images")
    parser.add_argument("--discard-blocks", action="store_true", help="check blocks and forget their contents")
    parser.add_argument("--watch-stdin", action="store_true", help="also stop when standard input ends")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = vars(_parser().parse_args(arguments))
    os.umask(0o077)
    try:
        from . import ports, server
    except ImportError as error:
        print(f"The sandbox needs one more package: {error}; pip install 'arv-keepdocker[sandbox]'", file=sys.stderr)
        return 1
    given: Path | None = options["directory"]
    with nullcontext(given) if given else tempfile.TemporaryDirectory(prefix="arv-sandbox-") as directory:
        options["directory"] = Path(directory).absolute()
        try:
            descriptor = server.lock(options["directory"])
            try:
                asyncio.run(server.serve(server.Options(**options)))
            finally:
                os.close(descriptor)
        except (server.StartError, ports.PortInUse, OSError) as error:
            print(f"arv_keepdocker.sandbox: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
