"""JSON as Go's encoding/json reads it, in which engines are written.

Keys match the fields of a structure in any case, a document may have white space around it, and bytes that are not
UTF-8 become U+FFFD. An object with two keys that differ at most in case is refused when that key is used, because
readers differ on which one counts. Documents may come from anyone, so their size and depth are bounded.
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
"""Values that a document may have: a value may take a hundred times its size in memory."""
_DEPTH_LIMIT = 1000
_LONGEST = 200
_STRING = re.compile(rb'"[^"]*"?')
_NESTING = re.compile(rb"[\[{]+|[\]}]+")
_NO_BRACKET = bytes(byte for byte in range(256) if byte not in b"[]{}")


class Object:
    """A JSON object: its pairs of keys and values, in order."""

    __slots__ = ("_folded", "_pairs")

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self._pairs = pairs
        self._folded: dict[str, list[Any]] | None = None

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._pairs)

    def get(self, key: str) -> Any:
        """The value of a structure's field, whose key may be in any case; None if there is none.

        Raises ArchiveError if there are several.
        """
        if self._folded is None:
            self._folded = {}
            for other, value in self._pairs:
                self._folded.setdefault(_fold(other), []).append(value)
        return _single_value(key, self._folded.get(_fold(key), []))

    def entry(self, key: str) -> Any:
        """The value of a map's key (a label, an annotation), whose case matters. Otherwise like `get`."""
        return _single_value(key, [value for other, value in self._pairs if other == key])


def parse(data: bytes, what: str) -> Any:
    """Parse a document into None, a bool, int, float, str, list or Object. `what` names it in error messages.

    Raises ArchiveError if it is not JSON, or larger or deeper than any image's.
    """
    if len(data) > DOCUMENT_LIMIT:
        raise ArchiveError(f"{what} is not a JSON document of at most {DOCUMENT_LIMIT >> 20} MiB")
    _check_weight(data, what)
    try:
        return json.loads(data.decode("utf-8", "replace"), object_pairs_hook=Object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{what} is not JSON: {error}") from error


def parse_object(data: bytes, what: str) -> Object:
    """Parse a document that must be an object. Otherwise like `parse`."""
    value = parse(data, what)
    if not isinstance(value, Object):
        raise ArchiveError(f"{what} is not a JSON object")
    return value


def shown(value: Any) -> str:
    """A value, neither list nor object, for a message; cut if it is long."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _check_weight(data: bytes, what: str) -> None:
    # Of what is escaped, only backslashes and quotes tell where a string ends.
    bare = _STRING.sub(b"", data.replace(rb"\\", b"").replace(rb"\"", b""))
    depth = 0
    for brackets in _NESTING.findall(bare.translate(None, _NO_BRACKET)):
        depth += len(brackets) if brackets[:1] in b"[{" else -len(brackets)
        if depth > _DEPTH_LIMIT:
            raise ArchiveError(f"{what} is not JSON that an engine reads: it is more than {_DEPTH_LIMIT} levels deep")
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > _VALUES_LIMIT:
        raise ArchiveError(f"{what} is not JSON of an image: it has more than {_VALUES_LIMIT} values")


def _single_value(key: str, values: list[Any]) -> Any:
    if len(values) > 1:
        raise ArchiveError(f"a JSON object has the key {quoted(key)} twice, and readers differ in which one they take")
    return values[0] if values else None


def _fold(key: str) -> str:
    """The key as Go compares it: it also folds the long s and the Kelvin sign."""
    return key.replace("\u017f", "s").lower()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
