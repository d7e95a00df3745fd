"""What the fuzzer found worth keeping, and some more at random; `python -m tests.fuzz` finds more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import archive, reference

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
TARGETS = pytest.mark.parametrize(
    ("name", "check"), [("archive", archive.check), ("reference", reference.check)], ids=["archive", "reference"]
)


@TARGETS
def test_the_corpus(name: str, check: Callable[[bytes], None]) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert len(files) > 10
    for file in files:
        check(file.read_bytes())


@TARGETS
@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400))
def test_bytes_at_random(name: str, check: Callable[[bytes], None], data: bytes) -> None:
    check(data)
