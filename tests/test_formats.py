"""The forms of a listing, and what can be chosen: formats, filters, orders, numbers."""

from __future__ import annotations

import fcntl
import json
import re
import secrets
import struct
import termios
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests.conftest import Cluster, Command, terminal
from tests.test_listing import HASH, NAME, Catalogue, rows
from tests.test_listing import catalogue as catalogue

ENGINE_ID = "arv:engine_image_id"


def objects(run: Command, catalogue: Catalogue, *words: str) -> list[dict[str, Any]]:
    result = run("images", "--project-uuid", catalogue.project, "--format", "json", *words)
    assert (result.status, result.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def names(run: Command, catalogue: Catalogue, *words: str) -> list[str]:
    """`repository:tag` of the listed images."""
    return [":".join(row[:2]) for row in rows(run, catalogue, *words)]


def test_json_has_everything(catalogue: Catalogue, run: Command) -> None:
    api = catalogue.api
    image_id = catalogue.new_id()
    uuid = catalogue.collection(image_id)
    catalogue.link(HASH, image_id, uuid)
    engine_id = catalogue.new_id()
    link = {
        "link_class": NAME,
        "name": "reg.example:5000/bio/tool:1.2",
        "head_uuid": uuid,
        "owner_uuid": catalogue.project,
        "properties": {"image_timestamp": "2024-03-01T12:00:00.123456789+02:00", ENGINE_ID: engine_id},
    }
    api.links().create(body=link).execute()
    collection = api.collections().get(uuid=uuid).execute()
    (image,) = objects(run, catalogue)
    stored = image.pop("stored_at")
    assert datetime.fromisoformat(stored.replace("Z", "+00:00")).isoformat()[:26] == collection["created_at"][:26]
    assert image == {
        "repository": "reg.example:5000/bio/tool",
        "tag": "1.2",
        "digest": None,
        "id": image_id,
        "engine_id": engine_id,
        "collection_uuid": uuid,
        "portable_data_hash": collection["portable_data_hash"],
        "owner_uuid": catalogue.project,
        "owner_name": api.groups().get(uuid=catalogue.project).execute()["name"],
        "created": "2024-03-01T10:00:00.123456Z",
        "size": collection["file_size_total"],
    }


def test_json_of_what_is_not_known_is_null(catalogue: Catalogue, run: Command) -> None:
    catalogue.image(None, "2024-01-04T00:00:00Z")
    catalogue.image("notag", "2024-01-03T00:00:00Z")
    catalogue.image(f"repo@sha256:{'ab' * 32}", "2024-01-02T00:00:00Z")
    catalogue.link(NAME, "nohash:1", catalogue.collection())
    found = objects(run, catalogue)
    assert [(image["repository"], image["tag"], image["digest"]) for image in found] == [
        (None, None, None),
        ("notag", None, None),
        ("repo", None, f"sha256:{'ab' * 32}"),
        ("nohash", "1", None),
    ]
    assert [image["id"] is None for image in found] == [False, False, False, True]
    assert [image["created"] is None for image in found] == [False, False, False, True]
    assert {image["engine_id"] for image in found} == {None}


def test_json_lines(catalogue: Catalogue, run: Command) -> None:
    for number in range(3):
        catalogue.image(f"tool:{number}", f"2024-01-0{number + 1}T00:00:00Z")
    lines = run("images", "--project-uuid", catalogue.project, "--format=jsonl").stdout.splitlines()
    assert len(lines) == 3
    assert list(map(json.loads, lines)) == objects(run, catalogue)


def test_nothing_is_an_empty_array_and_no_line(catalogue: Catalogue, run: Command) -> None:
    words = ("images", "--project-uuid", catalogue.project)
    assert objects(run, catalogue) == []
    assert run(*words, "--format=jsonl").stdout == ""
    assert run(*words, "--quiet").stdout == ""
    assert run(*words, "--format=wide").stdout.split() == [
        *("REPOSITORY", "TAG", "IMAGE", "ID", "COLLECTION", "CREATED", "SIZE", "PROJECT")
    ]


def test_quiet(catalogue: Catalogue, run: Command) -> None:
    older = catalogue.image("older:1", "2024-01-01T00:00:00Z")
    newer = catalogue.image("newer:1", "2024-01-02T00:00:00Z")
    for option in ("-q", "--quiet"):
        assert run("images", "--project-uuid", catalogue.project, option).stdout == f"{newer}\n{older}\n"
    assert run("images", "--project-uuid", catalogue.project, "-q", "older:1").stdout == f"{older}\n"


@pytest.mark.parametrize("columns", [150, 120, 80, 20])
def test_wide_on_a_terminal_fits_it(sandbox: Sandbox, catalogue: Catalogue, run: Command, columns: int) -> None:
    # Of twice the width of what is usual, and of none.
    name = "項目ツール" + "e\u0301" * 10
    named = {"group": {"name": f"{name} {catalogue.project}"}}
    catalogue.api.groups().update(uuid=catalogue.project, body=named).execute()
    repository = "reg.example:5000/a/repository/name/wider/than/its/column"
    uuid = catalogue.image(f"{repository}:and-a-long-tag", "2024-03-01T12:00:00Z")
    catalogue.image("short:1", "2024-01-01T00:00:00Z")
    words = ("images", "--project-uuid", catalogue.project, "--format", "wide")
    whole = run(*words).stdout
    assert f"{repository}  and-a-long-tag  " in whole
    lines = on_terminal(run, columns, *words)
    assert len(lines) == 3
    assert all(width(line) <= columns for line in lines)
    assert "…" in lines[1]
    if columns >= 100:
        assert uuid in lines[1]
    if columns >= 80:
        sizes = [re.search(r"  (0B|SIZE)  ", line) for line in lines]
        assert len({width(line[: size.start()]) for line, size in zip(lines, sizes, strict=True) if size}) == 1
        assert all(sizes)
    assert on_terminal(run, 1000, *words) == whole.splitlines()


def width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(char) == "W" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def on_terminal(run: Command, columns: int, *words: str) -> list[str]:
    """The lines of stdout where that is a terminal with so many columns."""
    shown: list[bytes] = []
    with terminal(shown) as slave:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = run.start(*words, stdout=slave)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    return b"".join(shown).decode().splitlines()


def test_wide(sandbox: Sandbox, catalogue: Catalogue, run: Command) -> None:
    image_id = catalogue.new_id()
    repository = "reg.example:5000/a/repository/name/wider/than/its/column"
    uuid = catalogue.image(f"{repository}:and-a-long-tag", "2024-03-01T12:00:00.5+05:00", image_id)
    catalogue.image("short:1", "2024-01-01T00:00:00Z")
    project = catalogue.api.groups().get(uuid=catalogue.project).execute()["name"]
    lines = run("images", "--project-uuid", catalogue.project, "--format", "wide").stdout.splitlines()
    titles = lines[0]
    assert re.split(r"\s{2,}", titles) == ["REPOSITORY", "TAG", "IMAGE ID", "COLLECTION", "CREATED", "SIZE", "PROJECT"]
    assert re.split(r"\s{2,}", lines[1]) == [
        *(repository, "and-a-long-tag", image_id[7:19], uuid, "2024-03-01T07:00:00Z", "0B", project)
    ]
    for title in ("TAG", "IMAGE ID", "COLLECTION", "CREATED", "SIZE", "PROJECT"):
        assert all(line[titles.index(title) - 1] == " " for line in lines)
        assert all(line[titles.index(title)] != " " for line in lines)


@pytest.fixture
def sized(sandbox: Sandbox, catalogue: Catalogue) -> Iterator[dict[int, str]]:
    """UUIDs of images by their sizes, of blocks that are nowhere: an administrator may do that."""
    cluster = Cluster(sandbox)
    cluster.environment = lambda: sandbox.environment("admin")  # type: ignore[method-assign]
    uuids: dict[int, str] = {}
    for size in (999_600, 0, 67_108_864, 1000):
        image_id = catalogue.new_id()
        file = image_id.replace(":", "\\072")
        body = {
            "manifest_text": f". {secrets.token_hex(16)}+{size} 0:{size}:{file}.tar\n",
            "owner_uuid": catalogue.project,
            "name": image_id,
        }
        uuids[size] = cluster.api().collections().create(body=body).execute()["uuid"]
        catalogue.link(NAME, f"tool:{size}", uuids[size], f"2024-01-01T00:00:0{len(uuids)}Z")
    yield uuids
    cluster.close()


def test_the_largest_first(catalogue: Catalogue, sized: dict[int, str], run: Command) -> None:
    largest_first = sorted(sized, reverse=True)
    assert [row[1] for row in rows(run, catalogue, "--sort=size")] == list(map(str, largest_first))
    found = objects(run, catalogue, "--sort=size")
    assert [(image["size"], image["collection_uuid"]) for image in found] == [(s, sized[s]) for s in largest_first]
    lines = run("images", "--project-uuid", catalogue.project, "--sort=size", "--format=wide").stdout.splitlines()
    column = lines[0].index("SIZE")
    assert [line[column:].split()[0] for line in lines[1:]] == ["67.1MB", "1MB", "1kB", "0B"]


def test_ids_that_are_not_cut(catalogue: Catalogue, run: Command) -> None:
    image_id = catalogue.new_id()
    catalogue.image("tool:1", None, image_id)
    for form in ("table", "wide"):
        result = run("images", "--project-uuid", catalogue.project, "--no-trunc", "--format", form)
        assert result.stdout.splitlines()[1].split()[2] == image_id


def test_times_at_the_ends_of_time(catalogue: Catalogue, run: Command) -> None:
    for time in ("0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"):
        catalogue.image("tool:1", time)
    assert [image["created"] for image in objects(run, catalogue)] == [
        "9999-12-31T23:59:59-05:00",
        "0001-01-01T00:00:00+05:00",
    ]
    for form in ("table", "wide"):
        assert run("images", "--project-uuid", catalogue.project, "--format", form).status == 0


def test_names_cannot_steer_the_terminal(catalogue: Catalogue, run: Command) -> None:
    catalogue.image("evil\x1b[2J\u202e:1\x07")
    catalogue.image("two  spaces:1")
    for form in ("table", "wide"):
        result = run("images", "--project-uuid", catalogue.project, "--format", form)
        assert all(char.isprintable() or char == "\n" for char in result.stdout)
        assert "evil\\x1b[2J\\u202e" in result.stdout
        assert "two  spaces" in result.stdout
    assert "evil\x1b[2J\u202e" in [image["repository"] for image in objects(run, catalogue)]


def test_an_owner_that_cannot_be_read(sandbox: Sandbox, catalogue: Catalogue, run: Command) -> None:
    spectator = sandbox.users["spectator"]
    uuid = catalogue.collection()
    share = {"link_class": "permission", "name": "can_read", "tail_uuid": spectator.uuid, "head_uuid": uuid}
    catalogue.api.links().create(body=share).execute()
    environment = {"ARVADOS_API_TOKEN": spectator.token}
    name = f"{catalogue.prefix}/shared:1"
    theirs = Cluster(sandbox)
    theirs.environment = lambda: sandbox.environment("spectator")  # type: ignore[method-assign]
    link = {"link_class": NAME, "name": name, "head_uuid": uuid}
    theirs.api().links().create(body=link).execute()
    theirs.close()
    (image,) = json.loads(run("images", name, "--format=json", env=environment).stdout)
    assert (image["owner_uuid"], image["owner_name"]) == (catalogue.project, None)
    assert run("images", name, "--format=wide", env=environment).stdout.splitlines()[1].split()[-1] == catalogue.project


def test_the_owner_of_a_home_project_is_a_user(sandbox: Sandbox, catalogue: Catalogue, run: Command) -> None:
    user = catalogue.api.users().current().execute()
    name = f"{catalogue.prefix}/home:1"
    uuid = Catalogue(catalogue.api, user["uuid"]).image(name)
    (image,) = json.loads(run("images", name, "--format=json").stdout)
    assert (image["owner_uuid"], image["owner_name"]) == (user["uuid"], user["full_name"])
    catalogue.api.collections().delete(uuid=uuid).execute()


def test_what_is_not_shown_is_not_asked_for(sandbox: Sandbox, catalogue: Catalogue, run: Command) -> None:
    name = f"{catalogue.prefix}/tool:1"
    catalogue.image(name)

    def asked(*words: str) -> list[dict[str, Any]]:
        sandbox.clear_requests()
        # Others leave links to collections that are gone, of which more is asked.
        assert run("images", "--project-uuid", catalogue.project, *words).status == 0
        return [request for request in sandbox.requests() if request["path"].startswith("/arvados/v1/")]

    for words in ((), ("-q",), ("--sort=created",)):
        (collections,) = [request for request in asked(*words) if request["path"].endswith("/collections")]
        assert json.loads(collections["query"]["select"]) == ["uuid"]
    assert not {"/arvados/v1/groups", "/arvados/v1/users"} & {request["path"] for request in asked()}
    (collections,) = [request for request in asked("--sort=size") if request["path"].endswith("/collections")]
    assert json.loads(collections["query"]["select"]) == ["file_size_total", "uuid"]
    assert len(asked()) <= 4  # the configuration, the project, links, collections
    assert len(asked(name)) <= 5  # and the links with ids
    assert len(asked(name, "--format=json")) <= 6  # and the owner


# What is chosen


@pytest.fixture
def several(catalogue: Catalogue) -> Catalogue:
    catalogue.image("bio/bwa:1.0", "2021-01-01T00:00:00Z", f"sha256:{'1' * 64}")
    catalogue.image("bio/samtools:1.9", "2022-01-01T00:00:00Z")
    catalogue.image("bio/samtools:2.0", "2023-01-01T00:00:00Z")
    catalogue.image("quay.io/bio/bwa:1.0", "2024-01-01T00:00:00Z")
    catalogue.image("docker.io/library/debian:12", "2025-01-01T00:00:00Z")
    catalogue.image(None, "2020-01-01T00:00:00Z")
    return catalogue


EVERYTHING = [
    "docker.io/library/debian:12",
    "quay.io/bio/bwa:1.0",
    "bio/samtools:2.0",
    "bio/samtools:1.9",
    "bio/bwa:1.0",
    "<none>:<none>",
]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (["reference=bio/*"], ["bio/samtools:2.0", "bio/samtools:1.9", "bio/bwa:1.0"]),
        (["reference=bio/*:1.*"], ["bio/samtools:1.9", "bio/bwa:1.0"]),
        (["reference=bio/bwa"], ["bio/bwa:1.0"]),
        (["reference=*/*/bwa"], ["quay.io/bio/bwa:1.0"]),
        (["reference=*"], ["docker.io/library/debian:12"]),
        (["reference=debian", "reference=bio/b?a:[0-9].0"], ["docker.io/library/debian:12", "bio/bwa:1.0"]),
        (["reference=docker.io/library/*:12"], ["docker.io/library/debian:12"]),
        (["reference=nosuch"], []),
        (["before=bio/samtools:2.0"], ["bio/samtools:1.9", "bio/bwa:1.0", "<none>:<none>"]),
        (["since=bio/samtools:2.0"], ["docker.io/library/debian:12", "quay.io/bio/bwa:1.0"]),
        (["since=sha256:1111", "before=bio/samtools:2.0"], ["bio/samtools:1.9"]),
        (["since=bio/bwa:1.0", "since=bio/samtools:1.9", "dangling=false", "reference=bio/*"], ["bio/samtools:2.0"]),
        (["dangling=true"], ["<none>:<none>"]),
        (["dangling=false"], EVERYTHING[:-1]),
    ],
)
def test_filters(several: Catalogue, run: Command, filters: list[str], left: list[str]) -> None:
    assert names(run, several, *(f"--filter={text}" for text in filters)) == left


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--filter", "nosuch=1"], "since=..., dangling=..."),
        (["--filter", "reference"], "no value"),
        (["--filter", "reference="], "no value"),
        (["--filter", "dangling=maybe"], "'maybe'"),
        (["--filter", "dangling=1", "--filter", "dangling=0"], "dangling"),
        (["--format", "nosuch"], "jsonl"),
        (["--sort", "nosuch"], "size"),
        (["--limit", "0"], "--limit: it must be 1 or more, not '0'"),
        (["--limit", "x"], "'x'"),
        (["--quiet", "--format", "json"], "not allowed with"),
    ],
)
def test_what_cannot_be_asked_for_is_wrong_usage(sandbox: Sandbox, run: Command, words: list[str], said: str) -> None:
    sandbox.clear_requests()
    result = run("images", *words)
    assert (result.status, result.stdout) == (2, "")
    assert said in result.stderr
    assert sandbox.requests() == []


