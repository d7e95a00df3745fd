"""Straight to Keep: what is sent and what is not, what is shown, and how a run goes on where another has ended."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.keep.journal import Journal
from arv_keepdocker.sandbox import Sandbox
from tests import canonical, images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine
from tests.test_failures import DockerThat, cached, failed, nothing_recorded, records, wait_until

MIB = 1 << 20


def sent(sandbox: Sandbox) -> list[int]:
    """The sizes of the blocks that Keep was sent."""
    requests = sandbox.requests()
    return [one["request_size"] for one in requests if (one["service"], one["method"]) == ("keep", "PUT")]


def writes(sandbox: Sandbox) -> list[str]:
    return [one["path"] for one in sandbox.requests() if one["method"] not in ("GET", "HEAD")]


def journals(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "arvados" / "docker").glob("*.journal"))


def layers(*mebibytes: float) -> list[images.Layer]:
    return [{f"random{number}": images.noise(int(size * MIB))} for number, size in enumerate(mebibytes)]


def saved(engine: Engine, image: images.Image, tmp_path: Path) -> bytes:
    path = tmp_path / "saved.tar"
    engine.docker("save", "--output", str(path), image.id)
    return path.read_bytes()


def canonical_of(engine: Engine, image: images.Image, tmp_path: Path) -> bytes:
    """What is stored of the image."""
    return canonical.archive_of(saved(engine, image, tmp_path))


def fetched(run_tool: Callable[..., Result], uuid: str, tmp_path: Path) -> bytes:
    """The one file of a collection, as arv-get gets it."""
    directory = tmp_path / f"got-{uuid}"
    directory.mkdir()
    result = run_tool("arv-get", f"{uuid}/", f"{directory}/")
    assert result.status == 0, result.stderr
    (file,) = directory.iterdir()
    return file.read_bytes()


def test_arvados_describes_its_api_once(
    sandbox: Sandbox, project: str, run: Command, archive: str, way: tuple[str, ...]
) -> None:
    """The SDK would ask for it in every thread."""
    sandbox.clear_requests()
    stored(run(*way, "--project-uuid", project, "--from-archive", archive))
    asked = [request["path"] for request in sandbox.requests() if request["method"] == "GET"]
    assert len([path for path in asked if path.startswith("/discovery/")]) == 1
    assert asked.count("/arvados/v1/config") == 1


@pytest.mark.parametrize("sizes", [(), (0.1,), (4, 0.5, 4.2), (65,)], ids=["none", "small", "some", "large"])
def test_the_collection_is_the_canonical_archive(
    engine: Engine,
    cluster: Cluster,
    project: str,
    run: Command,
    run_tool: Callable[..., Result],
    tmp_path: Path,
    sizes: tuple[float, ...],
) -> None:
    image = images.build(engine.host, layers=layers(*sizes) if sizes else None)
    uuid = stored(run("--project-uuid", project, image.name))
    assert fetched(run_tool, uuid, tmp_path) == canonical_of(engine, image, tmp_path)
    assert not list(tmp_path.glob("cache/arvados/docker/*.tar*"))


def test_only_the_new_layers_of_the_next_version_are_sent(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, run_tool: Callable[..., Result], tmp_path: Path
) -> None:
    base = layers(5, 4.2, 6)
    first = images.build(engine.host, layers=base)
    repository = first.name.partition(":")[0]
    second = images.build(engine.host, f"{repository}:v2", layers=[*base, *layers(4.5)])
    middle = images.build(engine.host, f"{repository}:v3", layers=[base[0], *layers(4.1), base[2]])
    stored(run("--project-uuid", project, first.name))
    for number, (image, new) in enumerate([(second, 4.5), (middle, 4.1)]):
        # Another machine: only Arvados knows what was sent.
        environment = {"XDG_CACHE_HOME": str(tmp_path / f"cache{number}")}
        sandbox.clear_requests()
        result = run("--project-uuid", project, image.name, env=environment)
        uuid = stored(result)
        assert new * MIB < sum(sent(sandbox)) < (new + 1) * MIB
        assert re.search(
            r"stored \S+ in .*: \d+\.\d MiB sent, 1\d\.\d MiB were there already \(\d+\.\d s\)", result.stderr
        )
        assert fetched(run_tool, uuid, tmp_path) == canonical_of(engine, image, tmp_path)


def test_a_link_to_nothing_is_no_obstacle(engine: Engine, cluster: Cluster, project: str, run: Command) -> None:
    body = {"link_class": "docker_image_hash", "name": f"sha256:{'0' * 64}", "owner_uuid": project}
    link = cluster.api().links().create(body={"link": {**body, "head_uuid": "junk"}}).execute()
    try:
        stored(run("--project-uuid", project, images.build(engine.host).name))
    finally:
        cluster.api().links().delete(uuid=link["uuid"]).execute()


def test_blocks_of_any_new_image_are_reused_but_of_none_that_may_not_be_read(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, tmp_path: Path
) -> None:
    base = layers(4.2)
    first = images.build(engine.host, layers=base)
    second = images.build(engine.host, layers=[*base, *layers(0.1)])  # in another repository
    stored(run("--project-uuid", project, first.name))
    sandbox.clear_requests()
    other: dict[str, str | None] = {"XDG_CACHE_HOME": str(tmp_path / "other")}
    spectator = {"ARVADOS_API_TOKEN": sandbox.users["spectator"].token}
    stored(run(second.name, env={**other, **spectator}))
    assert sum(sent(sandbox)) > 4 * MIB
    sandbox.clear_requests()
    stored(run("--project-uuid", project, second.name, env=other))
    assert sum(sent(sandbox)) < MIB


def test_looking_for_what_is_known_costs_three_requests(
    engine: Engine, sandbox: Sandbox, project: str, run: Command
) -> None:
    stored(run("--project-uuid", project, images.build(engine.host).name))
    for _ in range(2):
        image = images.build(engine.host)
        sandbox.clear_requests()
        stored(run("--project-uuid", project, image.name))
        queries = [one["query"] for one in sandbox.requests() if "created_at desc" in json.dumps(one["query"])]
        assert len(queries) == 3
        assert len(sandbox.requests()) < 25


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_goes_on_where_another_was_stopped(
    engine: Engine,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    run_tool: Callable[..., Result],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    image = images.build(engine.host, layers=layers(*[4.2] * 8))
    sandbox.fault("delay", service="keep", method="PUT", seconds=60, skip=5, times=None)
    process = run.anew().start("--project-uuid", project, image.name)
    wait_until(lambda: sum(fault["struck"] for fault in sandbox.faults()) == 2)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), err
    assert out == ""
    assert nothing_recorded(cluster, project)
    sandbox.clear_faults()
    sandbox.clear_requests()
    (journal,) = journals(tmp_path)
    assert journal.stat().st_mode & 0o777 == 0o600
    assert len(Journal(journal).read(0).locators) == 5
    uuid = stored(run("--project-uuid", project, image.name))
    assert len(sent(sandbox)) == 9 - 5  # eight layers, and what ends the archive
    assert fetched(run_tool, uuid, tmp_path) == canonical_of(engine, image, tmp_path)
    assert len(records(cluster, project)[0]) == 1


def test_a_journal_cut_anywhere_or_another_tokens(
    engine: Engine, large_image: images.Image, sandbox: Sandbox, project: str, run: Command, tmp_path: Path
) -> None:
    sandbox.fault("status", service="api", method="POST", path="/collections", status=422, times=None)
    refused = ("--project-uuid", project, "--retries=0", large_image.name)
    failed(run(*refused), 6, large_image.id)
    (journal,) = journals(tmp_path)
    whole = journal.read_bytes()
    (block,) = [line for line in whole.splitlines(keepends=True) if re.match(rb"\w{32}\+\d{7,}\+", line)]
    end = whole.index(block) + len(block)
    for size in (0, 1, end // 2, end - 1, end, len(whole) - 1, len(whole)):
        journal.write_bytes(whole[:size])
        sandbox.clear_requests()
        failed(run(*refused), 6, large_image.id)
        assert (sum(sent(sandbox)) < MIB) == (size >= end)  # a line counts when it has an end
    sandbox.clear_requests()
    admin = {"ARVADOS_API_TOKEN": sandbox.users["admin"].token}
    failed(run(*refused, env=admin), 6, large_image.id)
    assert sum(sent(sandbox)) > 4 * MIB
    assert len(journals(tmp_path)) == 2


@pytest.mark.parametrize("options", [["--no-resume"], ["--no-cache"], ["--force"]])
def test_options_that_do_without_the_journal(
    engine: Engine,
    large_image: images.Image,
    sandbox: Sandbox,
    project: str,
    run: Command,
    tmp_path: Path,
    options: list[str],
) -> None:
    sandbox.fault("status", service="api", method="POST", path="/collections", status=422, times=None)
    refused = ("--project-uuid", project, "--retries=0", large_image.name)
    failed(run(*options, *refused), 6, large_image.id)
    assert bool(journals(tmp_path)) == (options != ["--no-cache"])
    failed(run(*refused), 6, large_image.id)  # writes it
    sandbox.clear_requests()
    failed(run(*options, *refused), 6, large_image.id)
    assert sum(sent(sandbox)) > 4 * MIB


def test_force_sends_every_block(
    engine: Engine, large_image: images.Image, sandbox: Sandbox, project: str, run: Command
) -> None:
    first = stored(run("--project-uuid", project, large_image.name))
    sandbox.clear_requests()
    assert stored(run("--project-uuid", project, "--force", large_image.name)) != first
    assert sum(sent(sandbox)) > 4 * MIB


def largest(archive: bytes) -> bytes:
    """The first block of the archive's largest layer: the layer with its header."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = max(tar, key=lambda member: member.size)
    return archive[member.offset : member.offset_data + -(-member.size // 512) * 512]


def forged(path: Path, data: bytes) -> None:
    """A journal that says that a block is in Keep, with a signature that Arvados does not accept."""
    locator = f"{hashlib.md5(data).hexdigest()}+{len(data)}+A{'0' * 40}@{int(time.time()) + 10**6:08x}"
    path.write_text(f"{locator}\n")


def test_signatures_that_arvados_does_not_accept(
    engine: Engine,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    run_tool: Callable[..., Result],
    tmp_path: Path,
) -> None:
    image = images.build(engine.host, layers=layers(4.2))
    stored(run("--project-uuid", project, images.build(engine.host).name))  # makes the journal
    (journal,) = journals(tmp_path)
    data = canonical_of(engine, image, tmp_path)
    forged(journal, largest(data))
    sandbox.clear_requests()
    result = run("--project-uuid", project, image.name)
    uuid = stored(result)
    assert "warning" in result.stderr
    assert "PermissionDenied" in result.stderr
    assert fetched(run_tool, uuid, tmp_path) == data
    # The bad notes are gone.
    sandbox.clear_requests()
    again = run("--project-uuid", project, images.build(engine.host, layers=layers(4.2)).name)
    stored(again)
    assert "warning" not in again.stderr

    # Standard input cannot be read once more.
    image = images.build(engine.host, layers=layers(4.2))
    data = canonical_of(engine, image, tmp_path)
    forged(journal, largest(data))
    shell = Command(["sh", "-c", f'{" ".join(run.argv)} "$@" <{tmp_path}/saved.tar', "sh"], *vars_of(run))
    failed(shell("--project-uuid", project, "--from-archive", "-", image.name), 6, "PermissionDenied", "--force")
    stored(shell("--project-uuid", project, "--from-archive", "-", "--force", image.name))
    forged(journal, largest(data))
    stored(run("--project-uuid", project, "--from-archive", str(tmp_path / "saved.tar"), images.unique_name()))


def vars_of(command: Command) -> tuple[Path, dict[str, str], list[Any]]:
    return command.directory, command.environment, command.processes


def test_a_refusal_that_is_not_the_signatures_is_met_once(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command
) -> None:
    base = layers(4.2)
    stored(run("--project-uuid", project, images.build(engine.host, layers=base).name))
    image = images.build(engine.host, layers=[*base, *layers(0.1)])
    sandbox.clear_requests()
    sandbox.fault("status", service="api", method="POST", path="/collections", status=403, times=None, errors=["no!"])
    failed(run("--project-uuid", project, "--retries=0", image.name), 6, "no!")
    assert [size > 4 * MIB for size in sent(sandbox)].count(True) == 1
    assert len([path for path in writes(sandbox) if path.endswith("/collections")]) == 2


def test_expired_signatures_are_not_used(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, tmp_path: Path
) -> None:
    before = sandbox.settings()["signature_ttl"]
    base = layers(4.2)
    sandbox.settings(signature_ttl=60)
    try:
        stored(run("--project-uuid", project, images.build(engine.host, layers=base).name))
        sandbox.clear_requests()
        result = run("--project-uuid", project, images.build(engine.host, layers=[*base, *layers(0.1)]).name)
        stored(result)
        # They would expire while much is sent.
        assert sum(sent(sandbox)) > 4 * MIB
        assert "warning" not in result.stderr
        assert journals(tmp_path)[0].read_text().count("\n") > 0
    finally:
        sandbox.settings(signature_ttl=before)


@pytest.mark.parametrize("what", ["collections", "links"])
def test_what_was_made_is_not_made_again_when_the_answer_is_lost(
    engine: Engine, small_image: images.Image, sandbox: Sandbox, cluster: Cluster, project: str, run: Command, what: str
) -> None:
    sandbox.fault("drop-after", service="api", method="POST", path=f"/{what}", times=1)
    stored(run("--project-uuid", project, small_image.name))
    assert len(records(cluster, project)[0]) == 1
    assert records(cluster, project)[1] == sorted([small_image.name, small_image.id])
    # Also when there is one like it already.
    sandbox.fault("drop-after", service="api", method="POST", path=f"/{what}", times=1)
    stored(run("--project-uuid", project, "--force", small_image.name))
    assert len(records(cluster, project)[0]) == 2
    assert len(records(cluster, project)[1]) == 4


# The universal form, and archives


@pytest.mark.long
def test_both_ways_store_the_same(
    engine: Engine, cluster: Cluster, project: str, run: Command, run_tool: Callable[..., Result], tmp_path: Path
) -> None:
    image = images.build(engine.host, layers=layers(4.2, 0.2, 4, 0.3))
    file = tmp_path / "image.tar"
    file.write_bytes(saved(engine, image, tmp_path))
    shell = Command(["sh", "-c", f'gzip -1 <{file} | {" ".join(run.argv)} "$@"', "sh"], *vars_of(run))
    options = ("--project-uuid", project, "--force")
    for words in (("--universal", image.name), (image.name,)):
        (home := tmp_path / f"{len(words)}").mkdir()
        expected = canonical.archive_of(file.read_bytes(), universal=len(words) == 2)
        by_arv_put = stored(run(*options, "--via-arv-put", *words))
        # Through arv-put, what the engine writes stays as it is.
        written = expected if len(words) == 2 else file.read_bytes()
        assert same(fetched(run_tool, by_arv_put, home), written)
        for via in ((), ("--via-arv-put",)):
            uuids = [
                *([] if via else [stored(run(*options, *words))]),
                stored(run(*options, *via, "--from-archive", str(file), *words)),
                stored(shell(*options, *via, "--from-archive", "-", *words)),
            ]
            for uuid in uuids:
                assert same(fetched(run_tool, uuid, home), expected)
        assert cached(tmp_path) == []


def same(first: bytes, second: bytes) -> bool:
    """Without showing megabytes where they differ."""
    return hashlib.md5(first).digest() == hashlib.md5(second).digest()


def test_an_archive_that_is_there_already_is_only_read(
    engine: Engine, large_image: images.Image, sandbox: Sandbox, project: str, run: Command, tmp_path: Path
) -> None:
    saved(engine, large_image, tmp_path)
    words = ("--project-uuid", project, "--from-archive", str(tmp_path / "saved.tar"), large_image.name)
    uuid = stored(run(*words))
    sandbox.clear_requests()
    assert stored(run(*words, env={"XDG_CACHE_HOME": str(tmp_path / "other")})) == uuid
    assert writes(sandbox) == []


def test_the_image_is_another_one_when_it_is_saved_again(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    base = layers(4.2)
    stored(run("--project-uuid", project, images.build(engine.host, layers=base).name))
    first = images.build(engine.host, layers=[*base, *layers(0.1)])
    other = images.build(engine.host)
    sandbox.fault("status", service="api", method="POST", path="/collections", status=403, times=1)
    flag = tmp_path / "flag"
    swaps = docker_that(
        f'[ "$2" = save ] || exec env PATH="$REAL_PATH" docker "$@"; '
        f'if [ -e {flag} ]; then real image save {other.id}; else touch {flag}; real "$@"; fi'
    )
    failed(run("--project-uuid", project, "--retries=0", first.name, env=swaps), 1, first.id, other.id)


# What is shown


def test_a_dry_run_tells_and_writes_nothing(
    engine: Engine, sandbox: Sandbox, cluster: Cluster, project: str, run: Command, tmp_path: Path
) -> None:
    base = layers(5, 4.5)
    first = images.build(engine.host, layers=base)
    words = ("--project-uuid", project, "--dry-run")
    sandbox.clear_requests()
    result = run(*words, first.name)
    assert result.status == 7, result.stderr
    assert writes(sandbox) == []
    assert nothing_recorded(cluster, project)
    assert list((tmp_path / "cache").glob("**/docker/*")) == []
    lines = result.stdout.splitlines()
    assert lines[0] == f"image {first.id} ({first.name}): not in Arvados"
    assert [line.split()[1].rstrip(":") for line in lines[1:3]] == first.diff_ids
    assert all(line.endswith(" bytes, new") for line in lines[1:3])
    size = len(canonical_of(engine, first, tmp_path))
    assert lines[3:] == [
        f"would make collection 'Docker image {first.name.replace('/', ' ')} {first.id[:12]}' in {project}",
        f"would make link docker_image_hash {first.id} to it",
        f"would make link docker_image_repo+tag {first.name} to it",
        f"{size} bytes would be sent",
    ]

    uuid = stored(run("--project-uuid", project, first.name))
    sandbox.clear_requests()
    result = run(*words, first.name)
    assert result.status == 0
    assert result.stdout == f"image {first.id} ({first.name}): in Arvados, in {uuid}\n0 bytes would be sent\n"
    second = images.build(engine.host, layers=[*base, *layers(4)])
    result = run(*words, second.name)
    assert result.status == 7
    assert [line.rpartition(", ")[2] for line in result.stdout.splitlines()[1:4]] == ["known", "known", "new"]
    last = re.fullmatch(r"(\d+) bytes would be sent", result.stdout.splitlines()[-1])
    assert last
    assert 4 * MIB < int(last[1]) < 5 * MIB
    # Another project's image, and one of Arvados alone.
    home = run("--dry-run", first.name)
    assert (home.status, home.stdout.splitlines()[0]) == (7, result_line(first, uuid))
    engine.forget(first.id)
    alone = run("--dry-run", first.name)
    assert (alone.status, alone.stdout.splitlines()[0]) == (7, result_line(first, uuid))
    saved(engine, second, tmp_path)
    for form in ("--universal", "--no-universal"):
        archived = run(*words, form, "--from-archive", str(tmp_path / "saved.tar"), second.name)
        assert archived.status == 7
        assert [line.rpartition(", ")[2] for line in archived.stdout.splitlines()[1:4]] == ["known", "known", "new"]
    assert writes(sandbox) == []
    assert [len(found) for found in records(cluster, project)] == [1, 2]
    failed(run(*words, "--via-arv-put", second.name), 2, "--via-arv-put")
    failed(run(*words, images.unique_name()), 3)


WRITTEN = ["another tag", "another project", "a link fewer", "no hash link", "unfinished", "no property", "blocks only"]


@pytest.mark.parametrize(
    ("form", "state"),
    [("plain", state) for state in ["whole", *WRITTEN]]
    + [(form, state) for form in ("universal", "archive") for state in ("another tag", "no hash link")],
)
def test_a_dry_run_tells_what_the_real_run_writes(
    engine: Engine,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    tmp_path: Path,
    form: str,
    state: str,
) -> None:
    image = images.build(engine.host)
    name = image.name
    more: tuple[str, ...] = ("--universal",) if form == "universal" else ()
    if form == "archive":
        saved(engine, image, tmp_path)
        more = ("--from-archive", str(tmp_path / "saved.tar"))
    words = ("--project-uuid", project, *more)
    api = cluster.api()
    first = stored(run(*(more if state == "another project" else words), name))
    if state == "another tag":
        name = images.unique_name()
        if form != "archive":
            engine.docker("tag", image.name, name)
    gone = {
        "a link fewer": ["docker_image_repo+tag"],
        "no hash link": ["docker_image_hash"],
        "unfinished": ["docker_image_hash", "docker_image_repo+tag"],
        "no property": ["docker_image_hash", "docker_image_repo+tag"],
    }
    for link_class in gone.get(state, []):
        found = api.links().list(filters=[["head_uuid", "=", first], ["link_class", "=", link_class]]).execute()
        for link in found["items"]:
            api.links().delete(uuid=link["uuid"]).execute()
    if state == "no property":
        api.collections().update(uuid=first, body={"collection": {"properties": {}}}).execute()
    if state == "blocks only":
        api.collections().delete(uuid=first).execute()
    sandbox.clear_requests()
    dry = run("--dry-run", *words, name)
    assert writes(sandbox) == []
    told = [line.split()[2] for line in dry.stdout.splitlines() if line.startswith("would make ")]
    sandbox.clear_requests()
    stored(run(*words, name))
    kinds = {"collections": "collection", "links": "link"}
    made = [kinds[path.split("/")[3]] for path in writes(sandbox) if path.startswith("/arvados/")]
    if state == "no property":
        assert (told[0], made[0]) == ("property", "collection")
        told[0] = "collection"
    assert told == made
    assert dry.status == (7 if made else 0)
    assert bool(made) == (state != "whole")
    again = run("--dry-run", *words, name)
    assert (again.status, "would make" in again.stdout) == (0, False)


def result_line(image: images.Image, uuid: str) -> str:
    return f"image {image.id} ({image.name}): in Arvados, in {uuid}"


def test_wrong_numbers_of_threads(run: Command) -> None:
    for words in (["--threads=0"], ["--threads=x"]):
        result = run(*words, "debian")
        assert result.status == 2
        assert "--threads" in result.stderr


@pytest.mark.parametrize("threads", [1, 5])
def test_threads(engine: Engine, project: str, run: Command, threads: int) -> None:
    image = images.build(engine.host, layers=layers(4.2, 4, 4))
    stored(run("--project-uuid", project, f"--threads={threads}", image.name))
    stored(run("--project-uuid", project, "--force", "--via-arv-put", f"--threads={threads}", image.name))
