"""A program that is run for its answer: how much of that is taken, and what is said while it takes long."""

import contextlib
import fcntl
import io
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from ..errors import EngineError
from ..terminal import interrupts
from ..terminal.waiting import Waiting, unsaid

_LONGEST_ANSWER = 16 << 20
"""Bytes; an image's description has some kilobytes, and at most twice its configuration's 4 MiB."""
_BUFFER = 64 << 10
_PIPE_SIZE = 1 << 20
_CHUNK = 1 << 20
_MOMENT = 100
"""Milliseconds after a program's end in which what it has written is read, whoever may still write more."""
_PR_SET_PDEATHSIG = 1  # prctl(2)


class Program:
    """A container engine's command line program. Every method raises EngineError where it cannot be started."""

    def __init__(self, path: str, waiting: Waiting) -> None:
        self.name = os.path.basename(path)
        self._path = path
        self._waiting = waiting

    def capture(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """Its exit status, and what it says on stdout and stderr.

        Raises EngineError when it says far more than an answer.
        """
        output = bytearray()
        with self.running(arguments) as run:
            while data := run.read_available(_CHUNK):
                output += data
                if len(output) > _LONGEST_ANSWER:
                    what = f"{self.name} {' '.join(arguments)}"
                    raise EngineError(f"{what}: the answer is longer than {_LONGEST_ANSWER >> 20} MiB")
        return run.status, output.decode(errors="replace"), run.stderr

    def run(self, arguments: Sequence[str], show: IO[str] | None, given: bytes = b"") -> tuple[int, str]:
        """Its exit status and what it says on stderr; what it says on stdout goes to `show`, if given.

        It is `given` at most 4 KiB on stdin. The program ends with this process.
        """
        with self.running(arguments, dies_with_us=True, stdout=show, given=given) as run:
            while run.has_output and run.read_available(_CHUNK):
                pass
        return run.status, run.stderr

    @contextlib.contextmanager
    def running(
        self,
        arguments: Sequence[str],
        dies_with_us: bool = False,
        stdout: IO[str] | None = None,
        environment: Mapping[str, str] | None = None,
        given: bytes = b"",
    ) -> Iterator["RunningProgram"]:
        """The program at work; it has ended after the block, which may be left early. `environment` is added to
        ours, and at most 4 KiB are `given` to it on stdin."""
        waiting = unsaid if stdout is not None else self._waiting  # its progress says enough
        process = self._start(arguments, stdout, dies_with_us, environment, given)
        try:
            with contextlib.closing(
                RunningProgram(process, lambda: waiting(f"{self.name} {' '.join(arguments)}"))
            ) as run:
                yield run
                run.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise

    def _start(
        self,
        arguments: Sequence[str],
        stdout: IO[str] | None,
        dies_with_us: bool,
        environment: Mapping[str, str] | None,
        given: bytes,
    ) -> "subprocess.Popen[bytes]":
        ours = {name: value for name, value in os.environ.items() if name != "ARVADOS_API_TOKEN"}
        try:
            with interrupts.postponed(), _readable_file(given) as stdin:
                return subprocess.Popen(
                    [self._path, *arguments],
                    stdin=stdin,
                    stdout=subprocess.PIPE if stdout is None else stdout.fileno(),
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    preexec_fn=_dies_with_parent(os.getpid()) if dies_with_us else None,
                    env={**ours, **(environment or {})},
                )
        except OSError as error:
            raise EngineError(f"{self._path} could not be started: {error.strerror}") from error


@contextlib.contextmanager
def _readable_file(data: bytes) -> Iterator[int]:
    """A descriptor that gives the data, which a pipe can hold, and then ends."""
    reading, writing = os.pipe()
    try:
        try:
            os.write(writing, data)
        finally:
            os.close(writing)
        yield reading
    finally:
        os.close(reading)


class RunningProgram:
    """A program at work."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", waiting: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self._process = process
        self._waiting = waiting
        self._stderr = _Collector(process.stderr)
        self._stdout = process.stdout
        if self._stdout is not None:
            _widen(self._stdout)

    @property
    def status(self) -> int:
        """The exit status, when it has ended; less than 0 for a signal's number."""
        return int(self._process.returncode)

    @property
    def stderr(self) -> str:
        """The last of what it has said there, when it has ended."""
        return self._stderr.text

    @property
    def has_output(self) -> bool:
        """Whether its stdout is read here."""
        return self._stdout is not None

    def stream(self) -> IO[bytes]:
        """Its stdout, to be read to the end."""
        return io.BufferedReader(_Stream(self), _BUFFER)

    def read_available(self, size: int) -> bytes:
        """Some of its stdout; nothing at the end."""
        assert self._stdout is not None
        return os.read(self._stdout.fileno(), size) if self._has_more(self._stdout) else b""

    def goes_on(self, milliseconds: int) -> bool:
        """Whether it may still do something, after that time or earlier; what it writes on stdout is dropped."""
        assert self._stdout is not None
        ended = self._process.poll() is not None
        if not _readable(self._stdout, milliseconds):
            return not ended
        return bool(os.read(self._stdout.fileno(), _CHUNK))

    def readinto(self, buffer: memoryview) -> int:
        """As of a raw stream."""
        assert self._stdout is not None
        return os.readv(self._stdout.fileno(), [buffer]) if self._has_more(self._stdout) else 0

    def _has_more(self, stdout: IO[bytes]) -> bool:
        """Wait until there is more to read, or the end; or the program has ended, though somebody that it has started
        may still have its stdout open."""
        ended = self._process.poll() is not None
        if _readable(stdout, _MOMENT):
            return True
        if not ended:
            with self._waiting():
                while not _readable(stdout, _MOMENT) and self._process.poll() is None:
                    pass
        return _readable(stdout, _MOMENT)

    def wait(self) -> None:
        """Wait for its end."""
        if self._stdout is not None:
            self._stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_MOMENT / 1000)
            return
        with self._waiting():
            self._process.wait()

    def close(self) -> None:
        if self._stdout is not None:
            self._stdout.close()
        self._stderr.close()


