"""Benchmarks: ours and upstream's in turn in one run, since machines are noisy and ratios are less so."""

from __future__ import annotations

import compileall
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import arv_keepdocker
from arv_keepdocker.sandbox import Sandbox
from tests.engines import Engine, any_engine

OURS = (sys.executable, "-m", "arv_keepdocker")
UPSTREAM = (sys.executable, "-m", "arvados.commands.keepdocker")
# As pip does for upstream's: else, with PYTHONDONTWRITEBYTECODE, each of our runs would compile.
compileall.compile_dir(next(iter(arv_keepdocker.__path__)), quiet=1)


@contextmanager
def stage() -> Iterator[tuple[Engine, Sandbox, dict[str, str]]]:
    """An engine, a sandbox, and the environment in which a command uses both and a home of its own."""
    with TemporaryDirectory() as home, Sandbox() as sandbox, any_engine() as engine:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ARVADOS_", "XDG_"))}
        environment.update(HOME=home, XDG_CACHE_HOME=str(Path(home, "cache")))
        yield engine, sandbox, {**environment, **engine.environment, **sandbox.environment()}


def seconds(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """How long the command takes; ends the benchmark if it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    return taken


def in_turn(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """The measures' results, one list each, taken in turn so that what disturbs the machine disturbs all.

    Every other round goes backwards, so that nobody always comes first.
    """
    results: list[list[float]] = [[] for _ in measures]
    for number in range(rounds):
        for measure, result in list(zip(measures, results, strict=True))[:: -1 if number % 2 else 1]:
            result.append(measure())
    return results


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios pair by pair."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def verdict(what: str, value: float, limit: float, unit: str = "") -> bool:
    met = value <= limit
    print(f"{what}: {value:.3f}{unit}, at most {limit:g}{unit} is wanted: {'met' if met else 'MISSED'}")
    return met
