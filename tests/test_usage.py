"""What the words of the command line mean together, and what is said of those that mean nothing."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from arv_keepdocker.cli.parser import option_parser
from tests import images
from tests.conftest import Cluster, Command, stored
from tests.engines import Engine
from tests.test_failures import DockerThat, failed
from tests.test_listing import Catalogue

STORING = [
    ["--pull"],
    ["--no-pull"],
    ["--force"],
    ["-f"],
    ["--force-image-format"],
    ["--name", "x"],
    ["--dry-run"],
    ["--universal"],
    ["--no-universal"],
    ["--threads", "2"],
    ["--platform", "linux/amd64"],
    ["--engine", "podman"],
    ["--via-arv-put"],
    ["--resume"],
    ["--no-resume"],
    ["--cache"],
    ["--no-cache"],
]
ON_STDERR = [["--silent"], ["--batch"], ["--progress"], ["--no-progress"], ["--batch-progress"]]
LISTING = [["--format", "jsonl"], ["-q"], ["--quiet"], ["--no-trunc"], ["--sort", "name"], ["--limit", "1"]]
BOTH = [["--retries", "1"]]


@pytest.mark.parametrize("option", [*STORING, *ON_STDERR], ids=" ".join)
def test_options_for_storing_do_not_list(run: Command, option: list[str]) -> None:
    """As with a script's unset variable in the place of IMAGE."""
    result = run(*option)
    failed(result, 2, option[0] if option != ["-f"] else "--force", "no IMAGE")
    assert len(result.stderr.splitlines()) <= 2
    failed(run(*option, ""), 2, "empty")


@pytest.mark.parametrize("option", STORING, ids=" ".join)
def test_options_for_storing_do_not_go_with_the_word_that_lists(run: Command, option: list[str]) -> None:
    failed(run(*option, "images"), 2, option[0] if option != ["-f"] else "--force", "images:latest")


def test_what_does_list(cluster: Cluster, project: str, run: Command) -> None:
    for option in ([], *LISTING, *BOTH):
        assert run("--project-uuid", project, *option).status == 0
    for option in ([], *LISTING, *BOTH, *ON_STDERR):
        assert run("images", "--project-uuid", project, *option).status == 0


@pytest.mark.parametrize("option", LISTING, ids=" ".join)
def test_options_for_listing_do_not_store(run: Command, option: list[str]) -> None:
    failed(run(*option, "debian"), 2, "for listing images")


@pytest.mark.parametrize(
    "words",
    [
        [""],
        ["", "latest"],
        ["debian", ""],
        [":latest"],
        ["debian:"],
        ["images", ""],
        ["images", " "],
        ["images", ":latest"],
        ["images", "debian:"],
        ["images", "@sha256:" + "0" * 64],
        ["--project-uuid", ""],
        ["images", "--project-uuid", ""],
        ["--name", "", "debian"],
        ["--engine", "", "debian"],
        ["--platform", "", "debian"],
        ["--from-archive", ""],
        ["--from-archive=", "debian"],
        ["images", "--filter", ""],
    ],
    ids=" ".join,
)
def test_nothing_is_no_name(run: Command, words: list[str]) -> None:
    failed(run(*words), 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["images", "--from-archive", "x.tar"], ["--from-archive", "images:latest"]),
        (["--from-archive", "x.tar", "images", "debian"], ["--from-archive"]),
        (["--from-archive", "x.tar", "--pull"], ["--pull", "--from-archive"]),
        (["--from-archive", "x.tar", "--pull", "debian"], ["--pull", "--from-archive"]),
        (["--from-archive", "x.tar", "--engine", "podman"], ["--engine", "--from-archive"]),
        (["--from-archive", "x.tar", "--limit", "1"], ["--limit"]),
    ],
)
def test_what_cannot_be_meant_together(run: Command, words: list[str], said: list[str]) -> None:
    failed(run(*words), 2, *said)


def test_an_archive_is_never_stored_under_the_word_that_lists(
    engine: Engine, project: str, run: Command, tmp_path: Path
) -> None:
    image = images.build(engine.host)
    engine.docker("save", "--output", str(tmp_path / "saved.tar"), image.name)
    words = ("--project-uuid", project, "--from-archive", str(tmp_path / "saved.tar"))
    failed(run(*words, "images"), 2)
    stored(run(*words, "--no-pull", "images:latest"))