@pytest.mark.parametrize(
    "words", [["--format=wide"], ["-q"], ["--no-trunc"], ["--filter=dangling=true"], ["--sort=name"], ["--limit=1"]]
)
def test_what_is_stored_is_not_listed(sandbox: Sandbox, run: Command, words: list[str]) -> None:
    sandbox.clear_requests()
    result = run(*words, "tool", "1")
    assert (result.status, result.stdout) == (2, "")
    assert words[0].split("=")[0].replace("-q", "--quiet") in result.stderr
    assert sandbox.requests() == []


def test_an_image_to_compare_with_that_is_not_there(several: Catalogue, run: Command) -> None:
    result = run("images", "--project-uuid", several.project, "--filter", "before=nosuch:1")
    assert (result.status, result.stdout) == (3, "")
    assert "nosuch:1" in result.stderr


def test_orders(several: Catalogue, run: Command) -> None:
    assert names(run, several) == EVERYTHING
    assert names(run, several, "--sort=name") == [*sorted(EVERYTHING[:-1]), "<none>:<none>"]
    assert names(run, several, "--sort=created") == EVERYTHING
    several.image("bio/undated:1")  # as new as its link
    assert names(run, several)[-1] == "bio/undated:1"
    assert names(run, several, "--sort=created")[0] == "bio/undated:1"


def test_the_first_few(several: Catalogue, run: Command) -> None:
    assert names(run, several, "--limit=2") == EVERYTHING[:2]
    assert names(run, several, "--limit=99") == EVERYTHING
    assert names(run, several, "--limit=1", "--sort=name", "--filter=reference=bio/*") == ["bio/bwa:1.0"]
    assert [image["repository"] for image in objects(run, several, "--limit=1")] == ["docker.io/library/debian"]
