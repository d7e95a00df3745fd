"""Ranges of UUIDs: their random part spreads evenly whatever they are the UUIDs of."""

from collections.abc import Iterator, Sequence

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LENGTH = 15
_END: int = 36**_LENGTH


def left_after(uuid: str, count: int) -> float:
    """About how many UUIDs of a kind are greater, where `count` of them are as great or less."""
    position = _position(uuid) + 1
    return count * (_END - position) / position


def split(after: str, parts: int) -> Iterator[Sequence[Sequence[object]]]:
    """Filters that part the objects whose UUIDs are greater than `after`, all of one kind, in so many equal ranges.

    A database orders UUIDs as its language orders letters. In whichever order: to the first range there is no lower
    and to the last no upper end but `after`, and each of the others begins where one ends, so that every UUID is in
    one range at least.
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
