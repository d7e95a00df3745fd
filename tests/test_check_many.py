"""--from-arvados with --images-from: many images are checked, or stored anew, in one run."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.cli import help_texts
from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, Result, stored
from tests.test_archive import FACTS
from tests.test_check import BIG, PLAIN, blocks, put, stored_as, writes
from tests.test_from_arvados import ARCHIVES, archive, collection, content, keep_requests, names_of, new_project

DOCUMENT = Path(__file__).parent.parent / ".github" / "OPERATORS.md"


def checked(run: Command, project: str, lines: list[str], *words: str) -> tuple[Result, list[dict[str, Any]]]:
    """What a check prints as JSON."""
    options = ("--project-uuid", project, "--dry-run", "--format", "json", "--from-arvados", "--images-from", "-")
    result = run(*options, *words, input="\n".join(lines))
    return result, [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def three(project: str, run: Command, tmp_path: Path) -> list[tuple[images.Image, str]]:
    """Images that have a base in common, and their collections."""
    base = {"base": images.noise(BIG)}
    made = []
    for number in range(3):
        image = archive(
            tmp_path / f"{number}.tar", layers=[base, {"own": images.noise(BIG)}, {"small": os.urandom(99)}]
        )
        made.append((image, stored(run("--project-uuid", project, "--from-archive", f"{number}.tar"))))
    return made


def as_1_0(cluster: Cluster, project: str, path: Path, image_id: str, name: str) -> str:
    """The UUID of a collection as version 1.0 made it: the engine's archive, large layers in blocks of their own."""
    data = path.read_bytes()
    cuts = [0, *([len(data) // 2, len(data) // 2 + 512] if len(data) > BIG else []), len(data)]
    locators = [put(cluster, data[start:end]) for start, end in itertools.pairwise(cuts)]
    manifest = f". {' '.join(locators)} 0:{len(data)}:{image_id.replace(':', chr(92) + '072')}.tar\n"
    return stored_as(cluster, project, manifest, name, image_id)


def test_a_verdict_for_each(
    three: list[tuple[images.Image, str]],
    project: str,
    run: Command,
    sandbox: Sandbox,
    cluster: Cluster,
    tmp_path: Path,
) -> None:
    (first, one), (_, two), (third, last) = three
    other = archive(tmp_path / "other.tar")
    old = as_1_0(cluster, project, tmp_path / "other.tar", other.id, other.name)
    own = blocks(cluster, two)[1]
    missing = images.unique_name()
    lines = [first.name, f"{third.name} {missing}", content(cluster, one), other.name, last]
    result, found = checked(run, project, lines)
    assert result.status == 7, result.stderr
    assert [values["verdict"] for values in found] == ["good", "incomplete", "good", "mendable", "good"]
    assert [values["image"] for values in found] == lines
    assert all(list(values) == list(help_texts.CHECK_KEYS) for values in found)
    assert found[3]["collection_uuid"] == old
    assert found[3]["findings"] == ["it is not in the canonical form", PLAIN]
    sandbox.lose_block(own)
    lines = [first.name, missing, "Bad:name", two, "a b c d", third.name]
    sandbox.clear_requests()
    result, found = checked(run, project, lines)
    assert result.status == 3
    assert [values.get("verdict") for values in found] == ["good", None, None, "broken", None, "good"]
    assert [values.get("exit_status") for values in found] == [0, 3, 2, 5, 2, 0]
    assert "6 images checked: 2 good, 1 broken, 3 failed" in result.stderr
    read = keep_requests(sandbox)
    assert len(read) == len(set(read)) + 1, "what is lost is asked for once more"
    assert not writes(sandbox)
    words = ("--project-uuid", project, "--dry-run", "--from-arvados", "--images-from", "-")
    plain = run(*words, input=f"{two}\n{first.name}\n")
    key = own.partition("+A")[0]
    assert plain.stdout == f"broken {two} {two}: Keep has no block {key}; {PLAIN}\ngood {one} {first.name}: {PLAIN}\n"
    assert plain.status == 5


def test_what_images_share_is_read_once(
    three: list[tuple[images.Image, str]], project: str, run: Command, sandbox: Sandbox, cluster: Cluster
) -> None:
    copy = stored(run("--project-uuid", new_project(cluster, project), "--from-arvados", three[0][1]))
    sandbox.clear_requests()
    result, _ = checked(run, project, [*(uuid for _, uuid in three), copy])
    assert result.status == 0, result.stderr
    different = {block[:32] for _, uuid in three for block in blocks(cluster, uuid)}
    read = keep_requests(sandbox)
    assert sorted(read) == sorted(different)


def test_requests_of_a_check(
    three: list[tuple[images.Image, str]], project: str, run: Command, sandbox: Sandbox
) -> None:
    def cost(lines: list[str]) -> int:
        sandbox.clear_requests()
        assert checked(run, project, lines)[0].status == 0
        return sum(request["service"] == "api" for request in sandbox.requests())

    by_name, by_uuid = [image.name for image, _ in three], [uuid for _, uuid in three]
    cost(by_name)
    assert cost(by_name) == cost(by_name[:1])
    assert cost(by_uuid) == cost(by_uuid[:1])


def test_a_stopped_check_goes_on(
    three: list[tuple[images.Image, str]], project: str, run: Command, sandbox: Sandbox, cluster: Cluster
) -> None:
    lines = [uuid for _, uuid in three]
    words = ("--project-uuid", project, "--dry-run", "--from-arvados", "--images-from", "-")
    last = blocks(cluster, lines[-1])[1][:32]
    sandbox.fault("delay", service="keep", method="GET", path=last, times=None, seconds=60)
    process = run.start(*words, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("\n".join(lines))
    process.stdin.close()
    cache = run.directory / "cache" / "arvados" / "docker"
    while sum(path.read_text().count("\n") for path in cache.glob("*.checks")) < 4:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    sandbox.clear_faults()
    sandbox.clear_requests()
    result, found = checked(run, project, lines)
    assert [values["verdict"] for values in found] == ["good"] * 3, result.stderr
    assert "is not read again" in result.stderr
    large = {block[:32] for uuid in lines for block in blocks(cluster, uuid) if int(block.split("+")[1]) > BIG}
    assert [block for block in keep_requests(sandbox) if block in large] == [last]
    # A check that has come to its end is forgotten: the next one tells how it is then.
    sandbox.lose_block(blocks(cluster, lines[0])[1])
    result, found = checked(run, project, lines)
    assert [values["verdict"] for values in found] == ["broken", "good", "good"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal(
    three: list[tuple[images.Image, str]], project: str, run: Command, sandbox: Sandbox, number: signal.Signals
) -> None:
    sandbox.fault("delay", service="keep", method="GET", times=None, seconds=60)
    process = run.start("--project-uuid", project, "--dry-run", "--from-arvados", three[0][1])
    while not sandbox.faults()[0]["struck"]:
        time.sleep(0.05)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (128 + number, "")
    assert "The same command continues" in err


@pytest.mark.parametrize("options", [("--no-resume",), ("--no-cache",)])
def test_notes_that_are_not_wanted(
    three: list[tuple[images.Image, str]],
    project: str,
    run: Command,
    sandbox: Sandbox,
    cluster: Cluster,
    options: tuple[str, ...],
) -> None:
    lines = [uuid for _, uuid in three]
    sandbox.fault("status", service="keep", method="GET", path=blocks(cluster, lines[-1])[1][:32], times=1, status=503)
    result, _ = checked(run, project, lines, "--retries", "0")
    assert result.status == 6
    sandbox.clear_requests()
    assert checked(run, project, lines, *options)[0].status == 0
    different = {block[:32] for uuid in lines for block in blocks(cluster, uuid)}
    assert set(keep_requests(sandbox)) == different


def test_many_are_stored_anew(project: str, run: Command, cluster: Cluster, sandbox: Sandbox, tmp_path: Path) -> None:
    base = {"base": images.noise(BIG)}
    made = [archive(tmp_path / f"{number}.tar", layers=[base, {"own": os.urandom(99)}]) for number in range(3)]
    old = [as_1_0(cluster, project, tmp_path / f"{n}.tar", image.id, image.name) for n, image in enumerate(made)]
    words = ("--project-uuid", project, "--from-arvados", "--images-from", "-")
    sandbox.clear_requests()
    result = run(*words, input="\n".join(image.name for image in made))
    assert result.status == 0, result.stderr
    new = [line.split()[0] for line in result.stdout.splitlines()]
    assert not set(new) & set(old)
    for uuid, image in zip(new, made, strict=True):
        assert names_of(cluster, uuid) == {image.id, image.name}
    sent = sum(r["request_size"] for r in sandbox.requests() if (r["service"], r["method"]) == ("keep", "PUT"))
    assert sent < 2 * BIG
    again = run(*words, input="\n".join(image.name for image in made))
    assert [line.split()[0] for line in again.stdout.splitlines()] == new
    _, found = checked(run, project, [image.name for image in made])
    assert [values["verdict"] for values in found] == ["good"] * 3


def test_the_universal_form_of_version_1_0(project: str, run: Command, cluster: Cluster) -> None:
    path = ARCHIVES / "universal-solo.tar"
    image_id = FACTS["universal-solo.tar"]["config_digest"]
    old = as_1_0(cluster, project, path, image_id, "some/name:1")
    new = stored(run("--project-uuid", project, "--from-arvados", old))
    direct = run("--project-uuid", project, "--universal", "--portable-data-hash", "--from-archive", str(path), "x:1")
    assert content(cluster, new) == direct.stdout.strip()
    assert collection(cluster, new)["uuid"] != old


def test_the_commands_for_all_images(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    """What OPERATORS.md says, every night: for images that are as they should be, for one that is not, and again."""
    (commands,) = re.findall(r"```sh\n(arv-keepdocker images --quiet .*?)```", DOCUMENT.read_text(), re.DOTALL)
    program = tmp_path / "arv-keepdocker"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m arv_keepdocker "$@"\n')
    program.chmod(0o755)
    user = sandbox.add_user(f"nightly{os.getpid()}")
    environment = {**run.environment, **sandbox.environment(token=user.token)}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"

    def verdicts() -> list[str]:
        done = subprocess.run(["sh", "-c", commands], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr
        return sorted(line.split()[0] for line in (tmp_path / "verdicts.txt").read_text().splitlines())

    archive(tmp_path / "image.tar")
    for name in ("all/images:1", "all/images:2"):
        stored(run("--from-archive", "image.tar", name, env=environment))
    assert verdicts() == ["good"]
    archive(tmp_path / "saved.tar")
    stored(run("--via-arv-put", "--from-archive", "saved.tar", env=environment))
    assert verdicts() == ["good", "mendable"]
    assert verdicts() == ["good", "good", "mended"]
