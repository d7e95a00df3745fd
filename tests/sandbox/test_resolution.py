"""Which image a container request means."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.conftest import container_request

from .conftest import Http, unique


class Images:
    """Images in a home of their own, so that no other test's are in the way of an unescaped pattern."""

    def __init__(self, http: Http) -> None:
        self.http = http
        self.made: dict[str, Any] = {}

    def add(self, name: str, *timestamps: object, path: str | None = None, tags: tuple[str, ...] = ()) -> None:
        digit = f"{len(self.made) % 16:x}"
        made = self.http.file(path or f"sha256\\072{digit * 64}.tar", unique().encode())
        self.made[name] = made
        for timestamp in timestamps or (None,):
            properties = {} if timestamp == "absent" else {"image_timestamp": timestamp}
            for link_class, link_name in (
                ("docker_image_hash", f"sha256:{digit * 64}"),
                *(("docker_image_repo+tag", tag) for tag in tags),
            ):
                body = {"link_class": link_class, "name": link_name, "head_uuid": made["uuid"]}
                self.http.good("POST", "links", {**body, "properties": properties})

    def resolve(self, image: str) -> str:
        container = self.http.good("GET", f"containers/{request(self.http, image)['container_uuid']}")
        names = {made["portable_data_hash"]: name for name, made in self.made.items()}
        return names[container["container_image"]]


def body(image: str, **attributes: object) -> dict[str, Any]:
    return container_request(image, **{"priority": 1, **attributes})


def request(http: Http, image: str, **attributes: object) -> Any:
    made = http.good("POST", "container_requests", body(image, **attributes))
    assert made["container_image"] == image
    return made


@pytest.fixture(scope="module")
def images(spectator: Http) -> Images:
    images = Images(spectator)
    images.add(
        "old", "2019-01-01T00:00:00Z", tags=("orc/X:v1", "localhost:5000/r:v1", "orc/X:latest", "localhost:5000")
    )
    images.add("new", "2022-01-01T00:00:00Z", tags=("other:v1", "repo@sha256:" + "a" * 64))
    images.add("not an image", "2030-01-01T00:00:00Z", path="x.tar", tags=("orc/X:v1", "wrong:v1"))
    return images


@pytest.mark.parametrize(
    ("term", "name"),
    [
        ("orc/X:v1", "old"),
        ("orc/X", "old"),
        ("other:v1", "new"),
        ("localhost:5000/r:v1", "old"),
        ("localhost:5000", "old"),
        ("repo@sha256:" + "a" * 64, "new"),
        # Whatever follows, "sha256:" finds every image, and the newest is taken.
        ("sha256:" + "0" * 64, "new"),
        ("sha256:nonsense", "new"),
        ("sha25_:x", "new"),
        ("%", "new"),
    ],
)
def test_terms(images: Images, term: str, name: str) -> None:
    assert images.resolve(term) == name


@pytest.mark.parametrize(
    "term", ["nosuch:latest", "0" * 64, "000000000000", "localhost:5000/r", "orc/x:v1", "orc/X:v2"]
)
def test_nothing_found(images: Images, term: str) -> None:
    status, text = images.http.bad("POST", "container_requests", body(term))
    assert status == 422
    assert f'#<ArvadosModel::UnresolvableContainerError: docker image "{term}" not found>' in text


def test_by_hash(images: Images, active: Http) -> None:
    portable_data_hash = images.made["old"]["portable_data_hash"]
    assert images.resolve(portable_data_hash) == "old"
    assert images.resolve(portable_data_hash + "+Kx") == "old"
    for http, term in (
        (images.http, images.made["old"]["uuid"]),
        (images.http, images.made["not an image"]["portable_data_hash"]),
        (images.http, "0" * 32 + "+5"),
        (active, portable_data_hash),
    ):
        status, text = http.bad("POST", "container_requests", body(term))
        assert status == 422
        assert "not found" in text


def test_incompatible(images: Images) -> None:
    status, text = images.http.bad("POST", "container_requests", body("wrong:v1"))
    assert status == 422
    assert "Matching Docker image is incompatible with 'docker_image_formats' configuration." in text


def test_states(images: Images) -> None:
    assert request(images.http, "nosuch", state="Uncommitted")["container_uuid"] is None
    status, text = images.http.bad("POST", "container_requests", body(""))
    assert status == 422
    assert "Container image can't be blank" in text


def test_order(active: Http) -> None:
    """The order measured, found by trashing each winner in turn."""
    images = Images(active)
    tag = unique("ordered").replace(" ", "") + ":latest"

    def add(name: str, *timestamps: object) -> None:
        images.add(name, *timestamps, tags=(tag,))

    add("O", "2031-01-01T00:00:00Z", "absent")
    add("Q", "2023-01-01T00:00:00.9Z")
    add("P", "2022-01-01T00:00:00Z")
    add("C", "2021-06-01T00:00:00Z")
    add("J", "2021-06-01T03:00:00+05:00")
    add("N", "2020-06-01T00:00:00Z")
    add("B", "2020-01-01T00:00:00Z")
    add("I", "2019-01-01T00:00:00Z", "2030-01-01T00:00:00Z")
    add("D", "garbage")
    add("A", None)
    add("K", "1960-01-01T00:00:00Z")
    add("L", "0001-01-01T00:00:00Z")
    time.sleep(1.1)
    add("R", "2023-01-01T00:00:00.1Z")
    add("E", "2020-01-01T00:00:00Z")
    add("F", "absent")
    time.sleep(1.1)
    add("M", "")
    found = ""
    for _ in images.made:
        winner = images.resolve(tag)
        found += winner
        active.good("DELETE", f"collections/{images.made[winner]['uuid']}")
    # D and A are alike, and so are made in the same second.
    assert found.replace("AD", "DA") == "ORQPCJNEBIMFDAKL"


def test_both_must_be_readable(active: Http, spectator: Http) -> None:
    project = active.project()
    active.share(project, spectator.uuid)
    home, public = active.image("a"), active.image("b", owner_uuid=project)
    tag = unique("seen").replace(" ", "")
    for name, owner, head in (
        ("hh", active.uuid, home),
        ("hp", active.uuid, public),
        ("ph", project, home),
        ("pp", project, public),
    ):
        link = {"link_class": "docker_image_repo+tag", "name": f"{tag}{name}:latest", "head_uuid": head["uuid"]}
        active.good("POST", "links", {**link, "owner_uuid": owner})
        assert active("POST", "container_requests", body(tag + name)).status_code == 200
        status = spectator("POST", "container_requests", body(tag + name)).status_code
        assert status == (200 if name == "pp" else 422)
