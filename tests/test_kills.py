"""Stopped anywhere, in any way: nothing half done is taken for done, nothing is lost, and the next run ends right."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine, Registry
from tests.test_failures import (
    DockerThat,
    Way,
    cached,
    group_has_ended,
    hanging_in,
    hanging_process,
    nothing_recorded,
    records,
    stored_digest,
    wait_until,
    whole,
)
from tests.test_streaming import layers

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
PARTS = 2
"""Of the kills at random, so that several processes can test them."""
ROUNDS = 26
ROUNDS_UNTIL_A_PLAIN_RUN = 4


def check_stopped(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """It has ended as the signal asks for, all of it, without a result and without a word too many."""
    out, err = process.communicate(timeout=20)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), err
    assert out == ""
    assert "Traceback" not in err
    assert err.count("error:") == (number != signal.SIGKILL), err
    wait_until(partial(group_has_ended, process.pid), 10)


# Each stage, on purpose. The delays come before the server does its work.
STAGES: dict[str, tuple[dict[str, object], int, int]] = {
    "lookup": ({"service": "api", "method": "GET", "path": "/links"}, 0, 0),
    "upload": ({"service": "keep", "method": "PUT", "skip": 0}, 0, 0),
    "before the links": ({"service": "api", "method": "POST", "path": "/links"}, 1, 0),
    "between the links": ({"service": "api", "method": "POST", "path": "/links", "body": "repo.tag"}, 1, 1),
}


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_stopped_at(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command, way: Way, tmp_path: Path, stage: str
) -> None:
    fault, collections, links = STAGES[stage]
    image = images.build(engine.host, layers=layers(4.2, 0.1))
    digest = stored_digest(engine, image, way)
    for number in SIGNALS:
        before = [len(found) for found in records(cluster, project)]
        sandbox.fault("delay", seconds=20, times=None, **fault)
        process = run.start(*way, "--project-uuid", project, image.name)
        wait_until(lambda: any(fault["struck"] for fault in sandbox.faults()))
        process.send_signal(number)
        check_stopped(process, number)
        sandbox.clear_faults()
        found = [len(found) for found in records(cluster, project)]
        assert [found[0] - before[0], found[1] - before[1]] == [collections, links]
        uuid = stored(run(*way, "--project-uuid", project, image.name))
        assert cached(tmp_path) == []
        assert whole(cluster, project, uuid, image.name) == digest
        forget(cluster, project, tmp_path)


def forget(cluster: Cluster, project: str, machine: Path | None = None) -> None:
    """What Arvados has in the project, and with a machine also what was noted there of what was sent."""
    if machine is not None:
        for journal in machine.glob("cache/arvados/docker/*.journal"):
            journal.unlink()
    api = cluster.api()
    for resource in (api.links(), api.collections()):
        for item in resource.list(filters=[["owner_uuid", "=", project]]).execute()["items"]:
            resource.delete(uuid=item["uuid"]).execute()


def test_stopped_during_the_pull(
    engine: Engine,
    registry: Registry,
    cluster: Cluster,
    project: str,
    run: Command,
    docker_that: DockerThat,
    tmp_path: Path,
) -> None:
    image = images.build(engine.host, f"{registry.host}/{images.unique_name()}")
    engine.docker("push", image.name)
    engine.forget(image.id)
    pid_file = tmp_path / "pid"
    hangs = docker_that(hanging_in("pull", pid_file))
    for number in SIGNALS:
        pid_file.unlink(missing_ok=True)
        process = run.start("--project-uuid", project, "--pull", image.name, env=hangs)
        hanging_process(pid_file)
        process.send_signal(number)
        check_stopped(process, number)
        assert nothing_recorded(cluster, project)
    uuid = stored(run("--project-uuid", project, "--pull", image.name))
    assert whole(cluster, project, uuid, image.name) == stored_digest(engine, image)
    assert cached(tmp_path) == []


def test_what_a_killed_run_has_left_goes_with_one_that_finds_the_image(
    engine: Engine, project: str, run: Command, tmp_path: Path
) -> None:
    image = images.build(engine.host)
    uuid = stored(run("--project-uuid", project, image.name))
    # Of the same image in another form, say.
    (tmp_path / "cache" / "arvados" / "docker" / f"sha256:{'0' * 64}.lock").touch()
    assert run("--dry-run", "--project-uuid", project, image.name).status == 0
    assert len(cached(tmp_path)) == 1
    assert stored(run("--project-uuid", project, image.name)) == uuid
    assert cached(tmp_path) == []


# Python runs what is registered here where it forks, between taking and releasing locks of its own.
SIGNALLED_WHILE_FORKING = """
import os, signal, sys
from arv_keepdocker.cli import main

