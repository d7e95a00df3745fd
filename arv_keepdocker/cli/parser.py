"""The options, in groups; the help, the manual page and the completions are made from them."""

import argparse
import os
import sys
import textwrap
from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

from ..errors import UsageError
from ..push.request import Request
from ..terminal.display import PROGRAM
from . import help_texts
from .filters import ORDERS
from .listing_formats import FORMATS

ENGINE = "ARV_KEEPDOCKER_ENGINE"
UNIVERSAL = "ARV_KEEPDOCKER_UNIVERSAL"
VIA_PUSH = "ARV_KEEPDOCKER_VIA_PUSH"
ARVADOS_LINES = True
"""What stands for --from-arvados without a SOURCE: the lines of --images-from name them."""
_WIDTH = 79
_COLUMN = 26
"""Where the texts begin that say what something means."""
_USAGE = """\
%(prog)s [OPTIONS] IMAGE [TAG]
       %(prog)s [OPTIONS] --images-from FILE
       %(prog)s [OPTIONS] [images [NAME[:TAG]]]"""
_GROUPS = ("image", "source", "project", "transfer", "output", "listing")
_MOST_USED = (
    "--pull",
    "--from-archive",
    "--from-registry",
    "--project-uuid",
    "--dry-run",
    "--format",
    "--filter",
    "--help",
)
_ABBREVIATED = ("--force", "--force-image-format", "--help", "--pull", "--no-pull", "--version")
"""The options that upstream has, beside arv-put's."""
_ARV_PUTS: Mapping[str, tuple[str, str]] = {
    "--project-uuid": ("project", "store in this project (default: your home project), or list only what it owns"),
    "--name": ("project", "name of the collection (default: Docker image REPO:TAG sha256:XXXXX)"),
    "--progress": ("output", "show progress on stderr (default if that is a terminal)"),
    "--no-progress": ("output", "show no progress"),
    "--batch-progress": ("output", "show progress in lines for programs"),
    "--silent": ("output", "show only warnings and errors on stderr; the UUID is printed all the same"),
    "--batch": ("transfer", "accepted for compatibility; has no effect"),
    "--resume": ("transfer", "do not send again what an interrupted run has sent (default)"),
    "--no-resume": ("transfer", "ignore what an interrupted run has sent"),
    "--cache": ("transfer", "take notes of what is sent, to resume from (default)"),
    "--no-cache": ("transfer", "neither read nor write these notes"),
    "--retries": ("transfer", "how many times to retry a request after a temporary failure (default: 10)"),
}
"""arv-put's options: in which group each is shown, and what it means here."""


class HelpAskedFor(Exception):
    """Raised when help is asked for; its only argument is the help text, which is printed like any other result."""


class _Help(argparse.Action):
    """`--help` shows all options, `-h` the most used ones."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> NoReturn:
        assert isinstance(parser, Parser)
        raise HelpAskedFor(parser.format_short_help() if option == "-h" else parser.format_help())


class Parser(argparse.ArgumentParser):
    """Records which options were given, whatever their values; only upstream's options can be abbreviated."""

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        self.given: dict[str, str] = {}
        self._upstreams: set[str] = {*_ABBREVIATED, *self._option_string_actions}  # these are arv-put's

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings:
            both = isinstance(action, argparse.BooleanOptionalAction)
            self.given[action.dest] = "/".join(action.option_strings) if both else action.option_strings[-1]
        return super()._get_values(action, arg_strings)

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        found: list[Any] = super()._get_option_tuples(option_string)
        return [one for one in found if not one[1].startswith("--") or one[1] in self._upstreams]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {invoked_as()} --help")

    def format_help(self) -> str:
        """The usage and all options, and the tables that follow them."""
        self.epilog = _epilog()
        return super().format_help()

    def format_short_help(self) -> str:
        """The usage and the most used options."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, [])
        formatter.add_text(self.description)
        formatter.start_section("most used options")
        formatter.add_arguments([self._option_string_actions[option] for option in _MOST_USED])
        formatter.end_section()
        formatter.add_text(f"{self.prog} --help shows all options, man {self.prog} the manual.")
        return formatter.format_help()


def invoked_as() -> str:
    """The command for advice: `keepdocker` for who uses it, since `arv-keepdocker` may be upstream's program there."""
    return next((name for name in map(os.path.basename, sys.argv[:1]) if name == "keepdocker"), PROGRAM)


def option_parser() -> Parser:
    """The parser of the command line; the manual page and the shells' completions are made from it, too."""
    from ..store import arv_put

    parser = Parser(
        prog=PROGRAM,
        usage=_USAGE,
        description=help_texts.PURPOSE,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=_WIDTH, max_help_position=_COLUMN),
        parents=arv_put.option_parsers(),
        add_help=False,
    )
    theirs = list(parser._actions)
    groups = {title: parser.add_argument_group(title) for title in _GROUPS}
    _add_image_options(groups["image"])
    _add_source_options(groups["source"])
    _add_transfer_options(groups["transfer"])
    _add_output_options(groups["output"])
    _add_listing_options(groups["listing"])
    for action in theirs:
        title, action.help = _ARV_PUTS.get(action.option_strings[-1], ("transfer", action.help))
        groups[title]._group_actions.append(action)
        action.metavar = "N" if action.dest == "retries" else action.metavar
    parser._action_groups = list(groups.values())
    return parser


