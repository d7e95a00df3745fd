"""--from-arvados where the image is not there, or not what one thinks; and what cannot be meant with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, stored
from tests.test_from_arvados import (
    archive,
    collection,
    content,
    keep_requests,
    links_to,
    names_of,
    new_project,
)


@pytest.fixture
def image(tmp_path: Path) -> images.Image:
    return archive(tmp_path / "image.tar")


@pytest.fixture
def there(image: images.Image, project: str, run: Command) -> str:
    return stored(run("--project-uuid", project, "--from-archive", "image.tar"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from-arvados",), "needs a SOURCE"),
        (("--from-arvados", ""), "empty"),
        (("--from-arvados", "--dry-run"), "needs a SOURCE"),
        (("--from-arvados", "Upper:1"), "must be lowercase"),
        (("--from-arvados", ":1"), "empty"),
        (("--from-arvados", "a:1", "b", "c", "d"), "unrecognized arguments: d"),
        (("--from-arvados", "a:1", "b:1", "2"), "b:1"),
        (("--from-arvados", "zzzzz-j7d0g-0123456789abcde"), "not the UUID of a collection"),
        (("--from-arvados", "a:1", "sha256:" + "0" * 64), "is an id; with --from-arvados, IMAGE is the name"),
        (("--from-arvados", "a:1", "--pull"), "--pull is for images of an engine, --from-arvados for those of Arvados"),
        (("--from-arvados", "a:1", "--engine", "podman"), "--engine is for images of an engine"),
        (("--from-arvados", "a:1", "--via-push"), "--via-push is for images of an engine"),
        (("--from-arvados", "a:1", "--via-arv-put"), "--from-arvados cannot be used with --via-arv-put"),
        (("--from-arvados", "a:1", "--from-registry", "x"), "--from-registry cannot be used with --from-arvados"),
        (("--from-arvados", "a:1", "--from-archive", "x"), "--from-archive cannot be used with --from-arvados"),
        (("--from-arvados", "a:1", "--insecure-registry"), "--insecure-registry is for --from-registry"),
        (("--from-arvados", "a:1", "--images-from", "x"), "a:1 is one too many"),
        (("--from-arvados", "a:1", "--filter", "dangling=true"), "is for listing images"),
        (("images", "--from-arvados", "a:1"), "is for storing an image"),
        (("--from-arvados", "a:1", "--dry-run", "--portable-data-hash"), "cannot be used with --dry-run"),
    ],
)
def test_what_cannot_be_meant(sandbox: Sandbox, run: Command, words: tuple[str, ...], said: str) -> None:
    sandbox.clear_requests()
    result = run(*words)
    assert (result.status, result.stdout) == (2, "")
    assert said in result.stderr
    assert sandbox.requests() == []


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["", "dry-run"])
@pytest.mark.parametrize(
    "source",
    ["no/such:1", "sha256:" + "f" * 64, "sha256:ffff", "zzzzz-4zz18-0123456789abcde", "0" * 32 + "+12", "feed"],
)
def test_what_is_not_there(run: Command, cluster: Cluster, source: str, dry_run: tuple[str, ...]) -> None:
    result = run(*dry_run, "--from-arvados", source)
    assert (result.status, result.stdout) == (3, ""), result.stderr
    assert source in result.stderr


def test_other_tags_are_named(image: images.Image, there: str, project: str, run: Command) -> None:
    repository = image.name.partition(":")[0]
    result = run("--from-arvados", f"{repository}:other")
    assert result.status == 3
    assert f"There is {image.name}." in result.stderr


def test_the_trash(image: images.Image, there: str, project: str, run: Command, cluster: Cluster) -> None:
    hash_ = content(cluster, there)
    cluster.api().collections().delete(uuid=there).execute()
    for source in (there, image.name, image.id, hash_):
        for words in ((), ("--dry-run",)):
            result = run(*words, "--project-uuid", project, "--from-arvados", source)
            assert (result.status, result.stdout) == (3, ""), result.stderr
    assert "is in the trash" in run("--from-arvados", there).stderr
    assert there in run("--from-arvados", image.name).stderr


def test_what_one_may_not_read(
    image: images.Image, there: str, run: Command, sandbox: Sandbox, cluster: Cluster
) -> None:
    other = sandbox.environment("spectator")
    for source in (there, image.name, image.id, content(cluster, there)):
        result = run("--from-arvados", source, env=other)
        assert (result.status, result.stdout) == (3, ""), result.stderr


def test_where_one_may_not_write(image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox) -> None:
    sandbox.freeze(project)
    try:
        result = run("--project-uuid", project, "--from-arvados", there)
        assert stored(result) == there
        result = run("--project-uuid", project, "--from-arvados", there, images.unique_name())
        assert (result.status, result.stdout) == (6, "")
        assert "is frozen" in result.stderr
    finally:
        sandbox.freeze(project, False)


def test_of_several_the_preferred(project: str, run: Command, cluster: Cluster, tmp_path: Path) -> None:
    name = images.unique_name()
    times = ["2024-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z"]
    made = [archive(tmp_path / f"{n}.tar", name=name, created=time) for n, time in enumerate(times)]
    uuids = [stored(run("--project-uuid", project, "--from-archive", f"{n}.tar")) for n in range(3)]
    other = images.unique_name()
    assert stored(run("--project-uuid", project, "--from-arvados", name, other)) == uuids[1]
    result = run("--project-uuid", project, "--from-arvados", made[0].id, other)
    assert stored(result) == uuids[0]
    assert "gets another image" in result.stderr


def test_force_sends_everything(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox, cluster: Cluster
) -> None:
    sandbox.clear_requests()
    again = stored(run("--project-uuid", project, "--force", "--from-arvados", image.name))
    assert again != there
    assert content(cluster, again) == content(cluster, there)
    assert names_of(cluster, again) == {image.id, image.name}
    sent = [r for r in sandbox.requests() if (r["service"], r["method"]) == ("keep", "PUT")]
    assert len(sent) == 2


def test_the_portable_data_hash(image: images.Image, there: str, project: str, run: Command, cluster: Cluster) -> None:
    result = run("--project-uuid", project, "--portable-data-hash", "--from-arvados", image.name)
    assert result.stdout == content(cluster, there) + "\n"


def test_platforms(image: images.Image, there: str, project: str, run: Command) -> None:
    words = ("--project-uuid", project, "--from-arvados", there, "--platform")
    own = "linux/" + os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64")
    assert stored(run(*words, own)) == there
    for more in ((), ("--dry-run",)):
        result = run(*words, "linux/s390x", *more)
        assert result.status in (3, 5)
        assert result.stdout == ""
        assert "linux/s390x" in result.stderr


def test_layers_that_are_there_are_not_sent(project: str, run: Command, sandbox: Sandbox, cluster: Cluster) -> None:
    from tests.test_check import BIG
    from tests.test_check_many import as_1_0

    base, path = {"base": images.noise(BIG)}, run.directory / "next.tar"
    archive(run.directory / "first.tar", layers=[base])
    stored(run("--project-uuid", project, "--from-archive", "first.tar"))
    image = archive(path, layers=[base, {"own": os.urandom(99)}])
    old = as_1_0(cluster, project, path, image.id, image.name)
    sandbox.clear_requests()
    stored(run("--project-uuid", project, "--no-cache", "--from-arvados", old))
    sent = sum(r["request_size"] for r in sandbox.requests() if (r["service"], r["method"]) == ("keep", "PUT"))
    assert sent < 100_000


def test_a_file_that_is_no_image_yet(image: images.Image, project: str, run: Command, cluster: Cluster) -> None:
    """What arv-put has uploaded, under any name."""
    locator = cluster.api().keep.put((run.directory / "image.tar").read_bytes(), copies=1)
    size = locator.split("+")[1]
    body = {"manifest_text": f". {locator} 0:{size}:saved.tar\n", "owner_uuid": project}
    uuid = cluster.api().collections().create(body=body).execute()["uuid"]
    new = stored(run("--project-uuid", project, "--from-arvados", uuid))
    assert names_of(cluster, new) == {image.id, image.name}
    assert stored(run("--project-uuid", project, "--from-arvados", uuid)) == new


def test_a_copy_needs_nothing_of_keep(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox, cluster: Cluster
) -> None:
    other = new_project(cluster, project)
    with sandbox.keep_stopped():
        copy = stored(run("--project-uuid", other, "--from-arvados", content(cluster, there)))
    assert collection(cluster, copy)["owner_uuid"] == other
    sandbox.clear_requests()
    stored(run("--project-uuid", other, "--from-arvados", there))
    assert keep_requests(sandbox) == []


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["", "dry-run"])
def test_another_cluster_that_is_down(sandbox: Sandbox, run: Command, dry_run: tuple[str, ...]) -> None:
    with sandbox.changed(remote_clusters={"xxxxx": None}):
        result = run(*dry_run, "--retries", "0", "--from-arvados", "xxxxx-4zz18-0123456789abcde")
    assert (result.status, result.stdout) == (6, "")
    assert "connection refused" in result.stderr


def test_two_runs_at_once(
    image: images.Image, there: str, project: str, run: Command, sandbox: Sandbox, cluster: Cluster
) -> None:
    """The second finds what the first has made."""
    name = images.unique_name()
    sandbox.fault("delay", service="api", method="POST", path="links", times=1, seconds=3)
    words = ("--project-uuid", project, "--from-arvados", there, name)
    first, second = run.start(*words), run.start(*words)
    for process in (first, second):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, there + "\n"), err
    assert sorted(link["name"] for link in links_to(cluster, there)) == sorted([image.id, image.name, name])


def test_two_runs_that_mend(project: str, run: Command, sandbox: Sandbox, cluster: Cluster) -> None:
    from tests.test_check_many import as_1_0

    image = archive(run.directory / "old.tar")
    old = as_1_0(cluster, project, run.directory / "old.tar", image.id, image.name)
    sandbox.fault("delay", service="api", method="POST", path="collections", times=1, seconds=3)
    words = ("--project-uuid", project, "--from-arvados", old)
    first, second = run.start(*words), run.start(*words)
    printed = {process.communicate(timeout=60)[0] for process in (first, second)}
    assert len(printed) == 1
    (uuid,) = printed
    assert len(links_to(cluster, uuid.strip())) == 2


def test_names_that_are_none_are_not_passed_on(
    image: images.Image, there: str, project: str, run: Command, cluster: Cluster
) -> None:
    """Upstream records an id as a repository, and whoever may write can record anything."""
    bad = [f"{image.id[7:19]}:latest", image.id, f"sha256:{image.id[7:]}:latest", "Upper:1", "\x1b[31mred:1", "a b:1"]
    for name in bad:
        link = {"link_class": "docker_image_repo+tag", "name": name, "head_uuid": there, "owner_uuid": project}
        cluster.api().links().create(body=link).execute()
    copy = stored(run("--project-uuid", new_project(cluster, project), "--from-arvados", there))
    assert names_of(cluster, copy) == {image.id, image.name}


@pytest.mark.parametrize("source", ["-", "ZZZZZ-4ZZ18-0123456789ABCDE", "zzzzz-o0j2j-0123456789abcde", "A" * 32 + "+9"])
def test_what_a_source_is(run: Command, source: str) -> None:
    result = run("--from-arvados", source)
    assert (result.status, result.stdout) == (2, "")
    assert "SOURCE is a name, an id, a collection's UUID or a portable data hash." in result.stderr
