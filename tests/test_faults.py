"""Arvados and Keep fail once, for a while or for good, at every request: a run goes on, or fails so that the next one
ends right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import arv_keepdocker.catalog.client
from arv_keepdocker.errors import ArvadosError
from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine
from tests.test_failures import (
    DockerThat,
    Way,
    cached,
    failed,
    nothing_recorded,
    records,
    small_disk,
    stored_digest,
    wait_until,
    whole,
)
from tests.test_streaming import canonical_of, fetched, layers

ARV_PUT = ("--via-arv-put",)
ANSWERS: dict[str, dict[str, object]] = {
    "502": {"action": "status", "status": 502, "errors": ["bad gateway"]},
    "garbage": {"action": "garbage"},
    "something else": {"action": "status", "status": 200, "errors": []},
    "half an answer": {"action": "half-body"},
    "no answer": {"action": "drop"},
}
REQUESTS = {
    "config": ("GET", "/config"),
    "project": ("GET", "/groups/"),
    "links": ("GET", r"/links\?"),
    "collections": ("GET", r"/collections\?"),
    "keep services": ("GET", "/keep_services"),
    "new collection": ("POST", "/collections"),
    "new link": ("POST", "/links"),
}
BAD_ANSWERS = [
    *(((), answer, *request) for answer in ANSWERS for request in REQUESTS.values()),
    *((ARV_PUT, "502", *request) for request in REQUESTS.values()),
    *((ARV_PUT, answer, "PUT", "/collections/") for answer in ANSWERS),
]


def ordered(sandbox: Sandbox, times: int | None, **fault: object) -> None:
    sandbox.clear_faults()
    sandbox.fault(str(fault.pop("action")), times=times, **fault)


@pytest.mark.parametrize(
    ("way", "answer", "method", "path"), BAD_ANSWERS, ids=["-".join([*way, *rest]) for way, *rest in BAD_ANSWERS]
)
def test_an_api_server_that_answers_badly(
    engine: Engine,
    small_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    tmp_path: Path,
    way: Way,
    answer: str,
    method: str,
    path: str,
) -> None:
    words = (*way, "--project-uuid", project, small_image.name)
    fault = {**ANSWERS[answer], "service": "api", "method": method, "path": path}
    ordered(sandbox, None, **fault)
    result = run("--retries=0", *words)
    assert sandbox.faults()[0]["struck"]
    sandbox.clear_faults()
    if result.status == 0:
        # What was made is found though the answer says nothing; a configuration may leave everything out.
        assert answer in ("half an answer", "garbage", "something else")
        assert method != "GET" or (answer, path) == ("something else", "/config")
    else:
        failed(result, 6)
        assert records(cluster, project)[1] == []
    ordered(sandbox, 1, **fault)
    uuid = stored(run(*words))
    sandbox.clear_faults()
    assert whole(cluster, project, uuid, small_image.name) == stored_digest(engine, small_image, way)
    assert cached(tmp_path) == []


class Answering:
    """A request of the API client, and what it is answered."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def execute(self, num_retries: int) -> object:
        return json.loads(self.answer)


STRANGE_LISTS = [
    ("[]", "it is not an object"),
    ("{}", "it has no items"),
    ('{"items": null}', "its items is None"),
    ('{"items": ["a"]}', "it is not an object"),
    ('{"items": [{"uuid": "zzzzz"}, {"name": "a"}]}', "it has no uuid"),
    ('{"items": [{"uuid": ["zzzzz"]}]}', r"its uuid is \['zzzzz'\]"),
]


@pytest.mark.parametrize(("answer", "problem"), STRANGE_LISTS)
def test_an_answer_that_is_not_arvados_own(answer: str, problem: str) -> None:
    asked = arv_keepdocker.catalog.client.ArvadosClient(api=None, retries=0)
    with pytest.raises(ArvadosError, match=f"^listing things: Arvados' answer could not be read: {problem}$"):
        asked.execute("listing things", Answering(answer), items=["uuid"])


def test_a_host_that_is_none(run: Command) -> None:
    failed(run("images", env={"ARVADOS_API_HOST": "127.0.0.1:99999"}), 6, "127.0.0.1:99999")


@pytest.mark.parametrize("text", [b"ARVADOS_API_HOST\n", b"ARVADOS_API_HOST=\xff\n"])
def test_settings_that_cannot_be_read(run: Command, tmp_path: Path, text: bytes) -> None:
    settings = tmp_path / "home" / ".config" / "arvados" / "settings.conf"
    settings.parent.mkdir(parents=True)
    settings.write_bytes(text)
    failed(run("images", env={"HOME": str(tmp_path / "home")}), 6, "settings.conf")


