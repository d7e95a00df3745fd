"""The recorded engines answer as the recordings say, and admit it where there is none."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import shlex
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recorded import PROFILES, RecordedEngine

FIXTURES = Path(__file__).parent / "fixtures"
ARCHIVES = FIXTURES / "archives"
CLASSIC = [profile for profile in PROFILES if not profile.endswith("-containerd")]
CONTAINERD = [profile for profile in PROFILES if profile.endswith("-containerd")]
RECORDINGS = {profile: json.loads((FIXTURES / "cli" / f"{profile}.json").read_text()) for profile in PROFILES}

REGISTRY = "127.0.0.1:5029/d29"
DIGESTS = {
    "tiny": "sha256:37ffb95f86f8eec80c74ecd313c67f15299126c1b00a47d3376c06c27db789c9",
    "solo": "sha256:d2c770be55983e6817f0360e78789c457863ea28b3ec33549c59e2092311f117",
    "three-multi": "sha256:3826af8d9dfa28f2caf1b7d3931c2f28d5d49b886a24125ab1f92d6eafec8ac5",
    "three-mlist": "sha256:d9280f1a7b4a4f9224e07d09aec5975f59fa459bb538a7e24e56166291b4d763",
}
UNKNOWN = "0" * 64


def archive(profile: str, image: str, how: str = "byname") -> Path:
    """As the engine saved it, or one that saves the same."""
    path = ARCHIVES / f"{profile}-{image}-{how}.tar"
    if not path.exists():
        like = "docker29-containerd" if profile in CONTAINERD else "docker28"
        path = ARCHIVES / f"{like}-{image}-{how}.tar"
    return path


def run(engine: RecordedEngine, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **engine.environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def program(profile: str) -> str:
    return "podman" if profile == "podman4" else "docker"


def inspect(engine: RecordedEngine, profile: str, *arguments: str) -> dict[str, Any]:
    result = run(engine, program(profile), "image", "inspect", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    image: dict[str, Any]
    (image,) = json.loads(result.stdout)
    return image


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RecordedEngine]:
    """Gives the engine of a profile as it was when it was recorded; always the same one."""
    return functools.cache(lambda profile: _recorded(profile, tmp_path_factory.mktemp(profile)))


def _recorded(profile: str, directory: Path) -> RecordedEngine:
    engine = RecordedEngine(profile, directory)
    names = ["d29/tiny:1", "d29/tiny:second", "tinyname:latest", "other.example.org:5000/ns/tiny:1"]
    for name in names:
        engine.add(archive(profile, "tiny"), name)
    engine.add(archive(profile, "built"))
    if profile in ("docker25", "docker28", "docker29-classic"):
        engine.add(archive(profile, "built"), "d29/built-noprov:1")
    pulled = {"solo": "solo", "three-multi": "multi"}
    if profile in CLASSIC:
        pulled["three-mlist"] = "multi"
    if profile == "docker20":
        pulled["tiny"] = "tiny"
    for name, image in pulled.items():
        engine.publish(archive(profile, image), f"{REGISTRY}/{name}:1", digest=DIGESTS[name])
        assert run(engine, program(profile), "image", "pull", f"{REGISTRY}/{name}:1").returncode == 0
    return engine


@pytest.mark.parametrize(("profile", "name"), [(profile, name) for profile in PROFILES for name in RECORDINGS[profile]])
def test_answers_are_those_recorded(recorded: Callable[[str], RecordedEngine], profile: str, name: str) -> None:
    engine = recorded(profile)
    recording = RECORDINGS[profile][name]
    asked, *words = shlex.split(recording["cmd"])
    assert asked == program(profile)
    # The hundreds of ways to inspect differ only in what the program makes of its arguments.
    result = engine.answer(*words) if name.startswith(("byid-", "inspect-")) else run(engine, asked, *words)
    assert result.returncode == recording["rc"]
    if name == "pull-again-solo" and profile == "podman4":  # it names blobs that the archive does not have
        result.stderr = re.sub("blob sha256:.*", "", result.stderr)
        recording = {**recording, "err": re.sub("blob sha256:.*", "", recording["err"])}
    assert result.stderr == recording["err"]
    if name == "inspect-fmt-json":
        _compare(profile, json.loads(result.stdout), json.loads(recording["out"]))
    elif name.startswith("byid-") and recording["rc"] == 0:
        assert json.loads(result.stdout)[0]["Id"] == recording["out"]
    elif name.startswith("inspect-") and recording["rc"] == 0:
        _compare(profile, json.loads(result.stdout)[0], json.loads(recording["out"])[0])
    else:
        assert result.stdout == recording["out"]


def _compare(profile: str, answered: dict[str, Any], recorded: dict[str, Any]) -> None:
    """What the archive determines is as recorded; nothing is there that is not in the recording."""
    for image in answered, recorded:
        image["Config"] = {key: value for key, value in image["Config"].items() if value}
        for old in "ArgsEscaped", "Image":  # of which not every engine tells
            image["Config"].pop(old, None)
        if profile in CONTAINERD:
            image["Descriptor"].pop("annotations", None)
        if profile == "podman4":
            image["RepoTags"].sort()
            # They depend on the manifests that podman makes up, which no archive has.
            assert abs(recorded["Size"] - image.pop("Size")) < 5000
            assert image.pop("VirtualSize")
            image.pop("RepoDigests")
    if profile == "podman4":
        # Left out: an old image's settings that podman does not know.
        answered["Config"] = {key: value for key, value in answered["Config"].items() if key in recorded["Config"]}
    assert answered == {key: recorded.get(key) for key in answered}
    assert ("Descriptor" in answered) == (profile in CONTAINERD) == ("Descriptor" in recorded)
    assert answered["Config"] == {key: recorded["Config"][key] for key in answered["Config"]}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_archive_is_saved_byte_for_byte(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine")
    path = archive(profile, "tiny")
    image_id = engine.add(path)
    for reference in ["d29/tiny:1", "docker.io/d29/tiny:1", image_id, image_id[:20], image_id[7:19]]:
        if profile == "podman4" and reference in ("docker.io/d29/tiny:1", image_id[:20]):
            continue
        target = tmp_path / "saved.tar"
        result = run(engine, program(profile), "image", "save", "-o", str(target), reference)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert target.read_bytes() == path.read_bytes()
        command = [program(profile), "save", reference]
        stdout = subprocess.check_output(command, env={**os.environ, **engine.environment})
        assert stdout == path.read_bytes()


@pytest.mark.parametrize("profile", PROFILES)
def test_save_by_digits_only(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path)
    digits = engine.add(archive(profile, "tiny")).removeprefix("sha256:")
    result = run(engine, program(profile), "save", "-o", str(tmp_path / "saved.tar"), digits)
    assert (result.returncode == 0) == (not profile.startswith("docker29") or profile == "docker29-classic")
    assert result.returncode == 0 or "invalid repository name" in result.stderr


@pytest.mark.parametrize(
    ("profile", "status", "said"),
    [
        ("docker20", 1, "Error response from daemon: reference does not exist\n"),
        ("podman4", 125, "Error: nosuch:1: image not known\n"),
    ],
)
def test_save_of_what_is_not_there(tmp_path: Path, profile: str, status: int, said: str) -> None:
    result = run(RecordedEngine(profile, tmp_path), program(profile), "save", "nosuch:1")
    assert (result.returncode, result.stdout, result.stderr) == (status, "", said)


@pytest.mark.parametrize("profile", PROFILES)
def test_save_of_a_platform(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path)
    image_id = engine.add(archive(profile, "tiny"))
    target = str(tmp_path / "saved.tar")
    result = run(engine, program(profile), "save", "--platform", "linux/amd64", "-o", target, image_id)
    assert (result.returncode, result.stderr) == {
        "docker20": (125, "unknown flag: --platform\nSee 'docker image save --help'.\n"),
        "docker25": (1, '"--platform" requires API version 1.48, but the Docker daemon API version is 1.44\n'),
        "podman4": (125, "Error: unknown flag: --platform\nSee 'podman image save --help'\n"),
    }.get(profile, (0, ""))


@pytest.mark.parametrize("profile", CONTAINERD)
def test_an_incomplete_image_is_saved_unless_a_platform_is_asked_for(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path)
    path = ARCHIVES / "docker29-containerd-incomplete.tar"
    image_id = engine.add(path)
    assert inspect(engine, profile, image_id)["Architecture"] == "amd64"
    target = tmp_path / "saved.tar"
    assert run(engine, "docker", "save", "-o", str(target), image_id).returncode == 0
    assert target.read_bytes() == path.read_bytes()
    result = run(engine, "docker", "save", "--platform", "linux/amd64", image_id)
    assert (result.returncode, result.stdout) == (1, "")
    assert "no suitable export target found" in result.stderr


@pytest.mark.parametrize("profile", CLASSIC)
def test_only_the_containerd_store_has_incomplete_images(tmp_path: Path, profile: str) -> None:
    with pytest.raises(ValueError, match="not complete"):
        RecordedEngine(profile, tmp_path).add(ARCHIVES / "docker29-containerd-incomplete.tar")


@pytest.mark.parametrize("profile", CONTAINERD)
def test_an_index_with_both_platforms(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path)
    image_id = engine.add(archive(profile, "tinyboth"))
    both = inspect(engine, profile, image_id)
    assert (both["Id"], both["Architecture"]) == (both["Descriptor"]["digest"], "amd64")
    other = inspect(engine, profile, "--platform", "linux/arm64", "--", image_id)
    assert (other["Architecture"], other["Id"]) == ("arm64", other["Descriptor"]["digest"])
    assert other["Id"] != image_id
    assert run(engine, "docker", "image", "inspect", other["Id"]).stderr.endswith(f"No such image: {other['Id']}\n")


@pytest.mark.parametrize("profile", CONTAINERD)
def test_an_index_of_which_only_another_platform_is_there(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path)
    image_id = engine.add(archive(profile, "tinyboth"), platforms=["linux/arm64"])
    shown = inspect(engine, profile, image_id)
    assert (shown["Os"], shown["Architecture"]) == (
        ("", "") if profile == "docker29-containerd" else ("linux", "arm64")
    )
    result = run(engine, "docker", "save", image_id)
    assert (result.returncode, result.stdout) == (1, "")
    assert "unable to create manifests file: NotFound: content digest sha256:" in result.stderr
    result = run(engine, "docker", "save", "--platform", "linux/amd64", image_id)
    assert (result.returncode, result.stdout) == (1, "")
    assert run(engine, "docker", "save", "--platform", "linux/arm64", "-o", "/dev/null", image_id).returncode == 0


@pytest.mark.parametrize("profile", CLASSIC)
def test_an_image_for_another_platform(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path)
    image = inspect(engine, profile, engine.add(archive(profile, "tiny"), platforms=["linux/arm/v7"]))
    assert (image["Os"], image["Architecture"], image["Variant"]) == ("linux", "arm", "v7")


@pytest.mark.parametrize("profile", PROFILES)
def test_the_universal_form_has_the_same_id_everywhere(tmp_path: Path, profile: str) -> None:
    image_id = RecordedEngine(profile, tmp_path).add(ARCHIVES / "universal-solo.tar")
    assert image_id == "sha256:7771ed5dad57d9a9797428639e26264c736a397b2b99bf4a52711587d650899d"


@pytest.mark.parametrize("profile", PROFILES)
def test_names(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path)
    engine.add(archive(profile, "tiny"), "docker.io/thing")
    shown = "docker.io/library/thing:latest" if profile == "podman4" else "thing:latest"
    for name in "thing", "thing:latest", "library/thing", "docker.io/thing", "docker.io/library/thing:latest":
        assert inspect(engine, profile, name)["RepoTags"] == [shown]
    engine.add(archive(profile, "solo"), "docker.io/library/thing:latest")
    assert inspect(engine, profile, engine.add(archive(profile, "tiny"), "other:1"))["RepoTags"] == [
        "localhost/other:1" if profile == "podman4" else "other:1"
    ]


@pytest.mark.parametrize("profile", CLASSIC)
def test_ambiguous_ids_in_the_classic_store(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path)
    digits = [image_id[7] for image_id in {engine.add(path) for path in ARCHIVES.glob("*-byname.tar")}]
    ambiguous = next(digit for digit in digits if digits.count(digit) > 1)
    result = run(engine, program(profile), "image", "inspect", ambiguous)
    said = f"Error response from daemon: No such image: {ambiguous}:latest\n"
    assert (result.returncode, result.stderr) == {
        "docker20": (1, f"Error: No such image: {ambiguous}\n"),
        "podman4": (125, f"Error: inspecting object: {ambiguous}: image not known\n"),
    }.get(profile, (1, said))


@pytest.mark.parametrize("profile", CONTAINERD)
def test_ambiguous_ids_in_the_containerd_store(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine")
    for digit in "1", "2":
        with tarfile.open(tmp_path / digit, "w") as tar:
            target = {"mediaType": "manifest", "digest": f"sha256:abcde{digit}", "size": 1}
            for name, content in {
                "index.json": {"manifests": [target]},
                "manifest.json": [{"Config": "c", "RepoTags": None, "Layers": []}],
            }.items():
                member = tarfile.TarInfo(name)
                member.size = len(json.dumps(content))
                tar.addfile(member, io.BytesIO(json.dumps(content).encode()))
        engine.add(tmp_path / digit)
    for reference in "abcde", "sha256:abcde":
        result = run(engine, "docker", "image", "inspect", reference)
        assert (result.returncode, result.stdout) == (1, "[]\n")
        assert result.stderr == "Error response from daemon: ambiguous reference\n"
    assert inspect(engine, profile, "abcde1")["Id"] == "sha256:abcde1"


@pytest.mark.parametrize("profile", PROFILES)
def test_one_line_of_json(tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path)
    image_id = engine.add(archive(profile, "tiny"))
    result = run(engine, program(profile), "image", "inspect", "--format", "{{json .}}", image_id)
    shown = json.loads(result.stdout)
    assert (isinstance(shown, list), result.stdout.count("\n") > 1) == ((profile == "podman4"),) * 2
    result = run(engine, program(profile), "image", "inspect", "--format={{json .}}", UNKNOWN)
    assert (result.returncode != 0, result.stdout) == (True, "" if profile == "podman4" else "\n")


@pytest.mark.parametrize("profile", PROFILES)
def test_the_server_is_known(tmp_path: Path, profile: str) -> None:
    result = run(RecordedEngine(profile, tmp_path), program(profile), "version", "--format", "{{json .Server}}")
    server = json.loads(result.stdout)
    assert server is None if profile == "podman4" else f"docker{server['Version']}".startswith(profile.split("-")[0])


@pytest.mark.parametrize("profile", PROFILES)
def test_the_store_is_known(tmp_path: Path, profile: str) -> None:
    result = run(RecordedEngine(profile, tmp_path), program(profile), "info", "--format", "{{json .}}")
    if profile == "podman4":
        assert result.returncode == 99
        return
    info = json.loads(result.stdout)
    shown = RECORDINGS[profile]["info"]["out"]
    assert f" Storage Driver: {info['Driver']}\n" in shown
    assert all(f"  {key}: {value}\n" in shown for key, value in info["DriverStatus"])
    of_containerd = ["driver-type", "io.containerd.snapshotter.v1"] in info["DriverStatus"]
    assert of_containerd == (profile in CONTAINERD)
    assert of_containerd or ["Backing Filesystem", "extfs"] in info["DriverStatus"]


@pytest.mark.parametrize("version", ["1.41", "1.44"])
@pytest.mark.parametrize("profile", CONTAINERD)
def test_an_older_api_tells_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, version: str) -> None:
    engine = RecordedEngine(profile, tmp_path)
    image_id = engine.add(archive(profile, "tinyboth"))
    new = inspect(engine, profile, image_id)
    monkeypatch.setenv("DOCKER_API_VERSION", version)
    old = inspect(engine, profile, image_id)
    assert {**old, "Descriptor": new["Descriptor"]} == new
    assert "Descriptor" not in old
    for command in (["inspect"], ["save", "-o", "/dev/null"]):
        result = run(engine, "docker", "image", *command, "--platform", "linux/arm64", image_id)
        assert (result.returncode, f"the Docker daemon API version is {version}" in result.stderr) == (1, True)
    answer = json.loads(run(engine, "docker", "version", "--format", "{{json .}}").stdout)
    assert answer["Client"]["ApiVersion"] == version


@pytest.mark.parametrize("profile", CONTAINERD)
def test_a_pull_leaves_out_what_another_image_has_unpacked(tmp_path: Path, profile: str) -> None:
    """The sequence that was measured: loaded with plain layers, pulled with compressed ones."""
    engine = RecordedEngine(profile, tmp_path / "engine")
    other = engine.add(archive("docker29-classic", "solo"), "other:1")
    engine.publish(archive(profile, "solo"), "d29/solo:1")

    def docker(*arguments: str) -> int:
        return run(engine, "docker", *arguments).returncode

    def saves() -> bool:
        target = tmp_path / "saved.tar"
        assert docker("image", "save", "-o", str(target), "d29/solo:1") == 0
        with tarfile.open(target) as tar:
            whole = len(tar.getnames()) > 8
        assert (docker("image", "save", "--platform", "linux/amd64", "-o", str(target), "d29/solo:1") == 0) == whole
        return whole

    for command in (["pull", "d29/solo:1"], ["pull", "d29/solo:1"], ["rmi", "d29/solo:1"], ["pull", "d29/solo:1"]):
        assert docker(*command) == 0
    assert not saves()
    # The other one is whole, and untagged it is still there.
    assert docker("image", "save", "--platform", "linux/amd64", "-o", "/dev/null", "other:1") == 0
    engine.add(archive(profile, "tiny"), "other:1")
    assert [docker(*command) for command in (["rmi", "d29/solo:1"], ["pull", "d29/solo:1"])] == [0, 0]
    assert other in run(engine, "docker", "image", "ls", "--all", "--quiet", "--no-trunc").stdout
    assert not saves()
    for command in (["image", "prune", "-f"], ["rmi", "d29/solo:1"], ["pull", "d29/solo:1"]):
        assert docker(*command) == 0
    assert saves()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "command",
    [
        "info --format '{{json .Driver}}'",
        "image inspect --format '{{.Id}}' x",
        "image inspect --frob x",
        "image inspect Bad:1",
        "image inspect",
        "pull x@sha256:" + UNKNOWN,
        "inspect x",
        "images",
        "",
    ],
)
def test_where_nothing_was_recorded_it_says_so(tmp_path: Path, profile: str, command: str) -> None:
    result = RecordedEngine(profile, tmp_path).answer(*shlex.split(command))
    assert (result.returncode, result.stdout) == (99, "")
    assert result.stderr.startswith("not recorded")


def test_the_containerd_store_makes_up_ids_where_there_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"index\.json"):
        RecordedEngine("docker29-containerd", tmp_path).add(ARCHIVES / "docker20-tiny-byname.tar")


def test_podman_as_docker(tmp_path: Path) -> None:
    engine = RecordedEngine("podman4", tmp_path, wrapper=True)
    image_id = engine.add(archive("podman4", "tiny"))
    result = run(engine, "docker", "image", "inspect", "d29/tiny:1")
    assert json.loads(result.stdout)[0]["Id"] == image_id.removeprefix("sha256:")
    assert result.stderr == "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.\n"


def test_engines_do_not_know_of_each_other(tmp_path: Path) -> None:
    one, other = (RecordedEngine("docker28", tmp_path / name) for name in ("one", "other"))
    one.add(archive("docker28", "tiny"))
    assert inspect(one, "docker28", "d29/tiny:1")
    assert run(other, "docker", "image", "inspect", "d29/tiny:1").returncode == 1