os.register_at_fork(after_in_parent=lambda: signal.raise_signal(int(sys.argv[1])))
main.main(sys.argv[2:])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_where_docker_is_started(
    engine: Engine, cluster: Cluster, project: str, run: Command, number: signal.Signals
) -> None:
    image = images.build(engine.host)
    python = Command([sys.executable, "-c", SIGNALLED_WHILE_FORKING], run.directory, run.environment, run.processes)
    check_stopped(python.start(str(int(number)), "--project-uuid", project, image.name), number)
    assert nothing_recorded(cluster, project)


# Python ignores what is raised in a destructor, and in the function that it tells what it has ignored.
SIGNALLED_WHERE_IGNORED = """
import signal, sys, threading
from arv_keepdocker.cli import main

number, times = map(int, sys.argv[1:3])

def signalled():
    global times
    times -= 1
    signal.raise_signal(number)

class Signals:
    def __del__(self):
        signalled()

class Thread(threading.Thread):
    def start(self):
        if times:
            signalled()
        super().start()

class Finder:
    def find_spec(name, *_):
        if name == "arvados":
            threading.Thread = Thread
            Signals()

sys.meta_path.insert(0, Finder)
main.main(sys.argv[3:])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 3])
def test_stopped_where_python_ignores_it(sandbox: Sandbox, run: Command, number: signal.Signals, times: int) -> None:
    sandbox.fault("delay", service="api", path="/links", seconds=60, times=None)
    python = Command([sys.executable, "-c", SIGNALLED_WHERE_IGNORED], run.directory, run.environment, run.processes)
    check_stopped(python.start(str(int(number)), str(times), "images"), number)


SIGNALLED_AT_EXIT = """
import atexit, signal, sys
from arv_keepdocker.__main__ import main

number = int(sys.argv.pop(1))
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been told to ignore it
atexit.register(lambda: signal.raise_signal(number))
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [["--version"], ["--threads=0", "x"]])
def test_stopped_when_all_is_said(run: Command, number: signal.Signals, words: list[str]) -> None:
    python = Command([sys.executable, "-c", SIGNALLED_AT_EXIT], run.directory, run.environment, run.processes)
    result = python(str(int(number)), *words)
    assert result.status == -number
    assert bool(result.stdout) != bool(result.stderr)
    assert "Traceback" not in result.stderr


# At random


