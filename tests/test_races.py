"""Runs at the same time, on one machine and on two, and images that change while they are saved."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from arv_keepdocker.keep.journal import Journal
from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine
from tests.test_failures import DockerThat, Way, cached, records, stored_digest, whole
from tests.test_streaming import journals, layers, sent


def ends(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    outputs = [process.communicate(timeout=100) for process in processes]
    return [stored(Result(process.returncode, *output)) for process, output in zip(processes, outputs, strict=True)]


def test_eight_runs_of_one_image_make_one_collection(
    engine: Engine, large_image: images.Image, cluster: Cluster, project: str, run: Command, way: Way, tmp_path: Path
) -> None:
    uuids = ends([run.start(*way, "--project-uuid", project, large_image.name) for _ in range(8)])
    assert len(set(uuids)) == 1
    assert whole(cluster, project, uuids[0], large_image.name) == stored_digest(engine, large_image, way)
    assert cached(tmp_path) == []


def test_runs_for_two_projects_make_one_collection_in_each(
    engine: Engine,
    large_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    tmp_path: Path,
) -> None:
    group = {"group": {"group_class": "project", "name": "below", "owner_uuid": project}}
    other = cluster.api().groups().create(body=group).execute()["uuid"]
    sandbox.clear_requests()
    targets = [project, other] * 2
    uuids = ends([run.start(*way, "--project-uuid", target, large_image.name) for target in targets])
    assert uuids[:2] == uuids[2:]
    for uuid, target in zip(uuids[:2], targets, strict=False):
        assert whole(cluster, target, uuid, large_image.name) == stored_digest(engine, large_image, way)
    assert sum(sent(sandbox)) < 5 << 20  # one upload, and a copy
    assert cached(tmp_path) == []


def test_two_machines(
    engine: Engine,
    large_image: images.Image,
    sandbox: Sandbox,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    tmp_path: Path,
) -> None:
    """Nothing keeps them from storing it both; each collection that remains is a whole image."""
    sandbox.fault("delay", service="keep", method="PUT", seconds=1, times=2)
    machines = [{"XDG_CACHE_HOME": str(tmp_path / name)} for name in ("one", "two")]
    uuids = ends([run.start(*way, "--project-uuid", project, large_image.name, env=machine) for machine in machines])
    collections, links = records(cluster, project)
    assert len(collections) == len(set(uuids))
    assert sorted(links) == sorted([large_image.id, large_image.name] * len(set(uuids)))
    linked = cluster.api().links().list(filters=[["owner_uuid", "=", project]]).execute()["items"]
    assert {link["head_uuid"] for link in linked} == set(uuids)
    # From now on both use the same.
    again = {stored(run(*way, "--project-uuid", project, large_image.name, env=machine)) for machine in machines}
    assert len(again) == 1
    assert again <= set(uuids)
    assert len(records(cluster, project)[0]) == len(set(uuids))


@pytest.mark.parametrize("change", ["moved", "removed"])
def test_a_tag_that_changes_while_its_image_is_saved(
    engine: Engine,
    cluster: Cluster,
    project: str,
    run: Command,
    way: Way,
    docker_that: DockerThat,
    change: str,
) -> None:
    """What was found is what is stored; what the name means later is another run's business."""
    image = images.build(engine.host, layers=layers(4.2))
    digest = stored_digest(engine, image, way)
    other = images.build(engine.host)
    # The classic store writes the whole archive though the image is removed meanwhile.
    act = f"real tag {other.id} {image.name}" if change == "moved" else f"real rmi --force {image.id} >&2"
    changes = docker_that(
        f'[ "$2" = save ] || exec env PATH="$REAL_PATH" docker "$@"; real "$@" | {{ head -c 10000; {act}; cat; }}'
    )
    result = run(*way, "--project-uuid", project, image.name, env=changes)
    uuid = stored(result)
    names = records(cluster, project)[1]
    assert names == sorted([image.id, image.name])
    # The names of the image are part of the archive: it need not be what it was before, but it is whole.
    assert len(digest) == len(whole(cluster, project, uuid, image.name))
    if change == "moved":
        assert len({uuid, stored(run(*way, "--project-uuid", project, image.name))}) == 2


def test_an_image_that_is_gone_before_it_is_saved(
    engine: Engine, cluster: Cluster, project: str, run: Command, way: Way, docker_that: DockerThat, tmp_path: Path
) -> None:
    image = images.build(engine.host)
    gone = docker_that(f'[ "$2" != save ] || real rmi --force {image.id} >&2; real "$@"')
    result = run(*way, "--project-uuid", project, image.name, env=gone)
    assert result.status == 4
    assert image.id in result.stderr
    assert records(cluster, project) == ([], [])
    assert cached(tmp_path) == []


def test_runs_share_the_journal(engine: Engine, cluster: Cluster, project: str, run: Command, tmp_path: Path) -> None:
    base = layers(4.2)
    built = [images.build(engine.host, layers=[*base, *layers(4.1)]) for _ in range(3)]
    uuids = ends([run.start("--project-uuid", project, image.name) for image in built])
    assert len(set(uuids)) == 3
    (journal,) = journals(tmp_path)
    lines = journal.read_text().splitlines()
    notes = Journal(journal).read(0)
    assert sorted(journal.read_text().splitlines()) == sorted(set(lines))  # no line is torn
    assert len(notes.locators) >= 3 * 2 + 1
    assert set(notes.layers) == {diff_id for image in built for diff_id in image.diff_ids}
    assert cached(tmp_path) == []
