"""Collection manifests: syntax, portable data hash, what they hold, and permission signatures."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r"(?:[^\x00-\x20\\]|\\[0-3][0-7][0-7])+")
_TOO_WIDE = re.compile(r"[^\\]\\[4-7][0-7][0-7]")
_LOCATOR = re.compile(r"[0-9a-fA-F]{32}\+\d+(?:\+[A-Z][A-Za-z0-9@_-]*)*")
_FILE = re.compile(rf"(\d+):(\d+):({_TOKEN.pattern})")
_SIGNATURE = re.compile(r"\+A([0-9a-f]{40})@([0-9a-f]{8})")
# A locator's hash and size, then its hints.
_BLOCK = re.compile(r"(?<=\s)([0-9a-f]{32}\+\d+)((?:\+[A-Z][A-Za-z0-9@_-]*)*)(?=\s)", re.IGNORECASE)
EMPTY_BLOCK = "d41d8cd98f00b204e9800998ecf8427e+0"


@dataclass(frozen=True)
class Contents:
    """What a manifest holds: its files' paths as written, and their sizes."""

    files: dict[str, int]

    @property
    def size(self) -> int:
        return sum(self.files.values())


def _quoted(word: str | None) -> str:
    return "" if word is None else '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unescape(word: str) -> str:
    """A stream's or file's name without the backslash escapes of manifests."""
    return re.sub(r"\\(\\|[0-7]{3})", lambda m: "\\" if m[1] == "\\" else chr(int(m[1], 8) & 255), word)


def _is_path(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/"))


def _is_stream_name(word: str) -> bool:
    name = unescape(word)
    return _TOKEN.fullmatch(word) is not None and (name == "." or (name.startswith("./") and _is_path(name[2:])))


def _stream_files(number: int, line: str) -> Iterator[tuple[str, int]]:
    """The files of one stream; it refuses the same as the SDK's keep.rb, which the API server uses."""
    words = line.rstrip(" ").split(" ")
    place = f"Manifest invalid for stream {number}: "
    if not _is_stream_name(words[0]):
        raise ValueError(place + f"missing or invalid stream name {_quoted(words[0])}")
    blocks = 1
    while blocks < len(words) and _LOCATOR.fullmatch(words[blocks]):
        blocks += 1
    if blocks == 1:
        raise ValueError(place + f"missing or invalid locator {_quoted(words[1] if words[1:] else None)}")
    if blocks == len(words):
        raise ValueError(place + "no file tokens")
    if _TOO_WIDE.search(words[blocks]):
        raise ValueError(place + f">8-bit encoded chars not allowed on file token {_quoted(words[blocks])}")
    for word in words[blocks:]:
        match = _FILE.fullmatch(word)
        if unescape(word) == "0:0:.":
            continue  # represents an empty directory
        if match is None or not _is_path(unescape(match[3])):
            raise ValueError(place + f"invalid file token {_quoted(word)}")
        yield f"{words[0]}/{match[3]}", int(match[2])
    if line.endswith(" "):
        raise ValueError(place + "trailing space")


def parse(text: str) -> Contents:
    """Read a manifest; ValueError says what is wrong with it in Rails' words."""
    files: dict[str, int] = {}
    if text and not text.endswith("\n"):
        raise ValueError("Invalid manifest: does not end with newline")
    for number, line in enumerate(text.split("\n")[:-1], 1):
        for path, size in _stream_files(number, line):
            files[path] = files.get(path, 0) + size
    return Contents(files)


def strip(text: str) -> str:
    """The manifest without any hints on its locators."""
    return _BLOCK.sub(r"\1", text)


def unsigned(text: str) -> str:
    """The manifest without signatures; other hints stay (measured on Arvados 3.2.1)."""
    return _BLOCK.sub(lambda m: m[1] + _without_signature(m[2]), text)


def _without_signature(hints: str) -> str:
    return "".join(f"+{hint}" for hint in hints.split("+")[1:] if not hint.startswith("A"))


def portable_data_hash(stripped: str) -> str:
    data = stripped.encode()
    return f"{hashlib.md5(data).hexdigest()}+{len(data)}"


def single_file(text: str) -> str | None:
    """The unescaped base name of the only file, or None if there is not exactly one."""
    paths = list(parse(text).files)
    if len(paths) != 1:
        return None
    return unescape(paths[0]).rsplit("/", 1)[-1]


class Signer:
    """Makes and checks the permission hints of locators, with the cluster's signing key."""

    def __init__(self, key: bytes, ttl: int) -> None:
        self._key = key
        self.ttl = ttl

    def hint(self, md5: str, token: str, expiry: int | None = None) -> str:
        until = f"{int(time.time()) + self.ttl if expiry is None else expiry:x}"
        return f"+A{self._digest(md5, token, until)}@{until}"

    def _digest(self, md5: str, token: str, until: str) -> str:
        # The token is the whole string as the client sent it, not its secret alone (measured on Arvados 3.2.1).
        message = f"{md5}@{token}@{until}@{self.ttl:x}".encode()
        return hmac.digest(self._key, message, "sha1").hex()

    def check(self, locator: str, token: str) -> str | None:
        """What is wrong with a locator's signature: None, "expired" or "invalid"."""
        match = _SIGNATURE.search(locator)
        if match is None:
            return "invalid"
        if int(match[2], 16) < time.time():
            return "expired"
        good = hmac.compare_digest(self._digest(locator[:32], token, match[2]), match[1])
        return None if good else "invalid"

    def sign(self, text: str, token: str, not_after: int | None = None) -> str:
        """The manifest with a fresh signature on every block."""
        expiry = int(time.time()) + self.ttl
        if not_after is not None:
            expiry = min(expiry, not_after)
        return _BLOCK.sub(lambda m: m[1] + _without_signature(m[2]) + self.hint(m[1][:32], token, expiry), text)

    def verifies(self, text: str, token: str) -> bool:
        """Whether every block of a manifest is signed for this token."""
        return all(match[1] == EMPTY_BLOCK or self.check(match[0], token) is None for match in _BLOCK.finditer(text))
