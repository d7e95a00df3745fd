"""Names, archives and answers that were made to harm: refused in bounded memory, and shown for what they are."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.errors import ArchiveError
from arv_keepdocker.images import archive
from arv_keepdocker.images.canonical import arrange
from arv_keepdocker.images.image import Image, Selection
from arv_keepdocker.images.layers import NoSink
from arv_keepdocker.sandbox import Sandbox
from tests import hostile, images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine
from tests.test_failures import DockerThat, cached, failed, nothing_recorded, small_disk
from tests.test_listing import NAME, Catalogue

MORE_MEMORY = 300 << 10
STREAMING_MEMORY = 512 << 10
"""KiB that a hostile archive may cost beyond what a good one does."""
SECONDS = 30
"""Of CPU time that an archive may cost; how long that takes depends on what else the machine does."""

# The command; it is ended when it has had too much time, and tells the most memory that it had.
MEASURED = f"""#!{sys.executable}
import atexit, resource, runpy, sys

def tell():
    with open(path, "w") as file:
        file.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

path = sys.argv.pop(1)
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
atexit.register(tell)
runpy.run_module("arv_keepdocker", run_name="__main__", alter_sys=True)
"""


class Measured:
    """The command, and the most resident memory in KiB that its last run had."""

    def __init__(self, run: Command, directory: Path) -> None:
        self._path = directory / "peak"
        self.environment = run.environment
        program = directory / "measured"
        program.write_text(MEASURED)
        program.chmod(0o755)
        self._run = replace(run, argv=[str(program), str(self._path)])

    def __call__(self, *words: str, stdin: int = subprocess.DEVNULL) -> Result:
        self._path.unlink(missing_ok=True)
        process = self._run.start(*words, stdin=stdin)
        out, err = process.communicate(timeout=20 * SECONDS)
        return Result(process.returncode, out, err)

    @property
    def peak(self) -> int:
        return int(self._path.read_text())


@pytest.fixture
def measured(run: Command, tmp_path: Path) -> Measured:
    return Measured(run, tmp_path)


def tree(path: Path) -> set[str]:
    """All that there is, but for what the SDK keeps for itself."""
    return {str(found.relative_to(path)) for found in path.rglob("*") if "discovery" not in str(found)}


@pytest.fixture(scope="session")
def _usual_peaks() -> list[int]:
    return []


@pytest.fixture
def usual_peak(_usual_peaks: list[int], run: Command, tmp_path: Path) -> int:
    """The memory in KiB of a run that refuses an archive at once. A forked one shares some with the others."""
    if not _usual_peaks:
        measured = Measured(run.anew(), tmp_path)
        empty = hostile.write(b"", tmp_path / "empty")
        failed(measured("--from-archive", str(empty)), 5, "empty")
        _usual_peaks.append(measured.peak)
    return _usual_peaks[0]


def shown_as_one_line(stderr: str) -> None:
    assert all(line.isprintable() for line in stderr.split("\n"))
    assert len([line for line in stderr.splitlines() if line.startswith("arv-keepdocker: error: ")]) == 1
    assert len(stderr) < 4000


def rows(*names: str) -> list[Any]:
    """Parameters of a test; it takes long to unpack as much as may be unpacked."""
    return [pytest.param(name, marks=[pytest.mark.long] if "layer of zeros" in name else []) for name in names]


@pytest.mark.parametrize("name", rows(*hostile.REFUSED))
def test_a_hostile_archive_is_refused(
    cluster: Cluster, project: str, measured: Measured, usual_peak: int, tmp_path: Path, name: str
) -> None:
    make, words = hostile.REFUSED[name]
    path = hostile.write(make(), tmp_path / "archive")
    there = tree(tmp_path)
    result = measured("--project-uuid", project, "--from-archive", str(path))
    failed(result, 5, words, str(path))
    shown_as_one_line(result.stderr)
    assert measured.peak < usual_peak + MORE_MEMORY
    assert nothing_recorded(cluster, project)
    assert cached(tmp_path) == []
    left = {path for path in tree(tmp_path) - there if not path.endswith(".journal")}
    assert left <= {"cache", "cache/arvados", "cache/arvados/docker", "peak"}


@pytest.mark.parametrize("name", rows(*hostile.REFUSED_AS_A_STREAM))
def test_a_hostile_archive_on_standard_input_is_refused(
    cluster: Cluster, project: str, measured: Measured, usual_peak: int, tmp_path: Path, name: str, way: tuple[str, ...]
) -> None:
    make, words = hostile.REFUSED_AS_A_STREAM[name]
    path = hostile.write(make(), tmp_path / "archive")
    there = tree(tmp_path)
    with path.open("rb") as file:
        result = measured("--project-uuid", project, *way, "--from-archive", "-", stdin=file.fileno())
    failed(result, 5, words, "archive -")
    shown_as_one_line(result.stderr)
    # What is sent while it is read is in memory as blocks.
    assert measured.peak < (usual_peak + MORE_MEMORY if way else STREAMING_MEMORY)
    assert nothing_recorded(cluster, project)
    assert cached(tmp_path) == []
    left = {path for path in tree(tmp_path) - there if not path.endswith(".journal")}
    assert left <= {"cache", "cache/arvados", "cache/arvados/docker", "peak"}


@pytest.mark.parametrize("name", hostile.FINE)
def test_a_strange_archive_that_is_whole_is_stored(project: str, run: Command, tmp_path: Path, name: str) -> None:
    path = hostile.write(hostile.FINE[name](), tmp_path / "archive")
    stored(run("--project-uuid", project, "--from-archive", str(path)))
    assert cached(tmp_path) == []


def test_the_builder_builds_tars() -> None:
    """What is refused is refused for what is wrong with it, not because it is no tar at all."""
    assert hostile.names(hostile.FINE["names by pax"]()) == ["config.json", "layer.tar", "manifest.json", "x/y"]
    absolute = hostile.image(hostile.pax(("path", "/etc/passwd")), hostile.member("x", b"x"))
    assert hostile.names(absolute)[-1] == "/etc/passwd"


def test_an_engine_that_saves_a_hostile_archive(
    engine: Engine, cluster: Cluster, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    image = images.build(engine.host)
    path = hostile.write(hostile.REFUSED["escapes in a member"][0](), tmp_path / "archive")
    saves = docker_that(f'[ "$2" != save ] || exec cat {path}; real "$@"')
    result = run("--project-uuid", project, image.name, env=saves)
    failed(result, 5, image.id, "outside")
    shown_as_one_line(result.stderr)
    assert nothing_recorded(cluster, project)
    assert cached(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_more_than_the_disk_holds_is_refused_before_it_is_unpacked(
    cluster: Cluster, project: str, run: Command, tmp_path: Path
) -> None:
    path = tmp_path / "archive"
    buffer = io.BytesIO()
    images.write_archive(buffer, layers=[{"zeros": bytes(100 << 20)}])
    path.write_bytes(gzip.compress(buffer.getvalue(), compresslevel=1))
    with small_disk(tmp_path / "disk", 64 << 10):
        (tmp_path / "disk" / "arvados").mkdir(mode=0o700)
        (tmp_path / "disk" / "arvados" / "discovery").symlink_to(tmp_path)
        environment = {"XDG_CACHE_HOME": str(tmp_path / "disk")}
        result = run("--via-arv-put", "--project-uuid", project, "--from-archive", str(path), env=environment)
        failed(result, 1, "100 MiB are needed", "XDG_CACHE_HOME")
        assert list((tmp_path / "disk" / "arvados" / "docker").iterdir()) == []
    assert nothing_recorded(cluster, project)


def test_a_device_that_never_ends(run: Command) -> None:
    failed(run("--from-archive", "/dev/zero", timeout=SECONDS), 5, "zeros at its end")


@pytest.mark.parametrize(
    "words",
    [
        ["--", "--force"],
        ["--", "-v"],
        ["debian", "--", "--help"],
        ["$(touch pwned)"],
        ["`touch pwned`:1"],
        ["a;touch pwned"],
        ["a|b", "c&d"],
        ["../../etc/passwd"],
        ["a\nb"],
        ["debian:\x1b[31mred\x07"],
        ["debian", "\x9b31m"],
        ["d\u00e9bian"],
        ["debian\u202e"],
        ["debian:\u200b1"],
        ["debian\udcff"],
    ],
)
def test_names_that_mean_something_to_others(run: Command, docker_that: DockerThat, words: list[str]) -> None:
    asked = docker_that("echo asked >asked")
    result = run(*words, env=asked)
    failed(result, 2)
    shown_as_one_line(result.stderr)
    assert {path.name for path in run.directory.iterdir()} <= {"home", "docker-that", "cache"}


def test_one_word_too_many_cannot_steer_the_terminal(run: Command) -> None:
    result = run("debian", "12", "\x1b[31mred\u202e")
    assert result.status == 2
    assert r"\x1b[31mred\u202e" in result.stderr
    assert all(line.isprintable() for line in result.stderr.split("\n"))


@pytest.mark.parametrize("depth", [1, 400, 900, 970, 990])
@pytest.mark.parametrize("number", [b"1e999", b"[1.5]"])
def test_a_configuration_that_is_hard_to_write_again(depth: int, number: bytes) -> None:
    config = b'{"rootfs":{"diff_ids":[]},"config":{"a":' + b"[" * depth + number + b"]" * depth + b"}}"
    entry = {"Config": "2", "Layers": []}
    try:
        made = arrange(read(hostile.image(hostile.member("2", config), entry=entry)), universal=True)
    except ArchiveError:
        assert number == b"1e999" or depth > 900
        return
    assert number == b"[1.5]"
    assert read(made.end).id == made.image_id


def read(data: bytes) -> Image:
    return archive.read_image(io.BytesIO(data), NoSink(), Selection())


def test_an_archive_that_is_called_like_an_option(project: str, run: Command, tmp_path: Path) -> None:
    hostile.write(hostile.image(), tmp_path / "--force")
    stored(run("--project-uuid", project, "--from-archive=--force"))


@pytest.mark.parametrize("service", ["api", "keep"])
def test_what_arvados_says_cannot_steer_the_terminal(
    sandbox: Sandbox, project: str, run: Command, archive: str, service: str
) -> None:
    path_of_api = "/links" if service == "api" else None
    says = ["\x1b[31mred\x1b]0;title\x07\narv-keepdocker: all is well \u202e\x9b"]
    sandbox.fault("status", service=service, method="POST|PUT", path=path_of_api, status=422, errors=says, times=None)
    result = run("--project-uuid", project, "--retries=0", "--from-archive", archive)
    failed(result, 6)
    assert "arv-keepdocker: all is well" not in result.stderr.splitlines()
    assert all(line.isprintable() for line in result.stderr.split("\n"))


def test_what_is_listed_cannot_steer_the_terminal(cluster: Cluster, project: str, run: Command) -> None:
    catalogue = Catalogue(cluster.api(), project)
    uuid = catalogue.collection()
    catalogue.link(NAME, "\x1b[31mred\n\u202ebio/tool:\x071", uuid)
    result = run("images", "--project-uuid", catalogue.project)
    assert result.stdout.splitlines()[1].startswith(r"\x1b[31mred\n\u202ebio/tool")
    assert all(line.isprintable() for line in result.stdout.split("\n"))
