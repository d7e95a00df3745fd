"""Arvados filters made into SQL, with the refusals of the controller (500, 400) and of Rails (422)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from . import timestamps
from .access import Condition
from .errors import ApiError, RailsError
from .resources import BY_KIND, CLUSTER, Attribute, Resource

_COMPARISONS = frozenset(["=", "!=", "<", "<=", ">", ">="])
_MEMBERSHIPS = frozenset(["in", "not in"])
_PATTERNS = frozenset(["like", "ilike"])
# Ruby's names for what JSON holds.
_RUBY = {str: "String", int: "Integer", float: "Float", list: "Array", dict: "Hash", type(None): "NilClass"}
_ACCEPTED = {"integer": int, "boolean": bool, "datetime": str, "string": str, "text": str}


def _ruby(value: Any) -> str:
    if isinstance(value, bool):
        return "TrueClass" if value else "FalseClass"
    return _RUBY[type(value)]


def _bad_operand(value: Any, operator: str) -> RailsError:
    return RailsError(422, f"Invalid operand type '{_ruby(value)}' for '{operator}' operator in filters")


# The controller's part: structure.


def check_structure(filters: Any) -> list[list[Any]]:
    """Filters as three-element lists, or the controller's complaint."""
    if filters is None:
        return []
    if not isinstance(filters, list):
        raise ApiError(500, "transcode: cannot decode filters: not an array")
    return [_check_filter(element) for element in filters]


def _check_filter(element: Any) -> list[Any]:
    if isinstance(element, str):
        # Measured on Arvados 3.2.1: a bare string is read as an attribute that is to be true.
        return [element, "=", True]
    if not isinstance(element, list):
        raise ApiError(500, f"transcode: invalid filter {json.dumps(json.dumps(element))}")
    if len(element) != 3:
        text = json.dumps(json.dumps(element, separators=(",", ":")))
        raise ApiError(500, f"transcode: invalid filter {text}: must have 3 decoded")
    for part, name in ((element[0], "attribute"), (element[1], "operator")):
        if not isinstance(part, str):
            raise ApiError(500, f"transcode: invalid {name} in filter {json.dumps(json.dumps(element))}")
    if isinstance(element[2], dict):
        raise ApiError(500, f"transcode: invalid operand in filter {json.dumps(json.dumps(element))}")
    return element


def _uuids_of(operator: str, operand: Any) -> set[str]:
    if operator == "=" and isinstance(operand, str):
        return {operand}
    if operator == "in" and isinstance(operand, list):
        return {value for value in operand if isinstance(value, str)}
    raise ApiError(400, f"invalid operand type {_ruby(operand)} for uuid filter")


def matches_nothing(filters: list[list[Any]], count: str) -> bool:
    """Whether the controller can tell from the filters on uuid alone that nothing matches."""
    wanted: set[str] | None = None
    for attribute, operator, operand in filters:
        if attribute == "uuid" and operator in ("=", "in"):
            found = _uuids_of(operator, operand)
            wanted = found if wanted is None else wanted & found
    if wanted is None:
        return False
    clusters = {uuid[:5] for uuid in wanted if len(uuid) == 27}
    if clusters - {CLUSTER}:
        if count != "none":
            raise ApiError(400, 'cannot execute federated list query unless count=="none"')
        raise ApiError(404, "no proxy available for other clusters")
    return not clusters


# Rails' part: content.


def compile_filters(resource: Resource, filters: list[list[Any]]) -> Condition:
    """One SQL condition for all filters, on the table under the alias t."""
    conditions = []
    values: list[Any] = []
    for attribute, operator, operand in filters:
        condition, more = _compile(resource, attribute, operator.lower(), operand)
        conditions.append(f"({condition})")
        values += more
    return " AND ".join(conditions) or "1", values


def _compile(resource: Resource, name: str, operator: str, operand: Any) -> Condition:
    if operator == "@@":
        raise RailsError(422, "Full text search operator is no longer supported")
    if operator not in _OPERATORS:
        raise RailsError(422, f"Invalid operator '{operator}'")
    if name == "any":
        return _any(resource, operator, operand)
    base, dot, key = name.partition(".")
    attribute = resource.attributes.get(base)
    if attribute is None or not attribute.searchable or (dot and not attribute.is_json):
        raise RailsError(422, f"Invalid attribute '{name}' in filter")
    if attribute.is_json:
        return _OPERATORS_ON_JSON[operator](attribute, key, operator, operand)
    return _OPERATORS[operator](attribute, operator, operand)


def _value(attribute: Attribute, operator: str, operand: Any) -> Any:
    """An operand as the column holds it."""
    wanted: type = _ACCEPTED[attribute.type]
    if not isinstance(operand, wanted) or (wanted is int and isinstance(operand, bool)):
        raise _bad_operand(operand, operator)
    if attribute.type == "datetime":
        try:
            return timestamps.parse(str(operand))
        except ValueError as error:
            raise RailsError(422, str(error)) from None
    return operand


def _compare(attribute: Attribute, operator: str, operand: Any) -> Condition:
    column = f"t.{attribute.name}"
    if operand is None and operator in ("=", "!="):
        return f"{column} IS {'NOT ' if operator == '!=' else ''}NULL", []
    value = _value(attribute, operator, operand)
    if operator == "!=":
        return f"{column} != ? OR {column} IS NULL", [value]
    return f"{column} {operator} ?", [value]


