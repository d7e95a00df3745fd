"""UUIDs of other clusters."""

from __future__ import annotations

import pytest

from arv_keepdocker.sandbox import Sandbox

from .conftest import Http, encoded

PROJECT = "xxxxx-j7d0g-012345678901234"
COLLECTION = "xxxxx-4zz18-012345678901234"
OBJECT = {"uuid": PROJECT, "kind": "arvados#group", "group_class": "project", "name": "far", "can_write": True}


def test_a_cluster_that_is_not_known(active: Http) -> None:
    """The controller asks its own, which has no such thing."""
    for path in (f"groups/{PROJECT}", f"collections/{COLLECTION}"):
        status, text = active.bad("GET", path)
        assert status == 404
        assert "Path not found" in text


def test_a_cluster_that_is_down(active: Http, nobody: Http, clean: Sandbox) -> None:
    clean.settings(remote_clusters={"xxxxx": None})
    for method, path in (("GET", f"groups/{PROJECT}"), ("HEAD", f"groups/{PROJECT}"), ("PUT", f"links/{COLLECTION}")):
        assert active(method, path).status_code == 500
    assert "connection refused" in active.bad("GET", f"collections/{COLLECTION}")[1]
    assert nobody.bad("GET", f"groups/{PROJECT}")[0] == 401
    assert active.bad("GET", "groups/wwwww-j7d0g-012345678901234")[0] == 404
    lists = encoded({"filters": [["uuid", "in", [PROJECT]]], "count": "none"})
    assert active.bad("GET", "groups", params=lists)[0] == 500
    assert active.good("GET", "config")["RemoteClusters"] == {"xxxxx": {"Host": "xxxxx.invalid"}}


def test_an_object_of_another_cluster(active: Http, clean: Sandbox) -> None:
    clean.settings(remote_clusters={"xxxxx": [OBJECT]})
    assert active.good("GET", f"groups/{PROJECT}")["can_write"] is True
    for method, path in (("GET", f"collections/{COLLECTION}"), ("PUT", f"groups/{PROJECT}")):
        status, text = active.bad(method, path)
        assert status == 404
        assert "Path not found" in text


@pytest.mark.parametrize("remotes", [{}, {"xxxxx": None}, {"xxxxx": [OBJECT]}])
def test_it_owns_nothing_here(active: Http, clean: Sandbox, remotes: dict[str, object]) -> None:
    clean.settings(remote_clusters=remotes)
    for kind in ("collections", "links"):
        status, text = active.bad("POST", kind, {"owner_uuid": PROJECT})
        assert status == 422
        assert f"Owner uuid '{PROJECT}' not found" in text
    status, text = active.bad("POST", "links", {"head_uuid": COLLECTION})
    assert status == 422
    assert f"Head uuid '{COLLECTION}' not found" in text
