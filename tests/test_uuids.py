"""Ranges of UUIDs, in whatever order a database has them."""

from __future__ import annotations

import itertools
import operator
import string
from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from arv_keepdocker.catalog import uuid_ranges

DIGITS = string.digits + string.ascii_lowercase
UUIDS = st.text(DIGITS, min_size=15, max_size=15).map("zzzzz-o0j2j-".__add__)


def ranges_of(uuid: str, ranges: Sequence[Sequence[Sequence[object]]], key: Callable[[str], list[int]]) -> int:
    """In how many ranges it is, where `key` makes the order."""
    compare: dict[object, Callable[[list[int], list[int]], bool]] = {">": operator.gt, "<=": operator.le}
    return sum(all(compare[how](key(uuid), key(str(end))) for _, how, end in limits) for limits in ranges)


@given(UUIDS, st.integers(1, 50), st.lists(UUIDS), st.permutations(DIGITS + "-"))
def test_every_uuid_is_in_a_range(after: str, parts: int, found: list[str], order: list[str]) -> None:
    ranges = list(uuid_ranges.split(after, parts))
    assert len(ranges) == parts
    for uuid in found:
        assert ranges_of(uuid, ranges, lambda text: list(map(ord, text))) == (uuid > after)

        def strange(text: str) -> list[int]:
            return list(map(order.index, text))

        assert strange(uuid) <= strange(after) or ranges_of(uuid, ranges, strange)


@given(UUIDS, st.integers(1, 1000))
def test_the_ranges_are_of_one_size(after: str, parts: int) -> None:
    ends = [str(end) for limits in uuid_ranges.split(after, parts) for _, how, end in limits if how == "<="]
    positions = [int(uuid[-15:], 36) for uuid in (after, *ends)] + [36**15]
    sizes = {b - a for a, b in itertools.pairwise(positions)}
    assert max(sizes) - min(sizes) <= 1
    assert {uuid[:12] for uuid in ends} <= {after[:12]}


def test_how_many_are_left() -> None:
    assert uuid_ranges.left_after("zzzzz-o0j2j-hzzzzzzzzzzzzzz", 500) == 500
    assert uuid_ranges.left_after("zzzzz-o0j2j-zzzzzzzzzzzzzzz", 500) == 0
