"""What an image runs on, as Go and the OCI image specification name it."""

import re
from dataclasses import dataclass

from .errors import UsageError

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Names of the kernel's, which people use, too."""


@dataclass(frozen=True)
class Platform:
    """An operating system and an architecture, perhaps with a variant."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def matches(self, wanted: "Platform") -> bool:
        """Whether an image for this platform is what was asked for; with no variant asked for, any will do."""
        same = (self.os, self.architecture) == (wanted.os, wanted.architecture)
        return same and wanted.variant in ("", self.variant)

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """OS/ARCHITECTURE[/VARIANT]; raises UsageError for anything else."""
        if not re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?", text):
            raise UsageError(f"{text!r} is not a platform as in linux/amd64 or linux/arm64/v8")
        os, architecture, *variant = text.split("/")
        return cls(os, _ARCHITECTURES.get(architecture, architecture), *variant)


USUAL = Platform("linux", "amd64")
"""What Arvados' compute nodes are, as a rule."""
