"""Pictures for the documentation, from what is measured here. `python -m tests.bench.pictures --help`

`versions.svg`: what ten versions of an image cost in bytes and seconds, by each way to store them, and by upstream.
`blocks.svg`: the blocks of two versions of an image, and which of them are the same.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.bench import OURS, UPSTREAM
from tests.engines import RUN, Engine, Registry, any_engine

MIB = 1 << 20
RATE = 30e6
"""Bytes per second that Keep takes."""
VERSIONS = 10
BASE = (40, 30, 15, 10, 5)
"""Mebibytes of the layers that all versions have."""
NEW = 10
"""Mebibytes of the layer that each version adds."""
COLORS = ("#b3261e", "#1f6feb", "#8250df", "#1a7f37", "#bf8700")


@dataclass
class Way:
    """One way to store images, in a cluster and with a home of its own."""

    title: str
    command: Sequence[str]
    sandbox: Sandbox
    environment: Mapping[str, str]
    registry: str | None = None
    """Where the images come from, if that is no engine."""
    mebibytes: list[float] = field(default_factory=lambda: [0.0])
    """Sent by the first version, the first two, ..."""
    seconds: list[float] = field(default_factory=lambda: [0.0])

    def store(self, name: str) -> None:
        words = [f"{self.registry}/{name}"] if self.registry is not None else name.split(":")
        self.sandbox.clear_requests()
        start = time.perf_counter()
        done = subprocess.run([*self.command, *words], env=dict(self.environment), capture_output=True, text=True)
        taken = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{self.title}: {done.stderr}")
        puts = [one for one in self.sandbox.requests() if (one["service"], one["method"]) == ("keep", "PUT")]
        self.mebibytes.append(self.mebibytes[-1] + sum(one["request_size"] for one in puts) / MIB)
        self.seconds.append(self.seconds[-1] + taken)
        print(f"{self.title}: {name}: {taken:.1f} s, {self.mebibytes[-1] - self.mebibytes[-2]:.1f} MiB", flush=True)


def ways(engine: Engine, registry: Registry, homes: Path, stack: ExitStack) -> Iterator[Way]:
    for number, (title, command, host) in enumerate(
        (
            ("arvados-python-client (upstream)", UPSTREAM, None),
            ("--via-arv-put", [*OURS, "--via-arv-put"], None),
            ("from docker save", [*OURS, "--no-via-push"], None),
            ("--via-push", [*OURS, "--via-push"], None),
            ("--from-registry", [*OURS, "--from-registry"], registry.host),
        )
    ):
        sandbox = stack.enter_context(Sandbox(discard_blocks=True))
        sandbox.settings(keep_bandwidth=RATE)
        home = homes / str(number)
        home.mkdir()
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("ARVADOS_", "XDG_"))}
        environment.update(HOME=str(home), XDG_CACHE_HOME=str(home / "cache"), TMPDIR=str(home))
        yield Way(title, command, sandbox, {**environment, **engine.environment, **sandbox.environment()}, host)


def layers(sizes: Sequence[int]) -> list[images.Layer]:
    return [{f"random{number}": os.urandom(size * MIB)} for number, size in enumerate(sizes)]


def measure(engine: Engine, registry: Registry, homes: Path) -> list[Way]:
    with ExitStack() as stack:
        measured = list(ways(engine, registry, homes, stack))
        contents = layers(BASE)
        for number in range(VERSIONS):
            contents += layers([NEW]) if number else []
            name = f"akd-{RUN}/tool:1.{number}"
            image = images.build(engine.host, name, layers=contents)
            engine.docker("tag", name, f"{registry.host}/{name}")
            engine.docker("push", "--quiet", f"{registry.host}/{name}")
            for way in measured:
                way.store(name)
            engine.forget(image.id)
        return measured


def curves(measured: Sequence[Way]) -> str:
    """The picture of what the versions cost."""
    width, height, gap, left, top = 300, 240, 90, 60, 60
    parts: list[str] = []
    panels = [
        ("MiB sent, all in all", [way.mebibytes for way in measured]),
        ("seconds, all in all", [way.seconds for way in measured]),
    ]
    for panel, (title, series) in enumerate(panels):
        x0 = left + panel * (width + gap)
        most = max(map(max, series))
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if most / step <= 6)
        scale = height / most
        parts.append(text(x0, top - 16, title, weight="bold"))
        for line in range(0, int(most) + 1, step):
            y = top + height - line * scale
            parts.append(f'<path d="M{x0} {y:.1f}h{width}" stroke="#d0d7de"/>')
            parts.append(text(x0 - 6, y + 4, str(line), anchor="end"))
        for number in range(VERSIONS + 1):
            parts.append(text(x0 + number * width / VERSIONS, top + height + 18, str(number), anchor="middle"))
        parts.append(text(x0 + width / 2, top + height + 38, "versions stored", anchor="middle"))
        for values, color in zip(series, COLORS, strict=True):
            points = " ".join(
                f"{x0 + number * width / VERSIONS:.1f},{top + height - value * scale:.1f}"
                for number, value in enumerate(values)
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
    x, y = left, top + height + 66
    for way, color in zip(measured, COLORS, strict=True):
        said = f"{way.title}: {way.mebibytes[-1]:.0f} MiB, {way.seconds[-1]:.0f} s"
        parts.append(f'<path d="M{x} {y - 4}h24" stroke="{color}" stroke-width="3"/>' + text(x + 32, y, said))
        y += 20
    title = (
        f"{VERSIONS} versions of an image of {sum(BASE)} MiB, each with {NEW} MiB more, to a Keep that takes 30 MB/s"
    )
    return svg(2 * (left + width) + gap - 20, y + 4, title, parts)


def blocks(measured: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """The picture of the blocks of each name, in order; those that two have in common have a line between them."""
    width, left, top, bar, gap = 720, 20, 60, 44, 70
    total = max(sum(size for _, size in those) for those in measured.values())
    parts: list[str] = []
    seen: dict[str, tuple[float, float]] = {}
    for row, (name, those) in enumerate(measured.items()):
        y, x = top + row * (bar + gap), float(left)
        again = sum(size for md5, size in those if md5 in seen)
        said = f"{name}: {sum(size for _, size in those) / MIB:.1f} MiB in {len(those)} blocks"
        parts.append(text(x, y - 8, said + (f", of which {again / MIB:.1f} MiB were there already" if again else "")))
        places = dict(seen)
        for md5, size in those:
            wide = max(size / total * width, 3)
            known = md5 in places
            color = "#d0d7de" if known else COLORS[1]
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{bar}" fill="{color}" stroke="#fff"/>')
            if wide > 60:
                label = f"{md5[:7]}… {size / MIB:.0f} MiB" if wide > 110 else md5[:7]
                parts.append(
                    text(x + wide / 2, y + bar / 2 + 4, label, anchor="middle", fill="#000" if known else "#fff")
                )
            if known:
                before, wide_before = places[md5]
                start, end = before + wide_before / 2, x + wide / 2
                parts.append(
                    f'<path d="M{start:.1f} {y - gap}L{end:.1f} {y - 24}" stroke="#57606a" stroke-dasharray="3 3"/>'
                )
            seen[md5] = x, wide
            x += wide
    y = top + len(measured) * (bar + gap) - gap + 28
    for color, said in ((COLORS[1], "sent"), ("#d0d7de", "in Arvados already")):
        parts.append(
            f'<rect x="{left}" y="{y - 11}" width="14" height="14" fill="{color}"/>' + text(left + 22, y, said)
        )
        y += 20
    return svg(width + 2 * left + 30, y + 4, "The blocks of two versions of an image", parts)


def two_versions(engine: Engine, homes: Path) -> dict[str, list[tuple[str, int]]]:
    """The blocks in which Arvados has an image and its next version, whose last layer is another."""
    found: dict[str, list[tuple[str, int]]] = {}
    base = layers((90, 30, 3, 2, 20))
    versions = {"bio/tool:1.0": base, "bio/tool:1.1": [*base[:4], *layers((25,))]}
    with Sandbox(discard_blocks=True) as sandbox:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("ARVADOS_", "XDG_"))}
        environment.update(HOME=str(homes), XDG_CACHE_HOME=str(homes / "cache"), **sandbox.environment())
        api = _api(sandbox)
        for name, contents in versions.items():
            path = homes / "image.tar"
            with path.open("wb") as file:
                images.write_archive(file, name, layers=contents)
            command = [*OURS, "--from-archive", str(path), name]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            manifest = api.collections().get(uuid=done.stdout.strip()).execute()["manifest_text"]
            locators = [word.split("+") for word in manifest.split()[1:] if "+" in word]
            found[name] = [(md5, int(size)) for md5, size, *_ in locators]
    return found


def _api(sandbox: Sandbox) -> Any:
    from arvados.api import api_from_config

    return api_from_config("v1", sandbox.environment(), cache=False)


def text(x: float, y: float, said: str, anchor: str = "start", weight: str = "normal", fill: str = "#24292f") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{fill}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(said)}</text>'


def svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            'font-family="sans-serif" font-size="12">',
            f"<title>{escape(title)}</title>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            text(20, 24, title, weight="bold"),
            *parts,
            "</svg>\n",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path(".github"), help="where to write them")
    directory = parser.parse_args().directory
    with tempfile.TemporaryDirectory() as homes, any_engine() as engine:
        (directory / "blocks.svg").write_text(blocks(two_versions(engine, Path(homes))))
        with Registry() as registry:
            (directory / "versions.svg").write_text(curves(measure(engine, registry, Path(homes))))


if __name__ == "__main__":
    main()
