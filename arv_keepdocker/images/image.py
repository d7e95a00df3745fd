"""An image as every source delivers it."""

import hashlib
from dataclasses import dataclass

from .layers import Layer
from .platform import Platform

UNIVERSAL_OF = "org.arvados.keepdocker.configuration"
"""The annotation in a universal document with the configuration that it was made from, in base64."""


@dataclass(frozen=True)
class Selection:
    """Which of a source's images is wanted."""

    name: str | None = None
    """`repo:tag`, or what the user gave instead, to choose among several."""
    platform: Platform | None = None
    """None for the default, linux/amd64."""
    image_id: str | None = None
    """The configuration's digest, which decides if given."""


@dataclass(frozen=True)
class Image:
    """A complete image, checked: its layers have the diff ids in its configuration."""

    config: bytes
    """The configuration, byte for byte."""
    layers: tuple[Layer, ...]
    """Base first; a layer that occurs twice is here twice."""
    platform: Platform
    created: str | None = None
    """When it was built: the configuration's `created`, an RFC 3339 time."""
    names: tuple[str, ...] = ()
    """Its `repo:tag` names in the source, as docker shows them."""
    tags: tuple[str, ...] = ()
    """Its tags without a repository in an OCI image layout: no names, but useful in a hint."""
    universal_of: bytes | None = None
    """If `config` is a universal document: the configuration that it was made from, if the source has that, in the
    document or beside it. Its digest is checked; whether its universal form is `config` is not."""
    digests: tuple[str, ...] = ()
    """Other digests by which the source knows it: of its manifest, and of the index that names it."""
    targets: tuple[str, ...] = ()
    """The digests by which a containerd image store knows the image that has loaded the source, if that is told."""
    warnings: tuple[str, ...] = ()
    """Warnings for the user about an image that can be stored nevertheless."""

    def is_by_manifest(self, recorded: str | None) -> bool:
        """Whether the recorded id is one by which only a containerd image store knows it."""
        return recorded != self.id and self.is_target(recorded)

    def is_target(self, recorded: str | None) -> bool:
        """Whether a containerd image store knows it by the recorded id, as it does an image in the universal form."""
        return recorded in self.targets

    @property
    def id(self) -> str:
        """The image's id, which is the configuration's digest: `sha256:` and 64 hexadecimal digits."""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"
