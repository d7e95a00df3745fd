"""What others may have put where this program reads: it believes nothing that it can check, and waits for nothing
without a word."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import hostile
from tests.conftest import Command, stored
from tests.test_hostile import Measured, _usual_peaks, measured, usual_peak
from tests.test_streaming import journals

__all__ = ["_usual_peaks", "measured", "usual_peak"]  # fixtures

MORE_MEMORY = 100 << 10
"""KiB that what is hostile may cost beyond what a good run does."""
SECONDS = 30


def archive_of_a_new_image(tmp_path: Path) -> Path:
    config = {"config": {"Labels": {"random": secrets.token_hex(16)}}}
    return hostile.write(hostile.image(config=config), tmp_path / "archive.tar")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_suffix(".fifo"))
    path.symlink_to(path.with_suffix(".fifo"))


def link_to_nothing(path: Path) -> None:
    path.symlink_to("/nonexistent")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


NO_FILES: list[Callable[[Path], None]] = [
    fifo,
    directory,
    link_to_a_fifo,
    link_to_nothing,
    link_to_itself,
    link_to_zeros,
]


@pytest.mark.parametrize("make", NO_FILES)
@pytest.mark.parametrize("suffix", [".journal", ".journal.part"])
def test_a_journal_that_is_no_file(
    project: str, run: Command, tmp_path: Path, make: Callable[[Path], None], suffix: str
) -> None:
    words = ("--project-uuid", project, "--force", "--from-archive")
    stored(run(*words, str(archive_of_a_new_image(tmp_path))))
    (journal,) = journals(tmp_path)
    if suffix == ".journal":
        journal.unlink()
    else:
        journal.write_text("no locator\n")  # is written anew
    make(journal.with_suffix(suffix))
    stored(run(*words[:2], *words[3:], str(archive_of_a_new_image(tmp_path)), timeout=SECONDS))


@pytest.mark.parametrize("end", [b"", b"\n", b"0" * 32 + b"+1+A" + b"0" * 40 + b"@"])
def test_a_journal_of_gigabytes(
    project: str, run: Command, measured: Measured, usual_peak: int, tmp_path: Path, end: bytes
) -> None:
    words = ("--project-uuid", project, "--from-archive")
    stored(run(*words, str(archive_of_a_new_image(tmp_path))))
    (journal,) = journals(tmp_path)
    with journal.open("ab") as file:
        file.truncate(8 << 30)
        file.seek(0, os.SEEK_END)
        file.write(end)
    stored(measured(*words, str(archive_of_a_new_image(tmp_path))))
    assert measured.peak < usual_peak + MORE_MEMORY
    assert journal.stat().st_size < 1 << 20


@pytest.mark.parametrize("make", NO_FILES)
def test_a_lock_that_is_no_file(
    project: str, run: Command, tmp_path: Path, make: Callable[[Path], None], way: tuple[str, ...]
) -> None:
    path = archive_of_a_new_image(tmp_path)
    words = ("--project-uuid", project, "--from-archive", str(path))
    uuid = stored(run(*words))
    lock = tmp_path / "cache" / "arvados" / "docker" / f"{image_id(path)}.lock"
    make(lock)
    result = run(*way, *words, timeout=SECONDS)
    assert stored(result) == uuid
    assert "without keeping other runs" in result.stderr


def image_id(path: Path) -> str:
    """Of the image in an archive."""
    from arv_keepdocker import archive, tarball

    with path.open("rb") as file:
        return archive.find(tarball.scan(file)).id


def test_silent_says_which_lock_it_waits_for(project: str, run: Command, tmp_path: Path) -> None:
    path = archive_of_a_new_image(tmp_path)
    directory = tmp_path / "cache" / "arvados" / "docker"
    directory.mkdir(parents=True, mode=0o700)
    directory.parent.chmod(0o700)
    with (directory / f"{image_id(path)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        process = run.start("--silent", "--project-uuid", project, "--from-archive", str(path))
        assert process.stderr is not None
        assert f"waiting for process {os.getpid()}, which is storing image" in process.stderr.readline()
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "")
    assert out


def test_silent_says_that_another_run_has_the_journal(project: str, run: Command, tmp_path: Path) -> None:
    stored(run("--project-uuid", project, "--from-archive", str(archive_of_a_new_image(tmp_path))))
    (journal,) = journals(tmp_path)
    with journal.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        path = archive_of_a_new_image(tmp_path)
        process = run.start("--silent", "--project-uuid", project, "--from-archive", str(path))
        assert process.stderr is not None
        assert f"waiting for another run, which keeps {journal}" in process.stderr.readline()
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert out
