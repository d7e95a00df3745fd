"""--images-from: many images in one run."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.cli import help_texts
from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine, Podman, Registry, docker
from tests.watching import Terminal

WITH_PROGRESS = re.compile(
    r"\S+: \d+%, \d+ of \d+ MiB, (?:\d+ sent, (?:[\d.]+ MiB/s, )?|stalled for [\d:]+, )"
    r"(?:[\d:]+ left|time left unknown)"
)
BIG = 4_400_000
"""Bytes of a layer that has blocks of its own."""


def layer(size: int = BIG) -> dict[str, bytes]:
    return {"random": images.noise(size)}


def lines(result: Result, status: int = 0) -> list[tuple[str, str]]:
    """What each line on stdout says: a UUID, and the image."""
    assert result.status == status, result.stderr
    return [(uuid, image) for uuid, _, image in (line.partition(" ") for line in result.stdout.splitlines())]


def sent_to_keep(sandbox: Sandbox) -> int:
    return sum(
        int(request["request_size"])
        for request in sandbox.requests()
        if request["service"] == "keep" and request["method"] == "PUT"
    )


def api_requests(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [request for request in sandbox.requests() if request["service"] == "api"]


@pytest.fixture
def bases() -> list[dict[str, bytes]]:
    return [layer(), layer()]


@pytest.fixture
def five(engine: Engine, bases: list[dict[str, bytes]]) -> list[images.Image]:
    """Images of which the first, third and fifth share a layer, and so do the others."""
    return [images.build(engine.host, layers=[bases[number % 2], layer()]) for number in range(5)]


@pytest.fixture(scope="session")
def five_small(engine: Engine) -> list[images.Image]:
    """Images for tests to which neither their layers nor what Keep has matters."""
    return [images.build(engine.host) for _ in range(5)]


def test_in_the_order_given_and_then_found(
    five_small: list[images.Image], project: str, run: Command, cluster: Cluster, tmp_path: Path
) -> None:
    names = [image.name for image in five_small]
    listed = tmp_path / "images.txt"
    listed.write_text("".join(f"{name}\n" for name in names) + "\n# none\n")
    words = ("--project-uuid", project, "--images-from", "images.txt")
    first = lines(run(*words))
    assert [name for _, name in first] == names
    assert len({uuid for uuid, _ in first}) == 5
    again = run(*words)
    assert lines(again) == first
    assert "5 images: 5 there already; 0.0 MiB sent" in again.stderr
    for (uuid, name), image in zip(first, five_small, strict=True):
        assert stored(run("--project-uuid", project, name)) == uuid
        links = cluster.api().links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]
        assert {link["name"] for link in links} == {name, image.id}


def test_what_images_share_is_sent_once(five: list[images.Image], project: str, run: Command, sandbox: Sandbox) -> None:
    sandbox.clear_requests()
    result = run("--project-uuid", project, "--format", "json", "--images-from", "-", input=text(five))
    assert result.status == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(list(values) == list(help_texts.RESULT_KEYS) for values in found)
    assert sent_to_keep(sandbox) < 7 * BIG + (1 << 20)
    assert sum(values["sent"] for values in found) == sent_to_keep(sandbox)
    assert sorted(sum(each["new"] for each in values["layers"]) for values in found) == [1, 1, 1, 2, 2]


def test_each_image_is_as_large_as_it_is_alone(five: list[images.Image], project: str, run: Command) -> None:
    alone = [run("--project-uuid", project, "--force", image.name).stderr for image in five]
    together = run("--project-uuid", project, "--force", "--images-from", "-", input=text(five)).stderr
    said = [re.search(r"storing .*", each) for each in alone]
    assert all(each is not None and each[0] in together for each in said), together


def text(wanted: list[images.Image]) -> str:
    return "".join(f"{image.name}\n" for image in wanted)


def test_the_same_bytes_as_one_by_one(five: list[images.Image], project: str, run: Command, cluster: Cluster) -> None:
    many = run("--project-uuid", project, "--portable-data-hash", "--images-from", "-", input=text(five))
    alone = [run("--force", "--portable-data-hash", image.name).stdout.strip() for image in five]
    assert [content for content, _ in lines(many)] == alone


def test_requests_for_images_that_are_there(
    engine: Engine, five_small: list[images.Image], project: str, run: Command, sandbox: Sandbox
) -> None:
    words = ("--project-uuid", project, "--images-from", "-")
    stored(run("--project-uuid", project, five_small[0].name))
    lines(run(*words, input=text(five_small)))

    def cost(wanted: list[images.Image], *options: str) -> int:
        sandbox.clear_requests()
        lines(run(*words, *options, input=text(wanted)))
        assert all(request["method"] == "GET" for request in api_requests(sandbox))
        return len(api_requests(sandbox))

    assert cost(five_small) <= cost(five_small[:1]) + 4
    without = ("--engine", "no-such-engine")
    assert cost(five_small, *without) <= cost(five_small[:1], *without) + 4


def test_one_that_fails_does_not_stop_the_others(five_small: list[images.Image], project: str, run: Command) -> None:
    missing = images.unique_name()
    given = [five_small[0].name, missing, "Bad:name", five_small[1].name, "a b c", five_small[2].name]
    words = ("--project-uuid", project, "--images-from", "-")
    result = run(*words, input="\n".join(given))
    assert [name for _, name in lines(result, status=3)] == [image.name for image in five_small[:3]]
    assert f"has no image {missing}" in result.stderr
    assert "Did you mean bad:name?" in result.stderr
    assert "6 images: 3 stored, 3 failed" in result.stderr

    result = run(*words, "--format", "json", input="\n".join(given))
    assert result.status == 3
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [values["image"] for values in found] == given
    assert [values.get("exit_status") for values in found] == [None, 3, 2, None, 2, None]
    assert all(list(values) == list(help_texts.ERROR_KEYS) for values in found if "error" in values)
    # The first failure's, whichever comes first.
    assert run(*words, input="\n".join(reversed(given))).status == 2


def test_names_of_one_image_and_an_image_twice(
    engine: Engine, five_small: list[images.Image], project: str, run: Command
) -> None:
    other = images.unique_name()
    first, second = five_small[:2]
    docker("tag", first.name, other, host=engine.host)
    given = [first.name, other, second.name, first.name, second.name.replace(":", " "), first.id]
    result = run("--project-uuid", project, "--images-from", "-", input="\n".join(given))
    found = lines(result)
    assert [name for _, name in found] == given
    assert len({uuid for uuid, _ in found}) == 2
    assert found[0][0] == found[1][0] == found[3][0] == found[5][0]


def test_a_dry_run(five: list[images.Image], project: str, run: Command, sandbox: Sandbox) -> None:
    stored(run("--project-uuid", project, five[0].name))
    sandbox.clear_requests()
    words = ("--project-uuid", project, "--dry-run", "--format", "json", "--images-from", "-")
    result = run(*words, input=text(five))
    assert result.status == 7, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [values["action"] for values in found] == ["found", *["stored"] * 4]
    assert sent_to_keep(sandbox) == 0
    assert sum(values["sent"] for values in found) < 5 * BIG + (1 << 20) + BIG
    assert all(request["method"] == "GET" for request in api_requests(sandbox))
    result = run(*words, input=text(five[:1]))
    assert result.status == 0
    plain = run("--project-uuid", project, "--dry-run", "--images-from", "-", input=text(five))
    assert [line.split()[1] for line in plain.stdout.splitlines() if line.startswith("image ")] == [
        image.id for image in five
    ]
    assert re.search(r"5 images: 4 would be stored, 1 there already; \d+\.\d MiB would be sent", plain.stderr)


def test_an_archive_of_several(
    engine: Engine, five: list[images.Image], project: str, run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    archive = tmp_path / "several.tar"
    docker("save", "--output", str(archive), *[image.name for image in five], host=engine.host)
    sandbox.clear_requests()
    words = ("--project-uuid", project, "--from-archive")
    (tmp_path / "list").write_text(text(five))
    first = lines(run(*words, "several.tar", "--images-from", "list"))
    assert [name for _, name in first] == [image.name for image in five]
    assert sent_to_keep(sandbox) < 7 * BIG + (1 << 20)
    with archive.open("rb") as file:
        process = run.start(*words, "-", "--images-from", "list", stdin=file.fileno())
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.splitlines() == [" ".join(line) for line in first]


def test_from_a_registry(
    engine: Engine, registry: Registry, bases: list[dict[str, bytes]], project: str, run: Command, sandbox: Sandbox
) -> None:
    pushed = [
        images.build(engine.host, f"{registry.host}/{images.unique_name()}", layers=[bases[0], layer()])
        for _ in range(3)
    ]
    for image in pushed:
        docker("push", image.name, host=engine.host)
    words = ("--project-uuid", project, "--from-registry", "--format", "json", "--images-from", "-")
    sandbox.clear_requests()
    result = run(*words, input=text(pushed))
    assert result.status == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [values["id"] for values in found] == [image.id for image in pushed]
    assert sum(values["fetched"] for values in found) < 4 * BIG + (1 << 20)
    assert sent_to_keep(sandbox) < 4 * BIG + (1 << 20)
    again = run(*words, input=text(pushed))
    assert [json.loads(line)["action"] for line in again.stdout.splitlines()] == ["found"] * 3


def test_keep_that_fails_for_a_while_and_then_for_good(
    five: list[images.Image], project: str, run: Command, sandbox: Sandbox
) -> None:
    words = ("--project-uuid", project, "--images-from", "-")
    sandbox.fault("status", service="keep", method="PUT", status=503, times=2)
    assert len(lines(run(*words, input=text(five[:2])))) == 2
    sandbox.fault("status", service="keep", method="PUT", status=503, times=None)
    result = run(*words, "--retries", "0", input=text(five))
    sandbox.clear_faults()
    assert [name for _, name in lines(result, status=6)] == [image.name for image in five[:2]]
    assert len(lines(run(*words, input=text(five)))) == 5


def test_an_interrupted_run_goes_on(five: list[images.Image], project: str, run: Command, sandbox: Sandbox) -> None:
    words = ("--project-uuid", project, "--images-from", "-")
    sandbox.fault("delay", service="keep", method="PUT", times=None, skip=4, seconds=60)
    process = run.start(*words, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(text(five))
    process.stdin.close()
    cache = run.directory / "cache" / "arvados" / "docker"
    while noted(cache) < 4:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    sandbox.clear_faults()
    sandbox.clear_requests()
    assert len(lines(run(*words, input=text(five)))) == 5
    assert sent_to_keep(sandbox) < 5 * BIG


def noted(cache: Path) -> int:
    """How many blocks the journals name that were sent."""
    return sum(line.count("+A") for path in cache.glob("*.journal") for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--images-from", "list", "bio/tool"), "bio/tool is one too many"),
        (("--images-from", "-", "--from-archive", "-"), "cannot be both"),
        (("--images-from", "empty"), "empty lists no images"),
        (("--images-from", "-"), "standard input lists no images"),
        (("--images-from", "-", "--from-arvados"), "standard input lists no images"),
        (("--images-from", "list", "--limit", "1"), "--limit is for listing"),
        (("images", "--images-from", "list"), "images is one too many"),
    ],
)
def test_what_cannot_be_meant(run: Command, words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("bio/tool\n")
    (tmp_path / "empty").write_text("# nothing\n\n")
    result = run(*words, input="# nothing\n\n")
    assert (result.status, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_list_that_cannot_be_read(run: Command, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert run("--images-from", "nowhere").status == 1
    assert run("--images-from", "binary").status == 2
    assert run("--images-from", ".").status == 1


def test_on_a_terminal_each_image_has_a_line(
    engine: Engine, project: str, run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Both streams go to one terminal: at any time it shows whole lines, and in the end no progress is left."""
    built = [images.build(engine.host, layers=[layer(3 << 20), layer(2 << 20)]) for _ in range(3)]
    missing = images.unique_name()
    (tmp_path / "list").write_text("".join(f"{name}\n" for name in (missing, *[image.name for image in built])))
    screen, together, shown = Terminal(), 0, b""
    master, slave = pty.openpty()
    with sandbox.changed(keep_bandwidth=2e6):
        words = ("--project-uuid", project, "--images-from", str(tmp_path / "list"))
        process = run.start(*words, stdout=slave, stderr=slave)
        os.close(slave)
        with suppress(OSError):  # which is the end
            while data := os.read(master, 65536):
                shown += data
                if not shown.endswith((b"\n", b"\x1b[K", b"\x1b[J", b"A")):
                    continue  # there is more to come of what was written
                screen.write(shown.decode())
                shown = b""
                drawn = [image for image in built if any(line.startswith(f"{image.name}: ") for line in screen.lines)]
                together += len(drawn) == 2
                for line in screen.lines:
                    whole = line.startswith(("arv-keepdocker: ", "docker is saving ")) or re.match(r"\S+-4zz18-", line)
                    assert not line or whole or (WITH_PROGRESS.fullmatch(line) and len(line) < 80), screen.lines
    os.close(master)
    assert process.wait() == 3
    assert together > 5
    left = [line for line in screen.lines if line]
    printed = [line for line in left if not line.startswith("arv-keepdocker: ")]
    assert [line.partition(" ")[2] for line in printed] == [image.name for image in built]


