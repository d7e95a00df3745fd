"""Links: who sees them, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Http, unique

KEYS = (
    "created_at etag head_kind head_uuid kind link_class modified_at modified_by_user_uuid name owner_uuid properties"
    " tail_kind tail_uuid uuid"
)


@pytest.fixture(scope="module")
def world(active: Http, spectator: Http) -> dict[str, Any]:
    """c_home in active's home, c_pub in a project that spectator can read, and links to both from both."""
    project = active.project()
    active.share(project, spectator.uuid)
    heads = {"c_home": active.image("1"), "c_pub": active.image("2", owner_uuid=project)}
    links = {
        (place, head): active.create(
            "links", link_class="seen", name=f"{place} {head}", head_uuid=heads[head]["uuid"], owner_uuid=owner
        )
        for place, owner in (("home", None), ("pub", project))
        for head in heads
    }
    return {"project": project, "links": links, **heads}


def test_keys(active: Http, world: dict[str, Any]) -> None:
    link = world["links"]["home", "c_home"]
    assert sorted(link) == KEYS.split()
    assert (link["head_kind"], link["tail_kind"], link["tail_uuid"]) == ("arvados#collection", "", "")
    assert link["owner_uuid"] == active.uuid


@pytest.mark.parametrize(
    ("place", "head", "link_seen", "head_seen"),
    [
        ("home", "c_home", False, False),
        ("home", "c_pub", False, True),
        ("pub", "c_home", True, False),
        ("pub", "c_pub", True, True),
    ],
)
def test_visibility(
    active: Http,
    admin: Http,
    spectator: Http,
    world: dict[str, Any],
    place: str,
    head: str,
    link_seen: bool,
    head_seen: bool,
) -> None:
    link = world["links"][place, head]
    name = link["name"]
    for http in (active, admin):
        assert http.names("links", filters=[["name", "=", name]]) == [name]
    assert spectator.names("links", filters=[["name", "=", name]]) == [name] * link_seen
    assert (spectator("GET", f"links/{link['uuid']}").status_code == 200) == link_seen
    found = spectator.list("collections", filters=[["uuid", "=", world[head]["uuid"]]])["items"]
    assert len(found) == head_seen
    assert (spectator("GET", f"collections/{world[head]['uuid']}").status_code == 200) == head_seen


def test_a_shared_collection_does_not_bring_its_links(active: Http, spectator: Http) -> None:
    made = active.image("3")
    link = active.create("links", link_class="x", head_uuid=made["uuid"])
    active.share(made["uuid"], spectator.uuid)
    assert spectator.good("GET", f"collections/{made['uuid']}")["uuid"] == made["uuid"]
    assert spectator.bad("GET", f"links/{link['uuid']}")[0] == 404
    theirs = spectator.create("links", link_class="x", head_uuid=made["uuid"])
    assert active.bad("GET", f"links/{theirs['uuid']}")[0] == 404


def test_permission_links(active: Http, spectator: Http) -> None:
    project = active.project()
    status, text = spectator.bad(
        "POST",
        "links",
        {"link_class": "permission", "name": "can_read", "tail_uuid": spectator.uuid, "head_uuid": project},
    )
    assert status == 422
    assert "Head uuid" in text
    link = active.share(project, spectator.uuid)
    assert link["owner_uuid"] == "zzzzz-tpzed-000000000000000"
    assert spectator.good("GET", f"links/{link['uuid']}")["name"] == "can_read"
    status, text = spectator.bad(
        "POST",
        "links",
        {"link_class": "permission", "name": "can_write", "tail_uuid": spectator.uuid, "head_uuid": project},
    )
    assert status == 403
    assert spectator.good("GET", f"groups/{project}")["can_write"] is False
    active.good("DELETE", f"links/{link['uuid']}")
    assert spectator.bad("GET", f"groups/{project}")[0] == 404


@pytest.mark.parametrize(("level", "may"), [("can_read", False), ("can_write", True), ("can_manage", True)])
def test_levels_reach_down(active: Http, spectator: Http, level: str, may: bool) -> None:
    top = active.project()
    below = active.project(owner_uuid=active.project(owner_uuid=top))
    made = active.file(owner_uuid=below)
    active.share(top, spectator.uuid, level)
    assert spectator.good("GET", f"collections/{made['uuid']}")["owner_uuid"] == below
    response = spectator("PUT", f"collections/{made['uuid']}", {"collection": {"description": "x"}})
    assert response.status_code == (200 if may else 403)


def test_by_role(active: Http, spectator: Http, admin: Http) -> None:
    role = active.create("groups", group_class="role", name=unique("role"))["uuid"]
    project = active.project()
    active.share(project, role)
    assert spectator.bad("GET", f"groups/{project}")[0] == 404
    admin.share(role, spectator.uuid)
    assert spectator.good("GET", f"groups/{project}")["uuid"] == project


def test_trash(active: Http) -> None:
    made = active.image("4")
    link = active.create("links", link_class="x", head_uuid=made["uuid"])
    path = f"links/{link['uuid']}"
    active.good("DELETE", f"collections/{made['uuid']}")
    assert active.good("GET", path) == {**link, "created_at": link["created_at"][:26] + "000Z"}
    assert active.good("PUT", path, {"link": {"name": "y"}})["name"] == "y"
    assert active.bad("POST", "links", {"head_uuid": made["uuid"]})[0] == 422
    active.good("POST", f"collections/{made['uuid']}/untrash")
    active.create("links", head_uuid=made["uuid"])
    active.good("DELETE", path)
    assert active.bad("GET", path)[0] == 404


def test_trashed_project(active: Http) -> None:
    project = active.project()
    made = active.image("5", owner_uuid=active.project(owner_uuid=project))
    inside = active.create("links", link_class="x", head_uuid=made["uuid"], owner_uuid=project)
    outside = active.create("links", link_class="x", head_uuid=made["uuid"])
    active.good("DELETE", f"groups/{project}")
    for path, status in (
        (f"links/{inside['uuid']}", 404),
        (f"links/{outside['uuid']}", 200),
        (f"collections/{made['uuid']}", 404),
        (f"groups/{project}", 404),
    ):
        assert active("GET", path).status_code == status
    active.good("POST", f"groups/{project}/untrash")
    assert active.good("GET", f"links/{inside['uuid']}")["uuid"] == inside["uuid"]


def test_moving_a_collection_leaves_its_links(active: Http) -> None:
    made = active.image("6")
    link = active.create("links", link_class="x", head_uuid=made["uuid"])
    project = active.project()
    active.good("PUT", f"collections/{made['uuid']}", {"collection": {"owner_uuid": project}})
    assert active.good("GET", f"links/{link['uuid']}")["owner_uuid"] == active.uuid


def test_contents_and_shared(active: Http, spectator: Http) -> None:
    top = active.project()
    below = active.project(owner_uuid=top)
    direct, deep = active.file(owner_uuid=top), active.file(owner_uuid=below)

    def contents(**parameters: str) -> set[str]:
        answer = active.good("GET", "groups/contents", params={"uuid": top, **parameters})
        assert answer["items_available"] == len(answer["items"])
        return {item["uuid"] for item in answer["items"]}

    assert contents() == {below, direct["uuid"]}
    assert contents(recursive="true") == {below, direct["uuid"], deep["uuid"]}
    assert contents(filters='[["uuid","is_a","arvados#collection"]]') == {direct["uuid"]}
    active.share(below, spectator.uuid)
    shared = {group["uuid"] for group in spectator.list("groups/shared", limit=1000)["items"]}
    assert below in shared
    assert top not in shared
