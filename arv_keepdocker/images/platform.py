"""Platforms, in the terms of Go and the OCI image specification."""

import re
from dataclasses import dataclass

from ..errors import UsageError

_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
"""Other names of architectures, which people and kernels use."""
_VARIANTS = {"armhf": "v7", "armel": "v6"}
"""Debian's names for arm, with the variant that each means."""
_DEFAULT_VARIANTS = {"amd64": "v1", "arm": "v7", "arm64": "v8"}
_KNOWN = {*_ARCHITECTURES.values(), *_ARCHITECTURES, *_VARIANTS, *_DEFAULT_VARIANTS, "ppc64le", "riscv64", "s390x"}
"""Architectures that a user may have given without an operating system."""
_LONGEST = 100


@dataclass(frozen=True)
class Platform:
    """An operating system and an architecture, perhaps with a variant."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def matches(self, other: "Platform") -> bool:
        """Whether they are the same platform, however it is written."""
        return self._normalized() == other._normalized()

    def has_architecture_of(self, other: "Platform") -> bool:
        """Whether they differ at most in the architecture's variant."""
        return self._normalized()[:2] == other._normalized()[:2]

    def _normalized(self) -> tuple[str, str, str]:
        """The platform as containerd compares it (github.com/containerd/platforms: normalizeOS, normalizeArch), except
        that the default variant is spelled out."""
        os, architecture, variant = self.os.lower(), self.architecture.lower(), self.variant.lower()
        if architecture in _VARIANTS:
            architecture, variant = "arm", _VARIANTS[architecture]
        elif architecture == "i386":
            variant = ""
        architecture = _ARCHITECTURES.get(architecture, architecture)
        if architecture in ("arm", "arm64") and variant.isdecimal():
            variant = f"v{variant}"
        return {"macos": "darwin"}.get(os, os), architecture, variant or _DEFAULT_VARIANTS.get(architecture, "")

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """OS/ARCHITECTURE[/VARIANT]. Raises UsageError, which says what that looks like, for anything else."""
        text = text.lower()
        os, *parts = text.split("/")
        if os in _KNOWN or not re.fullmatch(r"[a-z0-9]+/[a-z0-9_-]+(/[a-z0-9.]+)?", text):
            if parts[:1] == ["linux"]:
                parts = parts[1:]
            meant = f"Did you mean {'/'.join(['linux', os, *parts])}?" if os in _KNOWN else None
            raise UsageError(f"{text!r} is not OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64 or linux/arm/v7", meant)
        architecture, *variant = parts
        if architecture in _VARIANTS:
            architecture, variant = "arm", [_VARIANTS[architecture]]
        return cls(os, _ARCHITECTURES.get(architecture, architecture), *variant)

    @classmethod
    def recorded(cls, value: object) -> "Platform | None":
        """The platform in a link's property, which may hold anything; None if it is not a platform."""
        if not isinstance(value, str) or len(value) > _LONGEST:
            return None
        os, _, rest = value.partition("/")
        architecture, _, variant = rest.partition("/")
        return cls(os, architecture, variant) if architecture else None


USUAL = Platform("linux", "amd64")
"""The default: the platform of most compute nodes."""
