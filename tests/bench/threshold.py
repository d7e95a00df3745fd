"""From which size a layer should have blocks of its own. `python -m tests.bench.threshold`

A low threshold sends less of a next version; each block costs whoever reads the image a request, and the scheduler 64
MiB of scratch space. Nothing is measured here: it is arithmetic on the layers that real images have, rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from arv_keepdocker.blocks import BLOCK_SIZE, LAYER_SIZE

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
HEADERS = 3072
"""Bytes around a layer in an archive of Docker 20."""


def blocks(layers: Sequence[tuple[int, int]], threshold: float) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Size of each block and what is in it, of layers that are known by a number."""
    packed, inside = 0, list[int]()
    for number, size in layers:
        packed += HEADERS
        inside.append(-number)
        if size < threshold:
            packed += size
            inside.append(number)
            continue
        yield packed, tuple(inside)
        packed, inside = 0, []
        for start in range(0, size, BLOCK_SIZE):
            yield min(BLOCK_SIZE, size - start), (number, start)
    yield packed + HEADERS, (*inside, 0)


def scratch(cut: Sequence[tuple[int, object]]) -> float:
    """MiB that the scheduler reckons with: from the manifest's length, 42 characters a block (Arvados:
    lib/dispatchcloud/node_size.go)."""
    return sum(32 + 1 + len(str(size)) + 1 for size, _ in cut) / 42 * BLOCK_SIZE / MIB


def resent(before: Sequence[tuple[int, object]], after: Sequence[tuple[int, object]]) -> float:
    """MiB of the blocks that the second image does not share with the first."""
    known = {inside for _, inside in before}
    return sum(size for size, inside in after if inside not in known) / MIB


def main() -> None:
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
            mark = "*" if threshold * MIB == LAYER_SIZE else ""
            print(
                f"{name:22} {threshold:8g} {len(cut):6} {scratch(cut) / sum(sizes):8.2f} {on_top:8.2f} "
                f"{in_middle:8.2f} {beyond:8.2f} {mark}"
            )
    print(
        "scratch: what the scheduler reckons with, to the image's size; + layer, middle: MiB sent for one more layer\n"
        "of 10 MiB, and for another in the middle; beyond: of that, MiB that are not new; *: what is done"
    )


if __name__ == "__main__":
    main()