def test_arv_put_is_given_one_image_at_a_time(engine: Engine, project: str, run: Command) -> None:
    built = [images.build(engine.host, layers=[layer()]) for _ in range(4)]
    result = run("--project-uuid", project, "--via-arv-put", "--images-from", "-", input=text(built), tty=True)
    assert [image for _, image in lines(result)] == [image.name for image in built]


@pytest.mark.parametrize("option", ["", "--via-push", "--via-arv-put"])
@pytest.mark.parametrize("program", ["docker", "podman"])
def test_every_engine_and_every_way(
    request: pytest.FixtureRequest,
    bases: list[dict[str, bytes]],
    project: str,
    run: Command,
    cluster: Cluster,
    sandbox: Sandbox,
    tmp_path: Path,
    program: str,
    option: str,
) -> None:
    """Images that share layers are stored as from their archives, and those that fail do not stop the others."""
    archives = [tmp_path / f"{number}.tar" for number in range(3)]
    built = []
    for archive in archives:
        with archive.open("wb") as file:
            built.append(images.write_archive(file, layers=[bases[0], layer()]))
    if program == "podman":
        podman: Podman = request.getfixturevalue("podman")
        run.environment["ARV_KEEPDOCKER_ENGINE"] = str(podman.program)
        for archive in archives:
            podman.run("load", "--quiet", "--input", str(archive))
    else:
        engine: Engine = request.getfixturevalue("engine")
        run.environment |= engine.environment
        for archive in archives:
            docker("load", "--quiet", "--input", str(archive), host=engine.host)
    names = [f"localhost/{image.name}" if program == "podman" else image.name for image in built]
    wanted = [names[0], "no/such-image:1", *names[1:]]
    words = ("--project-uuid", project, *filter(None, [option]), "--images-from", "-")
    sandbox.clear_requests()
    found = lines(run(*words, input="\n".join(wanted)), 3)
    assert [name for _, name in found] == names
    sent = sent_to_keep(sandbox)
    if option != "--via-arv-put":
        assert sent < 4 * BIG + (1 << 20)
        for (uuid, _), archive in zip(found, archives, strict=True):
            direct = run("--project-uuid", project, "--portable-data-hash", "--force", "--from-archive", str(archive))
            collection = cluster.api().collections().get(uuid=uuid).execute()
            assert collection["portable_data_hash"] == direct.stdout.strip()
    for (uuid, name), image in zip(found, built, strict=True):
        links = cluster.api().links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]
        assert {link["name"] for link in links} == {name, image.id}
    if option == "--via-arv-put":
        sandbox.clear_requests()
        assert lines(run(*words, input="\n".join(names))) == found
        assert sent_to_keep(sandbox) == 0


def test_memory_is_bounded_for_all_images_together(
    engine: Engine, sandbox: Sandbox, project: str, run: Command
) -> None:
    """Together they have five blocks in memory, as one has: with five for each, all of both would be."""
    size = 200 << 20
    pairs = [images.build(engine.host, layers=[layer(size)]) for _ in range(2)]
    peak = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); " + (
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"
    )
    measured = replace(run.anew(), argv=[sys.executable, "-c", peak, *run.argv])
    # Slower than they are saved, so that blocks wait.
    with sandbox.changed(keep_bandwidth=100e6):
        result = measured("--project-uuid", project, "--no-progress", "--images-from", "-", input=text(pairs))
    assert len(lines(result)) == 2
    # What else the program has in memory is some 60 MiB.
    assert int(result.stderr.split()[-1]) << 10 < 2 * size + (25 << 20)
