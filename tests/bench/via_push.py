"""How long the next version of a large image takes when the engine pushes it, against the default, in turn.

    python -m tests.bench.via_push [--rounds 5] [--mebibytes 1500] [--rate 0]

The first version was pushed before, so that the engine knows its layers as a registry has them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from arv_keepdocker.sandbox import Sandbox
from tests.bench import OURS, ratio, verdict
from tests.bench.upload import NEW_LAYER, Pictures, Site, put_floor
from tests.engines import any_engine


def measure(rounds: int, pictures: Pictures, sites: list[Site]) -> bool:
    walls: dict[str, list[float]] = {site.name: [] for site in sites}
    for site in sites:
        first = site.run(pictures.first.name)
        print(f"first version, {site.name}: {first.wall:.2f} s wall, {first.cpu:.2f} s CPU", flush=True)
        site.keep()
    floors = []
    for number in range(rounds):
        image = pictures.next()
        for site in sites[:: -1 if number % 2 else 1]:
            site.forget(home=False)
            run = site.run(image.name)
            walls[site.name].append(run.wall)
            print(
                f"next version, {site.name}: {run.wall:.2f} s wall, {run.cpu:.2f} s CPU, "
                f"{run.memory / 2**20:.0f} MiB of memory, {run.sent / 2**20:.2f} MiB sent",
                flush=True,
            )
        floors.append(put_floor(sites[0], NEW_LAYER, 1))
        pictures.engine.forget(image.id)
    pushing, saving = (walls[site.name] for site in sites)
    beyond = statistics.median(pushing) - statistics.median(floors)
    met = verdict("next version, pushing, ratio to saving", ratio(pushing, saving), 0.15)
    return verdict("next version, pushing, beyond sending the new layer", beyond, 2, " s") and met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mebibytes", type=int, default=1500, help="size of the image")
    parser.add_argument("--rate", type=float, default=0, help="bytes that Keep takes in a second (0: all)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as homes,
        Sandbox(discard_blocks=True) as first,
        Sandbox(discard_blocks=True) as second,
        any_engine() as engine,
    ):
        sites = []
        ways = [("pushing", [*OURS, "--via-push"], first), ("saving", [*OURS, "--no-via-push"], second)]
        for name, program, sandbox in ways:
            (home := Path(homes, name)).mkdir()
            sandbox.settings(keep_bandwidth=options.rate)
            sites.append(Site(name, program, engine, sandbox, home))
        return 0 if measure(options.rounds, Pictures(engine, options.mebibytes), sites) else 1


if __name__ == "__main__":
    sys.exit(main())
