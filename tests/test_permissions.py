"""What may not be written is found out before anything is sent; what is there already needs nothing writable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine
from tests.test_failures import DockerThat, failed, nothing_recorded, records

READ_ONLY = ["GET /arvados/v1/"]
JUST_READS = [
    "GET /arvados/v1/config",
    "GET /arvados/v1/users/current",
    "GET /arvados/v1/keep_services/accessible",
    "GET /arvados/v1/links",
    "GET /arvados/v1/collections",
    "GET /arvados/v1/collections/",
    "GET /arvados/v1/groups/",
]
"""As `READ_ONLY`, but the token may not ask for its own scopes."""


def nothing_sent(sandbox: Sandbox) -> bool:
    return not [request for request in sandbox.requests() if request["service"] == "keep"]


def test_nothing_is_saved_for_a_project_that_is_frozen(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, docker_that: DockerThat
) -> None:
    image = images.build(engine.host)
    sandbox.freeze(project)
    try:
        no_save = docker_that('[ "$2" != save ] || exit 99; real "$@"')
        failed(run("--project-uuid", project, image.name, env=no_save), 6, project, "frozen")
    finally:
        sandbox.freeze(project, frozen=False)


def test_a_project_in_a_frozen_one(
    sandbox: Sandbox, cluster: Cluster, project: str, run: Command, archive: str
) -> None:
    body = {"group": {"group_class": "project", "name": "below", "owner_uuid": project}}
    below = cluster.api().groups().create(body=body).execute()["uuid"]
    sandbox.freeze(project)
    sandbox.clear_requests()
    try:
        failed(run("--project-uuid", below, "--from-archive", archive), 6, below, "frozen")
        assert nothing_sent(sandbox)
    finally:
        sandbox.freeze(project, frozen=False)


@pytest.mark.parametrize("frozen", [True, False])
def test_what_is_there_needs_nothing_writable(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command, frozen: bool
) -> None:
    image = images.build(engine.host)
    uuid = stored(run("--project-uuid", project, image.name))
    before = records(cluster, project)
    env = {}
    if frozen:
        sandbox.freeze(project)
    else:
        spectator = sandbox.users["spectator"]
        env["ARVADOS_API_TOKEN"] = spectator.token
        share = {"link_class": "permission", "name": "can_read", "tail_uuid": spectator.uuid, "head_uuid": project}
        cluster.api().links().create(body=share).execute()
    try:
        assert stored(run("--project-uuid", project, image.name, env=env)) == uuid
        # A name that is missing is another matter.
        other = images.unique_name()
        engine.docker("tag", image.id, other)
        failed(run("--project-uuid", project, other, env=env), 6, "frozen" if frozen else "may not write")
        assert records(cluster, project) == before
    finally:
        if frozen:
            sandbox.freeze(project, frozen=False)


def test_what_is_read_once_is_found_all_the_same(sandbox: Sandbox, project: str, run: Command, archive: str) -> None:
    uuid = stored(run("--project-uuid", project, "--from-archive", archive))
    sandbox.freeze(project)

    def run_on_archive(*words: str) -> Result:
        with open(archive) as file:
            process = run.start("--project-uuid", project, "--from-archive", "-", *words, stdin=file.fileno())
        out, err = process.communicate()
        return Result(process.returncode, out, err)

    try:
        assert stored(run_on_archive()) == uuid
        sandbox.clear_requests()
        failed(run_on_archive("--force"), 6, "frozen")
        assert nothing_sent(sandbox)
    finally:
        sandbox.freeze(project, frozen=False)


def test_a_project_in_the_trash(cluster: Cluster, project: str, run: Command, archive: str) -> None:
    groups = cluster.api().groups()
    groups.trash(uuid=project).execute()
    try:
        failed(run("--project-uuid", project, "--from-archive", archive), 6, project, "in the trash")
    finally:
        groups.untrash(uuid=project).execute()


@pytest.mark.parametrize("kind", ["j7d0g", "tpzed"])
def test_a_project_of_another_cluster(sandbox: Sandbox, run: Command, archive: str, kind: str) -> None:
    elsewhere = f"xxxxx-{kind}-0123456789abcde"
    for words in (["--from-archive", archive], ["images"]):
        sandbox.clear_requests()
        failed(run(*words, "--project-uuid", elsewhere), 6, elsewhere, "the cluster xxxxx")
        assert nothing_sent(sandbox)
        assert not [request for request in sandbox.requests() if "xxxxx" in request["path"]]


def test_a_user_who_is_not_active(sandbox: Sandbox, project: str, run: Command, archive: str) -> None:
    inactive = {"ARVADOS_API_TOKEN": sandbox.users["inactive"].token}
    sandbox.clear_requests()
    failed(run("--from-archive", archive, env=inactive), 6, "not active")
    assert nothing_sent(sandbox)


@pytest.mark.parametrize("scopes", [READ_ONLY, JUST_READS, [*JUST_READS, "POST /arvados/v1/links"]])
def test_a_token_that_is_not_good_for_writing(
    sandbox: Sandbox, cluster: Cluster, project: str, run: Command, archive: str, scopes: list[str]
) -> None:
    env = {"ARVADOS_API_TOKEN": sandbox.token(scopes=scopes)}
    sandbox.clear_requests()
    failed(
        run("--project-uuid", project, "--from-archive", archive, env=env), 6, "scopes", "POST /arvados/v1/collections"
    )
    assert nothing_sent(sandbox)
    assert nothing_recorded(cluster, project)
    uuid = stored(run("--project-uuid", project, "--from-archive", archive))
    assert stored(run("--project-uuid", project, "--from-archive", archive, env=env)) == uuid


def test_a_token_that_is_good_enough(sandbox: Sandbox, project: str, run: Command, archive: str) -> None:
    scopes = [*JUST_READS, "POST /arvados/v1/collections", "POST /arvados/v1/links"]
    env = {"ARVADOS_API_TOKEN": sandbox.token(scopes=scopes)}
    stored(run("--project-uuid", project, "--from-archive", archive, env=env))


@pytest.mark.parametrize("name", [".", "..", "a/b", "/", "x" * 256, os.fsdecode(b"a\xffb")])
def test_a_name_that_arvados_refuses(
    sandbox: Sandbox, cluster: Cluster, project: str, run: Command, archive: str, name: str
) -> None:
    sandbox.clear_requests()
    failed(run("--project-uuid", project, "--from-archive", archive, "--name", name), 2, "--name")
    assert nothing_sent(sandbox)
    assert nothing_recorded(cluster, project)


@pytest.mark.parametrize("char", [*"\a\b\t\n\r\x1b\x7f\x85\x9b", "\u2028", "\u2029", "\u202e", "\u2066"])
def test_a_name_with_a_control_character(sandbox: Sandbox, run: Command, archive: str, char: str) -> None:
    sandbox.clear_requests()
    listed = Path(archive).with_name("images.txt")
    listed.write_text("good/image:v1\n")
    for more in ((), ("--dry-run",), ("--via-arv-put",), ("--images-from", str(listed))):
        result = run("--from-archive", archive, f"--name=a{char}b", *more)
        failed(result, 2, "--name 'a", f"contains the control character {ascii(char)[1:-1]}")
    assert sandbox.requests() == []


@pytest.mark.parametrize("name", ["...", ".a", "x" * 255, "a b", "é\U0001f600", "ا\u200cب", "\u05d0b"])
def test_a_name_that_arvados_takes(cluster: Cluster, project: str, run: Command, archive: str, name: str) -> None:
    stored(run("--project-uuid", project, "--from-archive", archive, "--name", name))
    assert records(cluster, project)[0] == [name]


def test_an_administrator_stores_into_the_home_of_another_user(
    sandbox: Sandbox, cluster: Cluster, run: Command, archive: str
) -> None:
    home = sandbox.add_user(f"u{os.urandom(4).hex()}").uuid
    failed(run("--project-uuid", home, "--from-archive", archive), 6, home, "only an administrator")
    admin = sandbox.environment("admin")
    uuid = stored(run("--project-uuid", home, "--from-archive", archive, env=admin))
    assert sandbox.api("GET", f"collections/{uuid}", user="admin")["owner_uuid"] == home
    assert stored(run("--project-uuid", home, "--from-archive", archive, env=admin)) == uuid


def test_a_repeat_run_asks_for_no_permissions(sandbox: Sandbox, engine: Engine, project: str, run: Command) -> None:
    image = images.build(engine.host)
    uuid = stored(run("--project-uuid", project, image.name))
    sandbox.clear_requests()
    assert stored(run("--project-uuid", project, image.name)) == uuid
    asked = [request["path"] for request in sandbox.requests()]
    assert not [path for path in asked if "users/current" in path or "api_client_authorizations" in path]


@pytest.mark.parametrize("in_home", [True, False])
def test_who_the_user_is_is_asked_once(
    sandbox: Sandbox, project: str, run: Command, archive: str, in_home: bool
) -> None:
    where = [] if in_home else ["--project-uuid", project]
    for _ in "first", "repeated":
        sandbox.clear_requests()
        stored(run(*where, "--from-archive", archive))
        asked = [request["path"] for request in sandbox.requests()]
        assert len([path for path in asked if "users/current" in path]) == 1


def test_a_repeat_run_of_an_archive_asks_only_who_the_user_is(
    sandbox: Sandbox, project: str, run: Command, archive: str
) -> None:
    """What this user has stored need not be read again."""
    uuid = stored(run("--project-uuid", project, "--from-archive", archive))
    sandbox.clear_requests()
    assert stored(run("--project-uuid", project, "--from-archive", archive)) == uuid
    asked = [request["path"] for request in sandbox.requests()]
    assert not [path for path in asked if "api_client_authorizations" in path]
    assert len([path for path in asked if "users/current" in path]) <= 1
