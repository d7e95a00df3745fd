"""What programs read of an image that is stored: the portable data hash, and an object in JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.cli import help_texts
from tests import images
from tests.conftest import Cluster, Command, Result, stored
from tests.engines import Engine, Registry, docker

BIG = 5 << 20
"""Bytes of a layer that has blocks of its own."""


def told(result: Result, status: int = 0) -> dict[str, Any]:
    """The object that a run has printed: the only thing on its stdout."""
    assert result.status == status, result.stderr
    assert result.stdout.count("\n") == 1
    values: dict[str, Any] = json.loads(result.stdout)
    assert list(values) == list(help_texts.RESULT_KEYS)
    assert 0 < values["seconds"] < 120
    return values


def collection(cluster: Cluster, uuid: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.api().collections().get(uuid=uuid).execute()
    return found


def test_the_portable_data_hash(cluster: Cluster, engine: Engine, project: str, run: Command, way: list[str]) -> None:
    image = images.build(engine.host)
    words = ("--project-uuid", project, *way, image.name)
    for options in ((), ("--silent",), ("--progress",)):  # stored, then found
        first = run(*words, "--portable-data-hash", *options)
        assert first.status == 0, first.stderr
        assert first.stdout == collection(cluster, stored(run(*words)))["portable_data_hash"] + "\n"


def test_what_was_stored_and_what_was_found(cluster: Cluster, engine: Engine, project: str, run: Command) -> None:
    image = images.build(engine.host, layers=[{"big": os.urandom(BIG)}, {"small": os.urandom(100)}])
    words = ("--project-uuid", project, "--format", "json", image.name)
    values = told(run(*words))
    there = collection(cluster, values["collection_uuid"])
    common = {
        "image": image.name,
        "dry_run": False,
        "collection_uuid": there["uuid"],
        "portable_data_hash": there["portable_data_hash"],
        "id": image.id,
        "engine_id": None,
        "names": [image.name],
        "project_uuid": project,
        "size": there["file_size_total"],
        "fetched": 0,
    }
    assert common.items() <= values.items()
    assert (values["action"], values["reused"]) == ("stored", 0)
    assert values["sent"] == there["file_size_total"]
    assert [layer["diff_id"] for layer in values["layers"]] == image.diff_ids
    assert all(layer["new"] is True and layer["size"] % 512 == 0 for layer in values["layers"])

    values = told(run(*words))
    assert common.items() <= values.items()
    assert (values["action"], values["sent"], values["layers"]) == ("found", 0, None)
    assert values["reused"] == values["size"]


def test_what_was_done(cluster: Cluster, engine: Engine, project: str, run: Command) -> None:
    image = images.build(engine.host)
    other = images.unique_name()
    docker("tag", image.name, other, host=engine.host)
    words = ("--format", "json", "--project-uuid")
    first = told(run(*words, project, image.name))
    linked = told(run(*words, project, *other.split(":")))
    assert (linked["action"], linked["collection_uuid"]) == ("linked", first["collection_uuid"])
    assert (linked["image"], linked["names"]) == (other.replace(":", " "), [other, image.name])
    home = cluster.api().users().current().execute()["uuid"]
    copied = told(run("--format", "json", image.name))
    assert (copied["action"], copied["project_uuid"]) == ("copied", home)
    assert copied["collection_uuid"] != first["collection_uuid"]
    assert copied["portable_data_hash"] == first["portable_data_hash"]
    for link in cluster.api().links().list(filters=[["head_uuid", "=", first["collection_uuid"]]]).execute()["items"]:
        cluster.api().links().delete(uuid=link["uuid"]).execute()
    for link in cluster.api().links().list(filters=[["head_uuid", "=", copied["collection_uuid"]]]).execute()["items"]:
        cluster.api().links().delete(uuid=link["uuid"]).execute()
    completed = told(run(*words, project, image.name))
    assert (completed["action"], completed["collection_uuid"]) == ("completed", first["collection_uuid"])
    assert completed["portable_data_hash"] == first["portable_data_hash"]


def test_a_dry_run_tells_what_would_be_done(cluster: Cluster, engine: Engine, project: str, run: Command) -> None:
    base = {"base": os.urandom(BIG)}
    stored(run("--project-uuid", project, images.build(engine.host, layers=[base]).name))
    image = images.build(engine.host, layers=[base, {"tool": os.urandom(BIG)}])
    words = ("--project-uuid", project, "--format", "json", image.name)
    foreseen = told(run(*words, "--dry-run"), status=7)
    assert (foreseen["action"], foreseen["dry_run"], foreseen["collection_uuid"]) == ("stored", True, None)
    assert [layer["new"] for layer in foreseen["layers"]] == [False, True]
    done = told(run(*words))
    assert {key for key in done if done[key] != foreseen[key]} - {"seconds"} == {"dry_run", "collection_uuid"}
    found = told(run(*words, "--dry-run"))
    assert (found["action"], found["collection_uuid"]) == ("found", done["collection_uuid"])


def test_an_archives_names_and_a_registrys_bytes(
    engine: Engine, registry: Registry, project: str, run: Command, tmp_path: Path
) -> None:
    with (tmp_path / "image.tar").open("wb") as file:
        image = images.write_archive(file, layers=[{"big": os.urandom(BIG)}])
    words = ("--project-uuid", project, "--format", "json")
    of_archive = told(run(*words, "--from-archive", "image.tar"))
    assert (of_archive["image"], of_archive["names"]) == (None, [image.name])
    assert (of_archive["fetched"], of_archive["id"]) == (0, image.id)

    remote = images.build(engine.host, f"{registry.host}/{images.unique_name()}", layers=[{"big": os.urandom(BIG)}])
    docker("push", remote.name, host=engine.host)
    of_registry = told(run(*words, "--from-registry", remote.name))
    assert BIG < of_registry["fetched"] < 2 * BIG
    assert (of_registry["id"], of_registry["action"]) == (remote.id, "stored")
    assert of_registry["engine_id"].startswith("sha256:")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "table", "x"), "--format table is for listing"),
        (("--format", "jsonl", "x"), "--format jsonl is for listing"),
        (("--format", "json", "--portable-data-hash", "x"), "--portable-data-hash cannot be used with --format json"),
        (("--dry-run", "--portable-data-hash", "x"), "--portable-data-hash cannot be used with --dry-run"),
        (("--portable-data-hash",), "there is no IMAGE"),
        (("images", "--portable-data-hash"), "--portable-data-hash is for storing an image"),
    ],
)
def test_what_cannot_be_meant(run: Command, words: tuple[str, ...], said: str) -> None:
    result = run(*words)
    assert (result.status, result.stdout) == (2, "")
    assert said in result.stderr


def test_nothing_is_printed_of_what_fails(engine: Engine, run: Command) -> None:
    for options in (("--format", "json"), ("--portable-data-hash",)):
        result = run(*options, images.unique_name())
        assert (result.status, result.stdout) == (3, ""), result.stderr
