"""Container engines and a registry for the tests: the user's engine where one answers, else private ones."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGKILL
from typing import BinaryIO, TypeVar

# Names and labels what this run of the tests makes, so that it can be found and removed among what belongs to others.
RUN = secrets.token_hex(4)
LABEL = ("arv-keepdocker-test", RUN)

S = TypeVar("S", bound="Service")


def docker(*args: str, host: str | None = None, input: str | None = None) -> str:
    """Run the docker client and return its stdout; without a host, on the engine that the client finds by itself."""
    environment = dict(os.environ)
    if host:
        environment = {name: value for name, value in environment.items() if not name.startswith("DOCKER_")}
        environment["DOCKER_HOST"] = host
    done = subprocess.run(["docker", *args], env=environment, input=input, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(args)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def engine_in_use() -> bool:
    """Whether the docker client on PATH reaches an engine as it is."""
    try:
        # Without a server the client prints null.
        return json.loads(docker("version", "--format", "{{json .Server}}")) is not None
    except (FileNotFoundError, RuntimeError):
        return False


class Engine:
    """An engine as the docker client sees it; without a host, the one that the client finds by itself."""

    def __init__(self, host: str | None = None) -> None:
        self.host = host

    @property
    def environment(self) -> dict[str, str]:
        """What makes a docker client reach this engine, with another HOME too."""
        if self.host:
            return {"DOCKER_HOST": self.host}
        own = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
        return {"DOCKER_CONFIG": str(Path.home() / ".docker"), **own}

    def docker(self, *args: str, input: str | None = None) -> str:
        return docker(*args, host=self.host, input=input)

    def load(self, archive: Path) -> None:
        if self.host is None:
            self.docker("load", "--input", str(archive))
            return
        with archive.open("rb") as file:
            answer = self._ask("POST", "/images/load?quiet=1", file)
        if b"errorDetail" in answer:  # which has begun before it fails
            raise RuntimeError(f"loading {archive}: {answer!r}")

    def saved(self, image: str) -> bytes:
        """The archive that the engine makes of the image."""
        if self.host is not None:
            return self._ask("GET", f"/images/{image}/get")
        with tempfile.NamedTemporaryFile() as file:
            self.docker("save", "--output", file.name, image)
            return Path(file.name).read_bytes()

    def names(self) -> list[str]:
        """All names and digests of its images, and ids of those that have none."""
        if self.host is None:
            shown = "{{.ID}} {{.Repository}}:{{.Tag}}@{{.Digest}}"
            return sorted(self.docker("images", "--all", "--no-trunc", "--digests", "--format", shown).splitlines())
        listed = [
            (image["Id"], [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())] or ["<none>"])
            for image in json.loads(self._ask("GET", "/images/json?all=1"))
        ]
        return sorted(f"{image_id} {name}" for image_id, names in listed for name in names)

    def forget(self, image: str) -> None:
        """Remove an image with all its names, if it is there."""
        with suppress(RuntimeError):
            if self.host is None:
                self.docker("rmi", "--force", image)
            else:
                self._ask("DELETE", f"/images/{image}?force=1")

    def _ask(self, method: str, path: str, body: BinaryIO | None = None) -> bytes:
        """What a private engine answers through its socket: what tests ask most is asked without starting a client."""
        connection = http.client.HTTPConnection("localhost")
        with socket.socket(socket.AF_UNIX) as connection.sock:
            connection.sock.connect(str(self.host).removeprefix("unix://"))
            length = {"Content-Length": str(os.fstat(body.fileno()).st_size)} if body else {}
            connection.request(method, path, body, {"Content-Type": "application/x-tar", **length})
            answer = connection.getresponse()
            data = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: status {answer.status}: {data!r}")
        return data

    def forget_all(self) -> None:
        """Remove the containers and images of this run, whatever names they have now."""
        mine = ("--quiet", "--no-trunc", "--filter", f"label={'='.join(LABEL)}")
        for listing, removal in (["ps", "--all"], ["rm", "--force"]), (["images"], ["rmi", "--force"]):
            if found := set(self.docker(*listing, *mine).split()):
                self.docker(*removal, *found)


class Service:
    """A server of this process, in a directory of its own; both vanish with this process, even with a killed one.

    The shell that starts the server reads from a pipe whose other end only this process has. When that is closed, by us
    or by the kernel, the shell ends the server and removes the directory.
    """

    def __init__(self, script: str) -> None:
        self._script = script
        self.directory = Path(tempfile.mkdtemp(prefix="akd-"))

    def __enter__(self: S) -> S:
        with (self.directory / "log").open("w") as log:
            # A session of its own: Ctrl-C must not end the shell before its work is done.
            self._guard = subprocess.Popen(
                ["sh", "-c", f'{self._script}\nrm -rf "$0"', str(self.directory)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until(self.answers)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answers(self) -> bool:
        raise NotImplementedError

    def stop(self) -> None:
        """End the server and remove all that it has; returns when that is done."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            if self._guard.poll() is not None or time.monotonic() > deadline:
                log = self.directory / "log"
                raise RuntimeError(
                    f"{type(self).__name__}: no answer\n{log.read_text()[-3000:] if log.exists() else ''}"
                )
            time.sleep(0.05)


