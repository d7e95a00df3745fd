"""Image names: any text is understood or refused, and what is understood is safe to pass on."""

from __future__ import annotations

import re

from arv_keepdocker.errors import UsageError
from arv_keepdocker.images import reference
from arv_keepdocker.images.platform import Platform

_SAFE = re.compile(r"[a-zA-Z0-9\[][]a-zA-Z0-9_.:/@\[-]*")


def check(data: bytes) -> None:
    image, *rest = data.decode("utf-8", "surrogateescape").split("\n")
    reference.split_query(image)
    _check_platform(image)
    try:
        found = reference.parse(image, rest[0] if rest else None)
    except UsageError as error:
        _check_message(error)
        return
    assert _SAFE.fullmatch(str(found)), found
    assert found.name is not None or found.id_prefix is not None
    if found.name is not None:
        assert _SAFE.fullmatch(found.name), found
        assert not found.name.startswith("sha256:")
        assert reference.parse(found.name).name == found.name
    if found.id_prefix is not None:
        assert re.fullmatch(r"sha256:[0-9a-f]{1,64}", found.id_prefix)


def _check_message(error: UsageError) -> None:
    assert str(error).isprintable()


def _check_platform(text: str) -> None:
    try:
        platform = Platform.parse(text)
    except UsageError:
        return
    assert Platform.parse(str(platform)) == platform
