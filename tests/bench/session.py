"""What a terminal shows while images are stored, written to .github/SESSION.md. `python -m tests.bench.session`"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.bench import OURS
from tests.engines import RUN, Engine, any_engine
from tests.watching import Screen, Shown

FILE = Path(__file__).parent.parent.parent / ".github" / "SESSION.md"
RATE = 8e6
"""Bytes per second that Keep takes, so that there is something to be seen."""
REPOSITORIES = f"akd-{RUN}"
"""In the place of `bio`: the engine may be the user's, and have images of that name."""
LIST = "pipeline.txt"
SCENES = (
    ("The first upload", "bio/tool:1.0", None),
    ("The next version: only its new layer is sent", "bio/tool:1.1", None),
    ("Once more: it is there", "bio/tool:1.1", None),
    ("A dry run of what is new", "--dry-run bio/tool:1.2", None),
    ("Interrupted with Ctrl-C", "bio/other:1.0", 60),
    ("The same command continues", "bio/other:1.0", None),
    ("Twenty images that share three bases", f"--images-from {LIST}", None),
    ("What is there", "images bio/tool:1.1 --format wide", None),
)
"""Titles, arguments, and at how many percent Ctrl-C is pressed."""
HEAD = f"""\
# A session

What a terminal shows, with the seconds since each command was given; of the line that is redrawn, about one state a
second. Keep takes {RATE / 1e6:.0f} MB/s here, so that there is something to be seen. Recorded by
`python -m tests.bench.session`; a test compares it with what is shown today.
"""


@dataclass
class Scene:
    title: str
    words: str
    lines: list[tuple[float, str]] = field(default_factory=list)
    """What was shown, and after how many seconds."""

    def __str__(self) -> str:
        shown = "".join(f"{seconds:6.1f}  {line}\n" for seconds, line in self.lines)
        return f"\n## {self.title}\n\n```text\n$ arv-keepdocker {self.words}\n{shown}```\n"


def play(engine: Engine) -> Iterator[Scene]:
    """The scenes, one after the other, in a cluster of their own."""
    chance = random.Random(1)
    base = {"base": chance.randbytes(20 << 20)}
    for month, name in enumerate(("tool:1.0", "tool:1.1", "tool:1.2", "other:1.0"), 3):
        layers = [base, {"tool": chance.randbytes(10 << 20)}]
        if name == "other:1.0":
            layers = [{"part": chance.randbytes(6 << 20)} for _ in range(4)]
        images.build(engine.host, f"{REPOSITORIES}/{name}", layers=layers, created=f"2024-0{month}-01T12:00:00Z")
    bases = [{"base": chance.randbytes(8 << 20)} for _ in range(3)]
    steps = [f"{REPOSITORIES}/step-{number:02}:1.0" for number in range(1, 21)]
    for number, name in enumerate(steps):
        images.build(engine.host, name, layers=[bases[number % 3], {"step": chance.randbytes(1 << 19)}])
    with tempfile.TemporaryDirectory() as home, Sandbox() as sandbox:
        Path(home, LIST).write_text("\n".join(steps))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ARVADOS_", "XDG_"))}
        environment.update(HOME=home, XDG_CACHE_HOME=home, TERM="xterm", **engine.environment, **sandbox.environment())
        sandbox.settings(keep_bandwidth=RATE, workbench2_url="https://workbench.example.org")
        for title, words, interrupted_at in SCENES:
            scene = Scene(title, words)
            _run(words, environment, interrupted_at, scene)
            yield scene


def _run(words: str, environment: Mapping[str, str], interrupted_at: int | None, scene: Scene) -> None:
    screen = Screen(columns=120)
    with screen.open() as slave:
        start = time.monotonic()
        given = words.replace("bio/", f"{REPOSITORIES}/").replace(LIST, str(Path(environment["HOME"], LIST)))
        command = [*OURS, *given.split()]
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, start_new_session=True
        )
        screen.watch(_presses(process.pid, interrupted_at))
    process.wait()
    last = -1.0
    for line in screen.lines:
        seconds, text = line.time - start, _as_bio(line.text)
        if line.is_redrawn and seconds < last + 1:
            continue
        if "stopped by" in text:
            scene.lines.append((seconds, "^C"))
        scene.lines.append((seconds, text))
        last = seconds if line.is_redrawn else last


def _as_bio(text: str) -> str:
    column = re.sub(
        rf"{REPOSITORIES}/\S+(?=  )", lambda match: match[0].replace(REPOSITORIES, "bio").ljust(len(match[0])), text
    )
    return column.replace(REPOSITORIES, "bio")


def _presses(pid: int, interrupted_at: int | None) -> Callable[[Shown], None]:
    pressed: list[int] = []

    def seen(line: Shown) -> None:
        if interrupted_at is not None and not pressed and (line.percent or 0) >= interrupted_at:
            pressed.append(pid)
            os.killpg(pid, signal.SIGINT)

    return seen


def normal(text: str) -> list[str]:
    """What is the same whenever it is recorded: nothing that is redrawn, no times, no ids; and where two images are
    stored at a time, no order."""
    scenes = text.split("\n## ")
    return [line for scene in scenes for line in (sorted if LIST in scene else list)(_normal_lines(scene))]


def _normal_lines(scene: str) -> list[str]:
    lines = []
    for line in scene.splitlines():
        shown = re.sub(r"^ *\d+\.\d  ", "", line)
        if shown != line and Shown(0, shown).is_redrawn:
            continue
        for pattern, instead in (
            (r"[0-9a-z]{5}-[0-9a-z]{5}-[0-9a-z]{15}", "UUID"),
            (r"\b[0-9a-f]{12,64}\b|(?<=sha256:)[0-9a-f]{5,64}", "ID"),
            (r"\([\d.]+ s\)", "SECONDS"),
            (r"[\d.]+ MiB (sent|were)", r"SIZE \1"),
            (r"\bstored (\S+) \(sha256:ID\)", r"stored \1"),  # with a containerd image store
            (r"\babout ", ""),
            (r" +", " "),
        ):
            shown = re.sub(pattern, instead, shown)
        lines.append(shown)
    return lines


def recorded(engine: Engine) -> str:
    """The whole document."""
    return HEAD + "".join(map(str, play(engine)))


if __name__ == "__main__":
    with any_engine() as engine:
        FILE.write_text(recorded(engine))
