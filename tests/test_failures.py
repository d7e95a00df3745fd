"""Bad input and bad days: what the user reads, what is left behind, and that the next plain run ends right."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import canonical, images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Daemon, Engine

DockerThat = Callable[[str], dict[str, str]]
Way = tuple[str, ...]


def failed(result: Result, status: int, *words: str) -> None:
    """It failed as it should: nothing on stdout, an error that says what, and no traceback."""
    assert result.status == status, result.stderr
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("arv-keepdocker: error: ")]
    assert len(errors) == 1, result.stderr
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr


def records(cluster: Cluster, project: str) -> tuple[list[str], list[str]]:
    """The names of the project's collections and of its links."""
    api = cluster.api()
    owned = [["owner_uuid", "=", project]]
    collections, links = (
        sorted(item["name"] for item in resource.list(filters=owned).execute()["items"])
        for resource in (api.collections(), api.links())
    )
    return collections, links


def nothing_recorded(cluster: Cluster, project: str) -> bool:
    return records(cluster, project) == ([], [])


def cached(tmp_path: Path) -> list[str]:
    """What is in the cache directory, but for the notes of what was sent."""
    directory = tmp_path / "cache" / "arvados" / "docker"
    names = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
    return [name for name in names if not name.endswith(".journal")]


@cache
def _keep(api: Any) -> Any:
    from arvados.keep import KeepClient

    # Threads that fetch ahead would never end.
    return KeepClient(api_client=api, num_prefetch_threads=0)


def keep_client(api: Any) -> Any:
    """The SDK's client, always the same one with its connections, but without a block that it has read before."""
    from arvados.keep import KeepBlockCache

    keep = _keep(api)
    keep.block_cache = KeepBlockCache(disk_cache=False)
    return keep


def the_file(cluster: Cluster, uuid: str) -> tuple[str, bytes]:
    """The name and the content of the one file of a collection, as the SDK reads it."""
    from arvados.collection import CollectionReader

    api = cluster.api()
    reader = CollectionReader(uuid, api_client=api, keep_client=keep_client(api))
    (name,) = reader
    with reader.open(name, "rb") as file:
        return name, b"".join(iter(lambda: file.read(1 << 20), b""))


def whole(cluster: Cluster, project: str, uuid: str, name: str) -> str:
    """The digest of the one file of the one image that a project has, in a collection that both links name."""
    api = cluster.api()
    owned = [["owner_uuid", "=", project]]
    collections = api.collections().list(filters=owned, select=["uuid"]).execute()["items"]
    assert [collection["uuid"] for collection in collections] == [uuid]
    filename, content = the_file(cluster, uuid)
    links = [
        (link["link_class"], link["name"], link["head_uuid"])
        for link in api.links().list(filters=owned).execute()["items"]
    ]
    assert sorted(links) == [
        ("docker_image_hash", filename.removesuffix(".tar"), uuid),
        ("docker_image_repo+tag", name, uuid),
    ]
    return hashlib.sha256(content).hexdigest()


def stored_digest(engine: Engine, image: images.Image, way: Way = (), *, universal: bool = False) -> str:
    """The digest of what is stored of the image: the canonical archive, or what `docker save` writes."""
    saved = engine.saved(image.id)
    is_saved = "--via-arv-put" in way and not universal
    return hashlib.sha256(saved if is_saved else canonical.archive_of(saved, universal)).hexdigest()