@pytest.mark.parametrize("word", ["--nosuch", "--retries=x", "--limit=0", "--format=xml", "--pull=1"])
def test_one_wrong_word_gets_one_line(run: Command, word: str) -> None:
    result = run(word)
    failed(result, 2, word.partition("=")[0])
    assert len(result.stderr.splitlines()) == 1


def upstreams() -> argparse.ArgumentParser:
    from arvados.commands import keepdocker

    parser: argparse.ArgumentParser = keepdocker.arg_parser
    return parser


def long_options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings if option.startswith("--")}


def meaning(parser: argparse.ArgumentParser, option: str) -> str | None:
    """The option that this is the beginning of; None for none, or more than one."""
    found = parser._option_string_actions.get(option)
    if found is None:
        matching = {id(action): action for action, *_ in parser._get_option_tuples(option)}
        if len(matching) != 1:
            return None
        [found] = matching.values()
    return found.dest


def test_abbreviations_mean_what_they_mean_to_upstream() -> None:
    theirs, ours = upstreams(), option_parser()
    for option in long_options(theirs):
        for length in range(3, len(option) + 1):
            assert meaning(ours, option[:length]) == meaning(theirs, option[:length]), option[:length]
    for option in long_options(ours) - long_options(theirs):
        assert meaning(ours, option) is not None
        for length in range(3, len(option)):
            assert meaning(ours, option[:length]) == meaning(theirs, option[:length]), option[:length]


def test_abbreviated_options(run: Command, project: str) -> None:
    assert run("images", "--s", "--proj", project).status == 0
    assert run("--v").stdout == run("--version").stdout
    failed(run("--form", "json"), 2, "--form")
    failed(run("--na", "x", "--dry", "debian"), 2, "--dry")


# Likely mistakes


@pytest.mark.parametrize(
    ("word", "status", "hint"),
    [
        ("./here.tar", 2, "--from-archive ./here.tar"),
        ("here.tar", 3, "--from-archive here.tar"),
        ("docker-archive:here.tar", 3, "--from-archive here.tar"),
        ("docker://debian:12", 2, "docker://: the image's name is debian:12"),
        ("https://quay.io/bio/tool", 2, "the image's name is quay.io/bio/tool"),
        ("docker-daemon:debian:12", 2, "the image's name is debian:12"),
        ("zzzzz-4zz18-0123456789abcde", 3, "is a collection"),
        ("fa7aeb5140e2848d39b416daeef4ffc5+45", 2, "is a collection"),
        ("ls", 3, "'images'"),
        ("list", 3, "'images'"),
        ("Images", 2, "'images'"),
        ("Debian:12", 2, "Did you mean debian:12?"),
        ("Quay.io/Bio/Tool:V1", 2, "Did you mean quay.io/bio/tool:V1?"),
    ],
)
def test_likely_mistakes_get_the_right_hint(engine: Engine, run: Command, word: str, status: int, hint: str) -> None:
    (run.directory / "here.tar").write_bytes(b"")
    failed(run(word), status, hint)
    elsewhere = run(word, env={"DOCKER_HOST": f"unix://{run.directory}/nosuch.sock"})
    assert elsewhere.status == (2 if status == 2 else 4)
    assert hint in elsewhere.stderr


def test_what_is_not_listed_and_what_there_is(cluster: Cluster, project: str, run: Command) -> None:
    catalogue = Catalogue(cluster.api(), project)
    repository = images.unique_name().partition(":")[0]
    words = ("--project-uuid", project)
    for number in range(12):
        catalogue.image(f"{repository}:{number}", f"2024-01-{number + 1:02}T00:00:00Z")
    result = run("images", repository, *words)
    failed(result, 3, f"{repository}:latest", project, f"There are {repository}:11, {repository}:10, ", "and 2 more")
    failed(run("images", f"{repository}:12"), 3, f"no image {repository}:12", f"{repository}:11")
    failed(run("images", f"{repository}@sha256:{'0' * 64}"), 3, f"{repository}:11")
    nothing = run("images", f"{repository}x", *words)
    failed(nothing, 3, f"{repository}x:latest")
    assert "There is" not in nothing.stderr
    failed(run("images", "Debian", *words), 3, "Debian:latest", "Did you mean debian?")


