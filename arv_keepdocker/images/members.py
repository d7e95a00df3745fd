"""The members of an archive by name: files, and the links that lead to them."""

import bisect
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from ..errors import ArchiveError, quoted
from .layers import Layer, LayerSink
from .tar_headers import Kind, Member

_DOCUMENTS_LIMIT = 64 << 20
_NAMES_LIMIT = 16 << 20
_STEPS_LIMIT = 1_000_000
_LINKS_LIMIT = 255
"""Links to follow from a name to a file at most; the kernel follows 40, Docker 255."""
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_DOCUMENTS = ("manifest.json", "index.json")
_ROOT = {"bin", "dev", "etc", "home", "lib", "proc", "root", "sbin", "sys", "tmp", "usr", "var", ".dockerenv"}


@dataclass(frozen=True, slots=True)
class File:
    """A member that is a file."""

    size: int
    sha256: str
    """Hexadecimal digest of its bytes."""
    document: bytes | None = None
    """Its bytes, if they may be a JSON document."""
    layer: Layer | None = None
    """The layer in the sink; None if it is not a layer, or looked like a document and was not fed."""
    kept: str | None = None
    """The compression of a layer that stays compressed because there is no decoder."""
    problem: str | None = None
    """Why it is not a layer."""
    later: "Callable[[LayerSink], File] | None" = None
    """Reads it now, if it was skipped."""


@dataclass(frozen=True, slots=True)
class _Link:
    symbolic: bool
    target: str
    """Normalized; a symbolic link's may begin with a slash or with `..`."""
    absolute: bool
    """Whether the target begins with a slash in the archive."""


