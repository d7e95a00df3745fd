"""The journal: a file with notes of what was sent to Keep, so that the next run need not send or read it again.

Each line is one of these:

- a signed locator. It is valid for one token until its signature expires, and Keep does not delete the block before;
- `layer DIFF_ID SIZE BLOCK ...`: the blocks (`md5+size`) of a layer's unit, all of which were sent;
- `blob DIGEST DIFF_ID`: the layer that a blob is when it is unpacked;
- `push PORT REPOSITORY`: where an engine was told to push to, of which the last one is good;
- `image BLOCK DIGEST=SIZE ...`: the layers of a canonical archive whose last block this is; or `-` if it is no such
  archive's. Blocks never change;
- `form BLOCK ID FORM`: the image that the canonical archive is whose last block this is, and whether it is `plain` or
  `universal`.

The file's name has a digest of cluster and token, so that nobody reads in vain what is another's.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..terminal.waiting import Waiting, unsaid
from .cache import locked, replacing
from .locators import block_key, is_signed_until

LIMIT = 20_000
"""Locators to keep: enough for a terabyte in full blocks, in less than 3 MB."""
_READ = 16 << 20
"""Bytes to read from the end of the file: many times what the limits allow."""
_NOTES_LIMIT = 1 << 20
"""Bytes of lines of each other kind to keep."""
_DIGEST, _BLOCK = "sha256:[0-9a-f]{64}", r"[0-9a-f]{32}\+\d{1,8}"
_NOTES = {
    "layer": re.compile(rf"layer {_DIGEST} \d{{1,18}}(?: {_BLOCK})+"),
    "push": re.compile(r"push \d{1,5} [a-z0-9-]{1,100}"),
    "blob": re.compile(rf"blob {_DIGEST} {_DIGEST}"),
    "image": re.compile(rf"image {_BLOCK} (?:-|{_DIGEST}=\d{{1,18}}(?: {_DIGEST}=\d{{1,18}})*)"),
    "form": re.compile(rf"form {_BLOCK} {_DIGEST} (?:plain|universal)"),
}


@dataclass
class Notes:
    """What the journal says, as far as it is still valid."""

    locators: list[str] = field(default_factory=list)
    """The oldest first."""
    layers: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    """By diff id: the size, and the blocks (`md5+size`), all of which have locators."""
    blobs: dict[str, str] = field(default_factory=dict)
    """Diff ids by the digests of blobs."""
    push: tuple[int, str] | None = None
    """The port and the repository that an engine was told to push to."""
    forms: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """By the last block of an archive: the image's id, and whether it is in the universal form."""
    images: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """By the last block of an archive (`md5+size`): its layers' digests, base first, and their sizes; empty if the
    archive is not canonical."""


class Journal:
    """The journal of one token. A journal that cannot be used does not stop a run; `problem` says what is wrong."""

    def __init__(self, path: Path, waiting: Waiting = unsaid) -> None:
        """`waiting` shows that another process holds the file's lock."""
        self._path = path
        self._waiting = waiting
        self.problem: OSError | None = None

    @staticmethod
    def filename(cluster: str, token: str) -> str:
        """The name of the file for a token of a cluster."""
        return hashlib.sha256(f"{cluster} {token}".encode()).hexdigest()[:32] + ".journal"

    def read(self, until: float) -> Notes:
        """Read what is valid until `until` (seconds since 1970) or longer.

        Everything else is removed from the file, and so are the oldest lines if there are too many.
        """
        try:
            if not self._path.exists():
                return Notes()
            with self._locked() as descriptor:
                size = os.fstat(descriptor).st_size
                text = os.pread(descriptor, _READ, max(0, size - _READ)).decode("ascii", "replace")
                # A line without its end was not written completely.
                *lines, torn = text.split("\n")
                kept = _good(lines, until)
                if torn or len(kept) < len(lines) or size > _READ:
                    with replacing(self._path) as new:
                        new.write_text("".join(f"{line}\n" for line in kept))
                return _notes(kept)
        except OSError as error:
            self.problem = error
            return Notes()

    def forget(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def add(self, locator: str) -> None:
        """Note a block that was sent."""
        self._add(locator)

    def add_layer(self, diff_id: str, size: int, blocks: Iterable[str]) -> None:
        """Note that these blocks (`md5+size`), whose locators are in the journal, are the layer's unit."""
        self._add(f"layer {diff_id} {size} {' '.join(blocks)}")

    def add_blob(self, digest: str, diff_id: str) -> None:
        """Note the layer in a blob. Only for blobs that were unpacked and hashed here."""
        self._add(f"blob {digest} {diff_id}")

    def add_push(self, port: int, repository: str) -> None:
        """Note where the engine is told to push to."""
        self._add(f"push {port} {repository}")

    def add_image(self, block: str, layers: Mapping[str, int]) -> None:
        """Note the layers of the canonical archive with this last block (`md5+size`); none if it is not canonical."""
        self._add(f"image {block} {' '.join(f'{digest}={size}' for digest, size in layers.items()) or '-'}")

    def add_form(self, block: str, image_id: str, universal: bool) -> None:
        """Remember which image the canonical archive is that has this last block (`md5+size`)."""
        self._add(f"form {block} {image_id} {'universal' if universal else 'plain'}")

    def _add(self, line: str) -> None:
        try:
            with self._locked() as descriptor:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                os.pwrite(descriptor, b"\n" * torn + f"{line}\n".encode(), size)
        except OSError as error:
            self.problem = error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = locked(self._path, lambda _: self._waiting(f"another run, which keeps {self._path}"))
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _good(lines: Sequence[str], until: float) -> list[str]:
    """The lines to keep, in their order."""
    good = [line for line in lines if is_signed_until(line, until)][-LIMIT:]
    kept = set(good)
    there = set(map(block_key, good))
    left = dict.fromkeys(_NOTES, _NOTES_LIMIT)
    for line in reversed(lines):
        kind = line.partition(" ")[0]
        if kind not in left or line in kept or not _NOTES[kind].fullmatch(line):
            continue
        left[kind] -= len(line)
        if left[kind] > 0 and (kind != "layer" or there.issuperset(line.split()[3:])):
            kept.add(line)
    return [line for line in dict.fromkeys(lines) if line in kept]


def _notes(lines: Iterable[str]) -> Notes:
    notes = Notes()
    for line in lines:
        kind, *words = line.split(" ")
        if kind == "layer":
            notes.layers[words[0]] = int(words[1]), tuple(words[2:])
        elif kind == "blob":
            notes.blobs[words[0]] = words[1]
        elif kind == "push":
            notes.push = int(words[0]), words[1]
        elif kind == "form":
            notes.forms[words[0]] = words[1], words[2] == "universal"
        elif kind == "image":
            pairs = (word.partition("=") for word in words[1:] if word != "-")
            notes.images[words[0]] = {digest: int(size) for digest, _, size in pairs}
        else:
            notes.locators.append(line)
    return notes
