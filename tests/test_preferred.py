"""--from-arvados where the image is there as it should be, but Arvados prefers a collection that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, image_run_for, stored
from tests.test_check import check
from tests.test_check_many import as_1_0
from tests.test_from_arvados import HASH, NAME, archive, collection, content, links_to, names_of


@pytest.fixture
def image(tmp_path: Path) -> images.Image:
    return archive(tmp_path / "image.tar")


@pytest.fixture
def good(image: images.Image, project: str, run: Command) -> str:
    """The UUID of the collection that is as it should be."""
    return stored(run("--project-uuid", project, "--from-archive", "image.tar"))


@pytest.fixture
def later(good: str, project: str, run: Command, cluster: Cluster) -> str:
    """The UUID of a collection with the same image as an engine saves it, whose links are newer."""
    second = max(link["created_at"] for link in links_to(cluster, good))[:19]
    while True:
        words = ("--project-uuid", project, "--via-arv-put", "--force", "--from-archive", "image.tar")
        uuid = stored(run(*words))
        if min(link["created_at"] for link in links_to(cluster, uuid))[:19] > second:
            return uuid


@pytest.mark.parametrize("how", ["name", "id", "uuid"])
def test_the_image_is_preferred_in_the_end(
    image: images.Image, good: str, later: str, project: str, run: Command, cluster: Cluster, how: str
) -> None:
    words = ("--project-uuid", project, "--from-arvados", {"name": image.name, "id": image.id, "uuid": later}[how])
    assert image_run_for(cluster.api(), image.name, project) == content(cluster, later)
    status, values = check(run, *words[2:], *words[:2])
    assert (status, values["verdict"], values["collection_uuid"]) == (7, "mendable", later)
    assert [step.split()[0] for step in values["would_make"]] == ["collection", "link", "link"]
    result = run(*words)
    new = stored(result)
    assert new not in (good, later)
    assert f"copied {good}, so that Arvados prefers the copy" in result.stderr
    assert content(cluster, new) == content(cluster, good)
    assert names_of(cluster, new) == {image.id, image.name}
    assert image_run_for(cluster.api(), image.name, project) == content(cluster, new)
    assert run("images", "--quiet", image.id).stdout.split()[0] == new
    assert "gets another image" not in result.stderr
    # Nothing is left to be done.
    assert stored(run(*words)) == new
    assert len(links_to(cluster, new)) == 2
    status, values = check(run, *words[2:], *words[:2])
    assert (status, values["verdict"]) == (0, "mended" if how == "uuid" else "good")


def test_another_name_is_given(
    image: images.Image, good: str, later: str, project: str, run: Command, cluster: Cluster
) -> None:
    """The id shall mean the good image, and so shall the name that is given."""
    name = images.unique_name()
    words = ("--project-uuid", project, "--from-arvados", image.name, name)
    new = stored(run(*words))
    assert names_of(cluster, new) == {image.id, name}
    assert stored(run(*words)) == new
    assert run("images", "--quiet", image.id).stdout.split()[0] == new


def test_a_copy_that_a_run_left_without_links_is_used(
    image: images.Image, good: str, later: str, project: str, run: Command, cluster: Cluster, sandbox: Sandbox
) -> None:
    words = ("--project-uuid", project, "--retries", "0", "--from-arvados", image.name)
    sandbox.fault("status", service="api", method="POST", path="links", times=1, status=422)
    assert run(*words).status == 6
    filters = [["owner_uuid", "=", project], ["portable_data_hash", "=", content(cluster, good)]]
    made = {each["uuid"] for each in cluster.api().collections().list(filters=filters).execute()["items"]} - {good}
    assert {stored(run(*words))} == made


def test_another_form_is_as_good(image: images.Image, good: str, project: str, run: Command) -> None:
    """Both forms are as they should be: who asks for one does not make Arvados prefer it."""
    words = ("--project-uuid", project, "--from-arvados", image.name)
    universal = stored(run(*words, "--universal"))
    assert universal != good
    assert stored(run(*words)) == universal
    assert stored(run(*words, "--no-universal")) == good
    status, values = check(run, *words[2:], *words[:2], "--no-universal")
    assert (status, values["verdict"]) == (0, "mended")


def test_what_newer_links_would_not_help(
    image: images.Image, good: str, project: str, run: Command, cluster: Cluster
) -> None:
    """The old collection says that it was built later: no run can change what Arvados prefers."""
    old = as_1_0(cluster, project, run.directory / "image.tar", image.id, image.name)
    for link in links_to(cluster, old):
        body = {"properties": {"image_timestamp": "2099-01-01T00:00:00Z"}}
        cluster.api().links().update(uuid=link["uuid"], body=body).execute()
    words = ("--project-uuid", project, "--from-arvados", image.name)
    assert stored(run(*words)) == good
    assert {link["link_class"] for link in links_to(cluster, good)} == {HASH, NAME}
    assert len(links_to(cluster, good)) == 2
    assert collection(cluster, old)["uuid"] == old
