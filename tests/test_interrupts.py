"""Signals that wait until nothing would ignore them."""

from __future__ import annotations

import contextlib
import io
import resource
import signal

import pytest

import arv_keepdocker
from arv_keepdocker.terminal.interrupts import interrupt, postponed


def test_the_process_is_the_callers_again() -> None:
    def state() -> tuple[object, ...]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        return resource.getrlimit(resource.RLIMIT_CORE), *map(signal.getsignal, numbers)

    before = state()
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()):
        arv_keepdocker.main(["--version"])
    assert not ended.value.code
    assert state() == before


def test_an_interruption_is_raised_at_once() -> None:
    with pytest.raises(KeyError):
        interrupt(KeyError())


def test_an_interruption_waits_for_the_end_of_the_block() -> None:
    done = []

    def work() -> None:
        with postponed():
            with postponed():
                interrupt(KeyError("first"))
                interrupt(KeyError("second"))
                done.append("inner")
            done.append("outer")

    with pytest.raises(KeyError, match="second"):
        work()
    assert done == ["inner", "outer"]
    with postponed():
        pass  # it is raised once


def test_an_interruption_comes_before_what_else_is_wrong() -> None:
    def fail() -> None:
        with postponed():
            interrupt(KeyError())
            raise ValueError

    with pytest.raises(KeyError) as raised:
        fail()
    assert isinstance(raised.value.__context__, ValueError)
