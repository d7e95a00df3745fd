"""The option replace_files: a collection made from files of other collections, without reading their data.

It refuses the same, in the same words, as lib/controller/localdb/collection.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import manifest
from .errors import ApiError

# A part of a file: a block's locator, where in the block it begins, and how long it is.
Segment = tuple[str, int, int]

_TARGET = re.compile(r"/|(?:/(?!\.{1,2}(?:/|$))[^/]+)+")
_HASH = re.compile(r"[0-9a-f]{32}\+\d+")


@dataclass
class Tree:
    """A collection's directories and files; paths have no slash at either end, the root is ""."""

    files: dict[str, list[Segment]] = field(default_factory=dict)
    directories: set[str] = field(default_factory=lambda: {""})

    @classmethod
    def read(cls, text: str) -> Tree:
        tree = cls()
        for line in text.splitlines():
            stream, *words = line.split(" ")
            directory = manifest.unescape(stream)[2:]
            tree.make_directory(directory)
            blocks = [word for word in words if re.match(r"[0-9a-f]{32}\+", word)]
            for word in words[len(blocks) :]:
                start, size, name = word.split(":", 2)
                if manifest.unescape(name) != ".":
                    path = f"{directory}/{manifest.unescape(name)}".lstrip("/")
                    tree.make_directory(path.rpartition("/")[0])
                    tree.files.setdefault(path, []).extend(_segments(blocks, int(start), int(size)))
        return tree

    def make_directory(self, path: str) -> None:
        while path:
            if path in self.files:
                raise ApiError(400, f'replace_files: error creating parent dirs: "/{path}": not a directory')
            self.directories.add(path)
            path = path.rpartition("/")[0]

    def below(self, path: str) -> Tree | list[Segment] | None:
        """What is at a path: a file, a tree, or nothing."""
        if path in self.files:
            return self.files[path]
        if path not in self.directories:
            return None
        start = f"{path}/" if path else ""
        files = {name[len(start) :]: data for name, data in self.files.items() if name.startswith(start)}
        return Tree(files, {"", *(name[len(start) :] for name in self.directories if name.startswith(start))})

    def remove(self, path: str) -> None:
        inside = f"{path}/" if path else ""
        self.files = {n: data for n, data in self.files.items() if n != path and not n.startswith(inside)}
        self.directories = {"", *(n for n in self.directories if n != path and not n.startswith(inside))}

    def put(self, path: str, found: Tree | list[Segment]) -> None:
        self.remove(path)
        self.make_directory(path.rpartition("/")[0])
        if not isinstance(found, Tree):
            self.files[path] = found
            return
        self.make_directory(path)
        for name in found.directories:
            self.make_directory(f"{path}/{name}".strip("/"))
        self.files.update({f"{path}/{name}".lstrip("/"): data for name, data in found.files.items()})

    def text(self) -> str:
        """The manifest: a stream for each directory with files, or with nothing at all in it."""
        lines = [self._stream(directory) for directory in sorted(self.directories)]
        return "".join(lines)

    def _stream(self, directory: str) -> str:
        names = sorted(path for path in self.files if path.rpartition("/")[0] == directory)
        stream = _escape(f"./{directory}" if directory else ".")
        if not names:
            is_empty = directory and not any(other.startswith(f"{directory}/") for other in self.directories)
            return f"{stream} {manifest.EMPTY_BLOCK} 0:0:\\056\n" if is_empty else ""
        starts: dict[str, int] = {}
        end, tokens = 0, []
        for path in names:
            ranges: list[list[int]] = []
            for locator, start, size in self.files[path]:
                if locator not in starts:
                    starts[locator], end = end, end + int(locator.split("+")[1])
                begin = starts[locator] + start
                if ranges and sum(ranges[-1]) == begin:
                    ranges[-1][1] += size
                else:
                    ranges.append([begin, size])
            name = _escape(path.rpartition("/")[2])
            tokens += [f"{begin}:{size}:{name}" for begin, size in ranges or [[0, 0]]]
        return " ".join([stream, *(starts or [manifest.EMPTY_BLOCK]), *tokens]) + "\n"


def _escape(name: str) -> str:
    return re.sub(r"[\x00-\x20\\:]", lambda m: f"\\{ord(m[0]):03o}", name)


def _segments(blocks: list[str], start: int, size: int) -> list[Segment]:
    found, position = [], 0
    for locator in blocks:
        length = int(locator.split("+")[1])
        begin, end = max(start, position), min(start + size, position + length)
        if begin < end:
            found.append((locator, begin - position, end - begin))
        position += length
    return found


def _check(replacements: Mapping[str, str], provided: str) -> None:
    if provided and not any(source.startswith("manifest_text/") for source in replacements.values()):
        reason = "attrs['manifest_text'] was provided, but would not be used because it is not referenced by any"
        raise ApiError(400, f"invalid request: {reason} 'replace_files' entry")
    for target in replacements:
        if not _TARGET.fullmatch(target):
            raise ApiError(400, f'invalid replace_files target: "{target}"')
        for outer in replacements:
            inside = outer == "/" or target.startswith(f"{outer}/")
            if outer != target and inside and replacements[outer]:
                reason = f'cannot operate on target "{target}" inside non-empty target "{outer}"'
                raise ApiError(400, f"replace_files: {reason}")


def replace_files(current: str, provided: str, replacements: Mapping[str, str], read: Callable[[str], str]) -> str:
    """The new manifest; `read` gives that of a portable data hash."""
    _check(replacements, provided)
    before = Tree.read("" if "/" in replacements else current)
    after = Tree.read(before.text())
    for target, source in sorted(replacements.items(), key=lambda item: bool(item[1])):
        path = target.strip("/")
        if not source:
            after.remove(path)
            continue
        name, _, inner = source.partition("/")
        if name == "current":
            tree = before
        elif name == "manifest_text":
            tree = Tree.read(provided)
        elif _HASH.fullmatch(name):
            tree = Tree.read(read(name))
        else:
            raise ApiError(400, f'invalid source "{source}" for replace_files["{target}"]')
        found = tree.below(inner.strip("/"))
        if found is None:
            raise ApiError(400, f'replace_files: nonexistent source "{source}"')
        after.put(path, found)
    return after.text()
