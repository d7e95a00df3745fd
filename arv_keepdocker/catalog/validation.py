"""Checks that answers of the API server have the requested fields, with values of the right types."""

import reprlib
from collections.abc import Sequence

_NONE = type(None)
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("link_class", "manifest_text", "owner_uuid", "portable_data_hash", "uuid"), str),
    **dict.fromkeys(("created_at", "first_name", "group_class", "head_uuid", "last_name", "name"), (str, _NONE)),
    "modified_by_user_uuid": (str, _NONE),
    "file_size_total": int,
    "items": list,
    "items_available": int,
    "properties": (dict, _NONE),
}
"""The types of the fields that are requested."""
FIELDS = {
    "collections": ("uuid", "file_size_total", "manifest_text", "portable_data_hash", "properties"),
    "groups": ("uuid", "group_class"),
    "users": ("uuid",),
}
"""The fields that an object must have if it is read as a whole."""


def check(records: Sequence[object], fields: Sequence[str]) -> None:
    """Raise ValueError unless each record is an object with these fields, of the right types."""
    types = [(name, _TYPES[name]) for name in fields]
    for record in records:
        if not isinstance(record, dict):
            raise ValueError("it is not an object")
        for name, kind in types:
            if not isinstance(record.get(name, ...), kind):
                raise ValueError(
                    f"its {name} is {reprlib.repr(record[name])}" if name in record else f"it has no {name}"
                )
