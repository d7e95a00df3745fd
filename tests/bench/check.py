"""The check of 200 images in one run, and reading their bytes with the SDK. `python -m tests.bench.check`"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from arv_keepdocker.images import archive
from arv_keepdocker.images.canonical import arrange, padding, unit_header
from arv_keepdocker.images.image import Selection
from arv_keepdocker.keep.locators import manifest
from arv_keepdocker.sandbox import Sandbox
from tests import canonical, images
from tests.bench import OURS, in_turn, ratio, verdict

IMAGES = 200
BASES = 20
BASE = 48 << 20
OWN = 5 << 20
"""Bytes of the layer that each image has beside its base."""
ROUNDS = 3
LIMIT = 512 << 10
"""KiB of memory."""


def stored(environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The UUIDs of the images' collections, and all their different blocks."""
    api = api_of(environment)
    bases = [{"base": os.urandom(BASE)} for _ in range(BASES)]
    uuids: list[str] = []
    blocks: dict[str, str] = {}
    for number in range(IMAGES):
        file = io.BytesIO()
        name = images.unique_name()
        made = images.write_archive(file, name, layers=[bases[number % BASES], {"own": os.urandom(OWN)}])
        found = list(locators(api, file.getvalue()))
        blocks.update({locator[:32]: locator for locator in found})
        size = sum(int(locator.split("+")[1]) for locator in found)
        body = {"manifest_text": manifest(f"{made.id}.tar", size, found), "name": f"image {number}"}
        uuids.append(api.collections().create(body=body).execute()["uuid"])
        for link_class, said in (("docker_image_hash", made.id), ("docker_image_repo+tag", name)):
            link = {"link_class": link_class, "name": said, "head_uuid": uuids[-1]}
            api.links().create(body=link).execute()
    return uuids, blocks


_SENT: dict[bytes, str] = {}


def api_of(environment: dict[str, str]) -> Any:
    from arvados.api import api_from_config

    return api_from_config("v1", environment, cache=False)


def locators(api: Any, data: bytes) -> Iterator[str]:
    """The blocks of the canonical archive of an image, which are stored."""
    kept = canonical.Kept()
    arrangement = arrange(archive.read_image(io.BytesIO(data), kept, Selection()), universal=False)
    for segment in arrangement.segments:
        unit = b"".join(
            unit_header(layer) + kept.layers[layer.stored_digest] + bytes(padding(layer.size))
            for layer in segment.layers
        )
        start = 0
        for size in segment.blocks:
            yield put(api, unit[start : start + size])
            start += size
    yield put(api, arrangement.end)


def put(api: Any, data: bytes) -> str:
    header = data[:512]  # it has the layer's digest
    if header not in _SENT or len(data) < OWN:
        _SENT[header] = str(api.keep.put(data, copies=1))
    return _SENT[header]


def read(blocks: dict[str, str], api: Any) -> float:
    """Seconds that the SDK takes to read all blocks."""
    from arvados.keep import KeepBlockCache, KeepClient

    cache = KeepBlockCache()
    cache.cache_max = 0
    client: Any = KeepClient(api_client=api, block_cache=cache)
    start = time.perf_counter()
    for locator in blocks.values():
        client.get(locator)
    return time.perf_counter() - start


def check(uuids: list[str], environment: dict[str, str], memory: list[int]) -> float:
    """Seconds that the check takes from start to end."""
    words = [*OURS, "--dry-run", "--from-arvados", "--images-from", "-"]
    start = time.perf_counter()
    process = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n".join(uuids))
    process.stdin.close()
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    taken = time.perf_counter() - start
    memory.append(usage.ru_maxrss)
    if process.returncode or [line.split()[0] for line in lines] != ["good"] * len(uuids):
        sys.exit(f"exit status {process.returncode}\n" + "\n".join(lines[:10]))
    return taken


def main() -> int:
    with TemporaryDirectory() as home, Sandbox() as sandbox:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ARVADOS_", "XDG_"))}
        environment.update(HOME=home, XDG_CACHE_HOME=str(Path(home, "cache")), **sandbox.environment())
        # In a process of its own: what it needs of memory would be counted for those that are started here.
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            uuids, blocks = process.submit(stored, environment).result()
        api = api_of(environment)
        size = sum(int(locator.split("+")[1]) for locator in blocks.values())
        print(f"{len(uuids)} images, {size >> 20} MiB in {len(blocks)} blocks")
        memory: list[int] = []
        checks, reads = in_turn(ROUNDS, lambda: check(uuids, environment, memory), lambda: read(blocks, api))
        for name, times in (("check", checks), ("the SDK's client", reads)):
            print(f"{name}: {', '.join(f'{seconds:.2f}' for seconds in times)} s")
        met = verdict("wall, ratio to reading", ratio(checks, reads), 1.2)
        met &= verdict("memory", max(memory) / 1024, LIMIT / 1024, " MiB")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
