"""The attributes that a request sets, checked one by one and made what the database holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from . import timestamps
from .call import Call
from .cluster import Cluster
from .database import Row
from .errors import ApiError, RailsError
from .resources import Attribute, Resource

_GO_TYPES = {list: "[]interface {}", bool: "bool", int: "float64", float: "float64"}


def _text(attribute: Attribute, value: Any) -> str:
    if attribute.name == "name" and isinstance(value, list):
        value = json.dumps(value)  # (measured on Arvados 3.2.1)
    if isinstance(value, (dict, list, bool)):
        raise RailsError(422, f"{attribute.name.capitalize()} is invalid")
    text = str(value)
    if "\0" in text:
        raise RailsError(422, "#<ArgumentError: string contains null byte>")
    if attribute.type == "string" and len(text) > 255 and attribute.name != "api_token":
        reason = "PG::StringDataRightTruncation: ERROR:  value too long for type character varying(255)"
        raise RailsError(422, f"#<ActiveRecord::ValueTooLong: {reason}\n>")
    return text


def _integer(attribute: Attribute, value: Any) -> int:
    # Rails reads the number with which a string begins: "x" is 0 (measured on Arvados 3.2.1).
    match = re.match(r"\s*[+-]?\d+", str(int(value) if isinstance(value, (bool, float)) else value))
    return int(match[0]) if match else 0


def _time(attribute: Attribute, value: Any) -> int:
    try:
        return timestamps.parse(str(value))
    except ValueError as error:
        raise RailsError(422, str(error)) from None


def _json(attribute: Attribute, value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ApiError(500, f"invalid character '{value[:1]}' looking for beginning of value") from None
    if not isinstance(value, dict if attribute.type == "Hash" else list):
        go_type = _GO_TYPES.get(type(value), "map[string]interface {}")
        raise ApiError(500, f"unexpected {attribute.name} type {go_type}")
    if "\\u0000" in json.dumps(value).replace("\\\\", ""):
        reason = "ERROR:  unsupported Unicode escape sequence\nDETAIL:  \\u0000 cannot be converted to text."
        raise RailsError(422, f"#<ActiveRecord::StatementInvalid: PG::UntranslatableCharacter: {reason}\n>")
    return value


def _boolean(attribute: Attribute, value: Any) -> bool:
    return value in (True, "true", "t", "1")


_READERS: Mapping[str, Callable[[Attribute, Any], Any]] = {
    "string": _text,
    "text": _text,
    "integer": _integer,
    "datetime": _time,
    "boolean": _boolean,
    "Hash": _json,
    "Array": _json,
}


def read_attributes(call: Call, resource: Resource) -> Row:
    """The attributes that a request sets, checked one by one; those that only the server sets are dropped."""
    given = {}
    for name, value in call.attributes(resource).items():
        attribute = resource.attributes.get(name)
        if attribute is None and name not in resource.fixed:
            error = f"unknown attribute '{name}' for {resource.class_name}."
            raise RailsError(422, f"#<ActiveModel::UnknownAttributeError: {error}>")
        if attribute is None or name in resource.fixed:
            continue
        if name == "owner_uuid":
            given[name] = value
        elif value is None:
            given[name] = {} if attribute.type == "Hash" else [] if attribute.type == "Array" else None
        else:
            given[name] = _READERS[attribute.type](attribute, value)
    return given


def check_name(cluster: Cluster, name: str | None) -> None:
    """The rules for the names of collections and projects."""
    if name in (".", ".."):
        raise RailsError(422, "Name cannot be '.' or '..'")
    if name and "/" in name and not cluster.settings.forward_slash_name_substitution:
        raise RailsError(422, "Name cannot contain a '/' character")
