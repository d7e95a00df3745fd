"""What the tests run on: engines, a registry, a cluster, and the command with an environment of its own."""

from __future__ import annotations

import gc
import os
import pty
import re
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tty import setraw
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest

from tests import images
from tests.engines import RUN, Daemon, Engine, Podman, Registry, any_engine
from tests.warm import Warm

if TYPE_CHECKING:
    # Slow to import, like the SDK: only tests that need a cluster wait for it.
    from arv_keepdocker.sandbox import Sandbox


# Stopped by either signal, the tests clean up. A shell has what it starts in the background ignore SIGINT, and with it
# all that the tests start.
for _signal in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_signal, signal.default_int_handler)


_ENGINES = {"engine", "other_engine", "podman", "registry"}
"""Fixtures of programs that not everybody has. A test that starts such a program by itself uses one of them, too."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only what needs no engine and no registry")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes many seconds, and so begins before the others")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing of what is imported and collected is garbage: to look for it takes half of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The long ones first, and mixed: what waits beside what works.
    items.sort(key=lambda item: crc32(item.nodeid.encode()) if item.get_closest_marker("long") else 1 << 32)
    if config.getoption("--quick"):
        chosen = _quick(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]


def _quick(items: list[pytest.Item]) -> set[pytest.Item]:
    """Those that need no engine and do not take long; of a table of runs of a program only the first row."""
    chosen: dict[str, pytest.Item] = {}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if _ENGINES.isdisjoint(fixtures) and item.get_closest_marker("long") is None:
            is_row = not {"warm", "recorded"}.isdisjoint(fixtures)
            chosen.setdefault(item.nodeid.partition("[")[0] if is_row else item.nodeid, item)
    return set(chosen.values())


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The engine that the command is tested on."""
    with any_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def other_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine to load an image into, as a compute node does; first `forget()` the image there.

    It is one of our own, unless we may not start one: then it is the first engine again.
    """
    if os.geteuid() == 0 and shutil.which("dockerd"):
        with Daemon() as daemon:
            yield daemon
    else:
        yield request.getfixturevalue("engine")


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    podman = Podman(tmp_path_factory.mktemp("podman"))
    yield podman
    podman.close()


class Cluster:
    """An Arvados cluster: the sandbox, or the one that the environment names."""

    def __init__(self, sandbox: Sandbox | None) -> None:
        self.sandbox = sandbox
        self._api: Any = None

    @property
    def is_sandbox(self) -> bool:
        return self.sandbox is not None

    def environment(self) -> dict[str, str]:
        if self.sandbox:
            return self.sandbox.environment()
        return {name: value for name, value in os.environ.items() if name.startswith("ARVADOS_")}

    def api(self) -> Any:
        """The SDK's client; always the same one."""
        from arvados.api import api_from_config

        if not self._api:
            self._api = api_from_config("v1", self.environment(), cache=False)
        return self._api

    def clear_faults(self) -> None:
        if self.sandbox:
            self.sandbox.clear_faults()

    def clean(self) -> None:
        """Remove what this run left in the user's home project."""
        api = self.api()
        home = ["owner_uuid", "=", api.users().current().execute()["uuid"]]

        def found(resource: Any, *condition: Any) -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = resource.list(filters=[home, condition], limit=1000).execute()["items"]
            return items

        names = ("name", "like", f"%akd-{RUN}-%")
        ids = ("name", "in", [image.id for image in images.BUILT])
        links = found(api.links(), *names) + found(api.links(), *ids)
        heads = ("uuid", "in", [link["head_uuid"] for link in links])
        collections = found(api.collections(), *names) + found(api.collections(), *heads)
        for resource, items in (api.links(), links), (api.collections(), collections):
            for uuid in {item["uuid"] for item in items}:
                resource.delete(uuid=uuid).execute()

    def close(self) -> None:
        if self._api:
            self._api.close()


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The private cluster: for tests that need its faults, its users or its log of requests."""
    from arv_keepdocker.sandbox import Sandbox

    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def _sandbox_cluster(sandbox: Sandbox) -> Iterator[Cluster]:
    cluster = Cluster(sandbox)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def _named_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The sandbox, or with ARV_KEEPDOCKER_TEST_CLUSTER=env the cluster that ARVADOS_API_HOST names."""
    if os.environ.get("ARV_KEEPDOCKER_TEST_CLUSTER") != "env":
        yield request.getfixturevalue("_sandbox_cluster")
        return
    cluster = Cluster(None)
    yield cluster
    cluster.clean()
    cluster.close()


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster that the command talks to: the sandbox if the test needs that, else one that the user may name."""
    name = "_sandbox_cluster" if "sandbox" in request.fixturenames else "_named_cluster"
    cluster: Cluster = request.getfixturevalue(name)
    yield cluster
    cluster.clear_faults()


@pytest.fixture
def project(cluster: Cluster) -> Iterator[str]:
    """The uuid of a new project of the user; trashed afterwards with all that is in it."""
    groups = cluster.api().groups()
    body = {"group": {"group_class": "project", "name": f"arv-keepdocker test {RUN} {secrets.token_hex(4)}"}}
    uuid = groups.create(body=body).execute()["uuid"]
    yield uuid
    cluster.clear_faults()
    groups.delete(uuid=uuid).execute()


@pytest.fixture(scope="session")
def small_image(engine: Engine) -> images.Image:
    """An image in the engine for all tests that store it only in their projects: with these it is trashed."""
    return images.build(engine.host)


@pytest.fixture(scope="session")
def large_image(engine: Engine) -> images.Image:
    """The same with a layer of 4.2 MiB, which has blocks of its own, and a small one."""
    return images.build(engine.host, layers=[{"large": images.noise(4_400_000)}, {"small": images.noise(100_000)}])


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """The path of an archive of an image unlike any other: of what Arvados has already, Keep is given nothing."""
    path = tmp_path / "archive.tar"
    with path.open("wb") as file:
        images.write_archive(file)
    return str(path)


@dataclass(frozen=True)
class Result:
    status: int
    stdout: str
    stderr: str


def container_request(image: str, **attributes: object) -> dict[str, Any]:
    """What asks Arvados for a container of the image; with a `priority` of more than 0 it is run."""
    return {
        "container_request": {
            "name": "t",
            "command": ["true"],
            "container_image": image,
            "output_path": "/out",
            "cwd": "/",
            "mounts": {"/out": {"kind": "tmp", "capacity": 1000}},
            "runtime_constraints": {"vcpus": 1, "ram": 1000000},
            "state": "Committed",
            "priority": 0,
            "use_existing": False,
            **attributes,
        }
    }


def image_run_for(api: Any, image: str, project: str) -> str:
    """The portable data hash of what Arvados runs a container in that a user asks for by the image's name."""
    made = api.container_requests().create(body=container_request(image, name=image, owner_uuid=project)).execute()
    container = api.containers().get(uuid=made["container_uuid"]).execute()
    return str(container["container_image"])