def _member(attribute: Attribute, operator: str, operand: Any) -> Condition:
    if not isinstance(operand, list):
        raise _bad_operand(operand, operator)
    values = [None if o is None else _value(attribute, operator, o) for o in operand]
    condition = f"t.{attribute.name} {operator} (SELECT value FROM json_each(?))"
    if operator == "not in":
        condition += f" OR t.{attribute.name} IS NULL"
    return condition, [json.dumps(values)]


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


def _pattern(column: str, operator: str, pattern: str) -> Condition:
    if operator == "like":
        return f"{column} GLOB ?", [glob(pattern)]
    if pattern.isascii():
        return f"{column} LIKE ? ESCAPE '\\'", [pattern]
    # SQLite's own LIKE knows the case of ASCII letters only.
    return f"unicode_lower({column}) LIKE ? ESCAPE '\\'", [pattern.lower()]


def _like(attribute: Attribute, operator: str, operand: Any) -> Condition:
    if not isinstance(operand, str) or not attribute.is_text:
        raise _bad_operand(operand, operator)
    return _pattern(f"t.{attribute.name}", operator, operand)


def _is_a(attribute: Attribute, operator: str, operand: Any) -> Condition:
    kinds = operand if isinstance(operand, list) else [operand]
    if not attribute.name.endswith("uuid") or not all(isinstance(kind, str) for kind in kinds):
        raise _bad_operand(operand, operator)
    infixes = [BY_KIND[kind].infix for kind in kinds if kind in BY_KIND]
    condition = f"length(t.{attribute.name}) = 27 AND substr(t.{attribute.name}, 7, 5)"
    return f"{condition} IN (SELECT value FROM json_each(?))", [json.dumps(infixes)]


def _only_for_json(attribute: Attribute, operator: str, operand: Any) -> Condition:
    raise RailsError(422, f"Invalid attribute '{attribute.name}' for operator '{operator}' in filter")


def _any(resource: Resource, operator: str, operand: Any) -> Condition:
    if operator not in _PATTERNS or not isinstance(operand, str):
        raise RailsError(422, f"#<ActiveRecord::StatementInvalid: invalid operand for any '{operator}'>")
    conditions = []
    values: list[Any] = []
    shown = [attribute.name for attribute in resource.attributes.values() if attribute.is_text and attribute.searchable]
    for column in (*shown, *resource.hidden):
        condition, more = _pattern(f"t.{column}", operator, operand)
        conditions.append(condition)
        values += more
    return " OR ".join(conditions), values


_OPERATORS: dict[str, Callable[[Attribute, str, Any], Condition]] = {
    **dict.fromkeys(_COMPARISONS, _compare),
    **dict.fromkeys(_MEMBERSHIPS, _member),
    **dict.fromkeys(_PATTERNS, _like),
    "is_a": _is_a,
    "exists": _only_for_json,
    "contains": _only_for_json,
}


# JSON columns: "properties", and "properties.key".


def _json_path(key: str) -> str:
    return '$."' + key.replace('"', '\\"') + '"'


def _json_equal(attribute: Attribute, key: str, operator: str, operand: Any) -> Condition:
    if not key:
        raise _bad_operand(operand, operator)
    wanted = json.dumps({key: operand})
    if operator == "=":
        return f"json_contains(t.{attribute.name}, ?)", [wanted]
    return f"NOT json_contains(t.{attribute.name}, ?)", [wanted]


def _json_member(attribute: Attribute, key: str, operator: str, operand: Any) -> Condition:
    if not key or not isinstance(operand, list):
        raise _bad_operand(operand, operator)
    condition = " OR ".join([f"json_contains(t.{attribute.name}, ?)"] * len(operand)) or "0"
    negation = "NOT " if operator == "not in" else ""
    return f"{negation}({condition})", [json.dumps({key: value}) for value in operand]


def _json_text(attribute: Attribute, key: str, operator: str, operand: Any) -> Condition:
    """Comparison of the subproperty's text, as PostgreSQL's ->> gives it."""
    if not key or not isinstance(operand, str):
        raise _bad_operand(operand, operator)
    # The path is code, not a value, for SQLite counts on its being the same for all rows; so it is quoted by hand.
    column = f"json_extract(t.{attribute.name}, '" + _json_path(key).replace("'", "''") + "')"
    if operator in _PATTERNS:
        return _pattern(column, operator, operand)
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
            raise _bad_operand(operand, operator)
        return exists, [operand]
    if not isinstance(operand, bool):
        raise RailsError(422, f"Invalid operand '{operand}' for 'exists' must be true or false")
    return f"{'' if operand else 'NOT '}{exists}", [key]


def _json_is_a(attribute: Attribute, key: str, operator: str, operand: Any) -> Condition:
    raise _bad_operand(operand, operator)


_OPERATORS_ON_JSON: dict[str, Callable[[Attribute, str, str, Any], Condition]] = {
    **dict.fromkeys(_COMPARISONS | _PATTERNS, _json_text),
    "=": _json_equal,
    "!=": _json_equal,
    **dict.fromkeys(_MEMBERSHIPS, _json_member),
    "contains": _json_contains,
    "exists": _json_exists,
    "is_a": _json_is_a,
}
