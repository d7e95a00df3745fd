"""The filters and orders of a listing: `images --filter` and `--sort`."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..catalog.stored_images import StoredImage
from ..errors import ImageNotFoundError, UsageError
from ..images.reference import familiar, split_recorded

Find = Callable[[str], Sequence[StoredImage]]
"""What looks up images by a name or the beginning of an id, the most preferred first."""
Condition = Callable[[StoredImage], bool]


@dataclass(frozen=True)
class Filters:
    """The values of `--filter KEY=VALUE`; each key may be given several times."""

    references: Sequence[str] = ()
    """Patterns of names; one of them must match."""
    before: Sequence[str] = ()
    """Only images older than all of these are listed."""
    since: Sequence[str] = ()
    """Only images newer than all of these are listed."""
    dangling: bool | None = None
    """True to list only images without a name, False only images with one, None both."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Filters":
        """The filters that the values of `--filter` name. Raises UsageError, with the valid keys, for a mistake."""
        values: Mapping[str, list[str]] = {key: [] for key in ("reference", "before", "since", "dangling")}
        for word in words:
            key, equals, value = word.partition("=")
            if key not in values:
                raise UsageError(
                    f"there is no filter {key!r}", f"There are {', '.join(f'{key}=...' for key in values)}."
                )
            if not equals or not value:
                raise UsageError(f"filter {key!r} has no value", f"Write --filter {key}=...")
            values[key].append(value)
        return cls(values["reference"], values["before"], values["since"], _truth(values["dangling"]))

    def conditions(self, find: Find) -> list[Condition]:
        """The conditions that a listed image meets. Raises ImageNotFoundError if there is no image to compare with."""
        conditions: list[Condition] = []
        if self.references:
            conditions.append(lambda image: any(_matches(pattern, image.name) for pattern in self.references))
        if self.dangling is not None:
            conditions.append(lambda image: (image.name is None) == self.dangling)
        if self.before:
            earliest = min(_preferred(find, name).created for name in self.before)
            conditions.append(lambda image: image.created < earliest)
        if self.since:
            latest = max(_preferred(find, name).created for name in self.since)
            conditions.append(lambda image: image.created > latest)
        return conditions


def _truth(values: Sequence[str]) -> bool | None:
    words = {"true": True, "1": True, "false": False, "0": False}
    for value in values:
        if value not in words:
            raise UsageError(f"dangling={value!r} is neither true nor false")
    if len({words[value] for value in values}) > 1:
        raise UsageError("no image is both dangling=true and dangling=false")
    return words[values[0]] if values else None


def _preferred(find: Find, name: str) -> StoredImage:
    found = find(name)
    if not found:
        raise ImageNotFoundError(f"Arvados has no image {name} that you may read, to compare the others with")
    return found[0]


def _matches(pattern: str, name: str | None) -> bool:
    """Whether a shell pattern matches a name, by docker's rules: the name is in its short form, with or without the
    tag, and `*` and `?` do not match a slash."""
    if name is None:
        return False
    short = familiar(name)
    return any(_matches_parts(pattern, text) for text in (name, short, split_recorded(short).repository or ""))


def _matches_parts(pattern: str, text: str) -> bool:
    patterns, parts = pattern.replace("[^", "[!").split("/"), text.split("/")
    return len(patterns) == len(parts) and all(map(fnmatch.fnmatchcase, parts, patterns))


@dataclass(frozen=True)
class Order:
    """An order other than the API server's preference."""

    sort: Callable[[list[StoredImage]], None]
    """Sorts the list in place; images that compare equal keep their order."""
    fields: Sequence[str] = ()
    """Fields of the collections that it needs, besides their UUIDs."""


ORDERS: Mapping[str, Order] = {
    "created": Order(lambda images: images.sort(key=lambda image: image.created, reverse=True)),
    "name": Order(lambda images: images.sort(key=lambda image: (image.name is None, image.name or ""))),
    "size": Order(lambda images: images.sort(key=lambda image: image.size, reverse=True), ("file_size_total",)),
}
