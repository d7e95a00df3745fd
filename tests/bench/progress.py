"""How true the time left is that the display shows. `python -m tests.bench.progress --help`

An image is stored at several rates, and once with Keep stopped in the middle. Each line from 20 % on is compared with
how long it really took from then on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from arv_keepdocker.sandbox import Sandbox
from arv_keepdocker.terminal.transfer_rate import STILL
from tests import images
from tests.bench import OURS
from tests.watching import Screen, Shown, misjudged

LAYERS = 5
SETTLED = 2.0
"""Seconds after which the display knows that Keep has stopped, or goes on."""


class Run:
    """One image stored, with Keep stopped for so many seconds when 40 % are there."""

    def __init__(self, sandbox: Sandbox, pause: float) -> None:
        self._sandbox = sandbox
        self._pause = pause
        self.stopped: tuple[float, float] | None = None

    def watch(self, archive: Path, environment: Mapping[str, str]) -> list[Shown]:
        screen = Screen()
        with screen.open() as slave:
            command = [*OURS, "--force", "--from-archive", str(archive), "bio/tool:1.0"]
            process = subprocess.Popen(command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=slave)
            screen.watch(self._seen)
        if process.wait():
            sys.exit("\n".join(line.text for line in screen.lines))
        return screen.lines

    def _seen(self, line: Shown) -> None:
        if self._pause and self.stopped is None and (line.percent or 0) >= 40:
            self._sandbox.settings(keep_paused=True)
            self.stopped = line.time, line.time + self._pause
            threading.Timer(self._pause, self._sandbox.settings, kwargs={"keep_paused": False}).start()


def judge(what: str, run: Run, lines: list[Shown]) -> bool:
    end = next(line.time for line in lines if "stored " in line.text)
    begin, resumed = run.stopped or (end, end)
    # What was said before Keep stopped could not know that it would.
    fair = [line for line in lines if line.time > resumed + SETTLED] if run.stopped else lines
    told = [line for line in fair if line.left is not None and (line.percent or 0) >= 20]
    wrong = misjudged(fair, end, factor=1.5, tolerance=1.5)
    during = [line for line in lines if line.percent is not None and begin + STILL + SETTLED < line.time < resumed]
    moving = [line.text for line in during if not line.is_still or line.left is not None]
    print(f"{what}: {len(told)} lines with a time left, {len(wrong)} of them wrong by more than a factor of 1.5")
    if run.stopped:
        print(f"{what}: {len(during)} lines while Keep stood still, {len(moving)} of them did not say so")
    for text in [*wrong, *moving]:
        print(f"  {text}")
    return not wrong and not moving


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=600, help="size of the image; at 1 MB/s, a tenth of it")
    parser.add_argument("--pause", type=float, default=60, help="for how many seconds Keep is stopped")
    options = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory() as home, Sandbox(discard_blocks=True) as sandbox:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ARVADOS_", "XDG_"))}
        environment.update(HOME=home, XDG_CACHE_HOME=home, TERM="xterm", **sandbox.environment())
        archive = Path(home, "image.tar")
        for what, rate, share in (("1 MB/s", 1e6, 0.1), ("30 MB/s", 30e6, 1), ("unlimited", 0, 1)):
            size = int((options.mebibytes << 20) * share) // LAYERS
            with archive.open("wb") as file:
                images.write_archive(file, layers=({f"random{number}": os.urandom(size)} for number in range(LAYERS)))
            sandbox.settings(keep_bandwidth=rate)
            for how, pause in (("", 0), (", stopped", options.pause)):
                run = Run(sandbox, pause)
                met &= judge(what + how, run, run.watch(archive, environment))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