def hears(pid: int) -> bool:
    """Whether the run has handlers of its own for signals, or has ended. Before that Python would have the word."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = re.search(r"SigCgt:\s*(\w+)", status)
    return "State:\tZ" in status or (caught is not None and bool(int(caught[1], 16) & 1 << signal.SIGTERM - 1))


@dataclass
class Victim:
    """One way and form, with a machine and a project of its own."""

    words: Way
    image: images.Image
    project: str
    command: Command
    digest: str
    """Of what is stored."""
    length: float = 0
    """Seconds that a run takes when nobody stops it."""
    kills: Counter[str] = field(default_factory=Counter)

    @property
    def machine(self) -> Path:
        return self.command.directory

    def start(self) -> int:
        """Start a run and return its process id."""
        self._begin = time.monotonic()
        self._process = self.command.start(*self.words, "--project-uuid", self.project, self.image.name)
        return self._process.pid

    def end(self) -> tuple[Result, float]:
        """Wait for its end; how it ended, and after how many seconds."""
        out, err = self._process.communicate(timeout=60)
        return Result(self._process.returncode, out, err), time.monotonic() - self._begin


def on_machine(run: Command, machine: Path) -> Command:
    """The command with a cache and a home in that new folder."""
    machine.mkdir()
    environment = {**run.environment, "XDG_CACHE_HOME": f"{machine}/cache", "HOME": str(machine)}
    return replace(run, directory=machine, environment=environment)


@pytest.fixture
def victims(engine: Engine, cluster: Cluster, run: Command, tmp_path: Path) -> Iterator[list[Victim]]:
    groups = cluster.api().groups()
    made = []
    for number, (form, way) in enumerate(
        itertools.product(("--no-universal", "--universal"), ((), ("--via-arv-put",)))
    ):
        body = {"group": {"group_class": "project", "name": f"arv-keepdocker kills {os.getpid()} {number}"}}
        # Of two layers that have blocks of their own one may have been sent; arv-put sends one block of it all.
        image = images.build(engine.host, layers=layers(4.2, 0.1) if way else layers(4.2, 0.1, 4.2))
        project = groups.create(body=body).execute()["uuid"]
        digest = stored_digest(engine, image, way, universal=form == "--universal")
        made.append(Victim((form, *way), image, project, on_machine(run, tmp_path / f"machine{number}"), digest))
    yield made
    for victim in made:
        groups.delete(uuid=victim.project).execute()


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_stopped_at_any_moment(sandbox: Sandbox, cluster: Cluster, victims: list[Victim], part: int) -> None:
    dice = random.Random(part)
    settings = sandbox.settings()
    # So slow that a run spends its time where it can be stopped, not in starting.
    sandbox.settings(latency_ms=10, keep_bandwidth=80e6)
    try:
        run_plainly(cluster, victims)
        for number in range(1, ROUNDS + 1):
            stop_at_random(cluster, victims, dice)
            if number % ROUNDS_UNTIL_A_PLAIN_RUN == 0 or number == ROUNDS:
                run_plainly(cluster, victims)
    finally:
        sandbox.settings(**settings)
    kills = sum(sum(victim.kills.values()) for victim in victims)
    for victim in victims:
        print(" ".join(victim.words), dict(victim.kills))
    print(f"{kills} kills, nothing lost")
    assert kills * PARTS >= 200


def stop_at_random(cluster: Cluster, victims: list[Victim], dice: random.Random) -> None:
    """Each once: what is recorded then is right as far as it goes."""
    begin = time.monotonic()
    started = [(dice.uniform(0, victim.length), victim, victim.start()) for victim in victims]
    sent: dict[int, signal.Signals] = {}
    for moment, _, pid in sorted(started, key=lambda each: each[0]):
        time.sleep(max(0.0, begin + moment - time.monotonic()))
        wait_until(partial(hears, pid))
        sent[pid] = dice.choice(SIGNALS)
        os.kill(pid, sent[pid])
    for _, victim, pid in started:
        result, _ = victim.end()
        wait_until(partial(group_has_ended, pid), 10)
        assert "Traceback" not in result.stderr
        collections, links = records(cluster, victim.project)
        assert (len(collections), len(links)) in [(0, 0), (1, 0), (1, 1), (1, 2)]
        if result.stdout:
            # It had been done.
            assert whole(cluster, victim.project, result.stdout.strip(), victim.image.name) == victim.digest
        else:
            assert result.status in (-sent[pid], 128 + sent[pid]), result.stderr
        victim.kills[f"{len(collections)} collections, {len(links)} links"] += 1


def run_plainly(cluster: Cluster, victims: list[Victim]) -> None:
    """Nobody stops it: it ends right, whatever was left; then everything is forgotten."""
    for victim in victims:
        victim.start()
    with ThreadPoolExecutor() as pool:
        ends = list(pool.map(Victim.end, victims))
    for victim, (result, seconds) in zip(victims, ends, strict=True):
        victim.length = seconds
        assert whole(cluster, victim.project, stored(result), victim.image.name) == victim.digest
        assert cached(victim.machine) == []
        forget(cluster, victim.project, victim.machine)
