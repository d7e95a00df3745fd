"""The server of tests.warm, a program.

Importing takes most of a run of the command. This process imports once what the SDK is built on and our package, and
forks one for each run, which makes itself what a new Python is: environment, folder, descriptors, standard streams,
session, signals. It imports by itself the SDK, which reads the environment meanwhile; our modules do not.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import selectors
import socket
import sys
import threading
import time
from functools import partial
from typing import Any

_IMPORTED_ALWAYS = ("arvados.commands.keepdocker", "arvados.commands.put", "requests")
_OWN = ("arvados", "__main__")
"""What each process imports by itself, with all that is in these packages."""
_NOT_OF_THE_COMMAND = ("arv_keepdocker.__main__", "arv_keepdocker.sandbox")


def _import_what_is_needed() -> None:
    read, write = os.pipe()
    if os.fork() == 0:
        os.environ["HOME"] = os.devnull
        for module in _IMPORTED_ALWAYS:
            importlib.import_module(module)
        import_ours()
        names = [name for name in sys.modules if name.partition(".")[0] not in _OWN]
        with open(write, "w") as file:
            file.write("\n".join(names))
        os._exit(0)
    os.close(write)
    with open(read) as file:
        names = file.read().splitlines()
    os.wait()
    if not names:
        sys.exit("the SDK could not be imported")
    for name in names:
        with contextlib.suppress(ImportError):  # some are there under two names
            importlib.import_module(name)


def import_ours() -> None:
    """Import all modules that the command consists of."""
    package = importlib.import_module("arv_keepdocker")
    for module in pkgutil.walk_packages(package.__path__, "arv_keepdocker."):
        if not module.name.startswith(_NOT_OF_THE_COMMAND):
            importlib.import_module(module.name)


def serve(connection: socket.socket) -> list[str]:
    """Fork processes for ever; returns in each of them, with the words of its command line."""
    selector = selectors.DefaultSelector()
    selector.register(connection, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not connection:
                key.data(selector, key.fd)
                continue
            message, descriptors, _, _ = socket.recv_fds(connection, 1 << 17, 4)
            if not message:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                connection.detach()
                selector.close()
                return _begin(message, descriptors)
            *streams, asked = descriptors
            for descriptor in streams:
                os.close(descriptor)
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, partial(_tell, pid, asked))


def _begin(message: bytes, descriptors: list[int]) -> list[str]:
    """Make this process the one that was asked for; its words."""
    *streams, asked = descriptors
    words, directory, environment, umask = json.loads(message)
    os.setsid()
    os.umask(umask)
    os.chdir(directory)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.write(asked, str(os.getpid()).encode())
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _become_new(directory, environment)
    return list(words)


def _tell(pid: int, asked: int, selector: selectors.BaseSelector, ended: int) -> None:
    """Tell how the process has ended; its id may be used again when that has been heard."""
    selector.unregister(ended)
    os.close(ended)
    end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert end is not None
    with contextlib.suppress(OSError):  # nobody wants to know
        os.write(asked, str(end.si_status if end.si_code == os.CLD_EXITED else -end.si_status).encode())
    selector.register(asked, selectors.EVENT_READ, partial(_forget, pid))


def _forget(pid: int, selector: selectors.BaseSelector, asked: int) -> None:
    selector.unregister(asked)
    os.read(asked, 100)
    os.waitpid(pid, 0)
    os.close(asked)


def _become_new(directory: str, environment: dict[str, str]) -> None:
    # Python has changed some when it started, which it does for this process too.
    given = {name: value for name, value in os.environ.items() if name not in environment and name.startswith("LC_")}
    os.environ.clear()
    os.environ.update(environment)
    os.environ.update(given)
    time.tzset()
    sys.path[0] = directory
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream = _stream(number, f"<{name}>", mode)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _stream(number: int, name: str, mode: str) -> io.TextIOWrapper:
    """A standard stream as Python makes it, see create_stdio() in CPython's pylifecycle.c."""
    old = (sys.stdin, sys.stdout, sys.stderr)[number]
    is_unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    has_buffer = mode == "r" or not is_unbuffered
    buffer: Any = open(number, f"{mode}b", -1 if has_buffer else 0, closefd=False)  # noqa: SIM115
    (buffer.raw if has_buffer else buffer).name = name
    by_line = not is_unbuffered and (number == 2 or buffer.isatty())
    stream = io.TextIOWrapper(
        buffer, old.encoding, old.errors, newline="\n", line_buffering=by_line, write_through=is_unbuffered
    )
    stream.mode = mode  # type: ignore[misc]
    return stream


class _End:
    """Ends a process that has run its course without freeing what it was forked with, which takes longer than most
    runs: Python would touch, and the kernel copy, all that memory."""

    status: int | None = None

    def __call__(self) -> None:
        """The last of what is registered in `atexit`."""
        if self.status is None:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None and not stream.closed:
                    stream.flush()
        except (OSError, ValueError):
            return  # Python has its own words and status for that
        os._exit(self.status)


def main() -> None:
    end = _End()
    atexit.register(end)
    _import_what_is_needed()
    import_ours()
    if threading.active_count() > 1:
        sys.exit("what was imported has started a thread, so that this process cannot fork")
    gc.freeze()
    words = serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        if words[1:2] == ["-m"]:
            sys.argv = words[2:]
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path[0] = os.path.dirname(words[0])
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            end.status = (error.code or 0) & 0xFF
        raise
    end.status = 0


if __name__ == "__main__":
    main()
