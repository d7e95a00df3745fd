"""Checks which options go together, and guesses what was meant by a likely mistake."""

import argparse
import os
import re
import shlex
from collections.abc import Mapping

from ..errors import UsageError
from ..images import reference
from .parser import ARVADOS_LINES

LIST_WORD = "images"
_LISTING = {"filter", "format", "limit", "quiet", "sort", "trunc"}
"""Options for listings only, by the parser's `dest`, as in all these sets."""
_RESULT = {"format"}
"""Those that also choose what is printed for a stored image."""
_BOTH = {"project_uuid", "retries"}
_ON_STDERR = {"batch", "batch_progress", "no_progress", "progress", "silent"}
"""Options that do not affect a listing. They can be used with the word `images`, but do not imply a listing."""
_OF_ENGINES = {"pull": "--pull", "engine": "--engine", "via_push": "--via-push"}
_FROM = {
    "from_archive": ("--from-archive", "a file"),
    "from_registry": ("--from-registry", "a registry"),
    "from_arvados": ("--from-arvados", "Arvados"),
}
"""The options that name a source, by `dest`: the option, and what the source is."""

_TRANSPORT = re.compile(r"(?:[a-z][a-z0-9-]*://|docker-daemon:|containers-storage:)(.+)")
_FILE_TRANSPORT = re.compile(r"(?:docker|oci)-archive:(.+)")
_COLLECTION = re.compile(r"[0-9a-z]{5}-4zz18-[0-9a-z]{15}|[0-9a-f]{32}\+[0-9]+")
_LIST_WORDS = ("ls", "list", "image", LIST_WORD)


def lists(options: argparse.Namespace, given: Mapping[str, str]) -> bool:
    """Whether the command line asks for a listing instead of storing an image.

    `given` maps the `dest` of each option that was given to the option. Raises UsageError for a combination that makes
    no sense; in particular, a script's unset variable must not list everything.
    """
    _check_values(options, given)
    if options.image == LIST_WORD:
        _check_listing(options, given)
        return True
    if all(option is None for option in (options.image, *_sources(options))):
        if storing := _others(given, _LISTING | _BOTH):
            raise UsageError(
                f"{storing} is for storing an image, and there is no IMAGE", f"'{LIST_WORD}' lists those in Arvados."
            )
        return True
    what = options.image or _named(options)
    if listing := _others(given, given.keys() - _LISTING | _RESULT):
        raise UsageError(f"{listing} is for listing images, and {what} is to be stored")
    _check_result(options, what)
    return False


def _sources(options: argparse.Namespace) -> tuple[object, ...]:
    """The options that name what to store, so that no IMAGE is needed."""
    return options.from_archive, options.from_arvados, options.images_from


def _named(options: argparse.Namespace) -> str:
    if options.images_from is not None:
        return "what --images-from names"
    return "an archive" if options.from_archive is not None else f"{options.from_arvados} in Arvados"


def _check_result(options: argparse.Namespace, what: str) -> None:
    """Check the options that choose what is printed for a stored image."""
    if options.format not in (None, "json"):
        raise UsageError(f"--format {options.format} is for listing images, and {what} is to be stored")
    if options.portable_data_hash and (options.format or options.dry_run):
        other = "--format json" if options.format else "--dry-run"
        raise UsageError(
            f"--portable-data-hash cannot be used with {other}", "--format json prints it, among other things."
        )


def _check_values(options: argparse.Namespace, given: Mapping[str, str]) -> None:
    if options.image == "":
        raise UsageError("the image name is empty")
    for dest, option in given.items():
        if getattr(options, dest) == "":
            raise UsageError(f"the value of {option} is empty")
    _check_source(options)
    if options.via_push and options.via_arv_put:
        raise UsageError("--via-push cannot be used with --via-arv-put, which needs the whole image in a file")


def _check_source(options: argparse.Namespace) -> None:
    """Check that the options name one source."""
    if options.images_from is not None and options.image is not None:
        raise UsageError(f"--images-from names the images; {options.image} is one too many")
    if options.images_from == options.from_archive == "-":
        raise UsageError("standard input cannot be both the archive and the list of its images")
    given = [option for dest, (option, _) in _FROM.items() if getattr(options, dest) not in (None, False)]
    whose = dict(_FROM.values())
    if len(given) > 1:
        first, second = given[:2]
        raise UsageError(f"{first} cannot be used with {second}")
    for dest, option in _OF_ENGINES.items():
        if given and getattr(options, dest):
            raise UsageError(f"{option} is for images of an engine, {given[0]} for those of {whose[given[0]]}")
    if options.via_arv_put and given and options.from_archive is None:
        raise UsageError(f"{given[0]} cannot be used with --via-arv-put")
    if options.insecure_registry and not options.from_registry:
        raise UsageError("--insecure-registry is for --from-registry")
    _check_lines(options)


def _check_lines(options: argparse.Namespace) -> None:
    """Check that either the lines of a file or the command line names the image in Arvados."""
    lines = options.from_arvados is ARVADOS_LINES
    if lines and options.images_from is None:
        raise UsageError("--from-arvados needs a SOURCE: a name, an id, a collection's UUID or a portable data hash")
    if options.from_arvados is not None and not lines and options.images_from is not None:
        raise UsageError(
            f"--images-from names the images in Arvados; {options.from_arvados} is one too many",
            "Put --from-arvados last, or before another option.",
        )


def _check_listing(options: argparse.Namespace, given: Mapping[str, str]) -> None:
    if storing := _others(given, _LISTING | _BOTH | _ON_STDERR):
        raise UsageError(
            f"{storing} is for storing an image, and '{LIST_WORD}' lists those in Arvados",
            f"An image of that name is {LIST_WORD}:{reference.DEFAULT_TAG}.",
        )
    if options.tag is not None:
        if not options.tag.strip():
            raise UsageError("the name to look for is empty")
        name, _ = reference.split_query(options.tag)
        if not name.partition("@")[0]:
            raise UsageError(f"{options.tag!r} has no repository, only a tag")
        if options.tag.endswith(":"):
            raise UsageError(f"the tag in {options.tag!r} is empty")


def _others(given: Mapping[str, str], without: set[str]) -> str:
    return " and ".join(option for dest, option in given.items() if dest not in without)


def probably_meant(word: str) -> str | None:
    """A hint for a user who gave this word as IMAGE; None if it is no likely mistake."""
    if archive := _FILE_TRANSPORT.fullmatch(word):
        return f"--from-archive {shlex.quote(archive[1])} stores the image in a file."
    if transport := _TRANSPORT.fullmatch(word):
        return f"Leave out {word[: transport.start(1)]}: the image's name is {transport[1]}."
    if os.path.isfile(word):
        return f"{word} is a file here; --from-archive {shlex.quote(word)} stores the image in it."
    if _COLLECTION.fullmatch(word):
        return f"{word} is a collection; --from-arvados {word} uses the image in it."
    if word.lower() in _LIST_WORDS:
        return f"To list the images in Arvados, use '{LIST_WORD}'."
    name, tag = reference.split_query(word)
    if name != name.lower():
        small = name.lower() if tag is None else f"{name.lower()}:{tag}"
        return f"Did you mean {small}?"
    return None
