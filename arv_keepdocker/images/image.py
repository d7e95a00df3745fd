"""One image, as every source delivers it."""

import hashlib
from dataclasses import dataclass

from .layers import Layer
from .platform import Platform

UNIVERSAL_OF = "org.arvados.keepdocker.configuration"
"""The annotation of a universal document that has the configuration that it was made from, in base64."""


@dataclass(frozen=True)
class Selection:
    """Which of several images that a source may have."""

    name: str | None = None
    """`repo:tag`, or what the user gave instead, to choose by where there are several."""
    platform: Platform | None = None
    """None for the usual one."""
    image_id: str | None = None
    """Digest of the configuration, to choose by before everything else."""


@dataclass(frozen=True)
class Image:
    """One whole image, checked: its layers have the digests that its configuration says."""

    config: bytes
    """The configuration, as it came."""
    layers: tuple[Layer, ...]
    """Base first; one that occurs twice is named twice."""
    platform: Platform
    created: str | None = None
    """The configuration's `created`, an RFC 3339 time, if it has one."""
    names: tuple[str, ...] = ()
    """The `repo:tag` names that the source has for it, as docker shows them."""
    tags: tuple[str, ...] = ()
    """Tags that an OCI image layout has for it without a repository; no names, but they help to give one."""
    universal_of: bytes | None = None
    """If `config` says that it is a universal document, the configuration that it says it was made from, where the
    source has that: in the document's annotation, or beside it. It has the digest that the document says; whether the
    universal form of it is `config` again is not checked here."""
    digests: tuple[str, ...] = ()
    """Other digests by which the source knows the image: of its manifest, of the index that names it."""
    targets: tuple[str, ...] = ()
    """The digests by which a containerd image store knows the image that has loaded the source, if that is told."""
    warnings: tuple[str, ...] = ()
    """What a user should know of an image that can be stored all the same."""

    def is_by_manifest(self, recorded: str | None) -> bool:
        """Whether the recorded id is one by which only a containerd image store knows it."""
        return recorded != self.id and self.is_target(recorded)

    def is_target(self, recorded: str | None) -> bool:
        """Whether a containerd image store knows it by the recorded id, as it does an image in the universal form."""
        return recorded in self.targets

    @property
    def id(self) -> str:
        """`sha256:` and the hexadecimal digest of the configuration."""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"
