"""Signals that wait until nothing would ignore them, and long waits that end otherwise than they began."""

from __future__ import annotations

import contextlib
import io
import resource
import signal
import subprocess
import sys

import pytest

import arv_keepdocker
from arv_keepdocker.terminal.interrupts import Interrupted, by_signals, postponed


def test_the_process_is_the_callers_again() -> None:
    def state() -> tuple[object, ...]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        return resource.getrlimit(resource.RLIMIT_CORE), sys.unraisablehook, *map(signal.getsignal, numbers)

    before = state()
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()):
        arv_keepdocker.main(["--version"])
    assert not ended.value.code
    assert state() == before


def test_an_interruption_is_raised_at_once() -> None:
    with by_signals(), pytest.raises(Interrupted) as raised:
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.code == 128 + signal.SIGTERM


def test_an_interruption_waits_for_the_end_of_the_block() -> None:
    done = []

    def work() -> None:
        with postponed():
            with postponed():
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGTERM)
                done.append("inner")
            done.append("outer")

    with by_signals(), pytest.raises(Interrupted) as raised:
        work()
    assert raised.value.signal == signal.SIGTERM
    assert done == ["inner", "outer"]
    with postponed():
        pass  # it is raised once


def test_an_interruption_comes_before_what_else_is_wrong() -> None:
    def fail() -> None:
        with postponed():
            signal.raise_signal(signal.SIGINT)
            raise ValueError

    with by_signals(), pytest.raises(Interrupted) as raised:
        fail()
    assert isinstance(raised.value.__context__, ValueError)


# A library's caller forks while its process waits, or has waited a moment ago.
FORKED = """
import io, os, select, signal, sys
from arv_keepdocker.terminal import display

display._PATIENCE = 0.1
begin, end = os.pipe()
with display.Display(io.StringIO()).waiting("the parent"):
    child = os.fork()
    if not child:
        with os.fdopen(end, "w") as stream, display.Display(stream).waiting("the child"):
            signal.pause()
    if select.select([begin], [], [], 20)[0]:
        print(os.read(begin, 1000).decode())
    os.kill(child, signal.SIGKILL)
"""

# The signal comes while the thread is started that watches the first wait.
INTERRUPTED = """
import sys, threading
from arv_keepdocker.terminal import display

display._PATIENCE = 0.1
start = threading.Thread.start

def interrupted(thread):
    threading.Thread.start = start
    raise KeyboardInterrupt

threading.Thread.start = interrupted
told = threading.Event()

class Stream:
    def flush(self):
        pass
    def write(self, text):
        print(text)
        if "the second" in text:
            told.set()

try:
    with display.Display(Stream()).waiting("the first"):
        pass
except KeyboardInterrupt:
    with display.Display(Stream()).waiting("the second"):
        told.wait(20)
"""


@pytest.mark.parametrize(("script", "told"), [(FORKED, "the child"), (INTERRUPTED, "the second")])
def test_only_what_is_waited_for_is_told(script: str, told: str) -> None:
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60)
    assert run.stderr == ""
    assert run.stdout.split("\n", 1)[0] == f"arv-keepdocker: waiting for {told}"
    assert run.stdout.count("waiting") == 1
