"""What docker's daemon says of itself: its platform, its image store, the API that it speaks."""

import contextlib
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import EngineError
from ..images.platform import USUAL, Platform
from ..sources.engine_image import MISREAD

_CONTAINERD_STORE = ["driver-type", "io.containerd.snapshotter.v1"]
"""In the DriverStatus of `docker info`, and of no classic store (docker, daemon/containerd/service.go)."""


class Daemon:
    """Asked at most once for each thing, and only when it is needed: each call takes time."""

    def __init__(
        self, run: Callable[[Sequence[str]], tuple[int, str, str]], failure: Callable[..., EngineError]
    ) -> None:
        """`run` gives the exit status, stdout and stderr of a docker command; `failure` makes the error of one."""
        self._run = run
        self._failure = failure

    @functools.cached_property
    def platform(self) -> Platform:
        """The daemon's own; where it does not say, the usual one."""
        try:
            server = self._version["Server"]
            return Platform(str(server["Os"]), str(server["Arch"]))
        except MISREAD:
            return USUAL

    @functools.cached_property
    def saves_platforms(self) -> bool:
        """Whether `docker save` can be told a platform: from API 1.48 on, as client and daemon have agreed."""
        try:
            return [int(part) for part in self._version["Client"]["ApiVersion"].split(".")] >= [1, 48]
        except MISREAD:
            return False

    @functools.cached_property
    def has_containerd_store(self) -> bool:
        """Whether images are in docker's containerd image store; every version of the API tells.

        Raises EngineError if it does not say.
        """
        status, stdout, stderr = self._run(["info", "--format", "{{json .}}"])
        what = "docker could not say which image store it has"
        if status != 0:
            raise self._failure(what, status, stderr)
        try:
            return _CONTAINERD_STORE in (json.loads(stdout)["DriverStatus"] or ())
        except MISREAD as error:
            raise EngineError(f"{what}: {error!r}") from error

    @functools.cached_property
    def _version(self) -> dict[str, Any]:
        status, stdout, _ = self._run(["version", "--format", "{{json .}}"])
        with contextlib.suppress(ValueError, RecursionError):
            version = json.loads(stdout) if status == 0 else None
            return version if isinstance(version, dict) else {}
        return {}
