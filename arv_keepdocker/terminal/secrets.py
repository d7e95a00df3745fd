"""Removes API tokens from text, however a library, a server or a program has spelled them."""

import base64
import re
from collections.abc import Iterator

HIDDEN = "(hidden)"
_SHORTEST = 8
"""Characters; what is shorter is no token of Arvados', and may be part of any word."""
_RUN = 16
"""Characters in a row of a token that nobody may see. What is less of the 50 that a token's secret has is no use."""
_SPELLED = re.compile(
    r"\\+(?:x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|(?P<octal>[0-7]{3})|(?P<space>[abfnrtv]))"
    r"|%(?:25)*(?P<percent>[0-9a-fA-F]{2})"
    r"|&\#(?:[xX](?P<entity_x>[0-9a-fA-F]{1,6})|(?P<entity>[0-9]{1,7}));"
    r"|(?P<plain>[^\\])",
    re.DOTALL,
)
_MAY_READ_OTHERWISE = re.compile(r"[\\%&]|[^\x00-\x7f]")
"""What begins an escape, or has a lower case that depends on what is beside it."""
_BASES = {"x": 16, "u": 16, "U": 16, "octal": 8, "percent": 16, "entity_x": 16, "entity": 10}


class Secrets:
    """Finds tokens in text: plain, escaped as in Python, JSON, a shell, a URL or HTML, in hexadecimal or base64 digits,
    broken into lines or otherwise by white space, quotes and commas, and parts of them."""

    def __init__(self) -> None:
        self._runs: dict[int, set[str]] = {}

    def add(self, token: str) -> None:
        """Hide the token and the part of it that is secret."""
        for part in (token, token.rpartition("/")[2]):
            if len(part) >= _SHORTEST:
                for spelling in {*_encodings(part)}:
                    self._add(spelling)

    def _add(self, spelling: str) -> None:
        self._add_runs(spelling)
        if _MAY_READ_OTHERWISE.search(spelling):
            self._add_runs("".join(char for char, _, _ in _characters(spelling)))

    def _add_runs(self, text: str) -> None:
        bare = "".join(filter(_counts, text.lower()))
        if len(bare) >= _SHORTEST:
            length = min(len(bare), _RUN)
            runs = self._runs.setdefault(length, set())
            runs.update(bare[start : start + length] for start in range(len(bare) - length + 1))

    def hidden(self, text: str) -> str:
        """The text without tokens."""
        if not self._runs or len(text) < _SHORTEST:
            return text
        characters = list(_characters(text))
        bare = "".join(char for char, _, _ in characters)
        pieces: list[str] = []
        end = 0
        for first, last in self._token_spans(bare):
            pieces += [text[end : characters[first][1]], HIDDEN]
            end = characters[last][2]
        return "".join([*pieces, text[end:]])

    def _token_spans(self, bare: str) -> Iterator[tuple[int, int]]:
        """The first and last character of each stretch that is a token or a part of one."""
        first = last = -1
        for start in range(len(bare)):
            for length, runs in self._runs.items():
                if bare[start : start + length] not in runs:
                    continue
                if start > last + 1 or first < 0:
                    if first >= 0:
                        yield first, last
                    first = start
                last = max(last, start + length - 1)
        if first >= 0:
            yield first, last


def _encodings(part: str) -> Iterator[str]:
    data = part.encode("utf-8", "surrogateescape")
    yield part
    yield data.hex()
    for before in range(3):  # its position in the text that is encoded with it, as in `user:TOKEN`
        digits = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        digits = digits[(0, 2, 3)[before] : len(digits) - (1 if (before + len(data)) % 3 else 0)]
        yield digits
        yield digits.translate({ord("+"): "-", ord("/"): "_"})


def _characters(text: str) -> Iterator[tuple[str, int, int]]:
    """The characters that a text spells, in lower case, each with where its spelling begins and ends.

    White space and everything else that can separate the pieces of a string is left out.
    """
    for match in _SPELLED.finditer(text):
        char = match["plain"]
        if char is None:
            kind = match.lastgroup or "space"
            number = int(match[kind], _BASES[kind]) if kind in _BASES else 0
            char = chr(number) if number <= 0x10FFFF else ""
        for lowered in char.lower():  # the lower case of one character may be two
            if _counts(lowered):
                yield lowered, match.start(), match.end()


def _counts(char: str) -> bool:
    return char.isprintable() and char not in " '\"`,\\"
