"""Vocabularies: which properties objects may have."""

from __future__ import annotations

from typing import Any

import pytest

from arv_keepdocker.sandbox import Sandbox

from .conftest import Http

SIZE = {
    "strict": True,
    "labels": [{"label": "How Big"}],
    "values": {"s": {"labels": [{"label": "Small"}]}, "m": {"labels": []}},
}
TAGS = {"size": SIZE, "free": {"strict": False, "labels": [], "values": {}}}


def test_none(active: Http) -> None:
    assert active.good("GET", "vocabulary") == {"kind": "arvados#vocabulary", "strict_tags": False, "tags": {}}
    active.create("links", properties={"anything": [1]})


@pytest.fixture
def strict(clean: Sandbox) -> Sandbox:
    clean.settings(vocabulary={"strict_tags": True, "tags": TAGS})
    return clean


@pytest.mark.parametrize("kind", ["links", "collections"])
@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"nosuch": "x"}, 'tag key "nosuch" is not defined in the vocabulary'),
        ({"HOW big": "s"}, 'tag key "HOW big" is an alias, must be provided as "size"'),
        ({"size": "xl"}, 'tag value "xl" is not valid for key "size"'),
        ({"size": ["m", "SMALL"]}, 'tag value "SMALL" for key "size" is an alias, must be provided as "s"'),
        ({"size": 5}, 'value type for tag key "size" was float64, but expected a string or list of strings'),
        ({"size": [5]}, 'value list element type for tag key "size" was float64, but expected a string'),
        ({"size": "s"}, ""),
        ({"free": "anything"}, ""),
        ({"arv:anything": 5, "image_timestamp": 5, "docker-image-repo-tag": [5]}, ""),
    ],
)
def test_strict(active: Http, strict: Sandbox, kind: str, properties: dict[str, Any], message: str) -> None:
    made = active.create(kind)
    for method, path in (("POST", kind), ("PUT", f"{kind}/{made['uuid']}")):
        if message:
            status, text = active.bad(method, path, {"properties": properties})
            assert (status, text) == (400, message)
        else:
            assert active.good(method, path, {"properties": properties})["properties"] == properties


def test_not_strict(active: Http, clean: Sandbox) -> None:
    clean.settings(vocabulary={"strict_tags": False, "tags": TAGS})
    assert active.create("links", properties={"nosuch": 5})["properties"] == {"nosuch": 5}
    assert active.bad("POST", "links", {"properties": {"size": "xl"}})[0] == 400
