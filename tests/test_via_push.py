"""The engine pushes: the same is stored as by saving, only what Arvados lacks is asked for, and nothing is left."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import images, odd
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Daemon, Engine, Podman
from tests.recorded import RecordedEngine
from tests.test_engines import ARCHIVES, CONTAINERD
from tests.test_failures import (
    DockerThat,
    cached,
    group_has_ended,
    hanging_in,
    hanging_process,
    stored_digest,
    wait_until,
    whole,
)
from tests.test_kills import Victim, forget, hears, on_machine, run_plainly
from tests.test_streaming import MIB, layers, sent

SAVES = "saving it instead"


def content(cluster: Cluster, uuid: str) -> str:
    """The collection's portable data hash."""
    return str(cluster.api().collections().get(uuid=uuid).execute()["portable_data_hash"])


def quick_layers(*mebibytes: float) -> list[images.Layer]:
    """Layers like no other: half a mebibyte of each arrives in pieces, the rest the engine compresses fast."""
    return [
        {f"random{number}": os.urandom(MIB // 2), f"repeated{number}": os.urandom(16 << 10) * int(size * 64 - 32)}
        for number, size in enumerate(mebibytes)
    ]


def pushed(result: Result) -> str:
    """The UUID, of what the engine did push."""
    assert SAVES not in result.stderr, result.stderr
    return stored(result)


@pytest.mark.parametrize("sizes", [(0.1,), (4, 0.5, 5, 0.01), (65,)], ids=["small", "some", "large"])
def test_the_same_is_stored_as_by_saving(
    engine: Engine, cluster: Cluster, project: str, run: Command, tmp_path: Path, sizes: tuple[float, ...]
) -> None:
    made = quick_layers(*sizes) if sizes == (65,) else layers(*sizes)  # a layer of more than a block
    image = images.build(engine.host, layers=[*made, {"zeros": bytes(5 * MIB)}])
    before = engine.names()
    by_pushing = pushed(run("--project-uuid", project, "--via-push", image.name))
    assert engine.names() == before
    assert cached(tmp_path) == []
    by_saving = stored(run("--project-uuid", project, "--force", image.name))
    assert content(cluster, by_pushing) == content(cluster, by_saving)


def test_the_universal_form(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    image = images.build(engine.host, layers=layers(0.1, 4.5))
    words = ("--project-uuid", project, "--universal", image.name)
    by_pushing = pushed(run("--via-push", *words))
    assert content(cluster, by_pushing) == content(cluster, stored(run("--force", *words)))


def test_a_layer_that_looks_like_a_document(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    """Uncompressed, it begins with its first file's name."""
    image = images.build(engine.host, layers=[{"{": b"x"}, {'{"a": 1}': os.urandom(6 * MIB)}])
    by_pushing = pushed(run("--project-uuid", project, "--via-push", image.name))
    assert content(cluster, by_pushing) == content(
        cluster, stored(run("--project-uuid", project, "--force", image.name))
    )


def test_only_what_arvados_lacks_is_asked_for(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    base = layers(5, 0.2, 6)
    first = images.build(engine.host, layers=base)
    second = images.build(engine.host, f"{first.name.partition(':')[0]}:v2", layers=[*base, *layers(4.5)])
    pushed(run("--project-uuid", project, "--via-push", first.name))
    sandbox.clear_requests()
    said = tmp_path / "said"
    watched = docker_that(f'if [ "$2" = push ]; then real "$@" | tee -a {said}; else real "$@"; fi')
    pushed(run("--project-uuid", project, "--via-push", second.name, env=watched))
    assert said.read_text().count("Layer already exists") == 3
    assert 4.5 * MIB < sum(sent(sandbox)) < 5.5 * MIB


def test_an_engine_is_always_told_the_same_address(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    """It remembers each with the layers, and forgets older ones for it; but the tag is another."""
    said = tmp_path / "said"
    watched = docker_that(f'[ "$2" != push ] || echo "$@" >> {said}; real "$@"')
    for _ in range(2):
        pushed(run("--project-uuid", project, "--via-push", images.build(engine.host).name, env=watched))
    one, other = said.read_text().splitlines()
    assert one.rpartition(":")[0] == other.rpartition(":")[0]
    assert one != other


@pytest.mark.parametrize("named", [True, False], ids=["with a name", "without a name"])
def test_by_id(engine: Engine, cluster: Cluster, project: str, run: Command, named: bool) -> None:
    image = images.build(engine.host, layers=layers(0.1))
    if not named:
        # Where a name goes to another image, it is taken from this one.
        images.build(engine.host, image.name)
    before = engine.names()
    uuid = pushed(run("--project-uuid", project, "--via-push", image.id))
    assert engine.names() == before
    assert content(cluster, uuid) == content(cluster, stored(run("--project-uuid", project, "--force", image.id)))


def test_without_a_name_on_an_engine_that_imports_only_whole_archives(
    engine: Engine, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    """Docker 29 takes no empty file for an archive, older ones do now and then."""
    image = images.build(engine.host, layers=layers(0.1))
    images.build(engine.host, image.name)
    before = engine.names()
    given = tmp_path / "given"
    keeps = f"cat >{given}; [ -s {given} ] || exit 1; exec <{given}"
    checks = f'if [ "$2" = import ]; then {keeps}; fi; real "$@"'
    result = run("--project-uuid", project, "--via-push", image.id, env=docker_that(checks))
    pushed(result)
    assert "the temporary name" not in result.stderr
    assert given.exists()
    assert engine.names() == before


def test_podman(cluster: Cluster, podman: Podman, project: str, run: Command, tmp_path: Path) -> None:
    with (tmp_path / "image.tar").open("wb") as file:
        image = images.write_archive(file, layers=[*layers(0.1, 4.5), {"zeros": bytes(MIB)}])
    podman.run("load", "--input", str(tmp_path / "image.tar"))
    before = podman.run("images", "--all", "--format", "json")
    words = ("--engine", str(podman.program), "--project-uuid", project, f"localhost/{image.name}")
    by_pushing = pushed(run("--via-push", *words))
    assert podman.run("images", "--all", "--format", "json") == before
    assert content(cluster, by_pushing) == content(cluster, stored(run("--force", *words)))


def test_the_variable(engine: Engine, cluster: Cluster, project: str, run: Command, docker_that: DockerThat) -> None:
    no_save = {**docker_that('[ "$2" != save ] || exit 1; real "$@"'), "ARV_KEEPDOCKER_VIA_PUSH": "1"}
    stored(run("--project-uuid", project, images.build(engine.host).name, env=no_save))
    assert run("--project-uuid", project, "--no-via-push", images.build(engine.host).name, env=no_save).status == 4
    assert run("x", env={"ARV_KEEPDOCKER_VIA_PUSH": "perhaps"}).status == 2


@pytest.mark.parametrize("words", [("--from-archive", "x"), ("--via-arv-put", "x")])
def test_what_it_cannot_mean(run: Command, words: tuple[str, ...]) -> None:
    result = run("--via-push", *words)
    assert (result.status, result.stdout) == (2, "")
    assert "--via-push" in result.stderr


# Where it cannot be: the image is saved

FAILURES = {
    "refused": ('if [ "$2" = push ]; then echo "dial tcp 127.0.0.1: connection refused" >&2; exit 1; fi', "refused"),
    "nothing": ('[ "$2" != push ] || exit 0', "could not push"),
    "no tag": ('if [ "$2" = tag ]; then echo "no tags here" >&2; exit 1; fi', "no tags here"),
    "elsewhere": ('[ "$1" != context ] || { echo ssh://elsewhere; exit; }', "another machine"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_saved_where_it_cannot_be_pushed(
    engine: Engine, cluster: Cluster, project: str, run: Command, docker_that: DockerThat, tmp_path: Path, kind: str
) -> None:
    script, words = FAILURES[kind]
    image = images.build(engine.host, layers=layers(0.1, 4.2))
    before = engine.names()
    environment = {"DOCKER_HOST": engine.host, **docker_that(f'{script}\nexport DOCKER_HOST={engine.host}; real "$@"')}
    if kind == "elsewhere":
        environment["DOCKER_HOST"] = None
    result = run("--project-uuid", project, "--via-push", image.name, env=environment)
    uuid = stored(result)
    (line,) = [line for line in result.stderr.splitlines() if SAVES in line]
    assert words in line
    assert engine.names() == before
    assert cached(tmp_path) == []
    assert content(cluster, uuid) == content(cluster, stored(run("--project-uuid", project, "--force", image.name)))


@pytest.mark.long
def test_a_push_that_stops_in_the_middle(
    engine: Engine, cluster: Cluster, project: str, run: Command, docker_that: DockerThat
) -> None:
    """What it has begun to take does not keep it from saving."""
    image = images.build(engine.host, layers=layers(12, 12, 12))
    dies = docker_that('if [ "$2" = push ]; then real "$@" & sleep 0.4; kill $!; exit 1; fi; real "$@"')
    uuid = stored(run("--project-uuid", project, "--via-push", image.name, env=dies))
    assert content(cluster, uuid) == content(cluster, stored(run("--project-uuid", project, "--force", image.name)))


def test_keep_that_is_down_ends_it(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, tmp_path: Path
) -> None:
    image = images.build(engine.host, layers=layers(4.2))
    before = engine.names()
    sandbox.fault("status", status=503, service="keep", method="PUT", times=None)
    result = run("--project-uuid", project, "--retries", "0", "--via-push", image.name)
    assert result.status == 6, result.stderr
    assert SAVES not in result.stderr
    assert engine.names() == before
    assert cached(tmp_path) == []


# Who else may talk to it


@dataclass
class Listening:
    """A run whose registry listens, and whose engine waits to push."""

    process: subprocess.Popen[str]
    host: str
    repository: str
    tag: str
    _gate: Path

    def request(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """The answer's status and body."""
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request(method, path, body, headers)  # type: ignore[arg-type]
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        host, _, port = self.host.partition(":")
        return socket.create_connection((host, int(port)), 30)

    def go_on(self) -> Result:
        """Let the engine push; how the run has ended."""
        self._gate.touch()
        out, err = self.process.communicate(timeout=60)
        return Result(self.process.returncode, out, err)


@pytest.fixture
def listening(run: Command, project: str, docker_that: DockerThat, tmp_path: Path) -> Callable[[str], Listening]:
    """Starts a run that stores the image of that name."""

    def start(image: str) -> Listening:
        said, gate = tmp_path / "said", tmp_path / "gate"
        waits = docker_that(
            f'if [ "$2" = push ]; then echo "$@" > {said}.part; mv {said}.part {said}; '
            f'while ! [ -e {gate} ]; do sleep 0.05; done; fi; real "$@"'
        )
        process = run.start("--project-uuid", project, "--via-push", image, env=waits)
        wait_until(said.exists)
        host, repository, tag = re.split("[/:](?=[a-f0-9a-z-]{32})", said.read_text().split()[-1])
        return Listening(process, host, repository, tag, gate)

    return start


def test_strangers_find_nothing(
    engine: Engine, cluster: Cluster, project: str, run: Command, listening: Callable[[str], Listening]
) -> None:
    image = images.build(engine.host, layers=layers(0.1, 4.2))
    here = listening(image.name)
    digest = f"sha256:{'0' * 64}"
    paths = [
        "/",
        "/v2",
        "/v2/",
        "/v2/_catalog",
        "*",
        "http://127.0.0.1/v2/",
        "//v2/",
        "/v2/%2e%2e/",
        "/?" + "x" * 60_000,
    ]
    names = ["", "x", here.repository[:-1], here.repository + "0", here.repository.upper(), f"x/../{here.repository}"]
    for name in names:
        paths += [
            f"/v2/{name}/{end}" for end in ("tags/list", "blobs/uploads/", f"blobs/{digest}", f"manifests/{here.tag}")
        ]
    paths += [f"/v2/{here.repository}", f"/v2/{here.repository}/tags/list", f"/v2/{here.repository}/referrers/{digest}"]
    for path in paths:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"):
            assert here.request(method, path)[0] == 404, (method, path)
    for words in (
        b"\x16\x03\x01" + bytes(200),
        b"\xff" * 100_000 + b"\n",
        b"GET\n\n",
        b"GET / HTTP/9.9\n\n",
        bytes(70_000),
    ):
        with here.connect() as connection, suppress(ConnectionError):
            connection.sendall(words)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(1000), b""))
            assert answer.startswith(b"HTTP/1.1 404 ")
    uuid = pushed(here.go_on())
    assert content(cluster, uuid) == content(cluster, stored(run("--project-uuid", project, "--force", image.name)))
    with pytest.raises(ConnectionRefusedError):
        here.connect()


def test_a_thousand_connections(
    engine: Engine, cluster: Cluster, project: str, run: Command, listening: Callable[[str], Listening]
) -> None:
    image = images.build(engine.host, layers=layers(0.1, 4.2))
    here = listening(image.name)
    with ExitStack() as stack:
        for number in range(900):
            connection = stack.enter_context(here.connect())
            if number % 3:
                with suppress(ConnectionError):
                    connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x" if number % 3 == 1 else b"\x16\x03")
        threads = Path(f"/proc/{here.process.pid}/task")
        wait_until(lambda: len(list(threads.iterdir())) < 100)
        uuid = pushed(here.go_on())
    assert content(cluster, uuid) == content(cluster, stored(run("--project-uuid", project, "--force", image.name)))


def test_who_knows_the_name_cannot_make_it_store_something_else(
    engine: Engine, cluster: Cluster, project: str, run: Command, listening: Callable[[str], Listening]
) -> None:
    image = images.build(engine.host, layers=layers(0.1, 4.2))
    here = listening(image.name)
    base = f"/v2/{here.repository}"
    digest = f"sha256:{hashlib.sha256(b'x').hexdigest()}"

    def upload() -> str:
        connection = http.client.HTTPConnection(here.host, timeout=30)
        connection.request("POST", f"{base}/blobs/uploads/")
        answer = connection.getresponse()
        assert answer.status == 202
        connection.close()
        return str(answer.headers["Location"])

    assert here.request("PUT", f"{upload()}?digest={digest}", b"y")[0] == 400
    assert here.request("PUT", f"{upload()}?digest=sha512:{'0' * 128}", b"x")[0] == 400
    assert here.request("PUT", upload(), b"x")[0] == 400
    assert here.request("PATCH", f"{base}/blobs/uploads/{'0' * 32}", b"x")[0] == 404
    assert here.request("PATCH", upload(), b"x", **{"Content-Range": "5-6"})[0] == 416
    where = upload()
    assert here.request("PATCH", where, b"x", **{"Content-Range": "0-0"})[0] == 202
    assert here.request("PUT", f"{where}?digest={digest}", b"")[0] == 201
    assert here.request("PUT", f"{where}?digest={digest}", b"")[0] == 404
    assert here.request("HEAD", f"{base}/blobs/{digest}")[0] == 200
    assert here.request("GET", f"{base}/blobs/{digest}")[0] == 404
    assert here.request("PUT", f"{base}/manifests/{digest}", b"{}")[0] == 400
    assert here.request("PUT", f"{base}/manifests/latest", b"{}")[0] == 400
    with suppress(ConnectionError):
        assert here.request("PUT", f"{base}/manifests/{here.tag}", b"{" * (5 << 20))[0] == 413
    for length in (b"-1", b"x", b"1e3", b"9" * 100, b"5\r\nTransfer-Encoding: chunked"):
        with here.connect() as connection:
            connection.sendall(b"PATCH %s HTTP/1.1\r\nContent-Length: %s\r\n\r\nzz" % (upload().encode(), length))
            connection.shutdown(socket.SHUT_WR)
            assert b" 20" not in connection.recv(1000)
    # More bytes than were announced are the next request, and that is none.
    with here.connect() as connection:
        connection.sendall(b"PATCH %s HTTP/1.1\r\nContent-Length: 1\r\n\r\nxyz\r\n\r\n" % upload().encode())
        connection.shutdown(socket.SHUT_WR)
        answers = b"".join(iter(lambda: connection.recv(1000), b""))
        assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"202", b"404"]
    # Another image under the tag
    assert here.request("PUT", f"{base}/manifests/{here.tag}", b"{}")[0] == 400
    uuid = stored(here.go_on())
    assert content(cluster, uuid) == content(cluster, stored(run("--project-uuid", project, "--force", image.name)))


def test_uploads_without_end_keep_nobody_from_storing(
    engine: Engine, cluster: Cluster, project: str, run: Command, listening: Callable[[str], Listening]
) -> None:
    image = images.build(engine.host, layers=layers(0.1, 4.2))
    here = listening(image.name)
    statuses = []
    for _ in range(40):
        connection = http.client.HTTPConnection(here.host, timeout=30)
        connection.request("POST", f"/v2/{here.repository}/blobs/uploads/")
        answer = connection.getresponse()
        statuses.append(answer.status)
        connection.close()
        if answer.status == 202 and len(statuses) < 3:  # as many as are taken at a time
            assert here.request("PATCH", answer.headers["Location"], b"z" * 1000)[0] == 202
    assert set(statuses) == {202, 429}
    result = here.go_on()
    uuid = stored(result)
    assert SAVES in result.stderr
    assert content(cluster, uuid) == content(cluster, stored(run("--project-uuid", project, "--force", image.name)))


# Stopped at any moment

PARTS = 2
"""Of the kills of each kind, so that several processes can test them."""
KILLS = 100 // PARTS
ENGINE_KILLS = 20 // PARTS


@pytest.fixture
def victim(engine: Engine, cluster: Cluster, run: Command, project: str, tmp_path: Path) -> Victim:
    image = images.build(engine.host, layers=[*quick_layers(4.2, 4.2), *layers(0.1)])
    command = on_machine(run, tmp_path / "machine")
    return Victim(("--no-universal", "--via-push"), image, project, command, stored_digest(engine, image))


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_a_program_that_is_killed_leaves_nothing_to_the_next_run(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, victim: Victim, part: int
) -> None:
    dice = random.Random(part)
    before = engine.names()
    left = 0
    for number in range(KILLS * PARTS):
        if number >= KILLS and left:
            break
        if number % 5 == 0:
            run_plainly(cluster, [victim])
            assert engine.names() == before
        pid = victim.start()
        time.sleep(dice.uniform(0, victim.length))
        wait_until(partial(hears, pid))
        signal_sent = dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        os.kill(pid, signal_sent)
        result, _ = victim.end()
        assert "Traceback" not in result.stderr
        wait_until(partial(group_has_ended, pid), 10)
        if signal_sent != signal.SIGKILL and not cached(victim.machine):
            assert {*engine.names()} <= {*before}
        left += engine.names() != before
        forget(cluster, victim.project)
    run_plainly(cluster, [victim])
    assert engine.names() == before
    assert left, "no kill has come between tagging and untagging"


def test_the_next_run_need_not_push_to_take_back_what_a_killed_one_has_left(
    engine: Engine, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    image, other = images.build(engine.host), images.build(engine.host)
    stored(run("--project-uuid", project, other.name))
    before = engine.names()
    pid_file = tmp_path / "pid"
    process = run.start(
        "--project-uuid", project, "--via-push", image.id, env=docker_that(hanging_in("push", pid_file))
    )
    hanging_process(pid_file)
    assert engine.names() != before
    process.kill()
    process.communicate()
    wait_until(partial(group_has_ended, process.pid), 10)
    engine.docker("rmi", image.name)  # its last name is ours
    without = [name for name in before if image.name.partition(":")[0] not in name]
    assert len(engine.names()) == len(before)
    stored(run("--project-uuid", project, other.name))
    assert [name for name in engine.names() if image.id not in name] == without
    assert engine.docker("image", "inspect", "--format", "{{.RepoTags}}", image.id).strip() == "[]"
    assert not list((tmp_path / "cache" / "arvados" / "docker").glob("*.pushing"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_name_that_the_engine_gives_when_the_run_has_ended(
    engine: Engine, project: str, run: Command, docker_that: DockerThat, tmp_path: Path, number: signal.Signals
) -> None:
    image = images.build(engine.host)
    before = engine.names()
    pid_file, asked = tmp_path / "pid", tmp_path / "asked"
    hangs = docker_that(f'[ "$2" != tag ] || echo "$4" >{asked}; {hanging_in("tag", pid_file)}')
    process = run.start("--project-uuid", project, "--via-push", image.id, env=hangs)
    hanging_process(pid_file)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    engine.docker("tag", image.id, asked.read_text().strip())
    assert engine.names() != before
    stored(run("--project-uuid", project, image.name))
    assert engine.names() == before


def test_names_that_are_not_ours_stay(engine: Engine, project: str, run: Command, tmp_path: Path) -> None:
    image = images.build(engine.host)
    host = f"127.0.0.1:5000/arv-keepdocker-{'0' * 32}:{'0' * 32}"
    engine.docker("tag", image.id, host)
    directory = tmp_path / "cache" / "arvados" / "docker"
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    for number, note in enumerate(
        [image.name, f"{image.name} {image.id}\n", f"{image.name} {image.id} {'0' * 64}\n", ""]
    ):
        (directory / f"{number}.pushing").write_text(note)
    (directory / "x.pushing").symlink_to(tmp_path / "elsewhere")
    (directory / "y.pushing").mkdir()
    os.mkfifo(directory / "z.pushing")
    before = engine.names()
    stored(run("--project-uuid", project, "--via-push", image.name))
    assert engine.names() == before
    engine.docker("rmi", host)


class Immortal(Daemon):
    """A private dockerd that is started again when it has died."""

    # The process ids that it and its containerd have left may be others' by now.
    _BEGIN = """
            while sleep 0.1; do
                left="$0/exec/containerd/containerd.pid"
                [ ! -e "$left" ] || kill -9 "$(cat "$left")"
                rm -f "$0/pid" "$left"
                dockerd --config"""
    _SCRIPT = Daemon._SCRIPT.replace("dockerd --config", _BEGIN).replace(
        "--iptables=false --ip6tables=false &", "--iptables=false --ip6tables=false; done &"
    )


def is_back(engine: Daemon) -> bool:
    """Whether the engine answers; it may end while it is asked."""
    with suppress(RuntimeError):
        return engine.answers()
    return False


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.usefixtures("engine")
def test_an_engine_that_is_killed(
    sandbox: Sandbox, cluster: Cluster, project: str, run: Command, tmp_path: Path, part: int
) -> None:
    dice = random.Random(part)
    with Immortal() as engine:
        image = images.build(engine.host, layers=[*quick_layers(4.2, 4.2), *layers(0.1)])
        digest = stored_digest(engine, image)
        before = engine.names()
        words = ("--project-uuid", project, "--no-universal", "--via-push", image.name)
        for number in range(ENGINE_KILLS + 1):
            start = time.monotonic()
            uuid = stored(run(*words, env=engine.environment))
            length = time.monotonic() - start
            assert engine.names() == before
            assert whole(cluster, project, uuid, image.name) == digest
            forget(cluster, project, tmp_path)
            if number == ENGINE_KILLS:
                break
            process = run.start(*words, env=engine.environment)
            time.sleep(dice.uniform(length / 3, length))
            os.kill(engine.pid, signal.SIGKILL)
            _, err = process.communicate(timeout=60)
            assert process.returncode in (0, 4), err
            assert "Traceback" not in err
            wait_until(lambda: is_back(engine), 60)
            forget(cluster, project)


def test_what_was_sent_before_a_kill_is_not_sent_again(
    engine: Engine, sandbox: Sandbox, project: str, run: Command
) -> None:
    image = images.build(engine.host, layers=quick_layers(*[5] * 8))
    settings = sandbox.settings()
    sandbox.settings(keep_bandwidth=10e6)
    try:
        sandbox.clear_requests()
        process = run.start("--project-uuid", project, "--via-push", image.name)
        wait_until(lambda: len(sent(sandbox)) > 4, 60)
        process.kill()
        process.communicate()
        wait_until(partial(group_has_ended, process.pid), 10)
        before = sum(sent(sandbox))
    finally:
        sandbox.settings(**settings)
    sandbox.clear_requests()
    pushed(run("--project-uuid", project, "--via-push", image.name))
    assert sum(sent(sandbox)) < 40 * MIB - before + 12 * MIB


# Docker's containerd image store, which pushes large images by default


@pytest.mark.parametrize("profile", CONTAINERD)
@pytest.mark.parametrize("universal", ["--universal", "--no-universal"])
def test_containerd_pushes_the_same_as_it_saves(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, profile: str, universal: str
) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine")
    archives = sorted(ARCHIVES.glob(f"{profile}-*-byname.tar"))
    for number, path in enumerate(archives):
        name = f"akd/pushed:{number}"
        engine.add(path, name)
        words = ("--project-uuid", project, universal, name)
        engine.calls()
        by_pushing = pushed(run("--via-push", *words, env=engine.environment))
        assert ways(engine) == {"push"}
        by_saving = stored(run("--no-via-push", "--force", *words, env=engine.environment))
        assert ways(engine) == {"save"}
        assert content(cluster, by_pushing) == content(cluster, by_saving)
        shown = json.loads(engine.answer("image", "inspect", name).stdout)[0]
        assert shown["RepoTags"] == [name]


def ways(engine: RecordedEngine) -> set[str]:
    """How images were taken from it."""
    return {call.split()[1] for call in engine.calls()} & {"push", "save"}


@pytest.mark.parametrize("profile", CONTAINERD)
def test_containerd_pushes_only_what_arvados_lacks(
    sandbox: Sandbox, project: str, run: Command, tmp_path: Path, profile: str
) -> None:
    """Also to a machine that has never seen the blobs, where they are not compressed."""
    engine = RecordedEngine(profile, tmp_path / "engine")
    engine.add(ARCHIVES / f"{profile}-built-byname.tar", "akd/pushed:1")
    words = ("--project-uuid", project, "--via-push", "akd/pushed:1")
    pushed(run(*words, env=engine.environment))
    sandbox.clear_requests()
    pushed(run("--no-universal", *words, env=engine.environment))
    assert sum(sent(sandbox)) < 10_000  # the documents


def test_an_incomplete_image_is_told_as_when_it_is_saved(project: str, run: Command, tmp_path: Path) -> None:
    engine = RecordedEngine("docker29-containerd", tmp_path / "engine")
    engine.add(ARCHIVES / "docker29-containerd-incomplete.tar", "akd/pushed:1")
    words = ("--project-uuid", project, "akd/pushed:1")
    one, other = (run(way, *words, env=engine.environment) for way in ("--via-push", "--no-via-push"))
    assert one.status == other.status == 4
    assert one.stderr.splitlines()[-2:] == other.stderr.splitlines()[-2:]
    assert SAVES in one.stderr


@pytest.mark.parametrize(
    ("mebibytes", "words", "more", "way"),
    [
        (17, (), {}, "push"),
        (17, ("--no-via-push",), {}, "save"),
        (17, (), {"ARV_KEEPDOCKER_VIA_PUSH": "0"}, "save"),
        (17, ("--images-from", "-"), {}, "save"),
        (17, ("--via-arv-put",), {}, "save"),
        (17, (), {"DOCKER_HOST": "tcp://192.0.2.1:2375"}, "save"),
        (10, (), {}, "save"),
        (10, (), {"ARV_KEEPDOCKER_VIA_PUSH": "1"}, "push"),
    ],
)
def test_what_containerd_pushes_by_default(
    project: str,
    run: Command,
    tmp_path: Path,
    mebibytes: int,
    words: tuple[str, ...],
    more: dict[str, str],
    way: str,
) -> None:
    image = odd.blobs([odd.tar([("random", os.urandom(mebibytes * MIB))])], compress=lambda data: data)
    name = odd.descriptor(image.manifest, odd.MANIFEST, annotations={odd.FULL_NAME: "docker.io/akd/pushed:1"})
    archive = tmp_path / "archive.tar"
    archive.write_bytes(odd.layout([name], *image.blobs, listing=odd.listing(image, "akd/pushed:1")))
    engine = RecordedEngine("docker29-containerd", tmp_path / "engine")
    engine.add(archive)
    given = () if "--images-from" in words else ("akd/pushed:1",)
    result = run("--project-uuid", project, *words, *given, input="akd/pushed:1", env={**engine.environment, **more})
    assert result.status == 0, result.stderr
    assert ways(engine) == {way}


def test_a_classic_store_saves_by_default(
    engine: Engine, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    is_containerd = "io.containerd.snapshotter" in engine.docker("info", "--format", "{{.DriverStatus}}")
    image = images.build(engine.host, layers=layers(20))
    said = tmp_path / "said"
    stored(run("--project-uuid", project, image.name, env=docker_that(f'echo "$2" >> {said}; real "$@"')))
    assert {"push", "save"} & {*said.read_text().split()} == {"push" if is_containerd else "save"}
