"""--from-arvados --dry-run: what is wrong with images that Arvados has."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.cli import help_texts
from arv_keepdocker.images.compression import can_unpack
from arv_keepdocker.keep.locators import blocks_of_one_file
from arv_keepdocker.sandbox import Sandbox
from tests import images, odd
from tests.conftest import Cluster, Command, stored
from tests.test_from_arvados import HASH, NAME, archive, collection, content, keep_requests, links_to, new_project

BIG = 4_400_000
PLAIN = "Docker's containerd image store does not find it; in the universal form, every engine does"


def check(run: Command, *words: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """The exit status, and what is printed as JSON; nothing is written."""
    result = run("--dry-run", "--format", "json", "--from-arvados", *words, **options)
    assert result.status in (0, 5, 7), result.stderr
    values: dict[str, Any] = json.loads(result.stdout)
    assert list(values) == list(help_texts.CHECK_KEYS)
    assert values["exit_status"] == result.status
    return result.status, values


def blocks(cluster: Cluster, uuid: str) -> list[str]:
    return [word for word in collection(cluster, uuid)["manifest_text"].split() if word[32:33] == "+"]


def writes(sandbox: Sandbox) -> list[Mapping[str, Any]]:
    return [request for request in sandbox.requests() if request["method"] != "GET"]


@pytest.fixture
def image(tmp_path: Path) -> images.Image:
    """With a small layer, one that has blocks of its own, and another small one."""
    layers = [{"a": os.urandom(100)}, {"b": images.noise(BIG)}, {"c": os.urandom(100)}]
    return archive(tmp_path / "image.tar", layers=layers)


@pytest.fixture
def there(image: images.Image, project: str, run: Command) -> str:
    return stored(run("--project-uuid", project, "--from-archive", "image.tar"))


def test_all_is_well(image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox) -> None:
    sandbox.clear_requests()
    status, values = check(run, image.name, "--project-uuid", project)
    assert (status, values["verdict"], values["faults"], values["would_make"]) == (0, "good", [], [])
    assert values["findings"] == [PLAIN]
    assert (values["id"], values["right_id"], values["form"]) == (image.id, image.id, "plain")
    assert [layer["diff_id"] for layer in values["layers"]] == image.diff_ids
    assert values["collection_uuid"] == there
    # Every block is read, once.
    read = keep_requests(sandbox)
    assert len(read) == len(set(read))
    assert not writes(sandbox)
    result = run("--project-uuid", project, "--dry-run", "--from-arvados", there)
    assert (result.status, result.stdout) == (0, f"good {there} {there}\nfinding: {PLAIN}\n")


@pytest.mark.parametrize("which", range(4))
def test_a_lost_block(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox, cluster: Cluster, which: int
) -> None:
    found = blocks(cluster, there)
    assert len(found) == 4
    assert check(run, there, "--project-uuid", project)[0] == 0
    assert sandbox.lose_block(found[which])
    sandbox.clear_requests()
    status, values = check(run, there, "--project-uuid", project)
    assert (status, values["verdict"], values["would_make"]) == (5, "broken", [])
    assert values["faults"] == [f"Keep has no block {found[which].partition('+A')[0]}"]
    assert not writes(sandbox)
    result = run("--project-uuid", project, "--dry-run", "--from-arvados", there)
    assert result.stdout.startswith(f"broken {there} {there}\nfault: {values['faults'][0]}\n")


def stored_as(cluster: Cluster, project: str, manifest: str, name: str, image_id: str) -> str:
    """The UUID of a collection with this manifest that links call an image."""
    body = {"manifest_text": manifest, "owner_uuid": project, "name": "made for a test"}
    uuid = str(cluster.api().collections().create(body=body, ensure_unique_name=True).execute()["uuid"])
    for link_class, link_name in ((HASH, image_id), (NAME, name)) if image_id else ((NAME, name),):
        link = {"link_class": link_class, "name": link_name, "head_uuid": uuid, "owner_uuid": project}
        cluster.api().links().create(body=link).execute()
    return uuid


def put(cluster: Cluster, data: bytes) -> str:
    return str(cluster.api().keep.put(data, copies=1))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_layer_that_was_replaced(
    image: images.Image, there: str, project: str, run: Command, cluster: Cluster, which: int
) -> None:
    manifest = collection(cluster, there)["manifest_text"]
    found = blocks_of_one_file(manifest)
    size = int(found[which].split("+")[1])
    data = bytearray(cluster.api().keep.get(found[which]))
    data[1000] ^= 1
    other = stored_as(cluster, project, manifest.replace(found[which], put(cluster, bytes(data))), "a/b:1", image.id)
    status, values = check(run, other, "--project-uuid", project)
    assert (status, values["verdict"]) == (5, "broken")
    assert len(data) == size
    assert [f"layer {image.diff_ids[which]} is damaged" in fault for fault in values["faults"]] == [True]
    real = run("--project-uuid", project, "--force", "--from-arvados", other)
    assert (real.status, real.stdout) == (5, "")
    assert image.diff_ids[which].removeprefix("sha256:") in real.stderr


@pytest.mark.parametrize("also_right", [False, True], ids=["instead", "beside"])
def test_a_link_with_a_wrong_id(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox, cluster: Cluster, also_right: bool
) -> None:
    wrong = "sha256:" + "0" * 64
    (right,) = [link["uuid"] for link in links_to(cluster, there) if link["link_class"] == HASH]
    if not also_right:
        cluster.api().links().delete(uuid=right).execute()
    link = {"link_class": HASH, "name": wrong, "head_uuid": there, "owner_uuid": project}
    cluster.api().links().create(body=link).execute()
    sandbox.clear_requests()
    for source in (there, image.name, wrong, content(cluster, there)):
        status, values = check(run, source, "--project-uuid", project)
        assert (status, values["verdict"]) == (5, "broken")
        assert [f"is image {wrong}, and its file is {image.id}.tar" in fault for fault in values["faults"]] == [True]
        real = run("--project-uuid", project, "--from-arvados", source)
        assert (real.status, real.stdout) == (5, "")
        assert wrong in real.stderr
    assert not writes(sandbox)
    command = real.stderr.partition("remove the wrong links: ")[2]
    subprocess.run(["sh", "-c", command], env=run.environment, check=True)
    assert stored(run("--project-uuid", project, "--from-arvados", there)) == there
    assert check(run, there, "--project-uuid", project)[0] == 0


@pytest.mark.parametrize("files", [0, 2])
def test_what_is_not_one_file(
    image: images.Image, there: str, project: str, run: Command, cluster: Cluster, files: int
) -> None:
    manifest = collection(cluster, there)["manifest_text"]
    text = manifest.rstrip("\n") + " 0:1:more\n" if files else ""
    name = images.unique_name()
    other = stored_as(cluster, project, text, name, image.id)
    for source in (other, name):
        status, values = check(run, source, "--project-uuid", project)
        assert (status, values["collection_uuid"]) == (5, other)
        assert values["faults"] == [f"collection {other} has {files or 'no'} files, and an image is one file"]
        real = run("--project-uuid", project, "--from-arvados", source)
        assert (real.status, real.stdout) == (5, "")


def test_a_block_that_is_short(image: images.Image, there: str, project: str, run: Command, cluster: Cluster) -> None:
    locator = put(cluster, b"short")
    longer = locator.replace("+5+", "+1000+")
    other = stored_as(cluster, project, f". {longer} 0:1000:{image.id}.tar\n", "a/b:1", image.id)
    status, values = check(run, other, "--project-uuid", project)
    assert (status, values["verdict"]) == (5, "broken")
    assert [f"block {longer.partition('+A')[0]}" in fault for fault in values["faults"]] == [True]


def test_what_is_no_image(image: images.Image, project: str, run: Command, cluster: Cluster) -> None:
    locator = put(cluster, b"no tar" * 500)
    other = stored_as(cluster, project, f". {locator} 0:3000:{image.id}.tar\n", "a/b:1", image.id)
    status, values = check(run, other, "--project-uuid", project)
    assert (status, values["verdict"]) == (5, "broken")
    assert "this is no tar" in values["faults"][0]


def test_an_id_that_finds_nothing(
    image: images.Image, there: str, project: str, run: Command, cluster: Cluster
) -> None:
    wrong = "sha256:" + "1" * 64
    manifest = collection(cluster, there)["manifest_text"].replace(image.id[7:], wrong[7:])
    name = images.unique_name()
    other = stored_as(cluster, project, manifest, name, wrong)
    status, values = check(run, other, "--project-uuid", project)
    assert (status, values["verdict"], values["right_id"]) == (7, "mendable", image.id)
    assert stored(run("--project-uuid", project, "--from-arvados", other)) == there


def test_what_is_missing_of_a_good_image(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox, cluster: Cluster
) -> None:
    name = images.unique_name()
    status, values = check(run, there, name, "--project-uuid", project)
    assert (status, values["verdict"]) == (7, "incomplete")
    assert values["would_make"] == [f"link {NAME} {name} to collection {there}"]
    status, values = check(run, there, "--project-uuid", new_project(cluster, project))
    assert (status, values["verdict"]) == (7, "incomplete")
    assert len(values["would_make"]) == 3
    status, values = check(run, there, "--project-uuid", project, "--universal")
    assert (status, values["verdict"], values["form"]) == (7, "mendable", "plain")
    universal = stored(run("--project-uuid", project, "--from-arvados", there, "--universal"))
    assert check(run, there, "--project-uuid", project, "--universal")[0] == 0
    status, values = check(run, universal, "--project-uuid", project)
    assert (status, values["form"], values["id"] != image.id) == (0, "universal", True)
    assert stored(run("--project-uuid", project, "--from-arvados", universal, "--no-universal")) == there


def test_keep_that_cannot_be_asked_is_no_fault(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox
) -> None:
    sandbox.fault("status", service="keep", method="GET", status=503, times=2)
    assert check(run, there, "--project-uuid", project)[0] == 0
    sandbox.fault("status", service="keep", method="GET", status=503, times=None)
    words = ("--project-uuid", project, "--dry-run", "--retries", "0", "--from-arvados", there)
    result = run(*words)
    assert (result.status, result.stdout) == (6, "")
    assert "503" in result.stderr


def test_what_is_lost_of_another_archive(
    image: images.Image, project: str, run: Command, sandbox: Sandbox, cluster: Cluster
) -> None:
    data = (run.directory / "image.tar").read_bytes()
    cuts = [0, 1 << 20, 2 << 20, 3 << 20, len(data)]
    found = [put(cluster, data[start:end]) for start, end in pairwise(cuts)]
    manifest = f". {' '.join(found)} 0:{len(data)}:{image.id}.tar\n"
    uuid = stored_as(cluster, project, manifest, images.unique_name(), image.id)
    assert check(run, uuid, "--project-uuid", project)[0] == 7
    for locator in (found[1], found[3]):
        sandbox.lose_block(locator)
    lost = [f"Keep has no block {locator.partition('+A')[0]}" for locator in (found[1], found[3])]
    status, values = check(run, uuid, "--project-uuid", project)
    assert (status, values["faults"]) == (5, lost)
    sandbox.clear_requests()
    real = run("--project-uuid", project, "--from-arvados", uuid)
    assert (real.status, real.stdout) == (5, "")
    assert lost[0] in real.stderr
    assert not [request for request in writes(sandbox) if request["service"] == "api"]


def test_a_strangers_link(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox, cluster: Cluster
) -> None:
    """It does not keep others from using the image, but does not make it another either."""
    wrong = "sha256:" + "2" * 64
    shared = new_project(cluster, project)
    link = {"link_class": HASH, "name": wrong, "head_uuid": there, "owner_uuid": shared}
    cluster.api().links().create(body=link).execute()
    assert check(run, there, "--project-uuid", project)[0] == 0
    assert stored(run("--project-uuid", project, "--from-arvados", image.name)) == there
    for words in ((), ("--dry-run",)):
        result = run(*words, "--project-uuid", project, "--from-arvados", wrong)
        assert result.status == 5
        assert wrong in result.stdout + result.stderr


@pytest.mark.parametrize("form", ["", "facts"])
def test_notes_that_make_no_sense(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox, form: str
) -> None:
    sandbox.fault("status", service="keep", method="GET", status=503, times=None)
    words = ("--project-uuid", project, "--retries", "0", "--dry-run", "--from-arvados", there)
    assert run(*words).status == 6
    sandbox.clear_faults()
    (journal,) = (run.directory / "cache" / "arvados" / "docker").glob("*.journal")
    line = json.dumps({"time": time.time() - 5, "key": "a" * 64, "facts": {"no": "such"} if form else []})
    journal.with_suffix(".checks").write_bytes(line.encode() + b"\n\xff{\n[1]\n" + line.encode()[:20])
    assert check(run, there, "--project-uuid", project)[0] == 0


def test_a_block_that_is_damaged_on_the_way(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox, cluster: Cluster
) -> None:
    found = [block.partition("+A")[0] for block in blocks(cluster, there)]
    for locator in found:
        sandbox.fault("garbage", service="keep", method="GET", path=locator[:32], times=1)
    assert check(run, there, "--project-uuid", project)[0] == 0
    sandbox.fault("garbage", service="keep", method="GET", path=found[1][:32], times=None)
    status, values = check(run, there, "--project-uuid", project)
    assert (status, values["faults"]) == (5, [f"Keep has other bytes in the place of block {found[1]}"])


def test_an_empty_file(image: images.Image, project: str, run: Command, cluster: Cluster) -> None:
    manifest = f". d41d8cd98f00b204e9800998ecf8427e+0 0:0:{image.id}.tar\n"
    uuid = stored_as(cluster, project, manifest, images.unique_name(), image.id)
    status, values = check(run, uuid, "--project-uuid", project)
    assert (status, values["verdict"], values["would_make"]) == (5, "broken", [])
    real = run("--project-uuid", project, "--from-arvados", uuid)
    assert (real.status, real.stdout) == (5, "")
    assert values["faults"][0] in real.stderr


@pytest.mark.parametrize("shape", ["in a directory", "two streams", "inside a block", "an empty block"])
def test_a_manifest_that_others_write(
    image: images.Image, there: str, project: str, run: Command, cluster: Cluster, shape: str
) -> None:
    data = (run.directory / "image.tar").read_bytes()
    half, size, name = len(data) // 2, len(data), f"{image.id}.tar"
    first, second = put(cluster, data[:half]), put(cluster, data[half:])
    manifest = {
        "in a directory": f"./of/images {first} {second} 0:{size}:{name}\n",
        "two streams": f". {first} 0:{half}:{name}\n. {second} 0:{size - half}:{name}\n",
        "inside a block": f". {put(cluster, b'x' * 99 + data[:half] + b'x')} {second} 99:{half}:{name} "
        f"{100 + half}:{size - half}:{name}\n",
        "an empty block": collection(cluster, there)["manifest_text"].replace(
            ". ", ". d41d8cd98f00b204e9800998ecf8427e+0 ", 1
        ),
    }[shape]
    uuid = stored_as(cluster, project, manifest, image.name, image.id)
    status, values = check(run, uuid, "--project-uuid", project)
    assert (status, values["verdict"], values["faults"]) == (0, "mended", [])
    assert stored(run("--project-uuid", project, "--from-arvados", uuid)) == there


def test_no_link_is_blamed_for_a_collection_without_files(project: str, run: Command, cluster: Cluster) -> None:
    uuid = stored_as(cluster, project, "", images.unique_name(), "sha256:" + "0" * 64)
    assert "remove" not in run("--project-uuid", project, "--from-arvados", uuid).stderr


def test_what_cannot_be_unpacked_here_is_not_called_broken(project: str, run: Command, cluster: Cluster) -> None:
    data = odd.zstd(odd.archive())
    uuid = stored_as(cluster, project, f". {put(cluster, data)} 0:{len(data)}:a.tar.zst\n", "a/b:1", "")
    result = run("--project-uuid", project, "--dry-run", "--from-arvados", uuid)
    if can_unpack("zstd"):
        assert (result.status, result.stdout.split()[0]) == (7, "mendable")
    else:
        assert (result.status, result.stdout) == (5, "")
        assert "Or install the decoder" in result.stderr


def test_warnings_are_findings(project: str, run: Command, cluster: Cluster) -> None:
    members = [(f"{number}/layer.tar", odd.tar([(f"{number}", b"")])) for number in range(126)]
    data = odd.archive(members=members, layers=[layer for _, layer in members])
    uuid = stored_as(cluster, project, f". {put(cluster, data)} 0:{len(data)}:saved.tar\n", "a/b:1", "")
    assert any("126 layers" in finding for finding in check(run, uuid, "--project-uuid", project)[1]["findings"])


def test_a_project_that_is_frozen(
    image: images.Image, project: str, run: Command, cluster: Cluster, sandbox: Sandbox
) -> None:
    data = (run.directory / "image.tar").read_bytes()
    manifest = f". {put(cluster, data)} 0:{len(data)}:{image.id}.tar\n"
    uuid = stored_as(cluster, project, manifest, image.name, image.id)
    sandbox.freeze(project)
    try:
        result = run("--project-uuid", project, "--dry-run", "--from-arvados", uuid)
        assert result.status == 7
        assert result.stderr.count("is frozen") == 1
        sandbox.clear_requests()
        result = run("--project-uuid", project, "--from-arvados", uuid)
        assert (result.status, result.stdout) == (6, "")
        assert "is frozen" in result.stderr
        assert not writes(sandbox)
    finally:
        sandbox.freeze(project, False)


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["", "dry-run"])
@pytest.mark.parametrize(("path", "skip"), [("/keep_services", 0), ("/(config|users|keep_services)", 1)])
def test_a_token_that_expires_before_keep_is_asked(
    image: images.Image,
    project: str,
    run: Command,
    cluster: Cluster,
    sandbox: Sandbox,
    path: str,
    skip: int,
    dry_run: tuple[str, ...],
) -> None:
    data = (run.directory / "image.tar").read_bytes()
    manifest = f". {put(cluster, data)} 0:{len(data)}:{image.id}.tar\n"
    uuid = stored_as(cluster, project, manifest, image.name, image.id)
    sandbox.fault("status", service="api", path=f"^/arvados/v1{path}", status=401, skip=skip, times=None)
    result = run("--project-uuid", project, *dry_run, "--from-arvados", uuid)
    assert (result.status, result.stdout) == (6, ""), result.stderr
    assert "Is ARVADOS_API_TOKEN right" in result.stderr


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["", "dry-run"])
def test_a_token_that_expires_while_keep_is_read(
    image: images.Image, project: str, run: Command, cluster: Cluster, sandbox: Sandbox, dry_run: tuple[str, ...]
) -> None:
    data = (run.directory / "image.tar").read_bytes()
    manifest = f". {put(cluster, data)} 0:{len(data)}:{image.id}.tar\n"
    uuid = stored_as(cluster, project, manifest, image.name, image.id)
    sandbox.fault("status", service="keep", method="GET", status=401, times=None)
    result = run("--project-uuid", project, *dry_run, "--from-arvados", uuid)
    assert (result.status, result.stdout) == (6, "")
    assert "Is ARVADOS_API_TOKEN right" in result.stderr