def _epilog() -> str:
    """The tables that follow the options."""
    tables: Mapping[str, Mapping[str, str]] = {
        "exit status": {str(status): meaning for status, meaning in help_texts.EXIT_STATUSES.items()},
        "environment": help_texts.ENVIRONMENT,
        "files": help_texts.FILES,
    }
    return "\n\n".join(f"{title}:\n{_table(rows)}" for title, rows in tables.items())


def _table(rows: Mapping[str, str]) -> str:
    lines = []
    column = 7 if max(map(len, rows)) < 5 else _COLUMN
    for term, meaning in rows.items():
        first, *others = textwrap.wrap(meaning.replace("`", ""), _WIDTH - column, break_on_hyphens=False)
        beside = len(term) + 4 <= column
        lines += [f"  {term}".ljust(column) + first] if beside else [f"  {term}", " " * column + first]
        lines += [" " * column + line for line in others]
    return "\n".join(lines)


def _add_image_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("image", metavar="IMAGE", nargs="?", help="repo, repo:tag, repo@sha256:DIGEST, or an image id")
    add("tag", metavar="TAG", nargs="?", help="the tag, if IMAGE has none (default: latest)")
    add("--platform", metavar="PLATFORM", help="OS/ARCH or OS/ARCH/VARIANT: which of an image's platforms to store")
    add(
        "--universal",
        action=argparse.BooleanOptionalAction,
        help="store the image in the form that has the same id in every container engine (default for images from "
        f"Docker's containerd image store, unless ${UNIVERSAL} says otherwise)",
    )
    add("-f", "--force", action="store_true", help="store the image again even if Arvados has it")
    add("--force-image-format", action="store_true", help="store the image even if the cluster refuses its format")


def _add_source_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--images-from",
        metavar="FILE",
        help="store many images in one run: each line of the file is an IMAGE [TAG], or begins with #; '-' is standard "
        "input. Prints a line for each: the UUID and IMAGE",
    )
    group.add_argument(
        "--engine",
        metavar="PROGRAM",
        help=f"docker or podman, a name or a path (default: ${ENGINE}, or docker, or podman where there is no docker)",
    )
    pull = group.add_mutually_exclusive_group()
    pull.add_argument("--pull", action="store_true", help="pull the image first; the registry may have a newer one")
    pull.add_argument("--no-pull", action="store_false", dest="pull", help="store what the engine has (default)")
    _add_other_sources(group)


def _add_other_sources(group: argparse._ArgumentGroup) -> None:
    """Add the options for sources that need no engine."""
    group.add_argument(
        "--from-archive",
        metavar="FILE",
        help="store the image in an archive from docker save, podman save, skopeo or others, plain or "
        "compressed (gzip, xz, bzip2, zstd); '-' is standard input. IMAGE [TAG] is its name, by default its own",
    )
    group.add_argument(
        "--from-registry",
        action="store_true",
        help="download the image from its registry, without a container engine, with the credentials that docker "
        "login or podman login has stored",
    )
    group.add_argument(
        "--from-arvados",
        metavar="SOURCE",
        nargs="?",
        const=ARVADOS_LINES,
        help="use an image that Arvados has: SOURCE is a name, an id, a collection's UUID or a portable data hash, and "
        "IMAGE [TAG] the name that it gets, by default all that it has. With --dry-run it is checked; with "
        "--images-from, each line is SOURCE [IMAGE [TAG]]",
    )
    group.add_argument(
        "--insecure-registry",
        action="store_true",
        help="accept any certificate of the registry, and plain HTTP: others on the network can then read your "
        "password and change the image",
    )


def _add_transfer_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--threads",
        type=_count,
        metavar="N",
        default=Request.threads,
        help="how many blocks to send at a time (default: %(default)s); each takes 64 MiB of memory",
    )
    group.add_argument(
        "--via-push",
        action=argparse.BooleanOptionalAction,
        help="let the engine push the image to this program, which takes only the layers that Arvados lacks, instead "
        f"of saving all of it (default: large images of Docker's containerd store, unless ${VIA_PUSH} says otherwise)",
    )
    group.add_argument(
        "--via-arv-put", action="store_true", help="save the image to the cache directory and upload it with arv-put"
    )


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--dry-run",
        action="store_true",
        help="print what would be written to Arvados, and write nothing; exit status 7 if there is anything to write",
    )
    add(
        "--portable-data-hash",
        action="store_true",
        help="print the portable data hash of the image's collection instead of the UUID",
    )
    add("-h", action=_Help, nargs=0, dest="help", default=argparse.SUPPRESS, help="show the most used options")
    add("--help", action=_Help, nargs=0, default=argparse.SUPPRESS, help="show all options")
    add("--version", action="store_true", help="print the versions of this program and of arvados-python-client")


def _add_listing_options(group: argparse._ArgumentGroup) -> None:
    form = group.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=FORMATS,
        help="table (default), wide (with sizes and projects), json (an array) or jsonl (an object in each line); json "
        "also for an image that is stored",
    )
    form.add_argument("-q", "--quiet", action="store_true", help="print only the UUIDs of the collections")
    group.add_argument("--no-trunc", action="store_false", dest="trunc", help="do not cut ids to 12 characters")
    group.add_argument(
        "--filter",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="list only images with some name (reference=PATTERN), older or newer than another (before=IMAGE, "
        "since=IMAGE), or without a name (dangling=true); can be given more than once",
    )
    group.add_argument(
        "--sort",
        choices=ORDERS,
        help="by time (newest first), name, or size (largest first); default: the order in which Arvados prefers them",
    )
    group.add_argument("--limit", type=_count, metavar="N", help="list only the first N")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"it must be 1 or more, not {text!r}")
    return int(text)