class Members:
    """What is known of an archive's members. Absolute names are relative to the archive, as they are for docker."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self._links: dict[str, _Link] = {}
        self._directories: set[str] = set()
        self._names_size = 0
        self._documents_size = 0
        self._steps = 0
        self._problem: str | None = None

    def problem(self, problem: str) -> None:
        """Note why no engine writes such an archive, if it is the first reason."""
        self._problem = self._problem or problem

    def add_file(self, name: str, file: File) -> None:
        """Add a file. Raises ArchiveError if names and documents take too much memory."""
        name = self._checked(name)
        blob = _BLOB.fullmatch(name)
        if blob is not None and file.sha256 != blob[1]:
            self.problem(f"member {quoted(name)} of the archive is damaged: its digest is sha256:{file.sha256}")
        if name in self.files:
            self._check_same(self.files[name].sha256 == file.sha256, name)
            return
        self._check_same(name not in self._links and name not in self._directories, name)
        self.files[name] = file
        self._documents_size += len(file.document or b"")
        if self._documents_size > _DOCUMENTS_LIMIT:
            raise self.not_an_image() or ArchiveError(f"the archive has more than {_DOCUMENTS_LIMIT >> 20} MiB of JSON")

    def add(self, member: Member) -> None:
        """Add a directory or a link. Raises ArchiveError if names take too much memory."""
        name = self._checked(member.name)
        self._check_same(name not in self.files, name)
        if member.kind is Kind.DIRECTORY:
            self._check_same(name not in self._links, name)
            self._directories.add(name)
            return
        self._check_same(name not in self._directories, name)
        symbolic = member.kind is Kind.SYMBOLIC_LINK
        if symbolic:
            target = posixpath.normpath(member.target)
            outside = _leads_out(posixpath.normpath(posixpath.join(posixpath.dirname(name), target)))
        else:
            target = _inside(member.target)
            outside = _leads_out(target)
        if outside:
            self._points_outside(member.name)
        self._count(target)
        link = _Link(symbolic, target, member.target.startswith("/"))
        self._check_same(self._links.setdefault(name, link) == link, name)

    def find(self, name: str) -> File | None:
        """The file with this name, following links as an engine does; None if there is none."""
        path = _inside(name)
        if path in self.files:
            return self.files[path]
        for _ in range(_LINKS_LIMIT):
            followed = self._followed(path)
            if followed is None:
                return None
            path = followed
            if path in self.files:
                return self.files[path]
        return None

    def check(self) -> None:
        """Raise ArchiveError if the archive does not hold an image, or is one that no engine writes."""
        not_an_image = self.not_an_image()
        if not_an_image is not None:
            raise not_an_image
        names = sorted([*self.files, *self._links, *self._directories], key=_in_order)
        for above, below in pairwise(names):
            if above not in self._directories and below.startswith(above + "/"):
                self._check_same(False, above)
        self._check_absolute_links(names)
        if self._problem is not None:
            raise ArchiveError(self._problem)

    def not_an_image(self) -> ArchiveError | None:
        """An error that says what the archive is, if it is not an image; None otherwise."""
        if any(self.find(name) is not None for name in _DOCUMENTS):
            return None
        for name in (*self.files, *self._links):
            directory, slash, last = name.rpartition("/")
            if last in _DOCUMENTS and slash and directory.count("/") < 2 and self._is_image_in(directory):
                return ArchiveError(
                    f"the archive holds a directory {quoted(directory)} with an image in it, and is not the image",
                    "Pack what is in the directory, without it: tar -cf - -C DIRECTORY . | arv-keepdocker "
                    "--from-archive - ...",
                )
        top = {name.partition("/")[0] for name in (*self.files, *self._links, *self._directories)}
        if ".dockerenv" in top or len(top & _ROOT) > 2:
            return ArchiveError(
                "the archive is a container's or system's file system, as docker export writes it, and not an image",
                "Save the image: docker save NAME. Or make an image of it: docker import FILE NAME.",
            )
        return ArchiveError("this is not an image archive: it has neither manifest.json nor index.json")

    def _is_image_in(self, directory: str) -> bool:
        there = (f"{directory}/manifest.json", f"{directory}/oci-layout")
        return any(name in self.files for name in there)

    def _followed(self, path: str) -> str | None:
        """The path after following the first link in it; None if there is no link."""
        parts = path.split("/")
        at = ""
        for number, part in enumerate(parts):
            self._steps += 1
            if self._steps > _STEPS_LIMIT:
                raise ArchiveError("the archive has too many links in links")
            at = f"{at}/{part}" if at else part
            link = self._links.get(at)
            if link is None:
                continue
            # A hard link to a symbolic link is a symbolic link, relative to its own place.
            target = posixpath.join(posixpath.dirname(at), link.target) if link.symbolic else link.target
            behind = self._links.get(target) if not link.symbolic else None
            if behind is not None and behind.symbolic:
                target = posixpath.join(posixpath.dirname(at), behind.target)
            return _inside("/".join([target, *parts[number + 1 :]]))
        return None

    def _check_absolute_links(self, names: list[str]) -> None:
        """Note links whose absolute target is not in the archive; docker takes those that are for relative ones."""
        keys = [_in_order(name) for name in names]
        for name, link in self._links.items():
            if link.absolute:
                target = _inside(link.target)
                at = bisect.bisect_left(keys, _in_order(target))
                if at == len(names) or not (names[at] + "/").startswith(target + "/"):
                    self._points_outside(name)

    def _checked(self, name: str) -> str:
        normal = _inside(name)
        if _leads_out(normal):
            self._points_outside(name)
        if normal not in self.files:
            self._count(normal)
        return normal

    def _count(self, name: str) -> None:
        self._names_size += len(name)
        if self._names_size > _NAMES_LIMIT:
            raise self.not_an_image() or ArchiveError(f"the archive has more than {_NAMES_LIMIT >> 20} MiB of names")

    def _check_same(self, same: bool, name: str) -> None:
        if not same:
            self.problem(f"the archive has two different members {quoted(name)}")

    def _points_outside(self, name: str) -> None:
        self.problem(f"member {quoted(name)} of the archive points outside of it")


def _inside(name: str) -> str:
    """The normalized name, relative to the archive."""
    return posixpath.normpath(name.lstrip("/") or ".")


def _leads_out(name: str) -> bool:
    return name == ".." or name.startswith("../")


def _in_order(name: str) -> str:
    """A sort key that places a directory's content right after it."""
    return name.replace("/", "\0")
