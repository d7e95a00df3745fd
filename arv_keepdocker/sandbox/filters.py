"""Arvados filters made into SQL, with the refusals of the controller (500, 400) and of Rails (422)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from . import timestamps
from .errors import ApiError, RailsError, argument_error
from .filter_operands import COMPARISONS, MEMBERSHIPS, PATTERNS, bad_operand, matches, ruby
from .json_filters import OPERATORS_ON_JSON
from .permissions import Condition
from .resources import BY_KIND, LINKS, Attribute, Resource

# Two integer columns compared with each other, as in ["(replication_confirmed < replication_desired)", "=", true].
_EXPRESSION = re.compile(r" *\( *(\w+) *(<=?|>=?|=) *(\w+) *\) *")
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "true", "y", "yes"), True),
    **dict.fromkeys(("0", "f", "false", "n", "no"), False),
}
_ACCEPTED = {"integer": int, "boolean": bool, "datetime": str, "string": str, "text": str}


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
    raise ApiError(400, f"invalid operand type {ruby(operand)} for uuid filter")


def clusters_of(filters: list[list[Any]]) -> set[str] | None:
    """The prefixes of the UUIDs that the filters on uuid name, None without such filters; if empty, nothing matches."""
    wanted: set[str] | None = None
    for attribute, operator, operand in filters:
        if attribute == "uuid" and operator in ("=", "in"):
            found = _uuids_of(operator, operand)
            wanted = found if wanted is None else wanted & found
    return None if wanted is None else {uuid[:5] for uuid in wanted if len(uuid) == 27}


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
        raise argument_error("Full text search operator is no longer supported")
    if operator not in _OPERATORS:
        raise argument_error(f"Invalid operator '{operator}'")
    if name == "any":
        return _any(resource, operator, operand)
    if resource is LINKS and name in ("head_kind", "tail_kind") and operator == "=":
        return _is_a(resource.attributes[f"{name[:4]}_uuid"], operator, operand)
    if expression := _EXPRESSION.fullmatch(name):
        return _expression(resource, expression, operator, operand)
    base, dot, key = name.partition(".")
    attribute = resource.attributes.get(base)
    if name in resource.hidden and operator in PATTERNS:
        attribute = resource.stored[name]
    if attribute is None or not attribute.searchable or (dot and not attribute.is_json):
        raise argument_error(f"Invalid attribute '{name}' in filter")
    if attribute.is_json:
        return OPERATORS_ON_JSON[operator](attribute, key, operator, operand)
    return _OPERATORS[operator](attribute, operator, operand)


def _expression(resource: Resource, expression: re.Match[str], operator: str, operand: Any) -> Condition:
    if operator != "=" or operand not in (True, "true"):
        reason = 'subsequent elements must be ["=", true]'
        raise argument_error(f"Invalid expression filter '{expression[0]}': {reason}")
    for name in (expression[1], expression[3]):
        attribute = resource.attributes.get(name)
        if attribute is None or attribute.name not in resource.stored or not attribute.searchable:
            raise argument_error(f"Invalid attribute in expression: '{name}'")
        if attribute.type != "integer":
            raise argument_error(f"Non-numeric attribute in expression: '{name}'")
    return f"t.{expression[1]} {expression[2]} t.{expression[3]}", []


def _value(attribute: Attribute, operator: str, operand: Any) -> Any:
    """An operand as the column holds it."""
    wanted: type = _ACCEPTED[attribute.type]
    if isinstance(operand, str) and operator in COMPARISONS and wanted is not str:
        return _value_of_text(attribute, operator, operand)
    if not isinstance(operand, wanted) or (wanted is int and isinstance(operand, bool)):
        raise bad_operand(operand, operator)
    if attribute.type == "datetime":
        try:
            return timestamps.parse(str(operand))
        except ValueError as error:
            raise argument_error(str(error)) from None
    return operand


def _value_of_text(attribute: Attribute, operator: str, operand: str) -> Any:
    """A boolean or an integer that is given as a string."""
    if attribute.type == "boolean":
        if operator not in ("=", "!="):
            raise argument_error(f"Invalid operator '{operator}' for boolean attribute '{attribute.name}'")
        if operand.lower() not in _BOOLEANS:
            raise argument_error(f"Invalid operand '{operand}' for boolean attribute '{attribute.name}'")
        return _BOOLEANS[operand.lower()]
    if not re.fullmatch(r"\s*[+-]?\d+\s*", operand):
        reason = f'PG::InvalidTextRepresentation: ERROR:  invalid input syntax for type integer: "{operand}"'
        raise RailsError(422, f"#<ActiveRecord::StatementInvalid: {reason}\n>")
    return int(operand)


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
        raise bad_operand(operand, operator)
    values = [None if o is None else _value(attribute, operator, o) for o in operand]
    condition = f"t.{attribute.name} {operator} (SELECT value FROM json_each(?))"
    if operator == "not in":
        condition += f" OR t.{attribute.name} IS NULL"
    return condition, [json.dumps(values)]


def _like(attribute: Attribute, operator: str, operand: Any) -> Condition:
    if not isinstance(operand, str) or not attribute.is_text:
        raise bad_operand(operand, operator)
    return matches(f"t.{attribute.name}", operator, operand)


def _is_a(attribute: Attribute, operator: str, operand: Any) -> Condition:
    kinds = operand if isinstance(operand, list) else [operand]
    if not attribute.name.endswith("uuid") or not all(isinstance(kind, str) for kind in kinds):
        raise bad_operand(operand, operator)
    infixes = [BY_KIND[kind].infix for kind in kinds if kind in BY_KIND]
    condition = f"length(t.{attribute.name}) = 27 AND substr(t.{attribute.name}, 7, 5)"
    return f"{condition} IN (SELECT value FROM json_each(?))", [json.dumps(infixes)]


def _only_for_json(attribute: Attribute, operator: str, operand: Any) -> Condition:
    raise argument_error(f"Invalid attribute '{attribute.name}' for operator '{operator}' in filter")


def _any(resource: Resource, operator: str, operand: Any) -> Condition:
    if operator not in PATTERNS or not isinstance(operand, str):
        raise RailsError(422, f"#<ActiveRecord::StatementInvalid: invalid operand for any '{operator}'>")
    conditions = []
    values: list[Any] = []
    shown = [attribute.name for attribute in resource.attributes.values() if attribute.is_text and attribute.searchable]
    for column in (*shown, *resource.hidden):
        condition, more = matches(f"t.{column}", operator, operand)
        conditions.append(condition)
        values += more
    return " OR ".join(conditions), values


_OPERATORS: dict[str, Callable[[Attribute, str, Any], Condition]] = {
    **dict.fromkeys(COMPARISONS, _compare),
    **dict.fromkeys(MEMBERSHIPS, _member),
    **dict.fromkeys(PATTERNS, _like),
    "is_a": _is_a,
    "exists": _only_for_json,
    "contains": _only_for_json,
}