def test_an_api_server_that_is_slow(
    engine: Engine, small_image: images.Image, sandbox: Sandbox, project: str, run: Command, way: Way
) -> None:
    sandbox.settings(latency_ms=200)
    try:
        stored(run(*way, "--project-uuid", project, small_image.name))
    finally:
        sandbox.settings(latency_ms=0)


KEEP_ANSWERS: dict[str, dict[str, object]] = {
    "refuses": {"action": "status", "status": 422, "errors": ["not with me"]},
    "hangs up": {"action": "drop"},
    "full": {"action": "full"},
    "read only": {"action": "read-only"},
    "an answer lost": {"action": "drop-after"},
    "token expired": {"action": "status", "status": 401, "errors": ["not logged in"]},
}


@pytest.mark.parametrize("answer", KEEP_ANSWERS)
def test_a_keep_service_that_takes_nothing(
    engine: Engine,
    large_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    tmp_path: Path,
    answer: str,
) -> None:
    words = (*way, "--project-uuid", project, large_image.name)
    fault = {**KEEP_ANSWERS[answer], "service": "keep", "method": "PUT"}
    ordered(sandbox, None, **fault)
    failed(run("--retries=0", *words), 6, large_image.id)
    assert nothing_recorded(cluster, project)
    assert cached(tmp_path) == ([f"{large_image.id}.tar"] if way else [])
    sandbox.clear_faults()
    uuid = stored(run(*words))
    assert whole(cluster, project, uuid, large_image.name) == stored_digest(engine, large_image, way)
    assert cached(tmp_path) == []


@pytest.mark.long
def test_keep_that_is_away_for_half_a_minute(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command
) -> None:
    image = images.build(engine.host, layers=layers(4.2, 4.2))
    sandbox.fault("drop", service="keep", times=None)
    processes = [run.start(*way, "--project-uuid", project, image.name) for way in ((), ARV_PUT)]
    back = threading.Timer(30, sandbox.clear_faults)
    back.start()
    ends = [process.communicate(timeout=150) for process in processes]
    back.join()
    uuids = {stored(Result(process.returncode, *end)) for process, end in zip(processes, ends, strict=True)}
    assert len(uuids) == 1
    # Either may have been the first; the other one takes what that has stored.
    either = {stored_digest(engine, image), stored_digest(engine, image, ARV_PUT)}
    assert whole(cluster, project, uuids.pop(), image.name) in either


@pytest.mark.parametrize("services", [2, 3])
def test_one_of_several_keep_services_is_down(
    engine: Engine, large_image: images.Image, run: Command, way: Way, services: int, tmp_path: Path
) -> None:
    """Two of three are enough for the two copies that the cluster wants, one of two is not."""
    with Sandbox(keep_services=services) as sandbox:
        cluster = Cluster(sandbox)
        home = cluster.api().users().current().execute()["uuid"]
        sandbox.fault("drop", service="keep", instance=0, times=None)
        result = run(*way, "--retries=0", large_image.name, env=sandbox.environment())
        if services == 2:
            failed(result, 6, large_image.id)
            assert nothing_recorded(cluster, home)
            sandbox.clear_faults()
            result = run(*way, large_image.name, env=sandbox.environment())
        assert whole(cluster, home, stored(result), large_image.name) == stored_digest(engine, large_image, way)
        cluster.close()


# What changes while a run is on its way


def hooked(docker_that: DockerThat, sandbox: Sandbox, method: str, path: str, body: object = None) -> dict[str, str]:
    """The environment in which an administrator asks the API for something while the image is saved."""
    program = docker_that("").get("PATH", "").partition(":")[0] + "/asks.py"
    Path(program).write_text(
        "import ssl, urllib.request\n"
        f"request = urllib.request.Request({sandbox.url + path!r}, method={method!r}, "
        f"data={None if body is None else json.dumps(body).encode()!r}, headers={{'Authorization': "
        f"'Bearer {sandbox.users['admin'].token}', 'Content-Type': 'application/json'}})\n"
        "urllib.request.urlopen(request, context=ssl._create_unverified_context()).read()\n"
    )
    return docker_that(f'[ "$2" != save ] || {sys.executable} {program} || exit 99; real "$@"')


