"""The server of tests.warm, a program.

Importing takes most of a run of the command. This process imports the SDK and our package once, and forks one for each
run, which makes itself what a new Python is: environment, folder, descriptors, standard streams, session, signals. What
reads the environment when it is imported, it imports by itself: the SDK's package and its commands.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import logging
import os
import pkgutil
import runpy
import selectors
import socket
import ssl
import sys
import threading
import time
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

_IMPORTED_LATE = ("ctypes", "googleapiclient.discovery_cache", "requests")
"""What the command or the SDK imports only when it is needed, which is often."""
_NOT_OF_THE_COMMAND = ("arv_keepdocker.__main__", "arv_keepdocker.sandbox")


class ImportedBefore:
    """Finds modules of the SDK that were imported before the fork, when the process imports them.

    Those that read the settings or the command line meanwhile are made anew: the package itself, which imports the
    others, and its commands, whose code is only read before.
    """

    def __init__(self) -> None:
        os.environ["HOME"] = os.devnull
        importlib.import_module("arvados")
        self.modules = {name: sys.modules[name] for name in _sdk() if name != "arvados"}
        for command in ("put", "keepdocker"):
            importlib.import_module(f"arvados.commands.{command}")
        self._commands = {name: _Read(name) for name in _sdk() if name.startswith("arvados.commands.")}
        _undo_import_of_sdk()

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name in self._commands:
            return spec_from_loader(name, self._commands[name])
        if name not in self.modules:
            return None
        return ModuleSpec(name, self, is_package=hasattr(self.modules[name], "__path__"))  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """With the first one come the others, as the package imports them all."""
        self.modules["arvados.logging"].log_handler.setStream(sys.stderr)
        for name, each in self.modules.items():
            if name not in sys.modules:
                sys.modules[name] = each
                package, _, own_name = name.rpartition(".")
                setattr(sys.modules[package], own_name, each)


class _Read(SourceFileLoader):
    """Loads a module from code that has been read."""

    def __init__(self, name: str) -> None:
        super().__init__(name, str(sys.modules[name].__file__))
        self._code = super().get_code(name)

    def get_code(self, fullname: str) -> Any:
        return self._code


def _undo_import_of_sdk() -> None:
    """Leave nothing of it but modules that nobody sees: the SDK is still to be imported, and has no settings."""
    arvados = sys.modules["arvados"]
    arvados.logger.removeHandler(arvados.log_handler)
    arvados.config._settings = None
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "arvados" and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
    for name in _sdk():
        del sys.modules[name]


def _sdk() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "arvados"]


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
    import_ours()
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    sys.meta_path.insert(0, ImportedBefore())
    if threading.active_count() > 1:
        sys.exit("what was imported has started a thread, so that this process cannot fork")
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # with the first one, OpenSSL looks for all that it can do
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