class _Stream(io.RawIOBase):
    """What a program writes, for io.BufferedReader."""

    def __init__(self, run: RunningProgram) -> None:
        self._run = run

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._run.readinto(buffer)


class _Collector:
    """Reads a pipe in the background, so that its writer never waits, and keeps the last of it."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._kept = b""
        self._until: float | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise EngineError(f"the engine's output cannot be read: {error}") from error

    def _read(self) -> None:
        with self._pipe:
            while self._until is None or time.monotonic() < self._until:
                if not _readable(self._pipe, _MOMENT):
                    if self._until is not None:
                        return
                elif chunk := os.read(self._pipe.fileno(), _BUFFER):
                    self._kept = (self._kept + chunk)[-_BUFFER:]
                else:
                    return

    def close(self) -> None:
        """The writer has ended: read what it has written, though somebody that it has started may still write."""
        self._until = time.monotonic() + 1
        self._thread.join()

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace").strip()


def _readable(pipe: IO[bytes], milliseconds: int | None) -> bool:
    """Whether there is something to read, or the end, within that time."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(milliseconds))


def _widen(pipe: IO[bytes]) -> None:
    """Let the pipe hold more than 64 KiB, for fewer changes between its two processes."""
    with contextlib.suppress(OSError):  # the system has a limit for all pipes of a user
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


def _dies_with_parent(parent: int) -> Callable[[], None]:
    """What a child does before it becomes docker: ask the kernel to end it when `parent` is gone.

    A pipe without a reader would end it too, but only at its next write, and the classic image store prepares the
    whole export, which takes long, before the first.
    """
    import ctypes  # late: only pulling and saving need it

    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
