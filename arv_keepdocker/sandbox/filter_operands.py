"""The operators, operands and patterns that filters on ordinary columns and on JSON columns share."""

from __future__ import annotations

from typing import Any

from .errors import RailsError, argument_error
from .permissions import Condition

COMPARISONS = frozenset(["=", "!=", "<", "<=", ">", ">="])
MEMBERSHIPS = frozenset(["in", "not in"])
PATTERNS = frozenset(["like", "ilike"])
# Ruby's names for what JSON holds.
_RUBY = {str: "String", int: "Integer", float: "Float", list: "Array", dict: "Hash", type(None): "NilClass"}


def ruby(value: Any) -> str:
    if isinstance(value, bool):
        return "TrueClass" if value else "FalseClass"
    return _RUBY[type(value)]


def bad_operand(value: Any, operator: str) -> RailsError:
    return argument_error(f"Invalid operand type '{ruby(value)}' for '{operator}' operator in filters")


def glob(pattern: str) -> str:
    """A LIKE pattern as SQLite's GLOB, which is case-sensitive and can use an index."""
    result = []
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            character = next(characters, "\\")
        elif character in "%_":
            result.append("*" if character == "%" else "?")
            continue
        result.append(f"[{character}]" if character in "*?[" else character)
    return "".join(result)


def matches(column: str, operator: str, pattern: str) -> Condition:
    if operator == "like":
        return f"{column} GLOB ?", [glob(pattern)]
    if pattern.isascii():
        return f"{column} LIKE ? ESCAPE '\\'", [pattern]
    # SQLite's own LIKE ignores case for ASCII letters only.
    return f"unicode_lower({column}) LIKE ? ESCAPE '\\'", [pattern.lower()]
