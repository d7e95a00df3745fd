"""Processes of Python that need not import first what each of them imports: a server forks them (tests.warm_server)."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SERVER = Path(__file__).with_name("warm_server.py")

_READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_", "OPENSSL_")
"""How the names begin of environment variables that Python and its libraries read when they start, and only then."""
_MOST = 100_000
"""Bytes of a request."""


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


class Warm:
    """A server; `environment` is that of the processes, as far as Python reads it when it starts."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = _read_at_start(environment)
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, str(_SERVER), str(theirs.fileno())]
            self._server = subprocess.Popen(
                argv, env=dict(environment), cwd="/", pass_fds=[theirs.fileno()], start_new_session=True
            )

    def close(self) -> None:
        """End it; processes that still run are not its business."""
        self._connection.close()
        self._server.wait()

    def request(self, argv: Sequence[str], directory: Path, environment: Mapping[str, str]) -> bytes | None:
        """What has the server run this; None if it takes a new Python or another program."""
        if _read_at_start(environment) != self._environment:
            return None
        if list(argv[:2]) != [sys.executable, "-m"] and not _is_script(argv[0]):
            return None
        request = json.dumps([list(argv), str(directory), dict(environment), _umask()]).encode()
        return request if len(request) <= _MOST and directory.is_dir() else None

    def start(self, request: bytes, argv: Sequence[str], *, stdin: int, stdout: int, stderr: int) -> Process:
        return Process(self._connection, request, argv, stdin=stdin, stdout=stdout, stderr=stderr)


def _umask() -> int:
    """This process's, which its children have."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _is_script(path: str) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as script:
        return script.readline().rstrip() == f"#!{sys.executable}".encode()
    return False


class Process(subprocess.Popen[str]):
    """One that the server has forked. What cannot be different is where Popen looks for it: it is no child of ours."""

    def __init__(
        self, server: socket.socket, request: bytes, argv: Sequence[str], *, stdin: int, stdout: int, stderr: int
    ) -> None:
        self._server, self._request = server, request
        super().__init__(argv, stdin=stdin, stdout=stdout, stderr=stderr, text=True, start_new_session=True)

    def _execute_child(self, *arguments: Any) -> None:
        given = inspect.signature(super()._execute_child).bind(*arguments).arguments  # type: ignore[misc]
        ends = [given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        streams = [own if end == -1 else end for own, end in enumerate((ends[0], ends[3], ends[5]))]
        self._nanny, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._server, [self._request], [*streams, theirs.fileno()])
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]
        self.pid = int(self._nanny.recv(100) or -1)
        assert self.pid > 0, "the process could not be started"
        self._child_created = True

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            self._nanny.settimeout(timeout if timeout is None else max(timeout, 0))
            try:
                status = self._nanny.recv(100)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._nanny.settimeout(None)
            self.returncode = int(status)
            # Only now may its process id become another's.
            self._nanny.send(b"!")
            self._nanny.recv(1)
            self._nanny.close()
        return self.returncode
