"""Storing an image of 1.5 GB, and its next versions. `python -m tests.bench.upload --help`

Ours and upstream's are measured in turn, each on a sandbox of its own that forgets blocks when it has hashed them. So
are the floors, below which nobody can be: what the engine takes for an archive, and the SDK to put as many bytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.bench import OURS, UPSTREAM, ratio, verdict
from tests.engines import RUN, Engine, any_engine

RATES = {"unlimited": 0.0, "100 MB/s": 100e6, "30 MB/s": 30e6}
SCENES = ("first", "next", "middle", "interrupted")
NEW_LAYER = 10 * 10**6
SLACK = 1 << 20
LAYERS = 6


@dataclass(frozen=True)
class Measured:
    """One run; sizes in bytes."""

    wall: float
    cpu: float
    memory: int
    disk: int
    sent: int
    stored: int


Results = dict[tuple[str, str, str], list[Measured]]
"""By scene, rate and program."""


class Site:
    """A sandbox and a home for one program."""

    def __init__(self, name: str, program: Sequence[str], engine: Engine, sandbox: Sandbox, home: Path) -> None:
        from arvados.api import api_from_config

        self.name = name
        self.program = program
        self.sandbox = sandbox
        self._home = home
        self._kept: set[str] = set()
        self.api = api_from_config("v1", sandbox.environment(), cache=False)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("ARVADOS_", "XDG_"))}
        temporary = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "TMPDIR": str(home)}
        self.environment = {**environment, **temporary, **engine.environment, **sandbox.environment()}

    def forget(self, everything: bool = False, home: bool = True) -> None:
        """Remove what was stored, unless it was before `keep`, and what runs have left at home."""
        if everything:
            self._kept.clear()
        for resource in (self.api.links(), self.api.collections()):
            for item in resource.list(limit=1000).execute()["items"]:
                if item["uuid"] not in self._kept and item.get("owner_uuid") == self._user:
                    resource.delete(uuid=item["uuid"]).execute()
        if home:
            shutil.rmtree(self._home)
            self._home.mkdir()

    def keep(self) -> None:
        """Let what is stored now stay."""
        for resource in (self.api.links(), self.api.collections()):
            self._kept.update(item["uuid"] for item in resource.list(limit=1000).execute()["items"])

    @property
    def _user(self) -> str:
        return str(self.api.users().current().execute()["uuid"])

    def blocks(self) -> list[tuple[str, int]]:
        """Hash and size of every block that was sent."""
        requests = [request for request in self.sandbox.requests() if request["service"] == "keep"]
        return [(one["path"].rpartition("/")[2], one["request_size"]) for one in requests if one["method"] == "PUT"]

    def run(self, image: str, kill_after: int | None = None) -> Measured:
        """Store the image; with `kill_after`, end the run by SIGKILL when as many bytes were sent."""
        self.sandbox.clear_requests()
        start = time.perf_counter()
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [*self.program, *image.rsplit(":", 1)], env=self.environment, stdout=subprocess.DEVNULL, stderr=said
            )
            peak = _Peak(self._home, process.pid)
            if kill_after is not None:
                while sum(size for _, size in self.blocks()) < kill_after and process.poll() is None:
                    time.sleep(0.1)
                process.kill()
            _, status, usage = os.wait4(process.pid, 0) if process.returncode is None else (0, 0, None)
            wall = time.perf_counter() - start
            peak.stop()
            if kill_after is None and status:
                said.seek(0)
                sys.exit(f"{self.name}: status {status}\n{said.read().decode()}")
        blocks = self.blocks()
        assert usage is not None, "the run was over before it could be interrupted"
        return Measured(
            wall=wall,
            cpu=usage.ru_utime + usage.ru_stime,
            memory=peak.memory,
            disk=peak.disk,
            sent=sum(size for _, size in blocks),
            stored=sum(dict(blocks).values()),
        )


class _Peak:
    """The most bytes on disk below a directory, and in a process's memory, at a time."""

    def __init__(self, directory: Path, pid: int) -> None:
        self.disk = self.memory = 0
        self._directory = directory
        self._status = Path(f"/proc/{pid}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            disk = 0
            for path in self._directory.rglob("*"):
                with suppress(OSError):
                    disk += path.lstat().st_blocks * 512
            self.disk = max(self.disk, disk)
            with suppress(OSError, LookupError):
                # Not ru_maxrss, which counts what the process was before it became the program.
                words = self._status.read_text().partition("VmHWM:")[2].split()
                self.memory = max(self.memory, int(words[0]) * 1024)


def save_floor(engine: Engine, image: str) -> tuple[float, float]:
    """Seconds of `docker save` into md5sum, and to its first byte."""
    environment = {**os.environ, **engine.environment}
    start = time.perf_counter()
    saving = subprocess.Popen(["docker", "save", image], env=environment, stdout=subprocess.PIPE)
    assert saving.stdout is not None
    os.set_blocking(saving.stdout.fileno(), True)
    beginning = os.read(saving.stdout.fileno(), 1)
    first = time.perf_counter() - start
    subprocess.run(["md5sum"], stdin=saving.stdout, stdout=subprocess.DEVNULL, check=True)
    saving.wait()
    assert beginning
    assert saving.returncode == 0
    return time.perf_counter() - start, first


PUT_FLOOR = """
import sys, threading, time
import arvados
keep = arvados.api("v1").keep
threads, size = int(sys.argv[1]), int(sys.argv[2])
block = open("/dev/urandom", "rb").read(1 << 26)
parts = [block[number:] + block[:number] for number in range(4)]
def put(number):
    for count in range(number, size >> 26, threads):
        keep.put(parts[count % 4], copies=2)
keep.put(b"x", copies=2)
start = time.perf_counter()
workers = [threading.Thread(target=put, args=(number,)) for number in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(time.perf_counter() - start)
"""


def put_floor(site: Site, size: int, threads: int) -> float:
    """Seconds of KeepClient.put for as many bytes, in so many threads."""
    command = [sys.executable, "-c", PUT_FLOOR, str(threads), str(size)]
    return float(subprocess.run(command, env=site.environment, stdout=subprocess.PIPE, check=True, text=True).stdout)


class Pictures:
    """The image and its next versions, which are made when they are asked for, since each must be new."""

    def __init__(self, engine: Engine, mebibytes: int) -> None:
        self.engine = engine
        size = (mebibytes << 20) // LAYERS
        self.layers = [{f"random{number}": os.urandom(size)} for number in range(LAYERS)]
        self._number = 0
        self.first = self._built(self.layers)

    @property
    def size(self) -> int:
        return sum(len(data) for layer in self.layers for data in layer.values())

    def next(self) -> images.Image:
        """With one more layer on top."""
        return self._built([*self.layers, {"new": os.urandom(NEW_LAYER)}])

    def middle(self) -> images.Image:
        """With another layer in the middle."""
        return self._built([*self.layers[:3], {"changed": os.urandom(self.size // LAYERS)}, *self.layers[4:]])

    def _built(self, layers: Sequence[images.Layer]) -> images.Image:
        self._number += 1
        return images.build(self.engine.host, f"akd-{RUN}/bench:v{self._number}", layers=layers)


class Floors:
    """How fast it can be at most, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def measure(self, scene: str, rate: str, engine: Engine, site: Site, image: images.Image, size: int) -> None:
        save, first = save_floor(engine, image.id)
        self.seconds[f"docker save | md5sum, {scene}, {rate}"].append(save)
        if scene == "first":
            put = put_floor(site, size, 1)
            self.seconds[f"KeepClient.put, {rate}"].append(put)
            self.seconds[f"KeepClient.put by 2 threads, {rate}"].append(put_floor(site, size, 2))
            self.seconds[f"docker save's first byte, {rate}"].append(first)
            self.seconds[f"floor, {rate}"].append(first + max(save - first, put))

    def report(self) -> None:
        for what, values in self.seconds.items():
            print(f"{what}: median {statistics.median(values):.2f} s of {len(values)}")


def measure(options: argparse.Namespace, engine: Engine, sites: Sequence[Site]) -> bool:
    pictures = Pictures(engine, options.mebibytes)
    results: Results = defaultdict(list)
    floors = Floors()
    for rate in options.rates:
        for scene in options.scenes:
            prepare(scene, rate, sites, pictures)
            for number in range(options.rounds):
                image = {"next": pictures.next, "middle": pictures.middle}.get(scene, lambda: pictures.first)()
                for site in sites[:: -1 if number % 2 else 1]:
                    site.forget()
                    if scene == "interrupted":
                        site.run(image.name, kill_after=pictures.size // 2)
                    results[scene, rate, site.name].append(site.run(image.name))
                if scene in ("first", "next"):
                    floors.measure(scene, rate, engine, sites[0], image, pictures.size)
                if image != pictures.first:
                    engine.forget(image.id)
            report(scene, rate, sites, results)
    floors.report()
    return judge(results, floors.seconds)


def prepare(scene: str, rate: str, sites: Sequence[Site], pictures: Pictures) -> None:
    """Let Arvados have what it has before the scene."""
    for site in sites:
        site.forget(everything=True)
        site.sandbox.settings(keep_bandwidth=0)
        if scene in ("next", "middle"):
            site.run(pictures.first.name)
            site.keep()
        site.sandbox.settings(keep_bandwidth=RATES[rate])


def report(scene: str, rate: str, sites: Sequence[Site], results: Results) -> None:
    for site in sites:
        runs = results[scene, rate, site.name]

        def median(what: str, runs: Sequence[Measured] = runs) -> float:
            return float(statistics.median(getattr(run, what) for run in runs))

        print(
            f"{scene}, {rate}, {site.name}: {median('wall'):.2f} s wall, {median('cpu'):.2f} s CPU, "
            f"{median('memory') / 2**20:.0f} MiB of memory, {median('disk') / 2**20:.1f} MiB of disk, "
            f"{median('sent') / 2**20:.2f} MiB sent, {median('stored') / 2**20:.2f} MiB of them different",
            flush=True,
        )


def judge(results: Results, floors: Mapping[str, Sequence[float]]) -> bool:
    verdicts = []
    for (scene, rate, name), runs in results.items():
        if name != "ours":
            continue
        walls = [run.wall for run in runs]
        theirs = [run.wall for run in results[scene, rate, "upstream"]]
        print(f"{scene}, {rate}: {ratio(walls, theirs):.3f} of upstream's wall")
        if (scene, rate) == ("first", "unlimited"):
            verdicts.append(verdict("first upload, ratio to upstream's", ratio(walls, theirs), 0.8))
            verdicts.append(verdict("first upload, ratio to the floor", ratio(walls, floors["floor, unlimited"]), 1.15))
            verdicts.append(verdict("first upload, disk", max(run.disk for run in runs) / 2**20, 1, " MiB"))
        if scene == "next":
            new = (max(run.sent for run in runs) - NEW_LAYER) / SLACK
            verdicts.append(verdict(f"next version, {rate}, bytes beyond the new layer", new, 1, " MiB"))
            if rate == "unlimited":
                saves = floors["docker save | md5sum, next, unlimited"]
                verdicts.append(verdict("next version, ratio to docker save | md5sum", ratio(walls, saves), 1.15))
            if rate == "30 MB/s":
                verdicts.append(verdict("next version at 30 MB/s, ratio to upstream's", ratio(walls, theirs), 0.2))
        memory = max(run.memory for run in runs) / 2**20
        verdicts.append(verdict(f"{scene}, {rate}, peak memory", memory, 512, " MiB"))
    return all(verdicts)


def versions(count: int, engine: Engine, site: Site, mebibytes: int) -> bool:
    """What Keep holds after that many successive versions, each with one more layer."""
    site.forget()
    layers = [{f"random{number}": os.urandom((mebibytes << 20) // LAYERS)} for number in range(LAYERS)]
    base = sum(len(data) for layer in layers for data in layer.values())
    blocks: dict[str, int] = {}
    for number in range(count):
        if number:
            layers.append({f"new{number}": os.urandom(NEW_LAYER)})
        image = images.build(engine.host, f"akd-{RUN}/versions:v{number}", layers=layers)
        site.run(image.name)
        blocks.update(site.blocks())
        engine.forget(image.id)
    least = base + (count - 1) * NEW_LAYER
    what = f"{count} versions, what Keep holds, ratio to one image and the new layers"
    return verdict(what, sum(blocks.values()) / least, 1.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mebibytes", type=int, default=1500, help="size of the image")
    parser.add_argument("--rates", nargs="*", choices=list(RATES), default=list(RATES))
    parser.add_argument("--scenes", nargs="*", choices=SCENES, default=list(SCENES))
    parser.add_argument("--versions", type=int, default=10, help="how many successive versions (0: leave that out)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as homes,
        Sandbox(discard_blocks=True) as first,
        Sandbox(discard_blocks=True) as second,
        any_engine() as engine,
    ):
        (ours := Path(homes, "ours")).mkdir()
        (theirs := Path(homes, "upstream")).mkdir()
        sites = [Site("ours", OURS, engine, first, ours), Site("upstream", UPSTREAM, engine, second, theirs)]
        met = measure(options, engine, sites)
        if options.versions:
            first.settings(keep_bandwidth=0)
            met &= versions(options.versions, engine, sites[0], options.mebibytes // 5)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
