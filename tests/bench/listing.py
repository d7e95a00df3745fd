"""Listing all images of small and large clusters. `python -m tests.bench.listing [IMAGES...]`"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from tempfile import TemporaryDirectory

from arv_keepdocker.sandbox import Sandbox
from tests.bench import OURS, UPSTREAM, in_turn, verdict

SIZES = {100: 15, 1000: 9, 10_000: 5, 50_000: 2}
"""How many images, and rounds."""
WANTED = {
    (100, 0): {"wall": 1.0},
    (100, 20): {"wall": 1.0},
    (10_000, 0): {"wall": 0.45, "sent": 0.1, "received": 0.5},
    (10_000, 20): {"wall": 0.35},
    (50_000, 0): {"wall": 0.18, "memory": 0.2, "sent": 0.1, "received": 0.5},
    (50_000, 20): {"wall": 0.13},
}
"""Ratios to upstream's, by images and milliseconds of latency."""


@dataclass
class Cost:
    """Of one run: seconds, and what it had to do with."""

    wall: float
    cpu: float
    memory: float
    """At its peak, in MiB."""
    requests: float
    sent: float
    """Bodies and queries, in bytes."""
    received: float
    rows: float
    """Of collections, which the server had to read."""


@contextmanager
def cluster(images: int) -> Iterator[tuple[Sandbox, dict[str, str]]]:
    with TemporaryDirectory() as home, Sandbox(seed_images=images) as sandbox:
        # What is installed is compiled.
        other = ("ARVADOS_", "XDG_", "PYTHONDONTWRITEBYTECODE")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(other)}
        yield sandbox, {**environment, "HOME": home, **sandbox.environment()}


def listed(program: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    done = subprocess.run([*program, "images"], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(program)}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout.splitlines()


# Measured from a small process of its own: a child's memory counts from that of its parent on.
_MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
wall, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


def cost(program: Sequence[str], sandbox: Sandbox, environment: Mapping[str, str]) -> Cost:
    sandbox.clear_requests()
    command = [sys.executable, "-I", "-S", "-c", _MEASURE, *program, "images"]
    wall, cpu, memory = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    requests = sandbox.requests()
    return Cost(
        wall,
        cpu,
        memory,
        len(requests),
        sum(request["request_size"] + request["query_size"] for request in requests),
        sum(request["response_size"] for request in requests),
        sum(request["rows"] for request in requests if request["path"].endswith("/collections")),
    )


def compared(images: int, rounds: int, latency: int, sandbox: Sandbox, environment: Mapping[str, str]) -> bool:
    """Print both programs' costs, and whether ours are as wanted."""
    ours: list[Cost] = []
    theirs: list[Cost] = []

    def measure(program: Sequence[str], costs: list[Cost]) -> float:
        costs.append(cost(program, sandbox, environment))
        return costs[-1].wall

    in_turn(rounds, lambda: measure(OURS, ours), lambda: measure(UPSTREAM, theirs))
    print(f"{images} images, {latency} ms a request, median of {rounds} rounds:")
    for name, costs in (("ours", ours), ("upstream", theirs)):
        medians = Cost(*map(statistics.median, zip(*map(astuple, costs), strict=True)))
        print(
            f"  {name:8}  {medians.wall:7.2f} s  {medians.cpu:6.2f} s CPU  {medians.memory:4.0f} MiB  "
            f"{medians.requests:4.0f} requests  {medians.sent:>11,.0f} B sent  {medians.received:>11,.0f} B received  "
            f"{medians.rows:6.0f} rows of collections"
        )
    met = verdict("  rows of collections", max(one.rows for one in ours), 0)
    for what, limit in WANTED.get((images, latency), {}).items():
        ratios = [getattr(a, what) / getattr(b, what) for a, b in zip(ours, theirs, strict=True)]
        met &= verdict(f"  {what}, ratio to upstream's", statistics.median(ratios), limit)
    sys.stdout.flush()
    return met


def main(arguments: Sequence[str]) -> int:
    met = True
    for images in map(int, arguments) if arguments else SIZES:
        with cluster(images) as (sandbox, environment):
            # The order within a second is another.
            if sorted(listed(OURS, environment)) != sorted(listed(UPSTREAM, environment)):
                print(f"{images} images: the two tables differ")
                met = False
            for latency in (0, 20):
                sandbox.settings(latency_ms=latency)
                met &= compared(images, SIZES.get(images, 3), latency, sandbox, environment)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
