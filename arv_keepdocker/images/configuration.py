"""An image's configuration: what it says, and whether Docker would load an image that has it.

The types are those of Docker's structures (image.Image, container.Config), into which Go's encoding/json reads it; null
is allowed for each. See https://github.com/moby/docker-image-spec. A configuration that no classic image store loads is
refused; one that only some engines load gets a warning.
"""

import calendar
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from ..errors import ArchiveError
from . import json
from .image import UNIVERSAL_OF
from .json import Object
from .layers import sha256
from .platform import Platform

WHAT = "the image's configuration"
CLASSIC_LAYERS = 125
"""The most layers that Docker's classic image store loads; containerd's store and podman load more."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,]\d+)?(?:Z|[+-](\d\d):(\d\d))", re.ASCII)
_PLATFORM_PART = re.compile(r"[\w.-]{1,64}", re.ASCII)

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Configuration:
    """The parts of a configuration that are used."""

    document: Object
    diff_ids: tuple[str, ...]
    created: str | None
    platform: Platform
    warnings: tuple[str, ...]


def read(data: bytes) -> Configuration:
    """Parse and check a configuration. Raises ArchiveError, which says why, if no classic image store would load it."""
    document = parse(data)
    _check_types(document, _IMAGE, "")
    rootfs = document.get("rootfs")
    if rootfs is None:
        raise ArchiveError(f"{WHAT} has no rootfs, which says what its layers are")
    diff_ids = tuple(rootfs.get("diff_ids") or ())
    if not all(_DIGEST.fullmatch(diff_id or "") for diff_id in diff_ids):
        raise ArchiveError(f"{WHAT} has no list of layer digests (rootfs.diff_ids)")
    history = [step for step in document.get("history") or () if step is None or not step.get("empty_layer")]
    if len(history) > len(diff_ids):
        raise ArchiveError(
            f"{WHAT} has {len(history)} steps in its history that made a layer, and {len(diff_ids)} layers"
        )
    warnings = _warnings(document, len(diff_ids))
    return Configuration(document, diff_ids, document.get("created"), platform(document), warnings)


def parse(data: bytes) -> Object:
    """Parse a configuration without checking it. Raises ArchiveError if it is not a JSON object."""
    return json.parse_object(data, WHAT)


def platform(document: Object) -> Platform:
    """The image's platform; invalid parts count as empty."""
    parts = (str(document.get(key) or "") for key in ("os", "architecture", "variant"))
    return Platform(*(part if _PLATFORM_PART.fullmatch(part) else "" for part in parts))


def original(document: Object) -> tuple[str, bytes | None] | None:
    """Of a universal document: the digest of the configuration that it was made from, and that configuration if the
    document carries it. None for any other configuration."""
    settings, layers = document.get("config"), document.get("layers")
    digest = settings.get("digest") if isinstance(settings, Object) else None
    if not isinstance(layers, list) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return None
    annotations = document.get("annotations")
    encoded = annotations.entry(UNIVERSAL_OF) if isinstance(annotations, Object) else None
    try:
        return digest, b64decode(encoded, validate=True) if isinstance(encoded, str) else None
    except ValueError:
        return digest, None


def universal_of(read: Configuration) -> bytes | None:
    """The configuration that a universal document was made from, if the document carries it; None otherwise."""
    digest, found = original(read.document) or ("", None)
    return found if found is not None and sha256(found) == digest else None


