"""Names of images in archives, as docker shows them."""

import re

from ..errors import ArchiveError, UsageError, quoted
from . import reference

_HUB = ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/")
_LIMIT = 512
"""Characters; docker allows 255 for the repository and 128 for the tag."""
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_PLACEHOLDERS = {"i-was-a-digest"}
"""Tags that mean that there is none, as crane writes them."""


def shown(name: str) -> str:
    """The name in docker's short form: without the prefixes that it adds to names of Docker Hub."""
    prefix = next((prefix for prefix in _HUB if name.startswith(prefix)), "")
    return name[len(prefix) :]


def of_repo_tag(name: str) -> str | None:
    """The name in a RepoTag, as docker shows it; None if it has no tag, has a digest, or is a placeholder.

    Raises ArchiveError for a name that docker rejects.
    """
    try:
        found = reference.parse(shown(name)) if len(name) < _LIMIT else None
    except UsageError as error:
        raise ArchiveError(f"the archive gives its image a name that docker rejects: {error}") from error
    if found is None or found.repository is None:
        raise ArchiveError(f"the archive gives its image an invalid name: {quoted(name)}")
    if found.digest is not None or found.tag in _PLACEHOLDERS or not name.endswith(f":{found.tag}"):
        return None
    return found.name


def of_annotation(text: object) -> str | None:
    """The name in an annotation; None if that holds anything else."""
    if not isinstance(text, str) or ":" not in text:
        return None
    try:
        return of_repo_tag(text)
    except ArchiveError:
        return None


def bare_tag(text: object) -> str | None:
    """The tag in an annotation that holds only a tag; None if it holds anything else."""
    return text if isinstance(text, str) and _TAG.fullmatch(text) and text not in _PLACEHOLDERS else None
