"""Image references: what the user typed, checked as docker checks it, before any request.

The grammar is that of https://github.com/distribution/reference, which docker and podman share.
"""

import re
from dataclasses import dataclass

from ..errors import UsageError

DEFAULT_TAG = "latest"

_HOST_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?", re.ASCII)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]+")
_FULL_HEX = re.compile(r"[0-9a-f]{64}")
_MAX_REPOSITORY = 255
_NOT_PRINTABLE_ASCII = re.compile(r"[^\x21-\x7e]")


@dataclass(frozen=True)
class Reference:
    """An image as the user refers to it: by `repository` and `tag`, `repository` and `digest`, or `id_prefix`.

    A short word of hexadecimal digits (`cafe`) may be a repository or the beginning of an id. It has both `repository`
    and `id_prefix`; as with docker, the name wins if there is an image of that name.
    """

    repository: str | None = None
    tag: str | None = None
    digest: str | None = None
    """`sha256:` and 64 hexadecimal digits: the digest of a manifest or an index, not an image id."""
    id_prefix: str | None = None
    """`sha256:` and some or all of the 64 hexadecimal digits of an image id."""

    @property
    def name(self) -> str | None:
        """The name that Arvados records (`docker_image_repo+tag`) and docker pulls; None for an id."""
        if self.repository is None:
            return None
        if self.digest is not None:
            return f"{self.repository}@{self.digest}"
        return f"{self.repository}:{self.tag}"

    def __str__(self) -> str:
        if self.id_prefix is not None and self.repository is not None:
            return self.repository
        return self.name or self.id_prefix or ""

    def as_id(self) -> "Reference":
        """The reference as an id, when that is what it has turned out to be."""
        return Reference(id_prefix=self.id_prefix)


def parse(image: str, tag: str | None = None) -> Reference:
    """Parse IMAGE [TAG] of the command line.

    Raises UsageError, with the reason, for a name that docker rejects and for two tags.
    """
    _check_characters(image, "image name")
    if tag is None:
        return _parse_whole(image)
    _check_characters(tag, "tag")
    _check_tag(tag)
    if image == "sha256" or image.endswith("@sha256"):
        # arvados-cwl-runner splits `repo@sha256:<hex>` at the colon and passes the halves as IMAGE and TAG.
        return _parse_whole(f"{image}:{tag}")
    if "@" in image or image.startswith("sha256:"):
        raise UsageError(f"{image!r} names one image; it cannot have the tag {tag!r} too")
    repository, given = _split_tag(image)
    if given is not None:
        raise UsageError(f"two tags: {image!r} has the tag {given!r} and TAG is {tag!r}", "Give one of them.")
    return Reference(repository=_checked_repository(repository), tag=tag)


def familiar(name: str) -> str:
    """The name in docker's short form: without the prefixes that docker adds to names of Docker Hub, and podman to
    names without a registry."""
    for prefix in ("docker.io/library/", "docker.io/", "localhost/"):
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def split_recorded(name: str) -> Reference:
    """The parts of a recorded name, which may be any text."""
    repository, at, digest = name.partition("@")
    if at:
        return Reference(repository=repository, digest=digest)
    repository, tag = _split_tag(name)
    return Reference(repository=repository, tag=tag)


def split_query(text: str) -> tuple[str, str | None]:
    """The name and the tag, if any, of a query for images in Arvados, which may be any text."""
    if text.lower().startswith("sha256:"):
        return text, None
    host, slash, rest = text.partition("/")
    name, tag = _split_tag(host.removesuffix(":443") + slash + rest if slash else text)
    return name, tag or None


def _parse_whole(text: str) -> Reference:
    if text.startswith("sha256:"):
        return Reference(id_prefix=_id_prefix(text, text[len("sha256:") :]))
    if _FULL_HEX.fullmatch(text):
        return Reference(id_prefix=f"sha256:{text}")
    text, at, digest = text.partition("@")
    if at:
        # docker takes `repo:tag@digest` too, and only looks at the digest.
        repository = _checked_repository(_split_tag(text)[0])
        algorithm, _, digits = digest.partition(":")
        if algorithm != "sha256" or not _FULL_HEX.fullmatch(digits):
            raise UsageError(f"{digest!r} in {text + at + digest!r} is not sha256: and 64 hexadecimal digits")
        return Reference(repository=repository, digest=digest)
    repository, tag = _split_tag(text)
    if tag is not None:
        _check_tag(tag)
        return Reference(repository=_checked_repository(repository), tag=tag)
    id_prefix = f"sha256:{text}" if _HEX.fullmatch(text) and len(text) < 64 else None
    return Reference(repository=_checked_repository(repository), tag=DEFAULT_TAG, id_prefix=id_prefix)


def _id_prefix(text: str, digits: str) -> str:
    if not _HEX.fullmatch(digits) or len(digits) > 64:
        raise UsageError(f"{text!r} is not an image id: after sha256: come up to 64 hexadecimal digits (0-9, a-f)")
    return f"sha256:{digits}"


def _split_tag(text: str) -> tuple[str, str | None]:
    """Split at the colon before the tag; a colon before a slash precedes a port."""
    slash = text.rfind("/")
    colon = text.find(":", slash + 1)
    if colon < 0:
        return text, None
    return text[:colon], text[colon + 1 :]


def _checked_repository(repository: str) -> str:
    if not repository:
        raise UsageError("the repository in the image name is empty")
    first, slash, rest = repository.partition("/")
    has_host = bool(slash) and (first == "localhost" or "." in first or ":" in first)
    if has_host:
        if not _HOST.fullmatch(first):
            raise UsageError(f"{first!r} in {repository!r} is not a registry's host name and port")
        # docker drops the port that HTTPS implies, from what it stores too; so must the name in Arvados.
        repository = first.removesuffix(":443") + "/" + rest
    path = rest if has_host else repository
    for component in path.split("/"):
        _check_component(component, repository)
    if repository == "sha256" or _FULL_HEX.fullmatch(repository):
        raise UsageError(f"repository {repository!r} would be taken for an image id")
    if len(repository) > _MAX_REPOSITORY:
        raise UsageError(f"repository name of {len(repository)} characters; docker allows {_MAX_REPOSITORY}")
    return repository


def _check_component(component: str, repository: str) -> None:
    if not component:
        raise UsageError(f"repository name {repository!r} has an empty part")
    if component != component.lower():
        raise UsageError(f"repository name {repository!r} must be lowercase")
    if not _COMPONENT.fullmatch(component):
        raise UsageError(
            f"{component!r} in repository name {repository!r}: allowed are a-z and 0-9, "
            "and between them one of . _ __ or hyphens"
        )


def _check_tag(tag: str) -> None:
    if not _TAG.fullmatch(tag):
        reason = "is empty" if not tag else "must be up to 128 of A-Z a-z 0-9 _ . - and not begin with . or -"
        raise UsageError(f"tag {tag!r} {reason}")


def _check_characters(text: str, what: str) -> None:
    if not text:
        raise UsageError(f"the {what} is empty")
    bad = _NOT_PRINTABLE_ASCII.search(text)
    if bad:
        raise UsageError(f"{what} {text!r} contains {bad[0]!r}")