def test_a_project_that_becomes_read_only(
    engine: Engine,
    small_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    docker_that: DockerThat,
) -> None:
    spectator = sandbox.users["spectator"]
    may = {"link_class": "permission", "tail_uuid": spectator.uuid, "head_uuid": project}
    links = cluster.api().links()
    permission = links.create(body={**may, "name": "can_write"}).execute()["uuid"]  # only an administrator changes it
    words = (*way, "--project-uuid", project, "--retries=0", small_image.name)
    as_spectator = {"ARVADOS_API_TOKEN": spectator.token}
    change = hooked(docker_that, sandbox, "PUT", f"/arvados/v1/links/{permission}", {"name": "can_read"})
    failed(run(*words, env={**change, **as_spectator}), 6, small_image.id, "write permission")
    assert nothing_recorded(cluster, project)
    links.create(body={**may, "name": "can_write"}).execute()
    uuid = stored(run(*words, env=as_spectator))
    assert whole(cluster, project, uuid, small_image.name) == stored_digest(engine, small_image, way)


def test_a_token_that_expires_on_the_way(
    engine: Engine, small_image: images.Image, sandbox: Sandbox, cluster: Cluster, project: str, run: Command, way: Way
) -> None:
    fault = {"service": "api", "method": "POST", "status": 401, "errors": ["Not logged in"]}
    sandbox.fault("status", times=None, **fault)
    failed(run(*way, "--project-uuid", project, small_image.name), 6, "Not logged in")
    assert nothing_recorded(cluster, project)
    sandbox.clear_faults()
    uuid = stored(run(*way, "--project-uuid", project, small_image.name))
    assert whole(cluster, project, uuid, small_image.name) == stored_digest(engine, small_image, way)


def test_signatures_that_expire_on_the_way(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command, way: Way
) -> None:
    image = images.build(engine.host, layers=layers(4.2, 0.1, 4.2))
    before = sandbox.settings()["signature_ttl"]
    sandbox.settings(signature_ttl=1)
    sandbox.fault("delay", service="api", method="POST", path="/collections", seconds=3, times=None)
    try:
        failed(run(*way, "--project-uuid", project, "--retries=0", image.name), 6, image.id)
    finally:
        sandbox.settings(signature_ttl=before)
    assert nothing_recorded(cluster, project)
    sandbox.clear_faults()
    uuid = stored(run(*way, "--project-uuid", project, image.name))
    assert whole(cluster, project, uuid, image.name) == stored_digest(engine, image, way)


@pytest.mark.parametrize("before", [0, 1])
def test_what_expires_in_the_same_run_is_sent_once_more(
    engine: Engine,
    large_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    before: int,
) -> None:
    """Whether or not some of it was there already."""
    usual = sandbox.settings()["signature_ttl"]
    sandbox.settings(signature_ttl=2)
    sandbox.fault("delay", service="api", method="POST", path="/collections", body="manifest", seconds=3.5, times=1)
    try:
        result = run("--project-uuid", project, "--retries=0", *["--force"][before:], large_image.name)
    finally:
        sandbox.settings(signature_ttl=usual)
    uuid = stored(result)
    assert "sending every block again" in result.stderr
    assert whole(cluster, project, uuid, large_image.name) == stored_digest(engine, large_image)


def test_signatures_that_live_too_short_to_be_reused(
    engine: Engine, small_image: images.Image, sandbox: Sandbox, project: str, run: Command, tmp_path: Path
) -> None:
    usual = sandbox.settings()["signature_ttl"]
    sandbox.settings(signature_ttl=600)
    try:
        fresh: dict[str, str | None] = {
            "XDG_CACHE_HOME": str(tmp_path / "fresh")
        }  # the SDK keeps the API's description
        result = run("--project-uuid", project, small_image.name, env=fresh)
    finally:
        sandbox.settings(signature_ttl=usual)
    stored(result)
    assert "signatures expire after 600 s" in result.stderr
    assert "can be reused" in result.stderr


def test_a_collection_that_is_trashed_before_it_is_linked(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command
) -> None:
    image = images.build(engine.host)
    uuid = stored(run("--project-uuid", project, image.name))
    other = images.unique_name()
    engine.docker("tag", image.id, other)
    sandbox.fault("delay", service="api", method="POST", path="/links", seconds=2, times=1)
    process = run.start("--project-uuid", project, other)
    wait_until(lambda: any(fault["struck"] for fault in sandbox.faults()))
    cluster.api().collections().delete(uuid=uuid).execute()
    failed(Result(process.wait(60), *process.communicate()), 6, other, uuid, "not found")
    again = stored(run("--project-uuid", project, other))
    assert again != uuid
    heads = {
        link["name"]: link["head_uuid"]
        for link in cluster.api().links().list(filters=[["head_uuid", "=", again]]).execute()["items"]
    }
    assert heads == {image.id: again, other: again}


