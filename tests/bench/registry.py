"""Storing an image from its registry, without an engine. `python -m tests.bench.registry --help`

In turn: ours from the registry, `docker pull` and ours from the engine, `docker pull` and upstream. The image is of
several layers, half of it compresses; the next version has one more layer of 10 MB.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from arv_keepdocker.sandbox import Sandbox
from tests.bench import OURS, UPSTREAM, ratio, verdict
from tests.bench.upload import Measured, Site
from tests.engines import RUN, Engine, Registry, any_engine
from tests.registries import Repository, layer_tar

SHARES = (0.06, 0.3, 0.01, 0.5, 0.13)
"""Of the image's size, what each layer has."""
NEW_LAYER = 10 * 10**6
BLOCK = 1 << 26
THREADS = 2
_WRITTEN = re.compile(r'http\.request\.method=GET.* http\.request\.uri="[^"]*/blobs/.*http\.response\.written=(\d+)')


def layer(size: int) -> bytes:
    """Half of it compresses to nothing, here and there."""
    piece = 1 << 16
    parts = (os.urandom(piece) if number % 2 else bytes(piece) for number in range(size // piece))
    return layer_tar("file", b"".join(parts))


class Pictures:
    """The image in the registry and its next versions, made when they are asked for."""

    def __init__(self, registry: Registry, mebibytes: int) -> None:
        self._registry = registry
        self._repository = Repository(registry.host, f"akd-{RUN}/bench")
        self._layers = [layer(int(share * (mebibytes << 20))) for share in SHARES]
        self.size = sum(map(len, self._layers))
        self._blobs: dict[int, bytes] = {}
        with ThreadPoolExecutor(2) as pool:
            self._blobs = dict(zip(map(id, self._layers), pool.map(_compressed, self._layers), strict=True))
        self._number = 0
        self.first = self._pushed(self._layers)

    @property
    def compressed(self) -> int:
        return sum(map(len, self._blobs.values()))

    def next(self) -> str:
        return self._pushed([*self._layers, layer_tar("new", os.urandom(NEW_LAYER))])

    def _pushed(self, layers: Sequence[bytes]) -> str:
        self._number += 1
        tag = f"v{self._number}"
        self._repository.image(layers, tag, lambda data: self._blobs.get(id(data)) or _compressed(data))
        return f"{self._registry.host}/{self._repository.path}:{tag}"

    def fetched(self, since: int) -> int:
        """Bytes of blobs that the registry has sent, from a position in its log on."""
        return sum(map(int, _WRITTEN.findall(self._log()[since:])))

    def position(self) -> int:
        return len(self._log())

    def _log(self) -> str:
        return (self._registry.directory / "log").read_text(errors="replace")


def _compressed(data: bytes) -> bytes:
    return gzip.compress(data, 6)


def pulled(engine: Engine, image: str) -> float:
    start = time.perf_counter()
    engine.docker("pull", "--quiet", image)
    return time.perf_counter() - start


class Bench:
    def __init__(self, rounds: int, engine: Engine, pictures: Pictures, sites: Sequence[Site]) -> None:
        self._rounds = rounds
        self._engine = engine
        self._pictures = pictures
        self._straight, self._ours, self._upstream = sites
        self.met = True

    def verdict(self, what: str, value: float, limit: float, unit: str = "") -> None:
        self.met &= verdict(what, value, limit, unit)

    def first(self) -> None:
        straight: list[Measured] = []
        ours: list[float] = []
        theirs: list[float] = []
        image = self._pictures.first

        def by_engine() -> None:
            self._engine.forget(image)
            pull = pulled(self._engine, image)
            for site, walls in (self._ours, ours), (self._upstream, theirs):
                site.forget(everything=True)
                wall = site.run(image).wall
                walls.append(pull + wall)
                print(f"  docker pull {pull:.2f} s, {site.name} {wall:.2f} s", flush=True)

        def by_registry() -> None:
            self._straight.forget(everything=True)
            straight.append(self._straight.run(image))
            print(f"  from the registry {straight[-1].wall:.2f} s, {straight[-1].cpu:.2f} s CPU", flush=True)

        in_turn(self._rounds, by_registry, by_engine)
        walls = [run.wall for run in straight]
        self.verdict("first version, ratio to docker pull and ours", ratio(walls, ours), 0.35)
        self.verdict("first version, ratio to docker pull and upstream", ratio(walls, theirs), 0.28)
        self.verdict("first version, memory", max(run.memory for run in straight) / 2**20, 512, " MiB")
        self.verdict("first version, disk", max(run.disk for run in straight) / 2**20, 1, " MiB")
        hashes = {self._content(site) for site in (self._straight, self._ours)}
        print("one portable data hash" if len(hashes) == 1 else f"DIFFERENT portable data hashes: {hashes}")
        self.met &= len(hashes) == 1

    def _content(self, site: Site) -> str:
        newest = site.api.collections().list(order=["created_at desc"], limit=1).execute()["items"][0]
        return str(newest["portable_data_hash"])

    def next(self) -> None:
        straight: list[Measured] = []
        ours: list[float] = []
        beyond: list[float] = []

        def by_registry() -> None:
            image = self._pictures.next()
            position = self._pictures.position()
            straight.append(self._straight.run(image))
            beyond.append((self._pictures.fetched(position) - NEW_LAYER) / 2**20)
            beyond.append((straight[-1].sent - NEW_LAYER) / 2**20)

        def by_engine() -> None:
            image = self._pictures.next()
            ours.append(pulled(self._engine, image) + self._ours.run(image).wall)

        in_turn(self._rounds, by_registry, by_engine)
        walls = [run.wall for run in straight]
        print(f"  next: {median(walls):.2f} s from the registry, {median(ours):.2f} s with docker")
        self.verdict("next version, ratio to docker pull and ours", ratio(walls, ours), 0.15)
        self.verdict("next version, fetched or sent beyond the new layer", max(beyond), 1, " MiB")
        repeats = self._repeats()
        self.verdict("next version, beyond a repeat run", median(walls) - median(repeats), 1, " s")

    def _repeats(self) -> list[float]:
        straight: list[float] = []
        ours: list[float] = []
        image = self._pictures.first
        in_turn(
            2 * self._rounds + 1,
            lambda: straight.append(self._straight.run(image).wall),
            lambda: ours.append(self._ours.run(image).wall),
        )
        print(f"  repeat: {median(straight):.2f} s from the registry, {median(ours):.2f} s with docker")
        self.verdict("repeat run, ratio to one with an engine", ratio(straight, ours), 1.2)
        return straight

    def killed(self) -> None:
        site, pictures = self._straight, self._pictures
        site.forget(everything=True)
        site.run(pictures.first, kill_after=pictures.size * 9 // 10)
        position = pictures.position()
        sent = site.run(pictures.first).sent
        largest = max(SHARES) * pictures.compressed
        self.verdict("killed at 90 %, fetched again", pictures.fetched(position) / largest, THREADS, " largest layers")
        self.verdict("killed at 90 %, sent again", (sent - pictures.size / 10) / BLOCK, THREADS, " blocks")


def in_turn(rounds: int, *measures: Callable[[], None]) -> None:
    for number in range(rounds):
        for measure in measures[:: -1 if number % 2 else 1]:
            measure()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mebibytes", type=int, default=1050, help="size of the image, uncompressed")
    options = parser.parse_args()
    programs = {
        "from the registry": (*OURS, "--from-registry"),
        "ours": (*OURS, "--no-universal"),
        "upstream": UPSTREAM,
    }
    with tempfile.TemporaryDirectory() as homes, any_engine() as engine, Registry() as registry:
        pictures = Pictures(registry, options.mebibytes)
        print(f"{pictures.size / 1e6:.0f} MB, {pictures.compressed / 1e6:.0f} MB in the registry", flush=True)
        with Sandbox() as first, Sandbox() as second, Sandbox() as third:
            sites = []
            for (name, program), sandbox in zip(programs.items(), (first, second, third), strict=True):
                (home := Path(homes, name.replace(" ", "-"))).mkdir()
                sites.append(Site(name, program, engine, sandbox, home))
            bench = Bench(options.rounds, engine, pictures, sites)
            bench.first()
            bench.next()
            bench.killed()
    return 0 if bench.met else 1


if __name__ == "__main__":
    sys.exit(main())
