"""JSON as Go reads it, in which engines are written (encoding/json).

The keys of an object are those of a structure in any case, white space may be around a document, and bytes that are no
UTF-8 stand for U+FFFD. An object that has a key twice, or once in another case, is refused where that key is used:
readers differ on which one holds. Documents may come from anyone, so their size and depth are bounded.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from ..errors import ArchiveError, quoted

DOCUMENT_LIMIT = 4 << 20
"""Bytes. Real configurations have a few kilobytes, and registries need not take manifests of more (OCI distribution
specification)."""
_VALUES_LIMIT = 300_000
"""How many values a document may have: each may take a hundred times its size in memory."""
_DEPTH_LIMIT = 1000
_LONGEST = 200
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"?')
_NESTING = re.compile(rb"[\[{]+|[\]}]+")


class Object:
    """A JSON object: its keys and values, in order."""

    __slots__ = ("_folded", "_pairs")

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self._pairs = pairs
        self._folded: dict[str, list[Any]] | None = None

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._pairs)

    def get(self, key: str) -> Any:
        """The value of a structure's key, which may be in any case; None if there is none.

        Raises ArchiveError if there are several.
        """
        if self._folded is None:
            self._folded = {}
            for other, value in self._pairs:
                self._folded.setdefault(_fold(other), []).append(value)
        return _single_value(key, self._folded.get(_fold(key), []))

    def entry(self, key: str) -> Any:
        """The value of a map's key (a label, an annotation), whose case matters; otherwise as `get`."""
        return _single_value(key, [value for other, value in self._pairs if other == key])


def parse(data: bytes, what: str) -> Any:
    """The document's value: None, a bool, int, float, str, list or Object. `what` begins the messages.

    Raises ArchiveError for what is no JSON, or more than any image has.
    """
    if len(data) > DOCUMENT_LIMIT:
        raise ArchiveError(f"{what} is not a JSON document of at most {DOCUMENT_LIMIT >> 20} MiB")
    _check_weight(data, what)
    try:
        return json.loads(data.decode("utf-8", "replace"), object_pairs_hook=Object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{what} is not JSON: {error}") from error


def parse_object(data: bytes, what: str) -> Object:
    """The document's value, which is an object; else as `parse`."""
    value = parse(data, what)
    if not isinstance(value, Object):
        raise ArchiveError(f"{what} is not a JSON object")
    return value


def shown(value: Any) -> str:
    """A value that is no list or object as a message can bear it."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _check_weight(data: bytes, what: str) -> None:
    bare = _STRING.sub(b"", _ESCAPE.sub(b"", data))
    depth = 0
    for brackets in _NESTING.findall(bare):
        depth += len(brackets) if brackets[:1] in b"[{" else -len(brackets)
        if depth > _DEPTH_LIMIT:
            raise ArchiveError(f"{what} is not JSON that an engine reads: it is more than {_DEPTH_LIMIT} levels deep")
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > _VALUES_LIMIT:
        raise ArchiveError(f"{what} is not JSON of an image: it has more than {_VALUES_LIMIT} values")


def _single_value(key: str, values: list[Any]) -> Any:
    if len(values) > 1:
        raise ArchiveError(f"a JSON object has the key {quoted(key)} twice, of which readers take one or the other")
    return values[0] if values else None


def _fold(key: str) -> str:
    """As Go compares keys: besides upper and lower case there are a long s and a Kelvin sign."""
    return key.replace("\u017f", "s").lower()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
