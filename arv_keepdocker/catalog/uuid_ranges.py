"""Ranges of UUIDs, whose random part is spread evenly."""

from collections.abc import Iterator, Sequence

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LENGTH = 15
_END: int = 36**_LENGTH


def left_after(uuid: str, count: int) -> float:
    """An estimate of how many UUIDs are greater than `uuid`, if `count` are not."""
    position = _position(uuid) + 1
    return count * (_END - position) / position


def split(after: str, parts: int) -> Iterator[Sequence[Sequence[object]]]:
    """Filters that divide the objects of one kind whose UUIDs are greater than `after` into `parts` equal ranges.

    The database may order letters and digits in its own way. Whatever the order, each range begins where the one before
    it ends, and the last has no end, so that every UUID is in at least one range.
    """
    prefix, begin = after[:-_LENGTH], _position(after)
    ends = [prefix + _written(begin + (_END - begin) * number // parts) for number in range(1, parts)]
    for low, high in zip([after, *ends], [*ends, None], strict=True):
        yield [["uuid", ">", low], *([["uuid", "<=", high]] if high is not None else [])]


def _position(uuid: str) -> int:
    return int(uuid[-_LENGTH:], 36)


def _written(position: int) -> str:
    digits = ""
    for _ in range(_LENGTH):
        position, digit = divmod(position, 36)
        digits = _DIGITS[digit] + digits
    return digits
