"""The container engine, through its command line program `docker`.

Only JSON is read from it, and its own words on stderr are passed on: they are the only thing that tells "not there"
from "could not ask" (`docker image inspect` exits with 1 and prints `[]` for both).
"""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from .errors import EngineError

_NOT_THERE = ("no such image", "image not known")
_START_DAEMON = "Start the docker daemon, or set DOCKER_HOST to where it listens."
_HINTS = {
    "permission denied while trying to connect": "Ask to be put into the group that may use docker, or run as root.",
    "cannot connect to the docker daemon": _START_DAEMON,
    "failed to connect to the docker api": _START_DAEMON,
}
_PR_SET_PDEATHSIG = 1  # prctl(2)
_STDERR_KEPT = 64 * 1024


@dataclass(frozen=True)
class EngineImage:
    """An image that the engine has."""

    id: str
    """What the engine calls the image's Id: `sha256:` and 64 hexadecimal digits."""
    size: int | None
    """The engine's estimate of the bytes that saving it gives."""
    created: str | None
    """When the image was made, ISO 8601, as its configuration has it; some images do not say."""
    names: tuple[str, ...]
    """The `repo:tag` names that the engine has for it."""


class Engine:
    """The engine that `docker` on PATH talks to, as configured by its own environment (DOCKER_HOST, ...).

    Raises EngineError where there is no such program or it cannot reach the engine.
    """

    def __init__(self, program: str = "docker") -> None:
        self._program = program

    def find(self, reference: str) -> EngineImage | None:
        """The image that the engine resolves `reference` (a name, or `sha256:` and digits) to, or None.

        Raises EngineError when the engine could not be asked or did not understand.
        """
        # Not `docker inspect`: a container of that name would be found first.
        status, stdout, stderr = self._run(["image", "inspect", reference])
        if status != 0:
            if any(words in stderr.lower() for words in _NOT_THERE):
                return None
            raise _failure(f"docker could not look for image {reference}", status, stderr)
        try:
            image = json.loads(stdout)[0]
            return EngineImage(
                id=_prefixed(image["Id"]),
                size=image.get("Size"),
                created=image.get("Created") or None,
                names=tuple(image.get("RepoTags") or ()),
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise EngineError(f"docker's description of image {reference} could not be read: {error!r}") from error

    def pull(self, reference: str, show: IO[str] | None) -> None:
        """Fetch `reference` from its registry, docker's own progress going to `show` if given.

        Raises EngineError, with docker's words, when that fails.
        """
        command = ["image", "pull", reference] if show is not None else ["image", "pull", "--quiet", reference]
        status, _, stderr = self._run(command, stdout=show)
        if status != 0:
            raise _failure(f"docker could not pull {reference}", status, stderr)

    @contextmanager
    def save(self, image_id: str) -> Iterator[IO[bytes]]:
        """The archive that `docker image save` writes, to be read to its end inside the `with` block.

        Saved by Id, so that a tag that is moved meanwhile changes nothing. `docker save` is ended when the block is
        left early, and by the kernel when this process dies. Raises EngineError after the block when it failed.
        """
        process = self._start(
            ["image", "save", image_id], stdout=subprocess.PIPE, preexec_fn=_dies_with_parent(os.getpid())
        )
        stderr = _Collector(process.stderr)
        try:
            assert process.stdout is not None
            yield process.stdout
            process.stdout.close()
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
            said = stderr.text()
        if status != 0:
            raise _failure(f"docker could not save image {image_id}", status, said)

    def _run(self, arguments: Sequence[str], stdout: IO[str] | None = None) -> tuple[int, str, str]:
        process = self._start(arguments, stdout=subprocess.PIPE if stdout is None else stdout.fileno())
        stderr = _Collector(process.stderr)
        try:
            output = process.stdout.read() if process.stdout is not None else b""
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
            said = stderr.text()
        return status, output.decode(errors="replace"), said

    def _start(
        self, arguments: Sequence[str], stdout: int, preexec_fn: Callable[[], None] | None = None
    ) -> "subprocess.Popen[bytes]":
        program = shutil.which(self._program)
        if program is None:
            raise EngineError(
                f"there is no program {self._program!r} on PATH", "Install Docker, or its command line program."
            )
        try:
            return subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                preexec_fn=preexec_fn,  # only calls prctl and getppid
            )
        except OSError as error:
            raise EngineError(f"{program} could not be started: {error.strerror}") from error


class _Collector:
    """Reads a pipe to its end in the background, so that its writer never waits, and keeps the last of it."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._kept = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            while chunk := self._pipe.read1(_STDERR_KEPT):  # type: ignore[attr-defined]
                self._kept = (self._kept + chunk)[-_STDERR_KEPT:]

    def text(self) -> str:
        self._thread.join()
        return self._kept.decode(errors="replace").strip()


def _prefixed(image_id: str) -> str:
    return image_id if image_id.startswith("sha256:") else f"sha256:{image_id}"


def _failure(what: str, status: int, stderr: str) -> EngineError:
    hint = next((hint for words, hint in _HINTS.items() if words in stderr.lower()), None)
    if status < 0:
        stderr = f"ended by {signal.Signals(-status).name}" + (f", after saying: {stderr}" if stderr else "")
    return EngineError(f"{what}: {stderr or f'exit status {status}'}", hint)


def _dies_with_parent(parent: int) -> Callable[[], None]:
    """What a child does before it becomes docker: ask the kernel to end it when `parent` is gone.

    A pipe without a reader would end it too, but only at its next write, and the classic image store prepares the
    whole export, which takes long, before the first.
    """
    import ctypes  # late: only saving needs it

    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