# Standard input


def test_standard_input_that_is_closed_or_a_terminal(run: Command) -> None:
    words = " ".join(run.argv)
    closed = Command(["sh", "-c", f'{words} "$@" <&-', "sh"], run.directory, run.environment, run.processes)
    failed(closed("--from-archive", "-"), 1, "standard input", "closed")
    master, slave = os.openpty()
    try:
        process = run.start("--from-archive", "-", stdin=slave)
        out, err = process.communicate(timeout=60)
    finally:
        os.close(master)
        os.close(slave)
    assert (process.returncode, out) == (2, "")
    assert "terminal" in err
    writable = Command(["sh", "-c", f'{words} "$@" 0>"$HOME/x"', "sh"], run.directory, run.environment, run.processes)
    failed(writable("--from-archive", "-"), 1, "Bad file descriptor")


@pytest.mark.parametrize("via", [(), ("--via-arv-put",)], ids=["streaming", "arv-put"])
def test_standard_input_that_does_not_block(
    engine: Engine, project: str, run: Command, tmp_path: Path, via: tuple[str, ...]
) -> None:
    image = images.build(engine.host)
    engine.docker("save", "--output", str(tmp_path / "saved.tar"), image.name)
    archive = (tmp_path / "saved.tar").read_bytes()
    read, write = os.pipe()
    os.set_blocking(read, False)
    process = run.start("--project-uuid", project, *via, "--from-archive", "-", stdin=read)
    os.close(read)

    def feed() -> None:
        with suppress(BrokenPipeError), open(write, "wb", buffering=0) as pipe:
            for start in range(0, len(archive), 1000):
                pipe.write(archive[start : start + 1000])

    # So that the program finds the pipe empty at first.
    timer = threading.Timer(1.5, feed)
    timer.start()
    out, err = process.communicate(timeout=120)
    timer.join()
    assert process.returncode == 0, err
    assert re.fullmatch(r"\S+-4zz18-\S+\n", out)


# What a terminal can show, and whose program it is


def test_a_dumb_terminal_gets_plain_lines(engine: Engine, project: str, run: Command, docker_that: DockerThat) -> None:
    for words in ([], ["--progress"]):
        image = images.build(engine.host)
        result = run("--project-uuid", project, *words, image.name, tty=True, env={"TERM": "dumb"})
        assert result.status == 0
        assert "\x1b" not in result.stderr
        assert "\r" not in result.stderr
    image = images.build(engine.host)
    slow = docker_that('[ "$2" != save ] || sleep 1; real "$@"')  # so that there is something to wait for
    assert "\x1b" in run("--project-uuid", project, image.name, tty=True, env={**slow, "TERM": "xterm"}).stderr


def test_keepdocker_says_that_the_other_name_is_another_programs(run: Command, tmp_path: Path) -> None:
    scripts = tmp_path / "bin"
    scripts.mkdir()
    ours = "from arv_keepdocker.__main__ import main\nmain()\n"
    theirs = "from arvados.commands.keepdocker import main\nmain()\n"

    def result(name: str, beside: str | None, *words: str, status: int = 0) -> str:
        (scripts / "keepdocker").write_text(ours)
        (scripts / "arv-keepdocker").unlink(missing_ok=True)
        if beside is not None:
            (scripts / "arv-keepdocker").write_text(beside)
        argv = [sys.executable, str(scripts / name), *words]
        done = subprocess.run(argv, env=run.environment, capture_output=True, text=True, cwd=Path.cwd())
        assert done.returncode == status, done.stderr
        return done.stderr

    for words in (["images", "-q"], ["--version"]):
        assert result("keepdocker", theirs, *words).count("is another program") == 1
        assert result("keepdocker", ours, *words) == ""
        assert result("keepdocker", None, *words) == ""
        assert result("arv-keepdocker", ours, *words) == ""
    assert result("keepdocker", theirs, "images", "-q", "--silent") == ""
    assert "; see keepdocker --help" in result("keepdocker", theirs, "--nosuch", status=2)
