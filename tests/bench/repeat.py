"""The repeat run: the image is in Arvados already. `python -m tests.bench.repeat`"""

from __future__ import annotations

import statistics
import sys

from tests import images
from tests.bench import OURS, UPSTREAM, in_turn, ratio, seconds, stage, verdict

ROUNDS = 15


def main() -> int:
    with stage() as (engine, sandbox, environment):
        image = images.build(engine.host)
        programs = {"ours": (*OURS, image.name), "upstream": (*UPSTREAM, image.name)}
        seconds(programs["ours"], environment)  # stores it
        for name, program in programs.items():
            sandbox.clear_requests()
            seconds(program, environment)
            requests = sandbox.requests()
            writes = [request for request in requests if request["method"] != "GET"]
            print(f"{name}: {len(requests)} requests, {len(writes)} of them writes")
            if writes:
                return 1
        met = True
        for latency in (0, 20):
            sandbox.settings(latency_ms=latency)
            ours, theirs = in_turn(ROUNDS, *(lambda p=p: seconds(p, environment) for p in programs.values()))
            for name, times in zip(programs, (ours, theirs), strict=True):
                print(f"{name}: median {statistics.median(times):.3f} s of {ROUNDS} rounds, {latency} ms a request")
            met &= verdict("repeat run, ratio to upstream's", ratio(ours, theirs), 1.0)
        return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
