"""From which size a layer should have blocks of its own. `python -m tests.bench.threshold`

A low threshold sends less of a next version; each block costs whoever reads the image a request, and the scheduler 64
MiB of scratch space. Nothing is measured here: it is arithmetic on the layers that real images have, rounded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from arv_keepdocker.images import canonical
from arv_keepdocker.images.canonical import BLOCK_SIZE
from arv_keepdocker.images.layers import Layer
from tests.bench import verdict

MIB = 1 << 20
IMAGES: dict[str, list[float]] = {
    "ubuntu:24.04": [78],
    "python:3.12-slim": [75, 9.2, 44, 0.001],
    "python:3.12": [117, 46, 177, 587, 19, 67, 0.001],
    "bioconda, one tool": [15, 0.001, 62],
    "bioconda, a pipeline": [78, 55, 0.01, 1340, 0.2, 0.02],
    "R with packages": [78, 310, 41, 0.1, 1, 880, 3.4, 2.2, 0.02],
    "notebooks": [78, 22, 3, 2.5, 145, 0.01, 0.2, 1.3, 3.9, 610, 2.8, 3.1, 0.01, 5.5, 1.1, 240, 0.4, 0.02, 3.6, 0.003],
}
"""Sizes of the layers in MiB, base first."""
THRESHOLDS = [0.25, 1, 2, 4, 8, 16, 64]
REAL = 500 * MIB
"""Bytes of an image of real size: smaller ones have fewer blocks than can be rounded well."""
HEADERS_1_0 = 3072
"""Bytes around a layer in an archive of Docker 20, which version 1.0 stored as it was."""


def blocks(layers: Sequence[tuple[int, int]], threshold: float) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Size of each block and what is in it, of layers that are known by a number, if those of `threshold` bytes had
    blocks of their own."""
    before = canonical.OWN_BLOCKS
    canonical.OWN_BLOCKS = int(threshold)
    try:
        found = canonical.segments(Layer(f"sha256:{number:064x}", size) for number, size in layers)
    finally:
        canonical.OWN_BLOCKS = before
    for run in found:
        inside = tuple(int(layer.diff_id[7:], 16) for layer in run.layers)
        for number, size in enumerate(run.blocks):
            yield size, (*inside, number)
    yield 4096, (0, *(number for number, _ in layers))


def blocks_of_1_0(layers: Sequence[tuple[int, int]]) -> Iterator[int]:
    """The sizes of the blocks that version 1.0 made: each header beside a layer of 4 MiB or more was one."""
    packed = 0
    for _, size in layers:
        packed += HEADERS_1_0
        if size < canonical.OWN_BLOCKS:
            packed += size
            continue
        yield packed
        packed = 0
        yield from (min(BLOCK_SIZE, size - start) for start in range(0, size, BLOCK_SIZE))
    yield packed + HEADERS_1_0


def reckoned(sizes: Sequence[float]) -> tuple[float, int, int]:
    """What the scheduler reckons with, to what a node unpacks, and the numbers of blocks, ours and 1.0's."""
    layers = [(number, int(size * MIB)) for number, size in enumerate(sizes, 1)]
    ours = list(blocks(layers, canonical.OWN_BLOCKS))
    return len(ours) * BLOCK_SIZE / sum(size for _, size in layers), len(ours), len(list(blocks_of_1_0(layers)))


def scratch(cut: Sequence[tuple[int, object]]) -> float:
    """MiB that the scheduler reckons with: from the manifest's length, 42 characters a block (Arvados:
    lib/dispatchcloud/node_size.go)."""
    return sum(32 + 1 + len(str(size)) + 1 for size, _ in cut) / 42 * BLOCK_SIZE / MIB


def resent(before: Sequence[tuple[int, object]], after: Sequence[tuple[int, object]]) -> float:
    """MiB of the blocks that the second image does not share with the first."""
    known = {inside for _, inside in before}
    return sum(size for size, inside in after if inside not in known) / MIB


def main() -> int:
    print(f"{'image':22} {'from MiB':>8} {'blocks':>6} {'scratch':>8} {'+ layer':>8} {'middle':>8} {'beyond':>8}")
    for name, sizes in IMAGES.items():
        layers = [(number, int(size * MIB)) for number, size in enumerate(sizes, 1)]
        middle = len(layers) // 2
        top = [*layers, (100, 10 * MIB)]
        changed = [*layers[:middle], (100, layers[middle][1]), *layers[middle + 1 :]]
        for threshold in THRESHOLDS:
            cut = list(blocks(layers, threshold * MIB))
            on_top = resent(cut, list(blocks(top, threshold * MIB)))
            in_middle = resent(cut, list(blocks(changed, threshold * MIB)))
            beyond = on_top - 10 + in_middle - sizes[middle]
            mark = "*" if threshold * MIB == canonical.OWN_BLOCKS else ""
            print(
                f"{name:22} {threshold:8g} {len(cut):6} {scratch(cut) / sum(sizes):8.2f} {on_top:8.2f} "
                f"{in_middle:8.2f} {beyond:8.2f} {mark}"
            )
    met = True
    for name, sizes in IMAGES.items():
        share, ours, before = reckoned(sizes)
        if sum(sizes) * MIB >= REAL:
            met &= verdict(f"{name}: 64 MiB times the blocks, to what a node unpacks", share, 1.6)
            met &= verdict(f"{name}: blocks, to those of version 1.0", ours / before, 0.999)
    print(
        "scratch: what the scheduler reckons with, to the image's size; + layer, middle: MiB sent for one more layer\n"
        "of 10 MiB, and for another in the middle; beyond: of that, MiB that are not new; *: what is done"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
