"""The container engine, through its command line program: docker, or podman, which takes the same commands.

Only JSON is read from it, and its own words on stderr are passed on: they are the only thing that tells "not there"
from "could not ask" (`docker image inspect` exits with 1 and prints `[]` for both).
"""

import contextlib
import functools
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from ..errors import EngineError, EngineUnavailableError
from ..images.platform import Platform
from ..sources import engine_image, repair_hints
from ..sources.daemon import Daemon
from ..sources.engine_image import EngineImage, PlatformNotFoundError
from ..sources.process import Program, RunningProgram
from ..terminal.waiting import Waiting, unsaid

_NOT_THERE = ("no such image", "image not known")
_LOCAL = ("unix://", "fd://", "/")
_PREFIXED_PART = "no 64-byte hexadecimal value"
_START_DAEMON = "Start the docker daemon, or set DOCKER_HOST to where it listens."
_HINTS = {
    "permission denied while trying to connect": "Ask to be put into the group that may use docker, or run as root.",
    "cannot connect to the docker daemon": _START_DAEMON,
    "failed to connect to the docker api": _START_DAEMON,
}
_NO_PLATFORM_FLAG = ("unknown flag: --platform", '"--platform" requires api version')
"""What docker says of `image inspect --platform` where the API that it speaks is older than 1.49."""

_EMPTY_TAR = bytes(1024)
"""Its two closing blocks; docker 29 takes no archive without them."""


