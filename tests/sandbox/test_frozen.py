"""Frozen projects: what nobody may change, and who may change that."""

from __future__ import annotations

import pytest

from arv_keepdocker.sandbox import Sandbox, SandboxError
from tests.conftest import container_request

from .conftest import Http, unique


def frozen_project(http: Http) -> str:
    """A project of the user that the user has frozen."""
    project = http.project()
    answer = http.good("PUT", f"groups/{project}", {"group": {"frozen_by_uuid": http.uuid}})
    assert (answer["frozen_by_uuid"], answer["can_write"], answer["can_manage"]) == (http.uuid, False, True)
    return project


def test_project_that_is_not_frozen(active: Http) -> None:
    group = active.good("GET", f"groups/{active.project()}")
    assert (group["frozen_by_uuid"], group["can_write"]) == (None, True)


def test_nothing_is_made_in_it(active: Http, admin: Http) -> None:
    project = frozen_project(active)
    for http in (active, admin):
        assert http.good("GET", f"groups/{project}")["can_write"] is False
        for kind, attributes in (
            ("collections", {"name": "c"}),
            ("links", {"link_class": "x"}),
            ("groups", {"group_class": "project", "name": "g"}),
        ):
            status, text = http.bad("POST", kind, {**attributes, "owner_uuid": project})
            assert status == 403
            assert "Owner uuid cannot be set or changed because new owner is frozen (req-" in text


def test_nothing_in_it_is_changed(active: Http, admin: Http) -> None:
    project = active.project()
    below = active.project(owner_uuid=project)
    collection, link = active.file(owner_uuid=below), active.create("links", link_class="x", owner_uuid=project)
    outside = active.file()
    active.good("PUT", f"groups/{project}", {"frozen_by_uuid": active.uuid})
    inside = active.good("GET", f"groups/{below}")
    assert (inside["frozen_by_uuid"], inside["can_write"]) == (None, False)
    for http in (active, admin):
        for path in (f"collections/{collection['uuid']}", f"links/{link['uuid']}", f"groups/{below}"):
            for method in ("PUT", "DELETE"):
                status, text = http.bad(method, path, {"name": "other"})
                assert status == 403
                assert f"Uuid  {path.split('/')[1]} is not writable by {http.uuid} (req-" in text
        status, text = http.bad("PUT", f"collections/{outside['uuid']}", {"owner_uuid": below})
        assert status == 403
        assert "because new owner is frozen" in text
    assert active.good("GET", f"collections/{collection['uuid']}")["owner_uuid"] == below


def test_itself_is_not_changed(active: Http, admin: Http) -> None:
    project = frozen_project(active)
    for http in (active, admin):
        for method, path in (("PUT", project), ("DELETE", project), ("POST", f"{project}/trash")):
            status, text = http.bad(method, f"groups/{path}", {"description": "x"})
            assert status == 403
            assert f"Uuid {project} is frozen and cannot be modified (req-" in text


def test_not_trashed_with_what_it_is_in(active: Http) -> None:
    top = active.project()
    below = active.project(owner_uuid=active.project(owner_uuid=top))
    active.good("PUT", f"groups/{below}", {"frozen_by_uuid": active.uuid})
    status, text = active.bad("DELETE", f"groups/{top}")
    assert status == 422
    assert f"cannot trash project containing frozen project {below}" in text


def test_links_elsewhere_to_what_is_in_it(active: Http, spectator: Http) -> None:
    project = active.project()
    collection = active.file(owner_uuid=project)
    active.good("PUT", f"groups/{project}", {"frozen_by_uuid": active.uuid})
    assert active.create("links", link_class="x", head_uuid=collection["uuid"])["owner_uuid"] == active.uuid
    active.share(project, spectator.uuid)
    assert spectator.good("GET", f"collections/{collection['uuid']}")["owner_uuid"] == project


def test_who_freezes(active: Http, spectator: Http) -> None:
    project = active.project()
    active.share(project, spectator.uuid, "can_write")
    assert spectator.bad("PUT", f"groups/{project}", {"frozen_by_uuid": spectator.uuid})[0] == 403
    assert active.bad("PUT", f"groups/{project}", {"frozen_by_uuid": spectator.uuid})[0] == 422
    role = active.create("groups", group_class="role", name=unique("role"))["uuid"]
    assert active.bad("PUT", f"groups/{role}", {"frozen_by_uuid": active.uuid})[0] == 422


def test_not_while_something_is_to_run_in_it(active: Http) -> None:
    project = active.project()
    below = active.project(owner_uuid=project)
    image = active.image("f")["portable_data_hash"]
    made = active.good("POST", "container_requests", container_request(image, owner_uuid=below))
    status, text = active.bad("PUT", f"groups/{project}", {"frozen_by_uuid": active.uuid})
    assert status == 422
    assert f"containing container request {made['uuid']} with state = Committed" in text
    active.good("DELETE", f"container_requests/{made['uuid']}")
    active.good("PUT", f"groups/{project}", {"frozen_by_uuid": active.uuid})


def test_who_unfreezes(active: Http, spectator: Http, admin: Http, clean: Sandbox) -> None:
    projects = [frozen_project(active) for _ in range(3)]
    active.share(projects[0], spectator.uuid, "can_write")
    assert spectator.bad("PUT", f"groups/{projects[0]}", {"frozen_by_uuid": None})[0] in (403, 422)
    assert active.bad("PUT", f"groups/{projects[0]}", {"frozen_by_uuid": None})[0] == 422
    assert admin.good("PUT", f"groups/{projects[0]}", {"frozen_by_uuid": None})["frozen_by_uuid"] is None
    active.create("collections", owner_uuid=projects[0])
    assert admin.good("PUT", f"groups/{projects[1]}", {"frozen_by_uuid": "", "description": "x"})["can_write"]
    clean.settings(unfreeze_requires_admin=False)
    active.good("PUT", f"groups/{projects[2]}", {"frozen_by_uuid": None})
    active.create("collections", owner_uuid=projects[2])


def test_by_the_sandbox(sandbox: Sandbox, active: Http) -> None:
    project = active.project()
    sandbox.freeze(project)
    assert active.bad("POST", "collections", {"owner_uuid": project})[0] == 403
    sandbox.freeze(project, frozen=False)
    active.create("collections", owner_uuid=project)
    with pytest.raises(SandboxError, match="Path not found"):
        sandbox.freeze("zzzzz-j7d0g-nosuchproject00")
