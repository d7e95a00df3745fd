"""Filters on JSON columns made into SQL: "properties", and "properties.key"."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .errors import argument_error
from .filter_operands import COMPARISONS, MEMBERSHIPS, PATTERNS, bad_operand, matches
from .permissions import Condition
from .resources import Attribute


def _json_path(key: str) -> str:
    return '$."' + key.replace('"', '\\"') + '"'


def _json_equal(attribute: Attribute, key: str, operator: str, operand: Any) -> Condition:
    if not key:
        raise bad_operand(operand, operator)
    wanted = json.dumps({key: operand})
    if operator == "=":
        return f"json_contains(t.{attribute.name}, ?)", [wanted]
    return f"NOT json_contains(t.{attribute.name}, ?)", [wanted]


def _json_member(attribute: Attribute, key: str, operator: str, operand: Any) -> Condition:
    if not key or not isinstance(operand, list):
        raise bad_operand(operand, operator)
    condition = " OR ".join([f"json_contains(t.{attribute.name}, ?)"] * len(operand)) or "0"
    negation = "NOT " if operator == "not in" else ""
    return f"{negation}({condition})", [json.dumps({key: value}) for value in operand]


def _json_text(attribute: Attribute, key: str, operator: str, operand: Any) -> Condition:
    """Comparison of the subproperty's text, as PostgreSQL's ->> gives it."""
    if not key or not isinstance(operand, str):
        raise bad_operand(operand, operator)
    # The path is part of the code, quoted by hand, not a parameter: SQLite needs it to be the same for all rows.
    column = f"json_extract(t.{attribute.name}, '" + _json_path(key).replace("'", "''") + "')"
    if operator in PATTERNS:
        return matches(column, operator, operand)
    return f"{column} {operator} ?", [operand]


def _json_contains(attribute: Attribute, key: str, operator: str, operand: Any) -> Condition:
    column = f"t.{attribute.name}"
    if key:
        values = [json.dumps({key: operand}), json.dumps({key: [operand]})]
        return f"json_contains({column}, ?) OR json_contains({column}, ?)", values
    if attribute.type == "Hash":
        return _json_exists(attribute, key, operator, operand)
    return f"json_contains({column}, ?)", [json.dumps(operand if isinstance(operand, list) else [operand])]


def _json_exists(attribute: Attribute, key: str, operator: str, operand: Any) -> Condition:
    exists = f"EXISTS (SELECT 1 FROM json_each(t.{attribute.name}) e WHERE e.key = ?)"
    if not key:
        if not isinstance(operand, str):
            raise bad_operand(operand, operator)
        return exists, [operand]
    if not isinstance(operand, bool):
        raise argument_error(f"Invalid operand '{operand}' for 'exists' must be true or false")
    return f"{'' if operand else 'NOT '}{exists}", [key]


def _json_is_a(attribute: Attribute, key: str, operator: str, operand: Any) -> Condition:
    raise bad_operand(operand, operator)


OPERATORS_ON_JSON: dict[str, Callable[[Attribute, str, str, Any], Condition]] = {
    **dict.fromkeys(COMPARISONS | PATTERNS, _json_text),
    "=": _json_equal,
    "!=": _json_equal,
    **dict.fromkeys(MEMBERSHIPS, _json_member),
    "contains": _json_contains,
    "exists": _json_exists,
    "is_a": _json_is_a,
}