def group_has_ended(group: int) -> bool:
    """Whether no process is left of those that a run has started, itself included."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hanging_in(command: str, pid_file: Path) -> str:
    """The script, for `docker_that`, of a docker that never ends one of its commands; see `hanging_process`."""
    return f'[ "$2" = {command} ] || exec env PATH="$REAL_PATH" docker "$@"; echo $$ >{pid_file}; exec sleep 600'


def hanging_process(pid_file: Path) -> int:
    """The process id of the docker that hangs; waits until it does."""
    wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    return int(pid_file.read_text())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Asking Arvados


@pytest.mark.parametrize("missing", ["ARVADOS_API_HOST", "ARVADOS_API_TOKEN"])
def test_no_credentials(engine: Engine, run: Command, missing: str) -> None:
    failed(run("debian", env={missing: None}), 6, f"{missing} not set", "Set it in", "settings.conf")


def test_a_line_of_settings_with_spaces(sandbox: Sandbox, run: Command, tmp_path: Path) -> None:
    settings = tmp_path / "settings" / "arvados" / "settings.conf"
    settings.parent.mkdir(parents=True)
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "settings"), "ARVADOS_API_HOST": None}
    for line in ("ARVADOS_API_HOST = {}", "export ARVADOS_API_HOST={}"):
        settings.write_text(line.format(run.environment["ARVADOS_API_HOST"]))
        failed(run("images", env=environment), 6, f"not set; {settings} has a line for it, which must be NAME=VALUE")


def test_a_wrong_token(engine: Engine, sandbox: Sandbox, run: Command) -> None:
    token = sandbox.users["active"].token[:-1] + "!"
    failed(run("debian", env={"ARVADOS_API_TOKEN": token}), 6, "Not logged in", "ARVADOS_API_TOKEN")
    failed(run("images", env={"ARVADOS_API_TOKEN": token}), 6, "Not logged in", "ARVADOS_API_TOKEN")


@pytest.mark.parametrize("mark", ["'", '"'])
def test_a_token_in_quotes(sandbox: Sandbox, run: Command, tmp_path: Path, mark: str) -> None:
    settings = tmp_path / "settings" / "arvados" / "settings.conf"
    settings.parent.mkdir(parents=True)
    token = sandbox.users["active"].token
    settings.write_text(f"ARVADOS_API_TOKEN={mark}{token}{mark}\n")
    result = run("images", env={"XDG_CONFIG_HOME": str(tmp_path / "settings"), "ARVADOS_API_TOKEN": None})
    failed(result, 6, "ARVADOS_API_TOKEN has a quotation mark in it")
    assert token not in result.stderr


def test_a_server_that_is_not_there(engine: Engine, run: Command) -> None:
    result = run("--retries=0", "debian", env={"ARVADOS_API_HOST": "127.0.0.1:1"})
    failed(result, 6, "127.0.0.1:1", "Connection refused")


def test_a_server_that_is_not_to_be_trusted(engine: Engine, sandbox: Sandbox, run: Command) -> None:
    result = run("--retries=0", "debian", env={"ARVADOS_API_HOST_INSECURE": None})
    failed(result, 6, "certificate")


@pytest.mark.parametrize("action", ["garbage", "half-body", "drop"])
def test_a_server_that_talks_nonsense(sandbox: Sandbox, run: Command, action: str) -> None:
    sandbox.fault(action, service="api", path="/links", times=None)
    failed(run("--retries=0", "images"), 6, "listing links")


def test_a_server_that_fails(sandbox: Sandbox, run: Command) -> None:
    sandbox.fault("status", service="api", path="/links", status=503, errors=["gone fishing"], times=None)
    failed(run("--retries=0", "images"), 6, "gone fishing")
    sandbox.clear_faults()
    sandbox.fault("status", service="api", path="/links", status=503, times=1)
    assert run("images").status == 0


def test_a_project_that_does_not_exist_or_is_not_a_project(
    engine: Engine, cluster: Cluster, run: Command, docker_that: DockerThat
) -> None:
    no_save = docker_that('[ "$2" != save ] || exit 99; real "$@"')
    image = images.build(engine.host)
    prefix = cluster.api().users().current().execute()["uuid"][:5]
    failed(
        run("--project-uuid", f"{prefix}-j7d0g-nosuchproject00", image.name, env=no_save),
        6,
        "no project",
        "may not read",
    )
    failed(run("--project-uuid", f"{prefix}-tpzed-" + "0" * 15, image.name, env=no_save), 6, "another user")
    failed(run("--project-uuid", "my project", image.name, env=no_save), 2, "my project")
    # Nor is what is not there an empty list.
    failed(run("--project-uuid", f"{prefix}-j7d0g-nosuchproject00"), 6, "no project")
    assert run("--project-uuid", f"{prefix}-j7d0g-nosuchproject00").stderr.count("nosuchproject00") == 1
    failed(run("images", "--project-uuid", "my project"), 2, "my project")


def test_a_project_that_may_only_be_read(
    small_image: images.Image, sandbox: Sandbox, cluster: Cluster, project: str, run: Command, docker_that: DockerThat
) -> None:
    spectator = sandbox.users["spectator"]
    share = {"link_class": "permission", "name": "can_read", "tail_uuid": spectator.uuid, "head_uuid": project}
    cluster.api().links().create(body=share).execute()
    environment = {"ARVADOS_API_TOKEN": spectator.token, **docker_that('[ "$2" != save ] || exit 99; real "$@"')}
    failed(run("--project-uuid", project, small_image.name, env=environment), 6, "may not write", project)


def test_a_user_who_is_not_active(engine: Engine, sandbox: Sandbox, run: Command) -> None:
    image = images.build(engine.host)
    environment = {"ARVADOS_API_TOKEN": sandbox.users["inactive"].token}
    failed(run("--retries=0", image.name, env=environment), 6, "not active")


@pytest.mark.parametrize("formats", [["v1"], []])
def test_a_cluster_that_does_not_take_the_format(
    small_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    formats: list[str],
) -> None:
    before = sandbox.settings()["docker_image_formats"]
    sandbox.settings(docker_image_formats=formats)
    try:
        # The SDK keeps the discovery document for a while.
        fresh = {"HOME": str(Path(run.environment["HOME"]) / "fresh"), "XDG_CACHE_HOME": None}
        failed(run(*way, "--project-uuid", project, small_image.name, env=fresh), 5, "v2", "--force-image-format")
        assert nothing_recorded(cluster, project)
        forced = run(*way, "--project-uuid", project, "--force-image-format", small_image.name, env=fresh)
        stored(forced)
        assert "warning" in forced.stderr
    finally:
        sandbox.settings(docker_image_formats=before)


# Asking the engine


def test_an_image_that_is_nowhere(engine: Engine, run: Command) -> None:
    name = images.unique_name()
    failed(run(name), 3, f"docker has no image {name}, and neither does Arvados, as far as you can see", "--pull")


def test_no_engine(engine: Engine, run: Command, tmp_path: Path) -> None:
    name = images.unique_name()
    failed(run(name, env={"PATH": str(tmp_path)}), 4, "no program 'docker' or 'podman' on PATH")
    failed(run(name, env={"DOCKER_HOST": f"unix://{tmp_path}/nosuch"}), 4, "annot connect", "DOCKER_HOST")
    assert "Arvados has no such image" in run(name, env={"PATH": str(tmp_path)}).stderr


def test_no_permission_on_the_socket(run: Command, docker_that: DockerThat) -> None:
    # As docker 20 says it; root, who runs these tests as a rule, may connect to any socket.
    words = "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
    refuses = docker_that(f'echo "[]"; echo "{words}" >&2; exit 1')
    failed(run(images.unique_name(), env=refuses), 4, words, "group that may use docker")


def test_an_engine_that_speaks_in_tongues(run: Command, docker_that: DockerThat) -> None:
    failed(run("x", env=docker_that("echo hello")), 4, "could not be read")
    failed(run("x", env=docker_that("echo '[{}]'")), 4, "could not be read")
    shown = run("x", env=docker_that("printf 'no\\033[31m\\n\\rred \\342\\200\\256' >&2; exit 1"))
    failed(shown, 4, r"no\x1b[31m red \u202e")


def test_megabytes_of_stderr(run: Command, docker_that: DockerThat) -> None:
    chatty = docker_that("yes chatter | head -c 5000000 >&2; echo the end >&2; exit 1")
    failed(run("x", env=chatty), 4, "the end")


# Saving


def test_a_save_that_fails_late(
    small_image: images.Image,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    docker_that: DockerThat,
    tmp_path: Path,
) -> None:
    late = docker_that('real "$@" || exit; [ "$2" != save ] || { echo "no more room in the engine" >&2; exit 1; }')
    failed(
        run(*way, "--project-uuid", project, small_image.name, env=late),
        4,
        small_image.id,
        "no more room in the engine",
    )
    assert nothing_recorded(cluster, project)
    assert cached(tmp_path) == []
    stored(run(*way, "--project-uuid", project, small_image.name))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_save_that_stops_early_and_says_that_all_is_well(
    engine: Engine,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    docker_that: DockerThat,
    tmp_path: Path,
    share: float,
) -> None:
    image = images.build_big(engine.host, 1, layers=2)
    kept = int(len(engine.saved(image.id)) * share)
    short = docker_that(f'if [ "$2" = save ]; then real "$@" | head -c {kept}; else real "$@"; fi')
    failed(run(*way, "--project-uuid", project, image.name, env=short), 5, image.id)
    assert nothing_recorded(cluster, project)
    assert cached(tmp_path) == []
    stored(run(*way, "--project-uuid", project, image.name))


def test_a_save_that_is_killed(
    small_image: images.Image,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    docker_that: DockerThat,
    tmp_path: Path,
) -> None:
    killed = docker_that('[ "$2" = save ] || exec env PATH="$REAL_PATH" docker "$@"; kill -9 $$')
    failed(run(*way, "--project-uuid", project, small_image.name, env=killed), 4, "SIGKILL")
    assert nothing_recorded(cluster, project)
    assert cached(tmp_path) == []


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a daemon to kill")
@pytest.mark.usefixtures("engine")
def test_a_daemon_that_is_killed_during_the_save(
    cluster: Cluster, project: str, run: Command, way: Way, docker_that: DockerThat, tmp_path: Path
) -> None:
    begun, killed, pipe = (tmp_path / name for name in ("begun", "killed", "pipe"))
    waits = f"head -c {6 << 20}; touch {begun}; until [ -e {killed} ]; do sleep 0.05; done; cat"
    stops_in_the_middle = docker_that(
        f'[ "$2" = save ] || exec env PATH="$REAL_PATH" docker "$@"\n'
        f'mkfifo {pipe}; real "$@" >{pipe} & {{ {waits}; }} <{pipe}; wait $!'
    )
    with Daemon() as daemon:
        image = images.build_big(daemon.host, 20, layers=4)
        words = ("--project-uuid", project, image.name)
        process = run.start(*way, *words, env={**daemon.environment, **stops_in_the_middle})
        wait_until(begun.exists)
        daemon.kill()
        killed.touch()
        out, err = process.communicate(timeout=60)
    assert process.returncode in (4, 5), err
    failed(Result(process.returncode, out, err), process.returncode, image.id)
    assert nothing_recorded(cluster, project)
    assert cached(tmp_path) == []


# The cache directory


@contextmanager
def small_disk(path: Path, kibibytes: int) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("kibibytes", [1024, 2056])
def test_a_full_disk(
    engine: Engine, cluster: Cluster, project: str, run: Command, tmp_path: Path, kibibytes: int
) -> None:
    """Too small for what the engine estimates; and enough for that, but not for the archive."""
    image = images.build_big(engine.host, 2, layers=2)
    disk = tmp_path / "disk"
    with small_disk(disk, kibibytes):
        # The SDK's own files need some space too.
        (disk / "arvados").mkdir()
        (disk / "arvados" / "discovery").symlink_to(tmp_path)
        result = run("--via-arv-put", "--project-uuid", project, image.name, env={"XDG_CACHE_HOME": str(disk)})
        failed(result, 1, str(disk), "XDG_CACHE_HOME", "free" if kibibytes == 1024 else "space")
        assert [path.name for path in (disk / "arvados" / "docker").iterdir()] == []
    assert nothing_recorded(cluster, project)
    stored(run("--via-arv-put", "--project-uuid", project, image.name))


def test_a_cache_directory_that_cannot_be_used(
    small_image: images.Image, cluster: Cluster, project: str, run: Command, tmp_path: Path
) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("")
    bad: dict[str, str | None] = {"XDG_CACHE_HOME": str(occupied)}
    failed(
        run("--via-arv-put", "--project-uuid", project, small_image.name, env=bad), 1, str(occupied), "XDG_CACHE_HOME"
    )
    assert nothing_recorded(cluster, project)
    uuid = stored(run("--via-arv-put", "--project-uuid", project, small_image.name))
    # What is there already is found without a directory.
    assert stored(run("--via-arv-put", "--project-uuid", project, small_image.name, env=bad)) == uuid


def test_a_cache_directory_that_is_not_ours(
    small_image: images.Image, project: str, run: Command, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    parent = tmp_path / "cache" / "arvados"
    parent.mkdir(parents=True)
    (parent / "docker").symlink_to(tmp_path / "elsewhere")
    failed(run("--via-arv-put", "--project-uuid", project, small_image.name), 1, "not a directory that belongs to you")
    (parent / "docker").unlink()
    (parent / "docker").mkdir(mode=0o777)
    stored(run("--via-arv-put", "--project-uuid", project, small_image.name))
    assert (parent / "docker").stat().st_mode & 0o777 == 0o700


def test_no_home(small_image: images.Image, project: str, run: Command, way: Way, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path / "nosuch" / "home"), "XDG_CACHE_HOME": None}
    stored(run(*way, "--project-uuid", project, small_image.name, env=environment))


def test_nothing_is_left_in_the_cache_directory(
    small_image: images.Image, project: str, run: Command, way: Way, tmp_path: Path
) -> None:
    stored(run(*way, "--project-uuid", project, small_image.name))
    assert cached(tmp_path) == []
    stored(run(*way, "--project-uuid", project, small_image.name))
    assert cached(tmp_path) == []


def test_leftovers_of_dead_runs_are_removed_after_a_week(
    small_image: images.Image, project: str, run: Command, tmp_path: Path
) -> None:
    directory = tmp_path / "cache" / "arvados" / "docker"
    directory.mkdir(parents=True)
    old, recent = (f"sha256:{digit * 64}" for digit in "01")
    names = [f"{image_id}{ending}" for image_id in (old, recent) for ending in (".tar", ".tar.part", ".lock")]
    for name in [*names, "of-someone-else.tar"]:
        (directory / name).write_text("x")
        if not name.startswith(recent):
            os.utime(directory / name, (0, time.time() - 8 * 24 * 3600))
    stored(run("--project-uuid", project, small_image.name))
    assert cached(tmp_path) == ["of-someone-else.tar", f"{recent}.tar", f"{recent}.tar.part"]


# Uploading and recording


def test_keep_that_is_down_for_good(
    small_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    docker_that: DockerThat,
    tmp_path: Path,
) -> None:
    sandbox.fault("status", service="keep", method="PUT", status=503, times=None)
    result = run("--via-arv-put", "--project-uuid", project, "--retries=0", small_image.name)
    failed(result, 6, small_image.id, "arv-put failed", "503", str(tmp_path / "cache"))
    assert nothing_recorded(cluster, project)
    assert cached(tmp_path) == [f"{small_image.id}.tar"]
    sandbox.clear_faults()
    # The image is not saved again.
    no_save = docker_that('[ "$2" != save ] || exit 99; real "$@"')
    again = run("--via-arv-put", "--project-uuid", project, small_image.name, env=no_save)
    stored(again)
    assert "earlier run" in again.stderr
    assert cached(tmp_path) == []


def test_an_interrupted_upload_of_the_universal_form_goes_on(
    small_image: images.Image, sandbox: Sandbox, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    sandbox.fault("status", service="keep", method="PUT", status=503, times=None)
    failed(
        run("--via-arv-put", "--project-uuid", project, "--retries=0", "--universal", small_image.name),
        6,
        "arv-put failed",
    )
    assert cached(tmp_path) == [f"{small_image.id}.universal.tar"]
    sandbox.clear_faults()
    no_save = docker_that('[ "$2" != save ] || exit 99; real "$@"')
    stored(run("--via-arv-put", "--project-uuid", project, "--universal", small_image.name, env=no_save))
    assert cached(tmp_path) == []


@pytest.mark.long
def test_keep_that_is_down_for_a_while(
    small_image: images.Image, sandbox: Sandbox, project: str, run: Command, way: Way
) -> None:
    sandbox.fault("status", service="keep", method="PUT", status=503, times=2)
    stored(run(*way, "--project-uuid", project, small_image.name))


def test_a_saved_image_that_was_damaged_is_saved_again(
    engine: Engine,
    small_image: images.Image,
    sandbox: Sandbox,
    project: str,
    run: Command,
    run_tool: Callable[..., Result],
    tmp_path: Path,
) -> None:
    sandbox.fault("status", service="keep", method="PUT", status=503, times=None)
    assert run("--via-arv-put", "--project-uuid", project, "--retries=0", small_image.name).status == 6
    sandbox.clear_faults()
    path = tmp_path / "cache" / "arvados" / "docker" / f"{small_image.id}.tar"
    path.write_bytes(path.read_bytes()[:-3000])
    again = run("--via-arv-put", "--project-uuid", project, small_image.name)
    uuid = stored(again)
    assert "saving the image again" in again.stderr
    assert run_tool("arv-get", f"{uuid}/{small_image.id}.tar", str(tmp_path / "got.tar")).status == 0
    assert (tmp_path / "got.tar").read_bytes() == engine.saved(small_image.id)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("action", ["status", "drop"])
def test_a_link_that_is_refused(
    small_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    number: int,
    action: str,
) -> None:
    reason = {"status": 403, "errors": ["not today"]} if action == "status" else {}
    sandbox.fault(action, service="api", method="POST", path="/links", skip=number, times=None, **reason)
    link_class = ["docker_image_hash", "docker_image_repo+tag"][number]
    failed(
        run(*way, "--project-uuid", project, "--retries=0", small_image.name),
        6,
        link_class,
        "not today" if reason else "creating",
    )
    collections, links = records(cluster, project)
    assert len(collections) == 1
    assert len(links) == number
    sandbox.clear_faults()
    stored(run(*way, "--project-uuid", project, small_image.name))
    assert records(cluster, project) == (collections, [small_image.name, small_image.id])


def test_what_was_kept_of_an_image_goes_when_its_links_are_made(
    small_image: images.Image, sandbox: Sandbox, project: str, run: Command, tmp_path: Path
) -> None:
    words = ("--via-arv-put", "--universal", "--project-uuid", project, "--retries=0", small_image.name)
    sandbox.fault("status", service="api", method="POST", path="/links", body="repo.tag", status=403, times=None)
    failed(run(*words), 6)
    assert len(cached(tmp_path)) == 1
    sandbox.clear_faults()
    stored(run(*words))
    assert cached(tmp_path) == []


# Stopping


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_stopped_during_the_save(
    small_image: images.Image,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    docker_that: DockerThat,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
) -> None:
    pid_file = tmp_path / "pid"
    hangs = docker_that(hanging_in("save", pid_file))
    process = run.anew().start(*way, "--project-uuid", project, small_image.name, env=hangs)
    saving = hanging_process(pid_file)
    os.kill(process.pid, number)  # only our process: a terminal would signal docker too
    out, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    assert out == ""
    assert "Traceback" not in err
    wait_until(lambda: not alive(saving))
    assert nothing_recorded(cluster, project)
    stored(run(*way, "--project-uuid", project, small_image.name))
    assert cached(tmp_path) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_stopped_during_the_upload(
    small_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    docker_that: DockerThat,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
) -> None:
    sandbox.fault("delay", service="keep", method="PUT", seconds=20, times=None)
    sandbox.clear_requests()
    process = run.start("--via-arv-put", "--project-uuid", project, small_image.name)
    wait_until(lambda: any(fault["struck"] for fault in sandbox.faults()))
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == status, err
    assert out == ""
    assert "Traceback" not in err
    assert nothing_recorded(cluster, project)
    assert (
        cached(tmp_path)
        == [f"{small_image.id}.tar", *([f"{small_image.id}.lock"] if number == signal.SIGKILL else [])][::-1]
    )
    sandbox.clear_faults()
    no_save = docker_that('[ "$2" != save ] || exit 99; real "$@"')
    stored(run("--via-arv-put", "--project-uuid", project, small_image.name, env=no_save))
    assert len(records(cluster, project)[0]) == 1
    assert cached(tmp_path) == []


def test_runs_at_the_same_time_wait_for_each_other(
    small_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    tmp_path: Path,
    way: Way,
) -> None:
    files = [tmp_path / f"stderr{number}" for number in range(3)]

    def told() -> list[str]:
        return [file.read_text() for file in files]

    with sandbox.keep_stopped(), ExitStack() as stack:
        streams = [stack.enter_context(file.open("w")) for file in files]
        words = (*way, "--project-uuid", project, small_image.name)
        processes = [run.start(*words, stderr=stream.fileno()) for stream in streams]
        wait_until(lambda: sum("waiting for process" in err for err in told()) == 2)
    uuids = set()
    for process, file in zip(processes, files, strict=True):
        out, _ = process.communicate(timeout=60)
        uuids.add(stored(Result(process.returncode, out, file.read_text())))
    assert len(uuids) == 1
    assert sum(f"storing {small_image.name}" in err for err in told()) == 1
    assert len(records(cluster, project)[0]) == 1


# Ourselves


def test_a_traceback_is_shown_on_request_only(run: Command) -> None:
    assert "Traceback" in run("Debian", env={"ARVADOS_DEBUG": "1"}).stderr
    failed(run("Debian"), 2, "lowercase")


def test_wrong_usage(run: Command) -> None:
    for words in (["a", "b", "c"], ["--pull", "--no-pull", "a"], ["--nosuch"], ["--retries=x"], ["--", "a", "b", "c"]):
        result = run(*words)
        assert result.status == 2
        assert result.stdout == ""
        assert re.fullmatch(r"arv-keepdocker: error: .+; see arv-keepdocker --help\n", result.stderr)
    failed(run("--", "--force"), 2, "--force")
    failed(run("--", "images", "--version"), 3, "--version")


def test_the_versions(run: Command) -> None:
    for words in (["--version"], ["--vers"], ["debian", "--version"]):
        result = run.anew()(*words)
        assert result.status == 0
        assert re.fullmatch(r"arv-keepdocker \d+\.\d+\.\d+ \(arvados-python-client \d+\.\d+\.\d+\)\n", result.stdout)


@pytest.fixture(params=[None, "1"], ids=["buffered", "unbuffered"])
def redirected(request: pytest.FixtureRequest, run: Command) -> Callable[..., Result]:
    """Runs the command with what a shell redirects: `redirected(">/dev/full", "--version")`."""
    shell = shutil.which("sh")
    assert shell is not None

    def start(redirections: str, *words: str) -> Result:
        if request.param is None and "-" not in redirections:
            return with_files(redirections, *words)
        # Only a shell starts a program with streams that are closed, and only a new Python can be without buffers.
        argv = [shell, "-c", f'exec {shlex.join(run.argv)} "$@" {redirections}', "sh"]
        environment = {**run.environment, "PYTHONUNBUFFERED": request.param or ""}
        return Command(argv, run.directory, environment, run.processes)(*words)

    def with_files(redirections: str, *words: str) -> Result:
        with ExitStack() as files:
            given = {
                "2" if number == "2" else "1": files.enter_context(open(path, "r" if sign == "<" else "w")).fileno()
                for number, sign, path in re.findall("([12]?)([<>])([^ ]+)", redirections)
            }
            process = run.start(*words, stdout=given.get("1", subprocess.PIPE), stderr=given.get("2", subprocess.PIPE))
            out, err = process.communicate(timeout=120)
        return Result(process.returncode, out or "", err or "")

    return start


def test_a_result_that_cannot_be_written_is_in_the_error(
    small_image: images.Image, project: str, run: Command, redirected: Callable[..., Result]
) -> None:
    words = ("--project-uuid", project, small_image.name)
    uuid = stored(run(*words))
    failed(redirected(">/dev/full", *words), 1, uuid, "No space left")
    assert stored(redirected("2>&-", *words)) == uuid
    assert stored(redirected("2>/dev/full", *words)) == uuid
    failed(redirected(">&-", *words), 1, uuid, "no standard output")
    failed(redirected("1</dev/null", *words), 1, uuid, "Bad file descriptor")


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["--dry-run", "IMAGE"], ["images"], ["images", "-q"]])
def test_no_result_is_lost_without_a_word(
    small_image: images.Image, project: str, run: Command, redirected: Callable[..., Result], words: list[str]
) -> None:
    name = small_image.name
    stored(run("--project-uuid", project, name))
    words = [name if word == "IMAGE" else word for word in words]
    failed(redirected(">/dev/full", *words), 1, "cannot write the result: No space left on device")
    failed(redirected(">&-", *words), 1, "no standard output")
    for full in (">/dev/full 2>/dev/full", ">/dev/full 2>&-"):
        result = redirected(full, *words)
        assert (result.status, result.stdout, result.stderr) == (1, "", "")


@pytest.mark.parametrize("words", [["--nosuch"], ["Debian"], ["--retries", "x", "a"]])
def test_an_error_that_nobody_can_be_told_has_its_status(redirected: Callable[..., Result], words: list[str]) -> None:
    for full in ("2>/dev/full", "2>&-", ">/dev/full 2>/dev/full"):
        result = redirected(full, *words)
        assert (result.status, result.stdout, result.stderr) == (2, "", "")


def test_a_result_waits_until_it_is_read(cluster: Cluster, project: str, run: Command) -> None:
    """Also where stdout does not block, as a parent may have set it: what does not fit is not lost."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while os.write(write, b"x"):
            pass
    with open(read, "rb") as reader:
        process = subprocess.Popen([*run.argv, "--version"], env=run.environment, stdout=write, stderr=subprocess.PIPE)
        run.processes.append(process)  # type: ignore[arg-type]
        os.close(write)
        assert reader.read().lstrip(b"x").startswith(b"arv-keepdocker ")
    assert process.wait(60) == 0
