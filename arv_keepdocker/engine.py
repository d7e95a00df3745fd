"""The container engine, through its command line program: docker, or podman, which takes the same commands.

Only JSON is read from it, and its own words on stderr are passed on: they are the only thing that tells "not there"
from "could not ask" (`docker image inspect` exits with 1 and prints `[]` for both).
"""

import contextlib
import functools
import json
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from .errors import EngineError, ImageNotFoundError, quoted
from .platforms import Platform
from .sources.program import Program
from .terminal.waiting import Waiting, unsaid

_NOT_THERE = ("no such image", "image not known")
_PREFIXED_PART = "no 64-byte hexadecimal value"
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_START_DAEMON = "Start the docker daemon, or set DOCKER_HOST to where it listens."
_HINTS = {
    "permission denied while trying to connect": "Ask to be put into the group that may use docker, or run as root.",
    "cannot connect to the docker daemon": _START_DAEMON,
    "failed to connect to the docker api": _START_DAEMON,
}
_MISREAD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading JSON raises that is not what was expected."""
_LONGEST = 1000
"""Characters of anything in the engine's description of an image."""
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")


@dataclass(frozen=True)
class EngineImage:
    """An image that the engine has."""

    id: str
    """What the engine calls the image's Id: `sha256:` and 64 hexadecimal digits. In docker's containerd image store it
    is the digest of a manifest or an index, elsewhere of the image's configuration."""
    size: int | None
    """The engine's estimate of the bytes that saving it gives."""
    created: str | None
    """When the image was made, ISO 8601, as its configuration has it; some images do not say."""
    names: tuple[str, ...]
    """The `repo:tag` names that the engine has for it."""
    platform: Platform | None
    """What it runs on; docker 29 does not say it of an image of which it only has the index."""
    containerd: bool = False
    """Whether it is in docker's containerd image store."""
    several_platforms: bool = False
    """Whether the Id is that of an index, which may have images for several platforms."""


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
            raise EngineError(f"there is no program {names} on PATH", "Install Docker or Podman, or use --engine.")
        return Program(found, self._waiting)

    def find(self, reference: str, platform: Platform | None = None) -> EngineImage | None:
        """The image that the engine resolves `reference` (a name, or `sha256:` and digits) to, or None.

        Raises EngineError when the engine could not be asked or did not understand, and ImageNotFoundError when it has
        the image, but not for `platform`.
        """
        # Not `docker inspect`: a container of that name would be found first.
        status, stdout, stderr = self._program.answer(["image", "inspect", reference])
        if status != 0:
            if any(words in stderr.lower() for words in _NOT_THERE):
                return None
            if _PREFIXED_PART in stderr and reference.startswith("sha256:"):
                # Podman takes the beginning of an id, but not with the prefix; without it, it may be a name.
                image = self.find(reference.removeprefix("sha256:"), platform)
                return image if image is not None and image.id.startswith(reference) else None
            raise self._failure(f"{self.name} could not look for image {reference}", status, stderr)
        image = self._described(reference, stdout)
        if platform is None or (image.platform is not None and image.platform.matches(platform)):
            return image
        return self._of_platform(reference, image, platform)

    def _of_platform(self, reference: str, image: EngineImage, platform: Platform) -> EngineImage:
        """One platform's image of several; only the containerd store has more than one under a name."""
        stderr = ""
        if image.containerd:
            status, stdout, stderr = self._program.answer(["image", "inspect", "--platform", str(platform), reference])
            found = self._described(reference, stdout) if status == 0 else None
            # Docker 29 describes what its index names and it does not have, too, without saying for which platform.
            if found is not None and found.platform is not None and found.platform.matches(platform):
                return replace(found, id=image.id, several_platforms=True)
        words = f": {stderr}" if stderr else f"; it has it for {image.platform}"
        hint = f"Pull it: --pull --platform {platform}"
        raise ImageNotFoundError(f"{self.name} does not have image {reference} for {platform}{words}", hint)

    def _described(self, reference: str, stdout: str) -> EngineImage:
        try:
            image = json.loads(stdout)[0]
            descriptor = image.get("Descriptor") or {}
            platform = Platform(*(_text(image.get(key)) or "" for key in ("Os", "Architecture", "Variant")))
            return EngineImage(
                id=_checked_id(image["Id"]),
                size=_count(image.get("Size")),
                created=_text(image.get("Created")),
                names=tuple(filter(_text, image.get("RepoTags") or ())),
                platform=platform if platform.architecture else None,
                containerd=bool(descriptor),
                several_platforms=str(descriptor.get("mediaType")) in _INDEXES,
            )
        except _MISREAD as error:
            what = f"{self.name}'s description of image {reference} could not be read"
            raise EngineError(f"{what}: {error!r}") from error

    def pull(self, reference: str, show: IO[str] | None, platform: Platform | None = None) -> None:
        """Fetch `reference` from its registry, the engine's own progress going to `show` if given.

        The program ends with this process. Raises EngineError, with the engine's words, when the pull fails.
        """
        command = ["image", "pull", *([] if show is not None else ["--quiet"]), *_platform_flag(platform), reference]
        status, stderr = self._program.act(command, show)
        if status != 0:
            raise self._failure(f"{self.name} could not pull {reference}", status, stderr)

    @contextlib.contextmanager
    def save(self, image: EngineImage) -> Iterator[IO[bytes]]:
        """The archive that the engine writes, to be read to its end inside the `with` block.

        Saved by Id, so that a tag that is moved meanwhile changes nothing. The program is ended when the block is left
        early, and by the kernel when this process dies. Raises EngineError after the block when it failed.
        """
        command = ["image", "save", *self._save_flags(image), image.id]
        with self._program.running(command, dies_with_us=True) as run:
            yield run.stream()
        if run.status != 0:
            error = self._failure(f"{self.name} could not save image {image.id}", run.status, run.stderr)
            raise EngineError(str(error), error.hint or (incomplete_hint(image) if image.containerd else None))

    def _save_flags(self, image: EngineImage) -> list[str]:
        """The containerd store saves all platforms that it has, and only says that something is missing if told which
        is wanted; docker can be told since 28 (API 1.48)."""
        if not image.containerd:
            return []
        status, stdout, _ = self._program.answer(["version", "--format", "{{json .}}"])
        try:
            # What client and server have agreed on.
            version = json.loads(stdout)["Client"]["ApiVersion"].split(".")
            known = status == 0 and [int(part) for part in version] >= [1, 48]
        except _MISREAD:
            known = False
        return _platform_flag(image.platform) if known else []

    def _failure(self, what: str, status: int, stderr: str) -> EngineError:
        # What the wrapper that is podman's docker says each time.
        stderr = "\n".join(
            line for line in stderr.splitlines() if not line.startswith("Emulate Docker CLI using podman")
        )
        hint = next((hint for words, hint in _HINTS.items() if words in stderr.lower()), None)
        if status < 0:
            stderr = f"ended by {_signal_name(-status)}" + (f", after saying: {stderr}" if stderr else "")
        return EngineError(f"{what}: {stderr or f'exit status {status}'}", hint)


def incomplete_hint(image: EngineImage) -> str:
    """What is known to mend an image whose layers docker's containerd store has not kept."""
    name = image.names[0] if image.names else "NAME"
    return (
        f"If layers are missing in docker's image store, pulling alone does not bring them back: "
        f"docker rmi {name}, then {' '.join(['docker pull', *_platform_flag(image.platform), name])}"
    )


def _platform_flag(platform: Platform | None) -> list[str]:
    return ["--platform", str(platform)] if platform is not None else []


def _checked_id(image_id: str) -> str:
    """With the prefix that podman leaves out; it becomes part of a file's name."""
    if not _ID.fullmatch(image_id):
        raise ValueError(f"no image id: {quoted(image_id)}")
    return "sha256:" + image_id.removeprefix("sha256:")


def _text(value: object) -> str | None:
    """Of what may be of any type and length."""
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals
        return f"signal {number}"
