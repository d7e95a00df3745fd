"""The credentials that others keep for registries: where they are looked for, and what is told to whom."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.sources.registry import credential_helpers, credentials
from arv_keepdocker.sources.registry.credentials import Credentials
from arv_keepdocker.sources.registry.repository_name import RepositoryName
from arv_keepdocker.terminal.display import Display

HUB = "https://index.docker.io/v1/"


def auth(user: str, password: str = "swordfish") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@dataclass
class Place:
    """A home directory, and the environment that goes with it."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("HOME", "home"), ("XDG_RUNTIME_DIR", "run")):
            self.environment[name] = str(self.directory / value)

    def write(self, path: str, document: object) -> Path:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        return file

    def find(self, repository: str) -> tuple[Credentials | None, str]:
        shown = io.StringIO()
        name = RepositoryName.of(repository)
        return credentials.find(name, self.environment, Display(shown)), shown.getvalue()

    def user(self, repository: str) -> str | None:
        found, said = self.find(repository)
        assert said == ""
        return found.username if found is not None else None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return place


def helper(place: Place, name: str, script: str) -> None:
    program = place.directory / "bin" / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def answering(answers: Mapping[str, Mapping[str, str]]) -> str:
    """A helper's script that knows these servers."""
    cases = "".join(f"{server}) echo '{json.dumps(answer)}';;\n" for server, answer in answers.items())
    return (
        f'read -r server; case "$server" in {cases} *) echo "credentials not found in native keychain"; exit 1;; esac'
    )


FILES = ["given.json", "home/.docker/config.json", "run/containers/auth.json", "home/.config/containers/auth.json"]


def test_files_in_their_order(place: Place) -> None:
    place.environment["REGISTRY_AUTH_FILE"] = str(place.directory / "given.json")
    for number, path in enumerate(FILES):
        place.write(path, {"auths": {"registry.example": auth(f"user{number}")}})
    for number, path in enumerate(FILES):
        assert place.user("registry.example/bio/tool") == f"user{number}"
        place.write(path, {"auths": {"elsewhere.example": auth("nobody")}})
    assert place.user("registry.example/bio/tool") is None


def test_directories_that_the_environment_names(place: Place) -> None:
    place.write("home/.docker/config.json", {"auths": {"registry.example": auth("wrong")}})
    place.write("docker/config.json", {"auths": {"registry.example": auth("docker")}})
    place.write("xdg/containers/auth.json", {"auths": {"other.example": auth("podman")}})
    place.environment.update(
        DOCKER_CONFIG=str(place.directory / "docker"), XDG_CONFIG_HOME=str(place.directory / "xdg")
    )
    assert place.user("registry.example/tool") == "docker"
    assert place.user("other.example/tool") == "podman"


def test_no_files_at_all(place: Place) -> None:
    place.environment.clear()
    place.environment["HOME"] = str(place.directory / "nowhere")
    assert place.user("registry.example/tool") is None


@pytest.mark.parametrize(
    ("key", "repository", "fits"),
    [
        ("registry.example", "registry.example/a/b", True),
        ("https://registry.example", "registry.example/a/b", True),
        ("http://registry.example/v1/", "registry.example/a/b", True),
        ("https://registry.example/v2/", "registry.example/a/b", True),
        ("registry.example/v1/", "registry.example/a/b", True),
        ("registry.example:443", "registry.example/a/b", True),
        ("Registry.Example", "registry.example/a/b", True),
        ("registry.example/", "registry.example/a/b", True),
        ("registry.example/a", "registry.example/a/b", True),
        ("registry.example/a/b", "registry.example/a/b", True),
        ("registry.example/a/b/c", "registry.example/a/b", False),
        ("registry.example/ab", "registry.example/a/b", False),
        ("registry.example/b", "registry.example/a/b", False),
        ("registry.example:5000", "registry.example/a/b", False),
        ("registry.example", "registry.example:5000/a/b", False),
        ("registry.example:5000", "registry.example:5000/a/b", True),
        ("example", "registry.example/a/b", False),
        ("evilregistry.example", "registry.example/a/b", False),
        ("https://registry.example@evil.example/", "registry.example/a/b", False),
        ("[::1]:5000", "[::1]:5000/a", True),
        ("localhost:5000", "localhost:5000/a", True),
        (HUB, "debian", True),
        ("https://index.docker.io/v1", "debian", True),
        ("docker.io", "debian", True),
        ("index.docker.io", "bio/tool", True),
        ("registry-1.docker.io", "docker.io/bio/tool", True),
        ("docker.io/library/debian", "debian", True),
        ("docker.io/library", "index.docker.io/debian", True),
        ("docker.io/bio", "bio/tool", True),
        ("docker.io/bio", "debian", False),
        ("docker.io", "registry.example/debian", False),
        (HUB, "quay.io/debian", False),
    ],
)
def test_keys(place: Place, key: str, repository: str, fits: bool) -> None:
    place.write("home/.docker/config.json", {"auths": {key: auth("me")}})
    assert place.user(repository) == ("me" if fits else None)


