"""What is shown of an upload while it goes on, when it begins, and when it has ended."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from arv_keepdocker.terminal.transfer_rate import STILL, Pace
from tests import images
from tests.conftest import Command, Result, stored
from tests.engines import Engine
from tests.watching import Screen, Shown, misjudged

MIB = 1 << 20
UUID = r"[0-9a-z]{5}-4zz18-[0-9a-z]{15}"


def layers(*mebibytes: float) -> list[images.Layer]:
    return [{f"random{number}": images.noise(int(size * MIB))} for number, size in enumerate(mebibytes)]


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., str]:
    """Writes an archive with layers of so many mebibytes."""

    def write(*mebibytes: float) -> str:
        path = tmp_path / "image.tar"
        with path.open("wb") as file:
            images.write_archive(file, layers=layers(*mebibytes))
        return str(path)

    return write


def watched(run: Command, *words: str, seen: Callable[[Shown], None] = lambda line: None) -> tuple[Result, list[Shown]]:
    """Run the command with a terminal for stderr; all that it shows, and when."""
    screen = Screen()
    with screen.open() as slave:
        process = run.start(*words, stderr=slave)
        screen.watch(seen)
    out, _ = process.communicate(timeout=60)
    return Result(process.returncode, out, "\n".join(line.text for line in screen.lines)), screen.lines


def end_of(lines: list[Shown]) -> float:
    """When the image was stored."""
    return next(line.time for line in lines if "stored " in line.text)


@pytest.mark.long
@pytest.mark.parametrize(("rate", "sizes"), [(1e6, (4.5, 2, 1)), (30e6, (60, 50, 40)), (0, (60, 60, 50))])
def test_the_time_left_is_true(
    archive: Callable[..., str], sandbox: Sandbox, project: str, run: Command, rate: float, sizes: tuple[float, ...]
) -> None:
    file = archive(*sizes)
    with sandbox.changed(keep_bandwidth=rate):
        result, lines = watched(run, "--project-uuid", project, "--from-archive", file, "bio/tool:1.0")
    stored(result)
    assert misjudged(lines, end_of(lines), factor=1.5, tolerance=2) == []
    if rate == 1e6:
        percents = [line.percent for line in lines if line.percent is not None]
        assert percents == sorted(percents)
        assert len(set(percents)) > 15  # it moves as bytes leave, not block by block
        assert any(line.left is not None and (line.percent or 0) >= 20 for line in lines)


@pytest.mark.long
def test_a_keep_that_stands_still(archive: Callable[..., str], sandbox: Sandbox, project: str, run: Command) -> None:
    """The display says that nothing moves, for as long as that is so, and is right again afterwards."""
    file = archive(4.5, 4.5)
    paused: list[float] = []
    still: list[Shown] = []

    def pause(line: Shown) -> None:
        if not paused and (line.percent or 0) >= 40:
            sandbox.settings(keep_paused=True)
            paused.append(line.time)
        if line.is_still and len(still) < 5:
            still.append(line)
            if len(still) == 5:
                sandbox.settings(keep_paused=False)
                paused.append(line.time)

    with sandbox.changed(keep_bandwidth=1e6, keep_paused=False):
        result, lines = watched(run, "--project-uuid", project, "--from-archive", file, seen=pause)
    stored(result)
    begin, end = paused
    assert all(line.left is None for line in still)
    assert still[0].time - begin < STILL + 2
    told = [line for line in lines if line.percent is not None]
    # What the kernel had taken already still arrives after Keep has stopped reading, and some when it begins again.
    during = [line for line in told if begin + STILL + 1 < line.time < end]
    assert all(line.is_still for line in during)
    after = [line for line in told if line.time > end + 1]
    assert after
    assert not any(line.is_still for line in after)
    assert misjudged(after, end_of(lines), factor=1.5, tolerance=2) == []


def test_what_is_known_to_be_there_counts(engine: Engine, sandbox: Sandbox, project: str, run: Command) -> None:
    base = layers(5, 5)
    stored(run("--project-uuid", project, images.build(engine.host, layers=base).name))
    image = images.build(engine.host, layers=[*base, *layers(5)])
    with sandbox.changed(keep_bandwidth=2e6):
        result, lines = watched(run, "--project-uuid", project, image.name)
    stored(result)
    begin, *_ = lines
    assert begin.text == f"arv-keepdocker: storing {image.name} ({image.id[:19]}), 15 MiB in 3 layers"
    there = [line.numbers for line in lines if line.numbers is not None]
    assert any(int(str(each["sent"])) <= 4 and int(str(each["there"])) >= 10 for each in there if each["sent"])
    assert re.search(
        rf"stored {image.name} in arv-keepdocker test .*: 5\.0 MiB sent, 10\.0 MiB were there already \(\d+\.\d s\)",
        result.stderr,
    )


def test_what_the_engine_is_doing(
    engine: Engine, project: str, run: Command, docker_that: Callable[[str], dict[str, str]]
) -> None:
    image = images.build(engine.host)
    run.environment.update(docker_that('[ "$2" != save ] || sleep 1.5; real "$@"'))
    result, lines = watched(run, "--no-via-push", "--project-uuid", project, image.name)
    stored(result)
    assert f"docker is saving {image.name} (0:01)" in [line.text for line in lines]


def test_no_progress(engine: Engine, project: str, run: Command) -> None:
    image = images.build(engine.host)
    for words in (["--no-progress"], ["--silent"]):
        quiet = run("--project-uuid", project, "--force", *words, image.name, tty=True)
        stored(quiet)
        assert "\r" not in quiet.stderr
        assert (quiet.stderr == "") == (words == ["--silent"])


def test_progress_for_programs(engine: Engine, project: str, run: Command) -> None:
    image = images.build(engine.host, layers=layers(5))
    result = run("--project-uuid", project, "--batch-progress", image.name)
    stored(result)
    last = [line for line in result.stderr.splitlines() if "written" in line][-1]
    assert re.fullmatch(r"\S+ \d+: (\d+) written \1 total", last)


@pytest.mark.long
def test_progress_in_a_log(engine: Engine, sandbox: Sandbox, project: str, run: Command) -> None:
    image = images.build(engine.host, layers=layers(8))
    sandbox.fault("delay", service="keep", method="PUT", seconds=31, times=1)
    result = run("--project-uuid", project, image.name)
    stored(result)
    lines = [line for line in result.stderr.splitlines() if "%" in line]
    assert len(lines) == 1
    assert re.fullmatch(
        rf"arv-keepdocker: {image.name}: \d+%, \d of 8 MiB, stalled for 0:\d\d, time left unknown", lines[0]
    )


def test_a_terminal_that_cannot_redraw(
    archive: Callable[..., str], sandbox: Sandbox, project: str, run: Command
) -> None:
    with sandbox.changed(keep_bandwidth=5e6):
        result = run("--project-uuid", project, "--from-archive", archive(5), env={"TERM": "dumb"}, tty=True)
    stored(result)
    assert not re.search(r"\r|\x1b", result.stderr)


def test_the_universal_id_is_told(engine: Engine, project: str, run: Command) -> None:
    image = images.build(engine.host)
    result = run("--project-uuid", project, "--universal", image.name)
    stored(result)
    found = re.search(rf"stored {image.name} \((sha256:[0-9a-f]{{12}})\) in ", result.stderr)
    assert found is not None
    assert found[1] != image.id[:19]


def test_where_workbench_shows_it(engine: Engine, sandbox: Sandbox, project: str, run: Command) -> None:
    image = images.build(engine.host)
    words = ("--project-uuid", project, image.name)
    with sandbox.changed(workbench2_url="https://workbench.example/"):
        on_terminal = run(*words, tty=True)
        again = run(*words, tty=True)
        in_log = run(*words)
    uuid = stored(on_terminal)
    for shown in on_terminal, again:
        assert f"arv-keepdocker: see https://workbench.example/collections/{uuid}\n" in shown.stderr
    assert "workbench" not in in_log.stderr
    assert "collections/" not in run(*words, tty=True).stderr


@pytest.mark.parametrize(("words", "goes_on"), [((), True), (("--force",), False), (("--no-resume",), False)])
def test_a_stopped_run_says_that_the_same_command_goes_on(
    archive: Callable[..., str], sandbox: Sandbox, project: str, run: Command, words: tuple[str, ...], goes_on: bool
) -> None:
    sandbox.clear_requests()
    with sandbox.changed(keep_bandwidth=1e6):
        process = run.start(*words, "--project-uuid", project, "--from-archive", archive(8))
        while not any(one["method"] == "PUT" and one["service"] == "keep" for one in sandbox.requests()):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert ("error: stopped by SIGINT\narv-keepdocker: The same command continues where" in err) == goes_on


def test_a_little_that_still_moves_is_not_movement() -> None:
    pace = Pace()
    for second in range(11):
        pace.note(second, second * 30_000_000)
    assert pace.rate == 30_000_000
    pace.note(15, 300_000_000)
    pace.note(16, 300_100_000)  # as TCP probes one who takes nothing
    assert pace.idle >= STILL
    assert pace.idle == 6
    pace.note(17, 301_500_000)
    assert pace.idle < STILL
    pace.note(18, 290_000_000)  # what was on its way is sent anew
    pace.note(22, 290_000_000)
    assert pace.idle >= STILL
    pace.note(23, 300_000_000)
    assert pace.idle < STILL


@pytest.mark.parametrize("rate", [10_000, 40_000, 1_000_000])
def test_what_is_slow_is_movement(rate: int) -> None:
    pace = Pace()
    for second in range(60):
        pace.note(second, second * rate)
        assert pace.idle < STILL
    pace.note(64, 59 * rate + min(rate // 10, 64 << 10))
    assert pace.idle >= STILL


def test_what_gets_slow_is_movement() -> None:
    pace = Pace()
    for second in range(11):
        pace.note(second, second * 30_000_000)
    for second in range(11, 60):
        pace.note(second, 300_000_000 + (second - 10) * 500_000)
        assert pace.idle < STILL
    assert pace.rate is not None
    assert pace.rate < 1_000_000
