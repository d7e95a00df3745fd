"""Twenty images that share three bases: in one run, and one by one. `python -m tests.bench.many`"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.bench import OURS, in_turn, stage, verdict
from tests.conftest import Cluster

IMAGES = 20
BASES = 3
BASE = 64 << 20
"""Bytes of each base; an image has a layer of a sixteenth of that beside it."""
ROUNDS = 3


def built(host: str | None) -> tuple[list[images.Image], int]:
    """The images, and the bytes of all different layers."""
    bases = [{"base": os.urandom(BASE)} for _ in range(BASES)]
    own = [{"own": os.urandom(BASE // 16)} for _ in range(IMAGES)]
    made = [images.build(host, layers=[bases[number % BASES], layer]) for number, layer in enumerate(own)]
    return made, BASES * BASE + IMAGES * (BASE // 16)


def forget(sandbox: Sandbox, home: Path) -> None:
    """Remove all that was stored, and the notes of what was sent."""
    cluster = Cluster(sandbox)
    user = cluster.api().users().current().execute()["uuid"]
    for resource in (cluster.api().links(), cluster.api().collections()):
        for item in resource.list(filters=[["owner_uuid", "=", user]], limit=1000).execute()["items"]:
            resource.delete(uuid=item["uuid"]).execute()
    cluster.close()
    for path in home.rglob("*.journal"):
        path.unlink()


def run(words: Sequence[str], environment: dict[str, str], lines: str = "") -> None:
    done = subprocess.run([*OURS, *words], env=environment, input=lines, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit status {done.returncode}\n{done.stderr}")


def main() -> int:
    with stage() as (engine, sandbox, environment):
        made, unique = built(engine.host)
        names = [image.name for image in made]
        home = Path(environment["HOME"])
        sent: list[int] = []
        requests: list[int] = []

        def together() -> float:
            sandbox.clear_requests()
            start = time.perf_counter()
            run(["--images-from", "-"], environment, "\n".join(names))
            seconds = time.perf_counter() - start
            asked = sandbox.requests()
            sent.append(sum(one["request_size"] for one in asked if one["service"] == "keep"))
            requests.append(sum(one["service"] == "api" for one in asked))
            return seconds

        def one_by_one() -> float:
            start = time.perf_counter()
            for name in names:
                run([name], environment)
            return time.perf_counter() - start

        def anew(measure: str) -> float:
            forget(sandbox, home)
            return together() if measure == "together" else one_by_one()

        met = True
        for state, rounds in (("none in Arvados", ROUNDS), ("all in Arvados", ROUNDS)):
            sent.clear()
            requests.clear()
            new = state == "none in Arvados"
            ways = (lambda: anew("together"), lambda: anew("one by one")) if new else (together, one_by_one)
            ours, singly = in_turn(rounds, *ways)
            print(f"{IMAGES} images, {state}, median of {rounds} rounds:")
            for name, times in (("in one run", ours), ("one by one", singly)):
                print(f"  {name}: {statistics.median(times):.2f} s")
            ratio = statistics.median(a / b for a, b in zip(ours, singly, strict=True))
            met &= verdict("  wall, ratio to one by one", ratio, 0.4 if new else 0.15)
            if new:
                met &= verdict("  sent beyond the different layers", (max(sent) - unique) / (1 << 20), 1.0, " MiB")
            else:
                met &= verdict("  requests for each image", max(requests) / IMAGES, 3)
        return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
