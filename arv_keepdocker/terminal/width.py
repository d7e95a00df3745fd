"""The number of terminal columns that a text takes, which can differ from its number of characters.

https://www.unicode.org/reports/tr11/
"""

import unicodedata

ELLIPSIS = "…"
_WITHOUT = ("Mn", "Me", "Cf")
"""Unicode's categories of what takes no column: marks that are put on the character before, and what is not seen."""


def width(text: str) -> int:
    """The number of columns that printable text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def fitted(text: str, columns: int) -> str:
    """The text, cut to so many columns if it is longer, with an ellipsis at the end."""
    if width(text) <= columns:
        return text
    left = columns - 1
    kept = ""
    for char in text:
        left -= _columns(char)
        if left < 0:
            break
        kept += char
    return kept + ELLIPSIS if columns > 0 else ""


def padded(text: str, columns: int) -> str:
    """The text, padded with spaces on the right to so many columns."""
    return text + " " * (columns - width(text))


def _columns(char: str) -> int:
    if unicodedata.category(char) in _WITHOUT:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