def is_time(value: object) -> TypeGuard[str]:
    """Whether it is an RFC 3339 time that Go accepts."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return False
    year, month, day, hour, minute, second, zone_hour, zone_minute = (int(part or 0) for part in found.groups())
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year or 2000, month)[1]:
        return False
    return max(hour, zone_hour) < 24 and max(minute, zone_minute, second) < 60


def _warnings(document: Object, layers: int) -> tuple[str, ...]:
    warnings = []
    if layers > CLASSIC_LAYERS:
        warnings.append(
            f"the image has {layers} layers; Docker's classic image store takes {CLASSIC_LAYERS}, "
            "so it can only be run where containerd's image store or podman is"
        )
    settings = document.get("config")
    for key in ("Cmd", "Entrypoint", "Shell"):
        if isinstance(settings, Object) and isinstance(settings.get(key), str):
            warnings.append(f"the image has a {key} that is a string and not a list, which Docker 29 does not take")
    return tuple(warnings)


def _check_types(value: Object, fields: Mapping[str, "_Type"], path: str) -> None:
    for key, wanted in fields.items():
        found = value.get(key)
        if found is None:
            continue
        if isinstance(wanted, dict):
            _check_inner(found, wanted, path + key)
        elif not wanted.check(found):
            raise _refused(path + key, found, wanted.what)


def _check_inner(found: Any, fields: dict[str, "_Type"], path: str) -> None:
    inner = fields.get("[]")
    if isinstance(inner, dict):
        if not isinstance(found, list):
            raise _refused(path, found, "a list")
        for item in found:
            if item is not None:
                _check_inner(item, inner, f"{path}[]")
    elif not isinstance(found, Object):
        raise _refused(path, found, "an object")
    else:
        _check_types(found, fields, f"{path}.")


def _refused(path: str, found: Any, wanted: str) -> ArchiveError:
    shown = "{...}" if isinstance(found, Object) else "[...]" if isinstance(found, list) else json.shown(found)
    return ArchiveError(f"no engine would load {WHAT}: {path} is {shown}, not {wanted}")


@dataclass(frozen=True)
class _Checked:
    what: str
    check: Check


_Type = _Checked | dict[str, Any]


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -1 << 63 <= value < 1 << 63


def _all_are(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(item is None or check(item) for item in value)


def _maps_to(check: Check) -> Check:
    return lambda value: isinstance(value, Object) and all(item is None or check(item) for _, item in value)


_STRING = _Checked("a string", _is_string)
_STRINGS = _Checked("a list of strings", _all_are(_is_string))
_COMMAND = _Checked("a list of strings", lambda value: _is_string(value) or _STRINGS.check(value))
"""Docker up to 28 accepts a string, too."""
_BOOLEAN = _Checked("true or false", lambda value: isinstance(value, bool))
_INTEGER = _Checked("a whole number", _is_integer)
_STRING_MAP = _Checked("an object of strings", _maps_to(_is_string))
_SET = _Checked("an object of empty objects", _maps_to(lambda value: isinstance(value, Object)))
_TIME_OF = _Checked("a time as in 2024-01-02T03:04:05Z (RFC 3339)", is_time)

_HEALTHCHECK: dict[str, _Type] = {
    "Test": _STRINGS,
    **dict.fromkeys(("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"), _INTEGER),
}
_SETTINGS: dict[str, _Type] = {
    **dict.fromkeys(("Hostname", "Domainname", "User", "Image", "WorkingDir", "StopSignal"), _STRING),
    **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"), _BOOLEAN),
    **dict.fromkeys(("ArgsEscaped", "NetworkDisabled"), _BOOLEAN),
    **dict.fromkeys(("Env", "OnBuild"), _STRINGS),
    **dict.fromkeys(("Cmd", "Entrypoint", "Shell"), _COMMAND),
    **dict.fromkeys(("ExposedPorts", "Volumes"), _SET),
    "Labels": _STRING_MAP,
    "StopTimeout": _INTEGER,
    "Healthcheck": _HEALTHCHECK,
}
_IMAGE: dict[str, _Type] = {
    **dict.fromkeys(("id", "parent", "comment", "container", "docker_version", "author"), _STRING),
    **dict.fromkeys(("architecture", "variant", "os", "os.version"), _STRING),
    "os.features": _STRINGS,
    "size": _INTEGER,
    "created": _TIME_OF,
    "config": _SETTINGS,
    "rootfs": {"type": _STRING, "diff_ids": _STRINGS},
    "history": {
        "[]": {
            "created": _TIME_OF,
            **dict.fromkeys(("author", "created_by", "comment"), _STRING),
            "empty_layer": _BOOLEAN,
        }
    },
}