def test_the_most_specific_key(place: Place) -> None:
    keys = ["registry.example", "registry.example/bio", "registry.example/bio/tool"]
    for order in (keys, keys[::-1]):
        place.write("home/.docker/config.json", {"auths": {key: auth(key) for key in order}})
        assert place.user("registry.example/bio/tool") == keys[2]
        assert place.user("registry.example/bio/other") == keys[1]
        assert place.user("registry.example/chem/tool") == keys[0]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (auth("me", "a:b:c"), ("me", "a:b:c", "", "")),
        (auth("me", "old\0\0"), ("me", "old", "", "")),
        (auth("mü", "ß"), ("mü", "ß", "", "")),
        ({"username": "me", "password": "pw"}, ("me", "pw", "", "")),
        (auth("<token>", "refresh"), ("", "", "refresh", "")),
        ({**auth("me"), "identitytoken": "refresh"}, ("me", "", "refresh", "")),
        ({"identitytoken": "refresh"}, ("", "", "refresh", "")),
        ({"registrytoken": "bearer"}, ("", "", "", "bearer")),
    ],
)
def test_entries(place: Place, entry: dict[str, str], expected: tuple[str, str, str, str]) -> None:
    place.write("home/.docker/config.json", {"auths": {"registry.example": entry}})
    found, said = place.find("registry.example/x")
    assert found is not None
    assert (found.username, found.password, found.identity_token, found.registry_token) == expected
    assert said == ""
    assert not any(secret in repr(found) for secret in expected[1:] if secret)


@pytest.mark.parametrize("entry", [{}, {"auth": ""}, {"auth": None}, None, [], "x", {"auth": 5}])
def test_an_empty_entry_is_none(place: Place, entry: Any) -> None:
    place.write("home/.docker/config.json", {"auths": {"registry.example": entry}})
    place.write("run/containers/auth.json", {"auths": {"registry.example": auth("podman")}})
    assert place.user("registry.example/x") == "podman"


@pytest.mark.parametrize("value", ["c3dvcmRmaXNo", "swordfish!", "//79/Q==", base64.b64encode(b"\xff:\xff").decode()])
def test_an_entry_that_cannot_be_used(place: Place, value: str) -> None:
    file = place.write("home/.docker/config.json", {"auths": {"registry.example": {"auth": value}}})
    found, said = place.find("registry.example/x")
    assert found is None
    assert f"credentials for registry.example in {file} cannot be used" in said
    assert value not in said


@pytest.mark.parametrize("content", ["{", "[]", "null", "\x00", "[" * 100_000, "5"])
def test_a_file_that_is_no_json_object(place: Place, content: str) -> None:
    file = place.write("home/.docker/config.json", content)
    place.write("run/containers/auth.json", {"auths": {"registry.example": auth("podman")}})
    found, said = place.find("registry.example/x")
    assert found is not None
    assert found.username == "podman"
    assert f"warning: credentials in {file} cannot be read: it is not a JSON object" in said


def test_files_that_are_none(place: Place) -> None:
    file = place.write("home/.docker/config.json", "")
    assert place.user("registry.example/x") is None
    file.unlink()
    os.mkfifo(file)
    found, said = place.find("registry.example/x")
    assert found is None
    assert "cannot be read" in said
    place.environment["REGISTRY_AUTH_FILE"] = "/nowhere/auth.json"
    assert "REGISTRY_AUTH_FILE names /nowhere/auth.json, which does not exist" in place.find("registry.example/x")[1]