def stored(result: Result) -> str:
    """The UUID that a run of the command has printed: the only thing on its stdout."""
    assert result.status == 0, result.stderr
    assert re.fullmatch(r"[0-9a-z]{5}-4zz18-[0-9a-z]{15}\n", result.stdout)
    return result.stdout.strip()


@dataclass
class Command:
    """A program with the environment of one test; called, it runs to its end; `start` gives the running process."""

    argv: list[str]
    directory: Path
    environment: dict[str, str]
    processes: list[subprocess.Popen[str]]
    warm: Warm | None = None

    def anew(self) -> Command:
        """The same in a Python that starts for it, as users do: for tests of how it starts."""
        return replace(self, warm=None)

    def start(
        self,
        *args: str,
        env: Mapping[str, str | None] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """In a process group of its own, so that os.killpg(process.pid, SIGINT) is what Ctrl-C does."""
        environment = {name: value for name, value in {**self.environment, **(env or {})}.items() if value is not None}
        argv = [*self.argv, *args]
        request = self.warm.request(argv, self.directory, environment) if self.warm is not None else None
        if self.warm is not None and request is not None:
            process: subprocess.Popen[str] = self.warm.start(request, argv, stdin=stdin, stdout=stdout, stderr=stderr)
        else:
            process = subprocess.Popen(
                argv,
                cwd=self.directory,
                env=environment,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def __call__(
        self,
        *args: str,
        env: Mapping[str, str | None] | None = None,
        input: str | None = None,
        timeout: float = 120,
        tty: bool = False,
    ) -> Result:
        """Run it to its end; `env` changes the environment (None removes); with `tty` stderr is a terminal."""
        shown: list[bytes] = []
        with terminal(shown) if tty else nullcontext(subprocess.PIPE) as stderr:
            stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
            process = self.start(*args, env=env, stdin=stdin, stderr=stderr)
            try:
                out, err = process.communicate(input, timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                raise AssertionError(f"{process.args!r} still ran after {timeout} s\n{out}\n{err}") from None
        return Result(process.returncode, out, b"".join(shown).decode() if tty else err)


@contextmanager
def terminal(shown: list[bytes]) -> Iterator[int]:
    """The file descriptor of a terminal; `shown` is in the end what was written to it."""
    master, slave = pty.openpty()
    setraw(slave)

    def read() -> None:
        # The error is the end: nobody has the terminal open for writing any more.
        with suppress(OSError):
            while data := os.read(master, 65536):
                shown.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield slave
    finally:
        os.close(slave)
        reader.join()
        os.close(master)


@pytest.fixture(scope="session")
def warm() -> Iterator[Callable[[Mapping[str, str]], Warm]]:
    """Gives the server that forks processes with an environment like this one; always the same one."""
    servers: list[Warm] = []

    def server(environment: Mapping[str, str]) -> Warm:
        if not servers:
            servers.append(Warm(environment))
        return servers[0]

    yield server
    for each in servers:
        each.close()


@pytest.fixture
def plain_environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a test's commands without what makes them find an engine and a cluster."""
    foreign = ("ARVADOS_", "DOCKER_", "XDG_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment.update(HOME=str(tmp_path / "home"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    # Google's libraries warn of each Python that is about to end, on every run.
    environment["PYTHONWARNINGS"] = "ignore::FutureWarning"
    return environment


@pytest.fixture
def _command(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    warm: Callable[[Mapping[str, str]], Warm],
    plain_environment: dict[str, str],
    tmp_path: Path,
) -> Iterator[Callable[..., Command]]:
    """Makes the commands of a test, all with the same environment, and ends what they left running.

    They find the engine if the test has asked for it; else there is none.
    """
    environment = plain_environment
    if "engine" in request.fixturenames:
        environment.update(request.getfixturevalue("engine").environment)
    else:
        environment["DOCKER_HOST"] = f"unix://{tmp_path}/no-engine"
    environment.update(cluster.environment())
    (tmp_path / "home").mkdir()
    processes: list[subprocess.Popen[str]] = []
    yield lambda *argv: Command(list(argv), tmp_path, environment, processes, warm(environment))
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            pass


@pytest.fixture
def run(_command: Callable[..., Command]) -> Command:
    """The command under test."""
    return _command(sys.executable, "-m", "arv_keepdocker")


@pytest.fixture(params=[(), ("--via-arv-put",)], ids=["streaming", "arv-put"])
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options for each of the ways to move the bytes, for tests whose result is the same or nearly so."""
    words: tuple[str, ...] = request.param
    return words


@pytest.fixture
def run_upstream(_command: Callable[..., Command]) -> Command:
    """The program of the same name in the SDK."""
    return _command(sys.executable, "-m", "arvados.commands.keepdocker")


@pytest.fixture
def run_tool(_command: Callable[..., Command]) -> Callable[..., Result]:
    """Run a script of the SDK: run_tool("arv-get", ...), with the keyword arguments of `Command`."""
    scripts = sysconfig.get_path("scripts")
    return lambda name, *args, **options: _command(f"{scripts}/{name}")(*args, **options)


@pytest.fixture
def docker_that(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Makes the environment in which `docker` is the given shell script; `real` in it is the docker that it hides."""
    directory = tmp_path / "docker-that"
    directory.mkdir()
    program = directory / "docker"

    def make(script: str) -> dict[str, str]:
        program.write_text(f'#!/bin/sh\nreal() {{ PATH="$REAL_PATH" command docker "$@"; }}\n{script}\n')
        program.chmod(0o755)
        return {"REAL_PATH": os.environ["PATH"], "PATH": f"{directory}:{os.environ['PATH']}"}

    return make
