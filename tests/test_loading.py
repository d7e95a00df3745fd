"""What is stored of every engine's archive is fetched back, loaded as compute nodes do, found by its file's name."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.images.layers import sha256
from arv_keepdocker.sandbox import Sandbox
from tests import canonical
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine, Podman
from tests.test_archive import FACTS, FIXTURES
from tests.test_failures import cached, failed, nothing_recorded, the_file, wait_until

ARCHIVES = FIXTURES / "archives"
USABLE = sorted(name for name in FACTS if "incomplete" not in name)


def fetched(uuid: str, cluster: Cluster, directory: Path) -> tuple[str, Path]:
    """The image's id by the name of the collection's one file, and that file."""
    filename, content = the_file(cluster, uuid)
    path = directory / "fetched.tar"  # podman takes what is before a colon for something else
    path.write_bytes(content)
    return filename.removesuffix(".tar"), path


def document(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    assert file is not None
    return json.load(file)


def runs_on_docker(engine: Engine, image_id: str, path: Path) -> None:
    engine.load(path)
    try:
        assert json.loads(engine.docker("image", "inspect", image_id))[0]["Id"] == image_id
        container = engine.docker("create", "--network", "none", image_id, "/command").strip()
        engine.docker("rm", container)
    finally:
        engine.forget(image_id)


def runs_on_podman(podman: Podman, image_id: str, path: Path) -> None:
    podman.run("load", "--quiet", "--input", str(path))
    digits = image_id.removeprefix("sha256:")
    try:
        assert json.loads(podman.run("image", "inspect", digits))[0]["Id"] == digits
        podman.run("create", "--network", "none", digits, "/command")
    finally:
        with suppress(RuntimeError):
            podman.run("rmi", "--force", digits)  # and the container


@pytest.fixture(scope="session")
def runs(other_engine: Engine, podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], None]:
    """Checks that the file with the image runs on a compute node; the same bytes need not be loaded twice."""
    seen = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        seen = seen.parent  # which all processes of this run of the tests have
    seen /= "seen-to-run"
    seen.mkdir(exist_ok=True)

    def check(image_id: str, path: Path) -> None:
        file = seen / f"{image_id} {sha256(path.read_bytes())}"
        if not file.exists():
            runs_on_docker(other_engine, image_id, path)
            runs_on_podman(podman, image_id, path)
            file.touch()

    return check


@pytest.mark.parametrize("universal", [False, True], ids=["plain", "universal"])
@pytest.mark.parametrize("name", USABLE)
def test_every_archive_runs_where_it_is_loaded(
    runs: Callable[[str, Path], None],
    cluster: Cluster,
    project: str,
    run: Command,
    tmp_path: Path,
    name: str,
    universal: bool,
) -> None:
    form = "--universal" if universal else "--no-universal"
    uuid = stored(run("--project-uuid", project, form, "--from-archive", str(ARCHIVES / name), "some/name", "v1"))
    image_id, path = fetched(uuid, cluster, tmp_path)
    facts = FACTS[name]
    if not universal:
        assert image_id == facts.get("config_digest", image_id)
    with tarfile.open(path) as tar:
        members = tar.getnames()
        # It is the canonical archive: uncompressed layers, named by their diff ids, then the documents.
        diff_ids = list(dict.fromkeys(facts.get("diff_ids") or []))
        assert members[: len(diff_ids)] == [diff_id.replace("sha256:", "blobs/sha256/") for diff_id in diff_ids]
        assert members[-3:] == ["oci-layout", "index.json", "manifest.json"]
        assert {member.mtime for member in tar} == {0}
        listing = document(tar, "manifest.json")
        assert len(listing) == 1
        config = document(tar, listing[0]["Config"])
        assert config.get("created") == facts.get("created", config.get("created"))
        index = document(tar, "index.json")
        assert index["manifests"][0]["digest"].replace("sha256:", "blobs/sha256/") in members
    if universal:
        assert index["manifests"][0]["digest"] == image_id
        assert config["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    properties = cluster.api().links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"][0]["properties"]
    assert properties.get("arv:universal", False) == universal
    runs(image_id, path)
    # The same again is found.
    again = run("--project-uuid", project, form, "--from-archive", str(ARCHIVES / name), "some/name", "v1")
    assert stored(again) == uuid


def portable_data_hash(cluster: Cluster, result: Result) -> str:
    return str(cluster.api().collections().get(uuid=stored(result)).execute()["portable_data_hash"])


SAME = {
    image: [name for name in USABLE if f"-{image}-" in name and "oci" not in name]
    for image in ("tiny", "solo", "multi", "tinyboth")
}
"""The archives of one image, from all engines."""


@pytest.mark.parametrize("form", ["--universal", "--no-universal"])
@pytest.mark.parametrize("image", SAME)
def test_an_image_is_the_same_whichever_engine_saved_it(
    cluster: Cluster, project: str, run: Command, image: str, form: str
) -> None:
    assert len(SAME[image]) > 2
    words = ("--project-uuid", project, "--force", form, "--from-archive")
    hashes = {portable_data_hash(cluster, run(*words, str(ARCHIVES / name))) for name in SAME[image]}
    assert len(hashes) == 1


def test_an_image_is_the_same_whatever_it_comes_from(
    engine: Engine, podman: Podman, cluster: Cluster, project: str, run: Command, tmp_path: Path
) -> None:
    """From real engines, under any name, through either of them, in archives of all kinds."""
    archive = ARCHIVES / "docker29-containerd-solo-byname.tar"
    image_id = FACTS[archive.name]["config_digest"]
    name = "127.0.0.1:5029/d29/solo:1"
    (tmp_path / "image.tar.gz").write_bytes(gzip.compress(archive.read_bytes()))
    (tmp_path / "image.tar.xz").write_bytes(lzma.compress(archive.read_bytes(), preset=0))
    engine.docker("load", "--input", str(archive))
    podman.run("load", "--quiet", "--input", str(archive))
    with tarfile.open(archive) as old, tarfile.open(tmp_path / "layout.tar", "w") as new:
        for member in old:
            if member.name != "manifest.json":
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    try:
        for form, stored_id in (("--no-universal", image_id), ("--universal", None)):
            words = ("--project-uuid", project, "--force", form)
            results = [run(*words, name), run(*words, image_id), run(*words, "--engine", str(podman.program), name)]
            results += [
                run(*words, "--from-archive", str(path), "another/name:v2")
                for path in (archive, *(tmp_path / each for each in ("image.tar.gz", "image.tar.xz", "layout.tar")))
            ]
            assert len({portable_data_hash(cluster, result) for result in results}) == 1
            if stored_id is not None:
                manifest = cluster.api().collections().get(uuid=stored(results[0])).execute()["manifest_text"]
                assert stored_id.replace(":", "\\072") in manifest
    finally:
        engine.forget(image_id)
        podman.run("rmi", "--force", image_id.removeprefix("sha256:"))


def test_a_universal_image_is_what_it_was_when_engines_had_it(
    engine: Engine,
    podman: Podman,
    cluster: Cluster,
    project: str,
    run: Command,
    tmp_path: Path,
) -> None:
    """A classic engine and podman save only the universal document."""
    archive = ("--from-archive", str(ARCHIVES / "docker29-containerd-solo-byname.tar"))
    uuid = stored(run("--project-uuid", project, "--universal", *archive, "some/name:v1"))
    content = cluster.api().collections().get(uuid=uuid).execute()["portable_data_hash"]
    image_id, path = fetched(uuid, cluster, tmp_path)
    engine.docker("load", "--input", str(path))
    podman.run("load", "--quiet", "--input", str(path))
    try:
        for form in ("--universal", "--no-universal"):
            for program in ([], ["--engine", str(podman.program)]):
                again = run("--project-uuid", project, "--force", form, *program, image_id)
                assert portable_data_hash(cluster, again) == content
                links = cluster.api().links().list(filters=[["head_uuid", "=", stored(again)]]).execute()["items"]
                assert [(link["name"], link["properties"]["arv:universal"]) for link in links] == [(image_id, True)]
    finally:
        engine.forget(image_id)
        podman.run("rmi", "--force", image_id.removeprefix("sha256:"))


def test_a_universal_image_is_universal_already(cluster: Cluster, project: str, run: Command, tmp_path: Path) -> None:
    from_docker = ("--from-archive", str(ARCHIVES / "docker29-containerd-solo-byname.tar"))
    uuid = stored(run("--project-uuid", project, "--universal", *from_docker))
    _, path = fetched(uuid, cluster, tmp_path)
    # As what is stored, whatever is asked for; and as versions before form 1 made it, of gzip layers.
    assert stored(run("--project-uuid", project, "--no-universal", "--from-archive", str(path))) == uuid
    before = str(ARCHIVES / "universal-solo.tar")
    assert stored(run("--project-uuid", project, "--universal", "--from-archive", before)) == uuid


@pytest.mark.parametrize("index", [False, True])
def test_a_universal_image_that_an_engine_took_apart_is_put_together_again(
    other_engine: Engine,
    cluster: Cluster,
    project: str,
    run: Command,
    tmp_path: Path,
    index: bool,
) -> None:
    """Who knows it by its configuration saves that, without what it was made from, and with an index of their own or
    none."""
    archive = tmp_path / "saved.tar"
    with tarfile.open(ARCHIVES / "universal-solo.tar") as old, tarfile.open(archive, "w") as new:
        original = document(old, document(old, "manifest.json")[0]["Config"])["config"]["digest"].replace(":", "/")
        for member in old:
            if not member.name.endswith(original) and (index or member.name != "index.json"):
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    uuid = stored(run("--project-uuid", project, "--universal", "--from-archive", str(archive)))
    image_id, path = fetched(uuid, cluster, tmp_path)
    with tarfile.open(path) as tar:
        (named,) = document(tar, "index.json")["manifests"]
        manifest = document(tar, f"blobs/{image_id.replace(':', '/')}")
        assert named["digest"] == image_id
        assert f"blobs/{manifest['config']['digest'].replace(':', '/')}" in tar.getnames()
    runs_on_docker(other_engine, image_id, path)
    assert stored(run("--project-uuid", project, "--universal", "--from-archive", str(path))) == uuid


def test_both_forms_of_an_image_are_two_images(project: str, run: Command) -> None:
    archive = ("--from-archive", str(ARCHIVES / "docker25-tiny-byname.tar"))
    plain = stored(run("--project-uuid", project, *archive))
    universal = stored(run("--project-uuid", project, "--universal", *archive))
    assert plain != universal
    assert stored(run("--project-uuid", project, "--no-universal", *archive)) == plain
    site = {"ARV_KEEPDOCKER_UNIVERSAL": "1"}
    assert stored(run("--project-uuid", project, *archive, env=site)) == universal
    assert run("x", env={"ARV_KEEPDOCKER_UNIVERSAL": "perhaps"}).status == 2


def test_the_archives_own_name_and_another(cluster: Cluster, project: str, run: Command) -> None:
    def names(uuid: str) -> list[str]:
        links = cluster.api().links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]
        return sorted(link["name"] for link in links if link["link_class"] == "docker_image_repo+tag")

    archive = ("--from-archive", str(ARCHIVES / "docker20-tiny-byname.tar"))
    uuid = stored(run("--project-uuid", project, *archive))
    assert names(uuid) == ["d29/tiny:1"]
    assert stored(run("--project-uuid", project, *archive, "other/name", "v2")) == uuid
    assert names(uuid) == ["d29/tiny:1", "other/name:v2"]
    nameless = stored(run("--project-uuid", project, "--from-archive", str(ARCHIVES / "docker20-tiny-byid.tar")))
    assert nameless == uuid
    assert names(uuid) == ["d29/tiny:1", "other/name:v2"]


def test_what_was_kept_of_an_archive_is_not_used_for_another_name(
    cluster: Cluster, project: str, run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    words = ("--project-uuid", project, "--via-arv-put", "--universal", "--from-archive")
    archive = str(ARCHIVES / "docker20-tiny-byname.tar")
    sandbox.fault("status", service="api", method="POST", path="/collections", status=403, times=None)
    assert run("--retries=0", *words, archive, "first/name:1").status == 6
    assert len(cached(tmp_path)) == 1
    sandbox.clear_faults()
    uuid = stored(run(*words, archive, "other/name:1"))
    _, path = fetched(uuid, cluster, tmp_path)
    with tarfile.open(path) as tar:
        assert document(tar, "manifest.json")[0]["RepoTags"] is None  # no name is in it
    links = cluster.api().links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]
    assert "other/name:1" in [link["name"] for link in links]
    assert "first/name:1" not in [link["name"] for link in links]


@pytest.mark.parametrize("universal", ["--universal", "--no-universal"])
@pytest.mark.parametrize("way", [(), ("--via-arv-put",)], ids=["streaming", "arv-put"])
def test_an_archive_that_becomes_another_before_it_is_stored(
    cluster: Cluster, sandbox: Sandbox, project: str, run: Command, tmp_path: Path, way: tuple[str], universal: str
) -> None:
    archive = tmp_path / "image.tar"
    shutil.copy(ARCHIVES / "docker20-tiny-byname.tar", archive)
    sandbox.fault("delay", service="api", method="GET", path=r"/links\?", seconds=2, times=1)
    process = run.start(*way, "--project-uuid", project, universal, "--from-archive", str(archive), "x:1")
    wait_until(lambda: any(fault["struck"] for fault in sandbox.faults()))
    shutil.copy(ARCHIVES / "docker20-solo-byname.tar", tmp_path / "new")
    (tmp_path / "new").rename(archive)
    result = Result(process.wait(60), *process.communicate())
    failed(result, 1, f"{archive} changed while it was stored")
    assert nothing_recorded(cluster, project)
    assert cached(tmp_path) == []


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_on_standard_input(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, compressed: bool
) -> None:
    path = tmp_path / "archive"
    data = (ARCHIVES / "docker28-tiny-byname.tar").read_bytes()
    path.write_bytes(gzip.compress(data) if compressed else data)
    with path.open("rb") as file:
        process = run.start("--project-uuid", project, "--from-archive", "-", stdin=file.fileno())
        out, err = process.communicate(timeout=60)
    uuid = stored(Result(process.returncode, out, err))
    size = cluster.api().collections().get(uuid=uuid).execute()["file_size_total"]
    assert size == len(canonical.archive_of(data))
    assert cached(tmp_path) == []


def test_no_engine_is_needed_for_an_archive(project: str, run: Command, tmp_path: Path) -> None:
    stored(
        run(
            "--project-uuid",
            project,
            "--from-archive",
            str(ARCHIVES / "podman4-tiny-oci-archive.tar"),
            env={"PATH": str(tmp_path)},
        )
    )


def several(path: Path, *names: str) -> None:
    """One docker-archive with the images of several, as `docker save A B` writes it."""
    listing = []
    seen: set[str] = set()
    with tarfile.open(path, "w") as new:
        for name in names:
            with tarfile.open(ARCHIVES / name) as old:
                listing += document(old, "manifest.json")
                for member in old:
                    if member.name not in {"manifest.json", "repositories", "index.json", "oci-layout", *seen}:
                        seen.add(member.name)
                        new.addfile(member, old.extractfile(member) if member.isreg() else None)
        with (path.parent / "manifest.json").open("w+") as file:
            json.dump(listing, file)
        new.add(path.parent / "manifest.json", "manifest.json")


def test_one_of_several_images(
    other_engine: Engine, cluster: Cluster, project: str, run: Command, tmp_path: Path
) -> None:
    both = tmp_path / "both.tar"
    several(both, "docker20-tiny-byname.tar", "docker20-solo-byname.tar")
    refused = run("--project-uuid", project, "--from-archive", str(both))
    assert (refused.status, refused.stdout) == (5, "")
    assert "d29/tiny:1, 127.0.0.1:5029/d29/solo:1" in refused.stderr
    assert run("--project-uuid", project, "--from-archive", str(both), "no/such:1").status == 5
    uuid = stored(run("--project-uuid", project, "--from-archive", str(both), "d29/tiny", "1"))
    image_id, path = fetched(uuid, cluster, tmp_path)
    assert image_id == FACTS["docker20-tiny-byname.tar"]["config_digest"]
    runs_on_docker(other_engine, image_id, path)


def test_a_platform_that_the_archive_does_not_have(project: str, run: Command) -> None:
    archive = ("--from-archive", str(ARCHIVES / "docker29-containerd-multi-byname.tar"))
    refused = run("--project-uuid", project, "--platform", "linux/arm64", *archive)
    assert (refused.status, refused.stdout) == (5, "")
    assert "linux/arm64" in refused.stderr
    stored(run("--project-uuid", project, "--platform", "linux/amd64", *archive))
    assert run("--project-uuid", project, "--platform", "my machine", *archive).status == 2


@pytest.mark.parametrize("name", ["docker29-containerd-incomplete.tar", "nosuch.tar"])
def test_an_archive_that_is_not_whole_or_not_there(cluster: Cluster, project: str, run: Command, name: str) -> None:
    refused = run("--project-uuid", project, "--from-archive", str(ARCHIVES / name))
    assert refused.status == (5 if "incomplete" in name else 1)
    assert refused.stdout == ""
    assert name in refused.stderr
    owned = [["owner_uuid", "=", project]]
    assert cluster.api().collections().list(filters=owned).execute()["items"] == []
    assert cluster.api().links().list(filters=owned).execute()["items"] == []


def test_layers_that_not_every_engine_can_load_get_a_warning(project: str, run: Command, tmp_path: Path) -> None:
    layer = b"\x28\xb5\x2f\xfd" + b"as zstd begins"
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}
    blobs = [json.dumps(config).encode(), layer]
    digests = [sha256(blob) for blob in blobs]
    manifest = {"config": {"digest": digests[0]}, "layers": [{"digest": digests[1]}]}
    blobs.append(json.dumps(manifest).encode())
    path = tmp_path / "zstd.tar"
    with tarfile.open(path, "w") as tar:
        files = {f"blobs/{sha256(blob).replace(':', '/')}": blob for blob in blobs}
        files["index.json"] = json.dumps({"manifests": [{"digest": sha256(blobs[2])}]}).encode()
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    shown = run("--project-uuid", project, "--from-archive", str(path), "some/zstd")
    stored(shown)
    assert "warning: the image has layers compressed with zstd" in shown.stderr


def test_usage(run: Command) -> None:
    archive = ("--from-archive", str(ARCHIVES / "docker20-tiny-byname.tar"))
    assert run(*archive, "--pull", "x").status == 2
    assert run(*archive, "sha256:0123").status == 2


@pytest.mark.parametrize("universal", [False, True])
def test_podman(
    podman: Podman,
    other_engine: Engine,
    cluster: Cluster,
    project: str,
    run: Command,
    tmp_path: Path,
    universal: bool,
) -> None:
    podman.run("load", "--quiet", "--input", str(ARCHIVES / "podman4-tiny-byname.tar"))
    words = ("--project-uuid", project, *(["--universal"] if universal else []))
    # Where there is no docker, podman is taken; any other way it is told.
    only = tmp_path / "only-podman"
    only.mkdir()
    (only / "podman").symlink_to(podman.program)
    for tool in ("sh", "env"):
        (only / tool).symlink_to(shutil.which(tool) or "")
    uuid = stored(run(*words, "d29/tiny:1", env={"PATH": str(only)}))
    assert stored(run(*words, "--engine", str(podman.program), "d29/tiny", "1")) == uuid
    environment = {"ARV_KEEPDOCKER_ENGINE": str(podman.program)}
    again = run(*words, "localhost/d29/tiny:1", env=environment)
    assert stored(again) == uuid
    assert "saving" not in again.stderr
    names = {link["name"] for link in cluster.api().links().list(filters=[["head_uuid", "=", uuid]]).execute()["items"]}
    image_id, path = fetched(uuid, cluster, tmp_path)
    assert names == {image_id, "d29/tiny:1", "localhost/d29/tiny:1"}
    config_digest = FACTS["podman4-tiny-byname.tar"]["config_digest"]
    assert (image_id == config_digest) != universal
    runs_on_docker(other_engine, image_id, path)
    # By its id, short and full.
    for word in (config_digest, config_digest[7:19]):
        assert stored(run(*words, word, env=environment)) == uuid
    missing = run(*words, "no/such:1", env=environment)
    assert missing.status == 3
    assert "podman has no image" in missing.stderr
    podman.run("rmi", "--force", config_digest.removeprefix("sha256:"))