class Engine:
    """The engine that a program talks to, as configured by its own environment (DOCKER_HOST, ...).

    Every method raises EngineError where there is no such program, or it cannot reach the engine.
    """

    def __init__(self, program: str | None = None, waiting: Waiting = unsaid) -> None:
        """`program` is a name or a path; by default docker, and podman where there is no docker."""
        self._wanted = program
        self._waiting = waiting

    @property
    def name(self) -> str:
        """What to call it."""
        return self._program.name

    @functools.cached_property
    def _program(self) -> Program:
        wanted = [self._wanted] if self._wanted else ["docker", "podman"]
        found = next(filter(None, map(shutil.which, wanted)), None)
        if found is None:
            names = " or ".join(map(repr, wanted))
            hint = "Install Docker or Podman, or name the program with --engine."
            if self._wanted:
                hint = "--engine or ARV_KEEPDOCKER_ENGINE names it; without them docker or podman is used."
            raise EngineUnavailableError(f"there is no program {names} on PATH", hint)
        return Program(found, self._waiting)

    @functools.cached_property
    def _daemon(self) -> Daemon:
        return Daemon(self._program.capture, self._failure)

    @property
    def platform(self) -> Platform:
        """The engine's own."""
        return self._daemon.platform

    def find_image(self, reference: str, platform: Platform | None = None) -> EngineImage | None:
        """The image that the engine resolves `reference` (a name, or `sha256:` and digits) to, or None.

        Without `platform`, of several the one for the engine's own. Raises EngineError when the engine could not be
        asked or did not understand, and PlatformNotFoundError when it has the image, but not for that platform.
        """
        image = self.inspect(reference)
        if image is None:
            return None
        if platform is not None:
            return image if image.is_for(platform) else self._of_platform(reference, image, platform)
        if image.several_platforms is not False and not self._is_own(image):
            raise self._not_for(reference, image, self.platform)
        return image

    def inspect(self, reference: str) -> EngineImage | None:
        """The image that the engine resolves `reference` to, for whatever platform it is described. Raises EngineError
        when the engine could not be asked or did not understand."""
        # Not `docker inspect`: a container of that name would be found first.
        status, stdout, stderr = self._program.capture(["image", "inspect", reference])
        if status == 0:
            return self._parse_image(reference, stdout)
        if any(words in stderr.lower() for words in _NOT_THERE):
            return None
        if _PREFIXED_PART in stderr and reference.startswith("sha256:"):
            # Podman takes the beginning of an id, but not with the prefix; without it, it may be a name.
            image = self.inspect(reference.removeprefix("sha256:"))
            return image if image is not None and image.id.startswith(reference) else None
        raise self._failure(f"{self.name} could not look for image {reference}", status, stderr)

    def _is_own(self, image: EngineImage) -> bool:
        return image.platform is not None and image.platform.has_architecture_of(self.platform)

    def _of_platform(self, reference: str, image: EngineImage, platform: Platform) -> EngineImage:
        """One platform's image of several; only the containerd store has more than one under a name."""
        if image.several_platforms is not False:
            found, unknown = self._inspected(reference, image, platform)
            if found is not None:
                return found
            if unknown:
                # The archive will tell.
                return replace(image, platform=platform, size=None, created=None, several_platforms=True)
        raise self._not_for(reference, image, platform)

    def _inspected(self, reference: str, image: EngineImage, platform: Platform) -> tuple[EngineImage | None, bool]:
        """An index's image for the platform, if it is there; and whether docker cannot be asked for that."""
        status, stdout, stderr = self._program.capture(["image", "inspect", "--platform", str(platform), reference])
        if status != 0:
            return None, any(words in stderr.lower() for words in _NO_PLATFORM_FLAG)
        found = self._parse_image(reference, stdout)
        # Docker 29 describes what its index names and it does not have, too, without saying for which platform.
        there = found.is_for(platform)
        return replace(found, id=image.id, several_platforms=True) if there else None, False

    def _not_for(self, reference: str, image: EngineImage, wanted: Platform) -> PlatformNotFoundError:
        there = [image.platform] if image.platform is not None else []
        for platform in engine_image.COMMON if image.several_platforms is not False else ():
            if not any(map(platform.matches, [wanted, *there])):
                found, unknown = self._inspected(reference, image, platform)
                if unknown:
                    break
                there += [found.platform] if found is not None and found.platform is not None else []
        what = f"{self.name} does not have image {reference} for {wanted}"
        has = f"; it has it for {' and '.join(map(str, there))}" if there else ""
        return PlatformNotFoundError(what + has, image, wanted, there)

    def _parse_image(self, reference: str, stdout: str) -> EngineImage:
        try:
            return engine_image.read(stdout, reference, lambda: self._daemon.has_containerd_store)
        except engine_image.MISREAD as error:
            what = f"{self.name}'s description of image {reference} could not be read"
            raise EngineError(f"{what}: {error!r}") from error

    def pull(self, reference: str, show: IO[str] | None, platform: Platform | None = None) -> None:
        """Fetch `reference` from its registry, the engine's own progress going to `show` if given.

        The program ends with this process. Raises EngineError, with the engine's words, when the pull fails.
        """
        command = ["image", "pull", *([] if show is not None else ["--quiet"]), *_platform_flag(platform), reference]
        status, stderr = self._program.run(command, show)
        if status != 0:
            raise self._failure(f"{self.name} could not pull {reference}", status, stderr)

    @contextlib.contextmanager
    def save(self, *images: EngineImage) -> Iterator[IO[bytes]]:
        """The archive of one image or several that the engine writes, to be read to its end inside the `with` block.

        Saved by Id, so that a tag that is moved meanwhile changes nothing. The program is ended when the block is left
        early, and by the kernel when this process dies. Raises EngineError after the block when it failed.
        """
        ids = [image.id for image in images]
        several = ["--multi-image-archive"] if len(images) > 1 and images[0].podman else []
        command = ["image", "save", *self._save_flags(images[0]), *several, *ids]
        with self._program.running(command, dies_with_us=True) as run:
            yield run.stream()
        if run.status != 0:
            error = self._failure(f"{self.name} could not save image {' and '.join(ids)}", run.status, run.stderr)
            hint = error.hint or repair_hints.for_failed_save(self._program.capture, images[0], run.stderr)
            raise EngineError(str(error), hint)

    @functools.cached_property
    def address(self) -> str:
        """Where docker's daemon listens, as far as its client says."""
        if host := os.environ.get("DOCKER_HOST"):
            return host
        status, stdout, _ = self._program.capture(["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"])
        return stdout.strip() if status == 0 else ""

    def is_elsewhere(self, podman: bool) -> bool:
        """Whether the engine says that it is on another machine, where 127.0.0.1 is not the one of this program."""
        if podman:
            status, stdout, _ = self._program.capture(["info", "--format", "{{json .Host.ServiceIsRemote}}"])
            return status == 0 and stdout.strip() == "true"
        return bool(self.address) and not self.address.startswith(_LOCAL)

    def tag(self, image_id: str, name: str) -> None:
        """Give the image one more name. Raises EngineError."""
        status, stderr = self._program.run(["image", "tag", image_id, name], None)
        if status != 0:
            raise self._failure(f"{self.name} could not tag image {image_id}", status, stderr)

    def untag(self, image_id: str, name: str) -> bool:
        """Take the name away again, and nothing else; tells whether it was there. Raises EngineError.

        Docker removes an image together with its last name, also one that had none before. So that name is moved to an
        empty image first, which is removed then.
        """
        image = self.inspect(name)
        if image is None:
            return False
        commands = [["image", "rm", name]]
        if image.id == image_id and set(image.names) <= {name}:
            commands.insert(0, ["image", "import", "-", name])
        for command in commands:
            status, stderr = self._program.run(command, None, given=_EMPTY_TAR)
            if status != 0:
                raise self._failure(f"{self.name} could not remove the name {name}", status, stderr)
        return True

    @contextlib.contextmanager
    def pushing(self, image: EngineImage, name: str) -> Iterator[RunningProgram]:
        """The program that pushes the image to the registry on this machine that the name, which is its own, says.

        Podman needs no such name. It is ended when the block is left early, and by the kernel when this process dies.
        """
        if image.podman:
            flags = ["--tls-verify=false", "--remove-signatures", "--format=v2s2"]  # which keep the configuration
            command = ["image", "push", *flags, image.id, f"docker://{name}"]
        else:
            command = ["image", "push", *self._save_flags(image), name]
        # Where images are to be signed, it would ask for a passphrase.
        with self._program.running(command, dies_with_us=True, environment={"DOCKER_CONTENT_TRUST": "0"}) as run:
            yield run

    def push_failure(self, image: EngineImage, run: RunningProgram) -> EngineError:
        """Why it did not push the image."""
        return self._failure(f"{self.name} could not push image {image.id}", run.status, run.stderr)

    def _save_flags(self, image: EngineImage) -> list[str]:
        """The containerd store saves all platforms that it has, and only says that something is missing if told which
        is wanted."""
        return _platform_flag(image.platform) if image.containerd and self._daemon.saves_platforms else []

    def repair_hint(self, image: EngineImage) -> str | None:
        """What mends an image of which configuration or layers are missing in what was saved."""
        return repair_hints.for_missing_layers(self._program.capture, image) if image.containerd else None

    def _failure(self, what: str, status: int, stderr: str) -> EngineError:
        # What the wrapper that is podman's docker says each time.
        stderr = "\n".join(
            line for line in stderr.splitlines() if not line.startswith("Emulate Docker CLI using podman")
        )
        hint = next((hint for words, hint in _HINTS.items() if words in stderr.lower()), None)
        if status < 0:
            stderr = f"ended by {_signal_name(-status)}" + (f", after saying: {stderr}" if stderr else "")
        kind = EngineUnavailableError if hint is not None else EngineError
        return kind(f"{what}: {stderr or f'exit status {status}'}", hint)


def _platform_flag(platform: Platform | None) -> list[str]:
    return ["--platform", str(platform)] if platform is not None else []


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals
        return f"signal {number}"