def test_a_copy_that_was_trashed_is_made_again(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command
) -> None:
    image = images.build(engine.host)
    first = stored(run(image.name))
    copy = stored(run("--project-uuid", project, image.name))
    cluster.api().collections().delete(uuid=copy).execute()
    again = stored(run("--project-uuid", project, image.name))
    assert again not in (first, copy)
    assert stored(run("--project-uuid", project, image.name)) == again
    links = cluster.api().links().list(filters=[["head_uuid", "=", again]]).execute()["items"]
    assert sorted(link["name"] for link in links) == sorted([image.id, image.name])


def test_hundreds_of_copies_cost_a_handful_of_requests(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command
) -> None:
    image = images.build(engine.host)
    api = cluster.api()
    first = stored(run(image.name))
    manifest = api.collections().get(uuid=first).execute()["manifest_text"]
    group = {"group": {"group_class": "project", "name": f"copies {time.time()}"}}
    other = api.groups().create(body=group).execute()["uuid"]
    for number in range(300):
        body = {"manifest_text": manifest, "owner_uuid": other, "name": f"copy {number}"}
        copy = api.collections().create(body={"collection": body}).execute()["uuid"]
        link = {"link_class": "docker_image_hash", "name": image.id, "head_uuid": copy, "owner_uuid": other}
        api.links().create(body=link).execute()
    try:
        sandbox.clear_requests()
        uuid = stored(run("--project-uuid", project, image.name))
        assert len(sandbox.requests()) < 20
        assert whole(cluster, project, uuid, image.name) == stored_digest(engine, image)
    finally:
        api.groups().delete(uuid=other).execute()


@pytest.mark.parametrize("what", ["collections", "links"])
def test_a_copy_whose_answer_is_lost_is_made_once(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command, what: str
) -> None:
    image = images.build(engine.host)
    stored(run(image.name))
    sandbox.fault("drop-after", service="api", method="POST", path=f"/{what}", times=1)
    uuid = stored(run("--project-uuid", project, image.name))
    assert whole(cluster, project, uuid, image.name) == stored_digest(engine, image)


def test_a_property_whose_answer_is_lost(
    engine: Engine, small_image: images.Image, sandbox: Sandbox, cluster: Cluster, project: str, run: Command
) -> None:
    sandbox.fault("drop-after", service="api", method="PUT", path="/collections/", times=1)
    uuid = stored(run(*ARV_PUT, "--project-uuid", project, small_image.name))
    properties = cluster.api().collections().get(uuid=uuid).execute()["properties"]
    assert properties == {"docker-image-repo-tag": small_image.name}
    assert whole(cluster, project, uuid, small_image.name) == stored_digest(engine, small_image, ("--via-arv-put",))


def test_a_name_that_is_taken(
    engine: Engine, small_image: images.Image, cluster: Cluster, project: str, run: Command, way: Way
) -> None:
    name = f"Docker image {small_image.name.replace('/', ' ')} {small_image.id[:12]}"
    body = {"collection": {"name": name, "owner_uuid": project}}
    taken = cluster.api().collections().create(body=body).execute()["uuid"]
    uuid = stored(run(*way, "--project-uuid", project, small_image.name))
    assert uuid != taken
    assert cluster.api().collections().get(uuid=uuid).execute()["name"].startswith(f"{name} (")
    cluster.api().collections().delete(uuid=taken).execute()
    assert whole(cluster, project, uuid, small_image.name) == stored_digest(engine, small_image, way)


# The machine


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_does_not_keep_an_image_from_being_streamed(
    engine: Engine,
    large_image: images.Image,
    project: str,
    run: Command,
    run_tool: Callable[..., Result],
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 16):
        for place in ("home", "cache"):
            (disk / place).mkdir()
        subprocess.run(["dd", "if=/dev/zero", f"of={disk}/filler"], check=False, capture_output=True)
        full: dict[str, str | None] = {"HOME": f"{disk}/home", "XDG_CACHE_HOME": f"{disk}/cache"}
        result = run("--project-uuid", project, large_image.name, env=full)
        uuid = stored(result)
        assert "error" not in result.stderr
        assert stored(run("--project-uuid", project, large_image.name, env=full)) == uuid
    assert fetched(run_tool, uuid, tmp_path) == canonical_of(engine, large_image, tmp_path)


def test_a_pull_that_prints_megabytes(
    engine: Engine, small_image: images.Image, cluster: Cluster, project: str, run: Command, docker_that: DockerThat
) -> None:
    chatty = docker_that(
        '[ "$2" = pull ] || exec env PATH="$REAL_PATH" docker "$@"; '
        "yes chatter | head -c 5000000; yes chatter | head -c 5000000 >&2"
    )
    uuid = stored(run("--project-uuid", project, "--pull", small_image.name, env=chatty))
    assert whole(cluster, project, uuid, small_image.name) == stored_digest(engine, small_image)
