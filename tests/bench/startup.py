"""What our own modules add to importing arv-put's. `python -m tests.bench.startup`"""

from __future__ import annotations

import statistics
import sys

from tests.bench import OURS, in_turn, seconds, verdict

ROUNDS = 25


def main() -> int:
    commands = {
        "--help": (*OURS, "--help"),
        "importing arv-put": (sys.executable, "-c", "import arvados.commands.put"),
        "--version": (*OURS, "--version"),
    }
    results = in_turn(ROUNDS, *(lambda c=c: seconds(c) for c in commands.values()))
    for name, times in zip(commands, results, strict=True):
        print(f"{name}: median {statistics.median(times) * 1000:.0f} ms of {ROUNDS} rounds")
    added = statistics.median(a - b for a, b in zip(results[0], results[1], strict=True)) * 1000
    return 0 if verdict("--help beyond the import", added, 50, " ms") else 1


if __name__ == "__main__":
    sys.exit(main())