class Daemon(Service, Engine):
    """A private dockerd (root only), with a containerd, a socket and a store of its own and without networks."""

    # In a process namespace nothing outlives the shell that is its process 1, and mounts go with their namespace.
    # containerd keeps sockets in /run, whatever it is told. dockerd starts itself again for each layer; a third of that
    # is garbage collection in a few megabytes.
    _SCRIPT = """
        export GOGC=400
        unshare --mount --pid --fork --mount-proc --kill-child sh -c '
            mount -t tmpfs tmpfs /run || exit
            dockerd --config-file "$0/daemon.json" --host "unix://$0/docker.sock" --pidfile "$0/pid" \\
                --data-root "$0/data" --exec-root "$0/exec" --bridge none --iptables=false --ip6tables=false &
            read -r _
        ' "$0"
    """

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise RuntimeError("no container engine answers, and only root can start a private one")
        Service.__init__(self, self._SCRIPT)
        Engine.__init__(self, f"unix://{self.directory}/docker.sock")
        # Not /etc/docker/daemon.json, which may contradict our options.
        (self.directory / "daemon.json").write_text("{}")

    @property
    def pid(self) -> int:
        """dockerd's process id, outside of its namespace."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.directory / "docker.sock"))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", credentials)[0]
        return pid

    def _listens(self) -> bool:
        try:
            return self.pid > 0
        except OSError:
            return False

    def answers(self) -> bool:
        # The socket listens before the daemon is ready; the client then waits for it.
        return self._listens() and bool(self.docker("version", "--format", "{{json .Server}}"))

    def kill(self) -> None:
        """Kill dockerd as a crash does; its socket's file stays."""
        os.kill(self.pid, SIGKILL)
        self._wait_until(lambda: not self._listens())


class Registry(Service):
    """A private registry on loopback, where every docker engine takes plain HTTP; `.host` begins its images' names."""

    def __init__(
        self, htpasswd: str = "", certificate: Path | None = None, client_authority: Path | None = None
    ) -> None:
        """`htpasswd` has lines of users and bcrypt hashes. `certificate` is a PEM file with its key, for TLS;
        `client_authority` one that signs for who may ask."""
        super().__init__('docker-registry serve "$0/config.yml" & read -r _; kill $!; wait $!')
        with socket.create_server(("127.0.0.1", 0)) as unused:
            self.host = f"127.0.0.1:{unused.getsockname()[1]}"
        http: dict[str, object] = {"addr": self.host}
        if certificate is not None:
            authorities = {"clientcas": [str(client_authority)]} if client_authority is not None else {}
            http["tls"] = {"certificate": str(certificate), "key": str(certificate), **authorities}
        configuration: dict[str, object] = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(self.directory / "data")}},
            "http": http,
        }
        if htpasswd:
            (self.directory / "htpasswd").write_text(htpasswd)
            configuration["auth"] = {"htpasswd": {"realm": "test", "path": str(self.directory / "htpasswd")}}
        (self.directory / "config.yml").write_text(json.dumps(configuration))  # JSON is YAML

    def answers(self) -> bool:
        host, _, port = self.host.partition(":")
        try:
            socket.create_connection((host, int(port)), 5).close()
        except OSError:
            return False
        return True


class Podman:
    """A private podman, as a program called podman that has a storage of its own in the directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        program = shutil.which("podman")
        assert program is not None
        (directory / "bin").mkdir(parents=True)
        self.program = directory / "bin" / "podman"
        # Where podman keeps sockets; it refuses a name of more than 50 characters.
        self._runroot = tempfile.mkdtemp(prefix="akd-")
        own = f"--root {directory}/root --runroot {self._runroot} --storage-driver vfs --cgroup-manager cgroupfs"
        self.program.write_text(f'#!/bin/sh\nexec {program} {own} --events-backend none "$@"\n')
        self.program.chmod(0o755)

    def close(self) -> None:
        self.run("rmi", "--all", "--force")
        shutil.rmtree(self._runroot)

    def run(self, *args: str) -> str:
        done = subprocess.run([str(self.program), *args], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"podman {' '.join(args)}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout


@contextmanager
def any_engine() -> Iterator[Engine]:
    """The user's engine where one answers, without this run's images afterwards; else a private one."""
    if engine_in_use():
        engine = Engine()
        try:
            yield engine
        finally:
            engine.forget_all()
    else:
        with Daemon() as daemon:
            yield daemon
