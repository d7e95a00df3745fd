"""Vocabularies: which properties objects may have, if a site restricts them (sdk/go/arvados/vocabulary.go)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .errors import ApiError

# Set by Arvados' own programs, and allowed whatever the vocabulary says.
_RESERVED = frozenset(
    [
        "container",
        "container_request",
        "container_uuid",
        "cwl_input",
        "cwl_output",
        "docker-image-repo-tag",
        "filters",
        "groups",
        "image_timestamp",
        "template_uuid",
        "type",
        "username",
        "workflowName",
    ]
)
_GO_TYPES = {bool: "bool", int: "float64", float: "float64", type(None): "<nil>", list: "[]interface {}"}


def _go_type(value: Any) -> str:
    return _GO_TYPES.get(type(value), "map[string]interface {}")


def _by_label(named: Mapping[str, Any]) -> dict[str, str]:
    """The keys of tags, or of values, by their labels in lower case."""
    return {label["label"].lower(): key for key, entry in named.items() for label in entry.get("labels") or ()}


def check(vocabulary: Mapping[str, Any], properties: Mapping[str, Any] | None) -> None:
    """Refuse properties that the vocabulary does not allow."""
    tags = vocabulary.get("tags") or {}
    for key, value in (properties or {}).items():
        if key.startswith("arv:") or key in _RESERVED:
            continue
        if key in tags:
            _check_values(key, tags[key], value)
        elif (alias := _by_label(tags).get(key.lower())) is not None:
            raise ApiError(400, f"tag key {json.dumps(key)} is an alias, must be provided as {json.dumps(alias)}")
        elif vocabulary.get("strict_tags"):
            raise ApiError(400, f"tag key {json.dumps(key)} is not defined in the vocabulary")


def _check_values(key: str, tag: Mapping[str, Any], value: Any) -> None:
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, str):
            kind = "value list element type" if isinstance(value, list) else "value type"
            wanted = "a string" if isinstance(value, list) else "a string or list of strings"
            raise ApiError(400, f"{kind} for tag key {json.dumps(key)} was {_go_type(one)}, but expected {wanted}")
        values = tag.get("values") or {}
        if one in values:
            continue
        if (alias := _by_label(values).get(one.lower())) is not None:
            named = f"{json.dumps(one)} for key {json.dumps(key)}"
            raise ApiError(400, f"tag value {named} is an alias, must be provided as {json.dumps(alias)}")
        if tag.get("strict"):
            raise ApiError(400, f"tag value {json.dumps(one)} is not valid for key {json.dumps(key)}")