def test_a_helper_for_one_registry(place: Place) -> None:
    helper(place, "one", answering({"registry.example": {"Username": "one", "Secret": "s"}}))
    helper(place, "all", answering({"other.example": {"Username": "all", "Secret": "s"}}))
    place.write(
        "home/.docker/config.json",
        {"credHelpers": {"registry.example": "one"}, "credsStore": "all", "auths": {"third.example": auth("file")}},
    )
    assert place.user("registry.example/a/b") == "one"
    assert place.user("other.example/a/b") == "all"
    assert place.user("third.example/a/b") == "file"
    assert place.user("fourth.example/a/b") is None


@pytest.mark.parametrize("key", [HUB, "docker.io", "index.docker.io"])
@pytest.mark.parametrize("server", [HUB, "docker.io", "index.docker.io"])
def test_helpers_for_docker_hub(place: Place, key: str, server: str) -> None:
    helper(place, "hub", answering({server: {"Username": "hub", "Secret": "s"}}))
    place.write("home/.docker/config.json", {"credHelpers": {key: "hub"}})
    assert place.user("debian") == "hub"
    place.write("home/.docker/config.json", {"credsStore": "hub", "auths": {HUB: {}}})
    assert place.user("debian") == "hub"


def test_an_identity_token_from_a_helper(place: Place) -> None:
    helper(place, "x", answering({"registry.example": {"Username": "<token>", "Secret": "refresh"}}))
    place.write("home/.docker/config.json", {"credsStore": "x"})
    found, _ = place.find("registry.example/x")
    assert found == Credentials("docker-credential-x", identity_token="refresh")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "there is no such program on PATH"),
        ("echo swordfish; echo swordfish >&2; exit 3", "it failed with exit status 3"),
        ("kill -9 $$", "it was ended by signal 9"),
        ("echo swordfish", "its answer is not a user name and a secret"),
        ("exit 0", "its answer is not a user name and a secret"),
        ("""echo '{"Username": "x", "Secret": 5}'""", "its answer is not a user name and a secret"),
        ("echo '[]'", "its answer is not a user name and a secret"),
        ("head -c 3000000 /dev/zero", "its answer is longer than 1 MiB"),
        ("exec <&-; echo swordfish", "its answer is not a user name and a secret"),
    ],
)
def test_a_helper_that_gives_nothing(place: Place, script: str | None, words: str) -> None:
    if script is not None:
        helper(place, "x", script)
    place.write("home/.docker/config.json", {"credsStore": "x"})
    place.write("run/containers/auth.json", {"auths": {"registry.example": auth("podman")}})
    found, said = place.find("registry.example/x")
    assert found is not None
    assert found.username == "podman"
    assert f"warning: no credentials for registry.example from docker-credential-x: {words}" in said
    assert "swordfish" not in said


def test_a_helper_with_a_path_for_a_name(place: Place) -> None:
    helper(place, "x", answering({"registry.example": {"Username": "x", "Secret": "s"}}))
    place.write("home/.docker/config.json", {"credsStore": "../bin/docker-credential-x"})
    assert "there is no such program" in place.find("registry.example/x")[1]


def test_a_helper_that_hangs_is_ended(place: Place) -> None:
    helper(place, "x", f"sleep 1000 & echo $! > {place.directory}/pid; wait")
    with pytest.raises(credential_helpers.HelperError, match="did not answer within 1 s"):
        credential_helpers.ask("docker-credential-x", "registry.example", seconds=1)
    state = Path(f"/proc/{(place.directory / 'pid').read_text().strip()}/stat")
    deadline = time.monotonic() + 20
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline


def test_what_a_helper_has_started_is_not_waited_for(place: Place) -> None:
    helper(place, "x", f"""sleep 1000 & echo $! > {place.directory}/pid; echo '{{"Username": "u", "Secret": "s"}}'""")
    answer = credential_helpers.ask("docker-credential-x", "registry.example", seconds=100)
    os.kill(int((place.directory / "pid").read_text()), 9)
    assert answer == ("u", "s")


def test_a_helper_does_not_get_the_token(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARVADOS_API_TOKEN", "v2/secret")
    helper(place, "x", """echo "{\\"Username\\": \\"${ARVADOS_API_TOKEN:-none}\\", \\"Secret\\": \\"s\\"}" """)
    place.write("home/.docker/config.json", {"credsStore": "x"})
    assert place.user("registry.example/x") == "none"
