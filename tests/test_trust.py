"""What others may have put where this program reads: it believes nothing that it can check, and waits for nothing
without a word."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import http.server
import json
import os
import secrets
import signal
import threading
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import arv_keepdocker.catalog.client
from arv_keepdocker.errors import ArvadosError
from arv_keepdocker.sandbox import Sandbox
from tests import hostile, images
from tests.conftest import Cluster, Command, stored
from tests.engines import Engine
from tests.test_failures import DockerThat, failed, nothing_recorded
from tests.test_faults import Answering
from tests.test_hostile import Measured, _usual_peaks, measured, usual_peak
from tests.test_streaming import journals

__all__ = ["_usual_peaks", "measured", "usual_peak"]  # fixtures

MORE_MEMORY = 100 << 10
"""KiB that what is hostile may cost beyond what a good run does."""
SECONDS = 30


def archive_of_a_new_image(tmp_path: Path) -> Path:
    config = {"config": {"Labels": {"random": secrets.token_hex(16)}}}
    return hostile.write(hostile.image(config=config), tmp_path / "archive.tar")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_suffix(".fifo"))
    path.symlink_to(path.with_suffix(".fifo"))


def link_to_nothing(path: Path) -> None:
    path.symlink_to("/nonexistent")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


NO_FILES: list[Callable[[Path], None]] = [
    fifo,
    directory,
    link_to_a_fifo,
    link_to_nothing,
    link_to_itself,
    link_to_zeros,
]


@pytest.mark.parametrize("make", NO_FILES)
@pytest.mark.parametrize("suffix", [".journal", ".journal.part"])
def test_a_journal_that_is_no_file(
    project: str, run: Command, tmp_path: Path, make: Callable[[Path], None], suffix: str
) -> None:
    words = ("--project-uuid", project, "--force", "--from-archive")
    stored(run(*words, str(archive_of_a_new_image(tmp_path))))
    (journal,) = journals(tmp_path)
    if suffix == ".journal":
        journal.unlink()
    else:
        journal.write_text("no locator\n")  # is written anew
    make(journal.with_suffix(suffix))
    stored(run(*words[:2], *words[3:], str(archive_of_a_new_image(tmp_path)), timeout=SECONDS))


@pytest.mark.parametrize("end", [b"", b"\n", b"0" * 32 + b"+1+A" + b"0" * 40 + b"@"])
def test_a_journal_of_gigabytes(
    project: str, run: Command, measured: Measured, usual_peak: int, tmp_path: Path, end: bytes
) -> None:
    words = ("--project-uuid", project, "--from-archive")
    stored(run(*words, str(archive_of_a_new_image(tmp_path))))
    (journal,) = journals(tmp_path)
    with journal.open("ab") as file:
        file.truncate(8 << 30)
        file.seek(0, os.SEEK_END)
        file.write(end)
    stored(measured(*words, str(archive_of_a_new_image(tmp_path))))
    assert measured.peak < usual_peak + MORE_MEMORY
    assert journal.stat().st_size < 1 << 20


@pytest.mark.parametrize("make", NO_FILES)
def test_a_lock_that_is_no_file(
    project: str, run: Command, tmp_path: Path, make: Callable[[Path], None], way: tuple[str, ...]
) -> None:
    path = archive_of_a_new_image(tmp_path)
    words = ("--project-uuid", project, "--from-archive", str(path))
    uuid = stored(run(*words))
    lock = tmp_path / "cache" / "arvados" / "docker" / f"{image_id(path)}.lock"
    make(lock)
    result = run(*way, *words, timeout=SECONDS)
    assert stored(result) == uuid
    assert "continuing without a lock" in result.stderr


def image_id(path: Path) -> str:
    """Of the image in an archive."""
    from arv_keepdocker.images import archive
    from arv_keepdocker.images.image import Selection
    from arv_keepdocker.images.layers import NoSink

    with path.open("rb") as file:
        return archive.read_image(file, NoSink(), Selection()).id


@pytest.mark.long
def test_silent_says_which_lock_it_waits_for(project: str, run: Command, tmp_path: Path) -> None:
    path = archive_of_a_new_image(tmp_path)
    directory = tmp_path / "cache" / "arvados" / "docker"
    directory.mkdir(parents=True, mode=0o700)
    directory.parent.chmod(0o700)
    with (directory / f"{image_id(path)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        process = run.start("--silent", "--project-uuid", project, "--from-archive", str(path))
        assert process.stderr is not None
        assert f"waiting for process {os.getpid()}, which is storing image" in process.stderr.readline()
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "")
    assert out


@pytest.mark.long
def test_silent_says_that_another_run_has_the_journal(project: str, run: Command, tmp_path: Path) -> None:
    stored(run("--project-uuid", project, "--from-archive", str(archive_of_a_new_image(tmp_path))))
    (journal,) = journals(tmp_path)
    with journal.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        path = archive_of_a_new_image(tmp_path)
        process = run.start("--silent", "--project-uuid", project, "--from-archive", str(path))
        assert process.stderr is not None
        assert f"waiting for another run, which keeps {journal}" in process.stderr.readline()
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert out


# The engine


@pytest.mark.parametrize("answer", ["yes", "cat /dev/zero", "yes '[[]' | tr '\\n' ,"])
def test_an_engine_that_never_stops_talking(
    measured: Measured, usual_peak: int, docker_that: DockerThat, answer: str
) -> None:
    measured.environment.update(docker_that(answer))
    failed(measured(images.unique_name()), 4, "docker", "longer than")
    assert measured.peak < usual_peak + MORE_MEMORY


def test_a_program_that_is_no_engine(measured: Measured, usual_peak: int) -> None:
    failed(measured("--engine", "yes", images.unique_name()), 4, "yes", "longer than")
    assert measured.peak < usual_peak + MORE_MEMORY


@pytest.mark.parametrize("kept", ["stdout", "stderr", "both"])
def test_what_an_engine_leaves_running_is_not_waited_for(
    small_image: images.Image,
    project: str,
    run: Command,
    docker_that: DockerThat,
    tmp_path: Path,
    kept: str,
    way: tuple[str, ...],
) -> None:
    """Podman leaves a process that keeps its namespaces, with what it has inherited."""
    end = tmp_path / "end"
    os.mkfifo(end)
    closed = {"stdout": "2>&-", "stderr": ">&-", "both": ""}[kept]
    leaves = docker_that(f'eval "cat {closed} <{end} &"; real "$@"')
    try:
        stored(run(*way, "--project-uuid", project, small_image.name, env=leaves, timeout=SECONDS))
    finally:
        os.close(os.open(end, os.O_RDWR))


STRANGE = [5, -1, 1.5, True, "x", "x" * (5 << 20), ["x"] * 1000, {"a": "b"}, None, [None, 5, {}]]


@pytest.mark.parametrize("key", ["Size", "Created", "RepoTags", "Os", "Architecture", "Variant", "Descriptor", "Id"])
def test_what_an_engine_says_is_of_any_type(
    engine: Engine,
    small_image: images.Image,
    project: str,
    run: Command,
    docker_that: DockerThat,
    tmp_path: Path,
    key: str,
) -> None:
    (description,) = json.loads(engine.docker("image", "inspect", small_image.id))
    says = docker_that(f'[ "$2" = inspect ] || exec env PATH="$REAL_PATH" docker "$@"; cat {tmp_path}/says')
    for value in STRANGE:
        (tmp_path / "says").write_text(json.dumps([{**description, key: value}]))
        result = run("--project-uuid", project, small_image.name, env=says)
        if result.status != 0:
            failed(result, 4)
        assert "This is a bug" not in result.stderr
        assert len(result.stderr) < 4000


@pytest.mark.parametrize("answer", ["[" * 100_000, "[[" + "9" * 5000 + "]]", "[1e999]", "\ud800"])
def test_an_engine_whose_answer_is_hard_to_read(
    run: Command, docker_that: DockerThat, tmp_path: Path, answer: str
) -> None:
    (tmp_path / "says").write_bytes(answer.encode(errors="surrogatepass"))
    failed(run(images.unique_name(), env=docker_that(f"cat {tmp_path}/says")), 4, "could not be read")


def test_an_engine_ended_by_a_signal_without_a_name(run: Command, docker_that: DockerThat) -> None:
    failed(run(images.unique_name(), env=docker_that("kill -40 $$")), 4, "ended by signal 40")


@pytest.mark.long
@pytest.mark.parametrize(
    ("hangs", "options"), [("inspect", ()), ("pull", ("--pull",)), ("save", ()), ("save", ("--via-arv-put",))]
)
def test_silent_says_what_the_engine_is_asked(
    small_image: images.Image, project: str, run: Command, docker_that: DockerThat, hangs: str, options: tuple[str, ...]
) -> None:
    hanging = docker_that(f'[ "$2" != {hangs} ] || exec sleep 1000; real "$@"')
    process = run.start("--silent", *options, "--project-uuid", project, small_image.name, env=hanging)
    assert process.stderr is not None
    assert f"waiting for docker image {hangs}" in process.stderr.readline()
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=SECONDS)


@pytest.mark.long
def test_silent_says_that_standard_input_gives_nothing(project: str, run: Command) -> None:
    begin, end = os.pipe()
    process = run.start("--silent", "--project-uuid", project, "--from-archive", "-", stdin=begin)
    os.close(begin)
    assert process.stderr is not None
    assert "waiting for standard input" in process.stderr.readline()
    os.close(end)
    _, shown = process.communicate(timeout=SECONDS)
    assert process.returncode == 5
    assert "empty" in shown


@pytest.mark.long
def test_silent_says_which_pipe_nobody_writes_to(project: str, run: Command, tmp_path: Path) -> None:
    archive = archive_of_a_new_image(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = run.start("--silent", "--project-uuid", project, "--from-archive", str(pipe))
    assert process.stderr is not None
    assert f"waiting for {pipe}" in process.stderr.readline()
    pipe.write_bytes(archive.read_bytes())
    out, shown = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, shown
    assert "-4zz18-" in out


# Arvados and Keep


class LyingKeep:
    """A Keep service that takes every block, and answers what it is told to."""

    def __init__(self, answer: bytes) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                said = answer.replace(b"MD5", hashlib.md5(data).hexdigest().encode())
                said = said.replace(b"SIZE", str(len(data)).encode())
                self.send_response(200)
                self.send_header("Content-Length", str(len(said)))
                self.send_header("X-Keep-Replicas-Stored", "2")
                self.send_header("X-Keep-Storage-Classes-Confirmed", "default=2")
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def environment(self) -> dict[str, str]:
        return {"ARVADOS_KEEP_SERVICES": f"http://127.0.0.1:{self._server.server_port}/"}

    def __enter__(self) -> LyingKeep:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


SIGNATURE = b"+A" + b"0" * 40 + b"@7fffffff"
LIES = [
    b"d41d8cd98f00b204e9800998ecf8427e+SIZE" + SIGNATURE,
    b"MD5+1" + SIGNATURE,
    b"MD5+SIZE0" + SIGNATURE,
    b"MD5" + SIGNATURE,
    b"MD5+SIZE+A00@7fffffff",
    b"MD5+SIZE" + SIGNATURE + b" 0:1:x",
    b"MD5+SIZE" + SIGNATURE + b"\nMD5+SIZE",
    b"MD5+SIZE" * 1000,
    b"",
    b"<html>\x1b[31mwelcome</html>",
]


@pytest.mark.parametrize("answer", LIES)
def test_what_keep_says_of_another_block_is_not_believed(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, answer: bytes, way: tuple[str, ...]
) -> None:
    path = archive_of_a_new_image(tmp_path)
    with LyingKeep(answer) as keep:
        words = ("--retries=0", "--project-uuid", project, "--from-archive", str(path))
        failed(run(*way, *words, env=keep.environment), 6)
    assert nothing_recorded(cluster, project)
    for journal in journals(tmp_path):
        assert journal.read_text() == ""


@pytest.mark.parametrize("answer", [b"MD5+SIZE" + SIGNATURE, b"MD5+SIZE+Kzzzzz" + SIGNATURE])
def test_a_forged_signature_is_arvados_to_refuse(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, answer: bytes, way: tuple[str, ...]
) -> None:
    """What shows that the answers above are refused for what is wrong with them."""
    path = archive_of_a_new_image(tmp_path)
    with LyingKeep(answer) as keep:
        words = ("--retries=0", "--project-uuid", project, "--from-archive", str(path))
        result = run(*way, *words, env=keep.environment)
    failed(result, 6)
    assert "answered that it has" not in result.stderr
    assert nothing_recorded(cluster, project)


PROPERTIES: list[object] = [["x"] * 100_000, "x" * (1 << 20), {"a": {"b": [1, None]}}, -1e300]


@pytest.mark.long
def test_properties_of_any_type(cluster: Cluster, project: str, run: Command, tmp_path: Path) -> None:
    path = archive_of_a_new_image(tmp_path)
    uuid = stored(run("--project-uuid", project, "--from-archive", str(path)))
    keys = ("arv:engine_image_id", "arv:platform", "arv:universal", "image_timestamp", "anything")
    links = cluster.api().links()
    (hashed,) = links.list(filters=[["head_uuid", "=", uuid], ["link_class", "=", "docker_image_hash"]]).execute()[
        "items"
    ]
    name = images.unique_name()
    for value in PROPERTIES:
        body = {"link": {"properties": dict.fromkeys(keys, value)}}
        links.update(uuid=hashed["uuid"], body=body).execute()
        (listed,) = json.loads(run("images", "--project-uuid", project, "--format", "json").stdout)
        assert listed["engine_id"] is None
        assert len(json.dumps(listed)) < 10_000
        # A new link has what the old one says, within bounds.
        assert stored(run("--project-uuid", project, "--from-archive", str(path), name)) == uuid
        (new,) = links.list(filters=[["head_uuid", "=", uuid], ["name", "=", name]]).execute()["items"]
        assert len(json.dumps(new["properties"])) < 10_000
        links.delete(uuid=new["uuid"]).execute()


@pytest.mark.parametrize(("days", "warned"), [(-1, False), (0.5, False), (2, True), (365 * 1000, True)])
def test_an_image_from_the_future(project: str, run: Command, tmp_path: Path, days: float, warned: bool) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    created = (now + datetime.timedelta(days=days)).isoformat()
    path = hostile.write(hostile.image(config={"created": created}), tmp_path / "archive.tar")
    result = run("--project-uuid", project, "--from-archive", str(path))
    stored(result)
    assert ("in the future" in result.stderr) == warned


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize("which", ["arvados", "arvados/discovery", "systemd", "systemd/discovery"])
@pytest.mark.parametrize("how", ["owner", "mode", "link"])
def test_what_others_keep_of_the_api_is_not_used(
    sandbox: Sandbox, project: str, run: Command, tmp_path: Path, which: str, how: str
) -> None:
    cache = tmp_path / "cache"
    (cache / "systemd").mkdir(parents=True, mode=0o700)
    systemd = {"CACHE_DIRECTORY": str(cache / "systemd")} if which.startswith("systemd") else {}
    assert run("images", "--retries=0", "--project-uuid", project, env=systemd).status == 0
    directory = cache / which.split("/")[0] / "discovery"
    (kept,) = directory.glob("*.tmp")
    # From what others have written the client would learn to send its token to them.
    fresh = kept.read_bytes().replace(b"status: 200\r\n", b"status: 200\r\ncache-control: max-age=1000000\r\n")
    kept.write_bytes(fresh.replace(b'"rootUrl"', b'"rootURL"'))
    assert run("images", "--retries=0", "--project-uuid", project, env=systemd).status != 0
    target = cache / which
    if how == "link":
        target.rename(cache / "elsewhere")
        target.symlink_to(cache / "elsewhere")
    if how == "mode":
        target.chmod(0o757)
    else:
        os.chown(target, 12345, 12345, follow_symlinks=False)
    result = run("images", "--retries=0", "--project-uuid", project, env=systemd)
    assert result.status == 0, result.stderr
    assert "warning" in result.stderr
    assert str(target) in result.stderr


def test_the_cache_directory_is_the_users_alone_whatever_the_umask(project: str, run: Command, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert run("images", "--project-uuid", project).status == 0
    finally:
        os.umask(before)
    for name in ("", "arvados", "arvados/discovery"):
        assert (tmp_path / "cache" / name).stat().st_mode & 0o077 == 0


def test_arv_put_and_a_path_that_is_not_utf_8(project: str, run: Command, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"archive\xff.tar")
    archive_of_a_new_image(tmp_path).rename(path)
    words = ("--project-uuid", project, "--from-archive", str(path))
    # arv-put is given what was written anew of it, in the cache directory.
    cache = {"XDG_CACHE_HOME": str(tmp_path / os.fsdecode(b"cache\xff"))}
    result = run("--via-arv-put", *words, env=cache)
    failed(result, 1, r"cache\udcff/arvados/docker/sha256", "the path is not UTF-8", "Leave out --via-arv-put")
    uuid = stored(run("--via-arv-put", *words))
    assert stored(run(*words, env=cache)) == uuid


@pytest.mark.parametrize("make", [fifo, directory, link_to_a_fifo])
def test_something_else_in_the_place_of_a_saved_image(
    small_image: images.Image, project: str, run: Command, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    kept = tmp_path / "cache" / "arvados" / "docker"
    kept.mkdir(parents=True, mode=0o700)
    make(kept / f"{small_image.id}.tar")
    result = run("--via-arv-put", "--project-uuid", project, small_image.name, timeout=SECONDS)
    if make is directory:
        failed(result, 1, "cache directory")
    else:
        stored(result)


@pytest.mark.parametrize("answer", ["[" * 100_000, json.dumps({"items": [{"uuid": ["x" * (1 << 20)] * 3}]})])
def test_an_answer_that_is_hard_to_read(answer: str) -> None:
    asked = arv_keepdocker.catalog.client.ArvadosClient(api=None, retries=0)
    with pytest.raises(ArvadosError, match="could not be read") as caught:
        asked.execute("listing things", Answering(answer), items=["uuid"])
    assert len(str(caught.value)) < 1000


def test_a_list_that_never_ends() -> None:
    """Asked for what comes after, the server gives the same again."""

    class Lists:
        def links(self) -> Lists:
            return self

        def list(self, **parameters: object) -> Answering:
            return Answering('{"items": [{"uuid": "zzzzz-o0j2j-000000000000000"}], "limit": "x"}')

    found = arv_keepdocker.catalog.client.ArvadosClient(Lists(), retries=0).list_all("links", [], [])
    with pytest.raises(ArvadosError, match="same page"):
        list(found)


@pytest.mark.parametrize(
    ("said", "what"),
    [({"uuidPrefix": ["zzzzz"]}, "uuid_prefix"), ({"uuidPrefix": "("}, "uuid_prefix")]
    + [({"defaultCollectionReplication": value}, "replication") for value in (0, -1, "x", None, True, [2])],
)
def test_a_description_of_the_api_that_cannot_be_right(said: dict[str, object], what: str) -> None:
    api = types.SimpleNamespace(_rootDesc=said)
    with pytest.raises(ArvadosError, match="description of its API"):
        getattr(arv_keepdocker.catalog.client.ArvadosClient(api, retries=0), what)


def test_a_home_whose_disk_takes_nothing(project: str, run: Command) -> None:
    full = Command(["prlimit", "--fsize=0", *run.argv], run.directory, run.environment, run.processes)
    assert full("images", "--retries=0", "--project-uuid", project).status == 0
