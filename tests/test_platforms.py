"""Which platform's image is stored, on every engine; and which image store docker is found to have."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_keepdocker.errors import UsageError
from arv_keepdocker.images.platform import Platform
from tests.conftest import Cluster, Command, Result, stored
from tests.recorded import PROFILES, RecordedEngine
from tests.test_archive import FACTS
from tests.test_engines import ARCHIVES, CONTAINERD, archive, hash_link, known_as, saves
from tests.test_listing import Catalogue
from tests.test_store import in_project

CLASSIC = [profile for profile in PROFILES if profile not in CONTAINERD]
INDEXES = ["docker28-containerd", "docker29-containerd"]


def refused(result: Result, status: int, *words: str) -> None:
    assert (result.status, result.stdout) == (status, ""), result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm64", "linux/aarch64"),
        ("linux/arm64/8", "LINUX/ARM64/V8"),
        ("linux/amd64", "linux/amd64/v1"),
        ("linux/amd64", "Linux/x86_64"),
        ("linux/amd64/v2", "linux/x86-64/v2"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/armhf"),
        ("linux/arm/v6", "linux/armel"),
        ("linux/386", "linux/i386"),
        ("macos/arm64", "darwin/arm64/v8"),
    ],
)
def test_one_platform_is_written_in_many_ways(one: str, other: str) -> None:
    for parse in (Platform.parse, lambda text: Platform(*text.split("/"))):
        assert parse(one).matches(parse(other))
        assert parse(other).matches(parse(one))
    assert Platform.parse(one).matches(Platform.recorded(other) or Platform("", ""))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("linux/arm64", "linux/arm"),
        ("linux/arm64", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v6"),
        ("linux/amd64", "linux/amd64/v2"),
        ("linux/amd64", "linux/386"),
        ("linux/amd64", "windows/amd64"),
    ],
)
def test_different_platforms(one: str, other: str) -> None:
    assert not Platform.parse(one).matches(Platform.parse(other))


@pytest.mark.parametrize("value", [None, 1, [], {"linux/amd64": 1}, "", "linux", "x" * 5000 + "/y"])
def test_a_link_may_name_no_platform(value: object) -> None:
    assert Platform.recorded(value) is None


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux amd64", "linux/a*"])
def test_no_platform(text: str) -> None:
    with pytest.raises(UsageError):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("arm/v7", "linux/arm/v7"),
        ("arm64", "linux/arm64"),
        ("ARM64/v8", "linux/arm64/v8"),
        ("amd64/linux", "linux/amd64"),
        ("x86_64", "linux/x86_64"),
        ("ppc64le", "linux/ppc64le"),
        ("armhf", "linux/armhf"),
    ],
)
def test_an_architecture_is_no_platform(run: Command, text: str, meant: str) -> None:
    result = run("--platform", text, "debian")
    refused(result, 2, "is not OS/ARCH or OS/ARCH/VARIANT", "linux/arm/v7", f"Did you mean {meant}?")
    Platform.parse(meant)


@pytest.mark.parametrize("profile", ["docker20", "docker28", "podman4"])
@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ("linux/amd64", "linux/amd64/v1"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/aarch64"),
        ("linux/arm/v7", "linux/arm"),
        ("linux/arm", "linux/armhf"),
    ],
)
def test_a_platform_in_other_words(
    project: str, run: Command, tmp_path: Path, profile: str, there: str, asked: str
) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine", wrapper=profile == "podman4")
    fixture = archive(profile, "tiny")
    engine.add(ARCHIVES / fixture, platforms=[there])
    stored(run("--project-uuid", project, "--platform", asked, known_as(fixture), env=engine.environment))


@pytest.mark.parametrize("profile", INDEXES)
def test_a_platform_of_an_index_in_other_words(project: str, run: Command, tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine")
    fixture = archive(profile, "tinyboth")
    engine.add(ARCHIVES / fixture)
    words = ("--project-uuid", project, known_as(fixture), "--platform")
    for platforms in (["linux/arm64", "linux/arm64/v8", "linux/AArch64"], ["linux/amd64/v1", "linux/x86_64"]):
        saves(engine)
        found = {stored(run(*words, platform, env=engine.environment)) for platform in platforms}
        assert len(found) == 1
        assert len(saves(engine)) == 1


@pytest.mark.parametrize("recorded", ["linux/arm64", "linux/arm64/v8", "linux/aarch64"])
def test_a_link_names_the_platform_in_other_words(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, recorded: str
) -> None:
    engine = RecordedEngine("docker29-containerd", tmp_path / "engine")
    fixture = archive("docker29-containerd", "tinyboth")
    engine.add(ARCHIVES / fixture)
    words = ("--project-uuid", project, known_as(fixture), "--platform", "linux/arm64")
    uuid = stored(run(*words, env=engine.environment))
    links = cluster.api().links()
    for link in links.list(filters=[["head_uuid", "=", uuid]]).execute()["items"]:
        body = {"link": {"properties": {**link["properties"], "arv:platform": recorded}}}
        links.update(uuid=link["uuid"], body=body).execute()
    saves(engine)
    assert stored(run(*words, env=engine.environment)) == uuid
    assert saves(engine) == []


@pytest.fixture
def both(cluster: Cluster, project: str, run: Command, tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """Stores both platforms of an index from an engine that has them; the collections of linux/amd64 and linux/arm64,
    the latter with the newer links."""

    def store(profile: str) -> tuple[str, str]:
        engine = RecordedEngine(profile, tmp_path / "both")
        fixture = archive(profile, "tinyboth")
        engine.add(ARCHIVES / fixture)
        words = ("--project-uuid", project, known_as(fixture))
        ours = stored(run(*words, env=engine.environment))
        return ours, stored(run(*words, "--platform", "linux/arm64", env=engine.environment))

    return store


def only_arm64(profile: str, directory: Path, name: str | None = None) -> RecordedEngine:
    engine = RecordedEngine(profile, directory / "arm64")
    engine.add(ARCHIVES / archive(profile, "tinyboth"), name, platforms=["linux/arm64"])
    return engine


@pytest.mark.parametrize("profile", INDEXES)
@pytest.mark.parametrize("name", [None, "another/tag:2"])
def test_an_index_of_which_only_another_platform_is_there(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, profile: str, name: str | None
) -> None:
    engine = only_arm64(profile, tmp_path, name)
    name = name or known_as(archive(profile, "tinyboth"))
    words = ("--project-uuid", project, name)
    for more in ((), ("--no-universal",), ("--force",)):
        result = run(*words, *more, env=engine.environment)
        refused(result, 3, "does not have image", "for linux/amd64", "--platform linux/arm64")
    assert in_project(cluster, project) == []
    # What the error tells works, and changes nothing for who does not ask for it.
    theirs = stored(run(*words, "--platform", "linux/arm64", env=engine.environment))
    assert hash_link(cluster, theirs)[1]["arv:platform"] == "linux/arm64/v8"
    for also in ((), ("--platform", "linux/amd64")):
        refused(run(*words, *also, env=engine.environment), 3, "--platform linux/arm64")
    assert stored(run(*words, "--platform", "linux/arm64/v8", env=engine.environment)) == theirs


@pytest.mark.parametrize("profile", INDEXES)
@pytest.mark.parametrize("name", [None, "another/tag:2"])
def test_what_arvados_has_of_an_index(
    project: str, run: Command, tmp_path: Path, profile: str, name: str | None, both: Callable[[str], tuple[str, str]]
) -> None:
    """Where the engine has only another platform's, Arvados' image for the engine's own platform is taken, and said."""
    ours, theirs = both(profile)
    engine = only_arm64(profile, tmp_path, name)
    words = ("--project-uuid", project, name or known_as(archive(profile, "tinyboth")))
    for more in ((), ("--platform", "linux/amd64")):
        found = run(*words, *more, env=engine.environment)
        assert stored(found) == ours
        assert "warning: docker does not have image" in found.stderr
    assert stored(run(*words, "--platform", "linux/arm64", env=engine.environment)) == theirs
    refused(run(*words, "--force", env=engine.environment), 3)
    refused(run(*words, "--platform", "linux/s390x", env=engine.environment), 3, "for linux/s390x")


def test_an_image_that_only_arvados_has(
    project: str, run: Command, tmp_path: Path, both: Callable[[str], tuple[str, str]]
) -> None:
    """Of both platforms the newer link is not the one that is meant."""
    ours, theirs = both("docker29-containerd")
    name = known_as(archive("docker29-containerd", "tinyboth"))
    empty = RecordedEngine("docker29-containerd", tmp_path / "empty").environment
    nowhere = {"ARV_KEEPDOCKER_ENGINE": "no-such-engine"}
    words = ("--project-uuid", project, name)
    for environment in (empty, nowhere):
        assert stored(run(*words, env=environment)) == ours
        assert stored(run(*words, "--platform", "linux/aarch64", env=environment)) == theirs
        assert run(*words, "--platform", "linux/s390x", env=environment).status in (3, 4)


def test_an_image_that_arvados_has_for_another_platform_only(project: str, run: Command, tmp_path: Path) -> None:
    engine = only_arm64("docker29-containerd", tmp_path)
    words = ("--project-uuid", project, known_as(archive("docker29-containerd", "tinyboth")))
    uuid = stored(run(*words, "--platform", "linux/arm64", env=engine.environment))
    empty = RecordedEngine("docker29-containerd", tmp_path / "empty").environment
    refused(run(*words, env=empty), 3, "linux/arm64/v8", "--platform linux/arm64/v8")
    assert stored(run(*words, "--platform", "linux/arm64/v8", env=empty)) == uuid


@pytest.mark.parametrize(
    ("profile", "version", "image"),
    [
        ("docker28-containerd", "1.44", "built"),
        ("docker29.0-containerd", "1.44", "tiny"),
        ("docker29-containerd", "1.41", "tiny"),
        ("docker29-containerd", "1.44", "built"),
    ],
)
def test_an_older_api(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, profile: str, version: str, image: str
) -> None:
    """The containerd store is known as such, and what is stored is what a newer client stores."""
    engine = RecordedEngine(profile, tmp_path / "engine")
    fixture = archive(profile, image)
    engine_id = engine.add(ARCHIVES / fixture)
    old, new = {**engine.environment, "DOCKER_API_VERSION": version}, engine.environment
    words = ("--project-uuid", project, known_as(fixture))
    uuid = stored(run(*words, env=old))
    image_id, properties = hash_link(cluster, uuid)
    assert image_id not in (engine_id, FACTS[fixture]["config_digest"])
    assert (properties["arv:engine_image_id"], properties["arv:universal"]) == (engine_id, True)
    plain = stored(run(*words, "--no-universal", env=old))
    assert hash_link(cluster, plain)[0] == FACTS[fixture]["config_digest"]
    saves(engine)
    for environment in (old, new):
        assert stored(run(*words, env=environment)) == uuid
        assert stored(run(*words, "--platform", "linux/amd64", env=environment)) == uuid
        assert stored(run(*words, "--no-universal", env=environment)) == plain
    assert saves(engine) == []
    refused(run(*words, "--platform", "linux/arm64", env=old), 3, "for linux/arm64")


@pytest.mark.parametrize("profile", INDEXES)
def test_what_a_newer_client_has_stored_is_known_to_an_older_one(
    project: str, run: Command, tmp_path: Path, profile: str
) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine")
    for image in ("tiny", "built"):
        fixture = archive(profile, image)
        engine.add(ARCHIVES / fixture)
        uuid = stored(run("--project-uuid", project, known_as(fixture), env=engine.environment))
        saves(engine)
        old = {**engine.environment, "DOCKER_API_VERSION": "1.44"}
        assert stored(run("--project-uuid", project, known_as(fixture), env=old)) == uuid
        assert saves(engine) == []


@pytest.mark.parametrize("profile", INDEXES)
@pytest.mark.parametrize("cli", ["newer", "older"])
def test_platforms_by_an_older_api(
    cluster: Cluster,
    project: str,
    run: Command,
    docker_that: Callable[[str], dict[str, str]],
    tmp_path: Path,
    profile: str,
    cli: str,
) -> None:
    """Docker's command line before 28 does not know the flag; a newer one knows that the daemon's API does not."""
    engine = RecordedEngine(profile, tmp_path / "engine")
    fixture = archive(profile, "tinyboth")
    engine.add(ARCHIVES / fixture)
    old = {**engine.environment, "DOCKER_API_VERSION": "1.44"}
    if cli == "older":
        said = 'case "$2 $*" in inspect*--platform*) echo "unknown flag: --platform" >&2; exit 125;; esac; real "$@"'
        old = {**docker_that(said), "REAL_PATH": old["PATH"], "DOCKER_API_VERSION": "1.44"}
    words = ("--project-uuid", project, known_as(fixture))
    theirs = stored(run(*words, "--platform", "linux/arm64", env=old))
    ours = stored(run(*words, env=old))
    assert ours != theirs
    assert [hash_link(cluster, uuid)[1]["arv:platform"] for uuid in (ours, theirs)] == ["linux/amd64", "linux/arm64"]
    saves(engine)
    for environment in (old, engine.environment):
        assert stored(run(*words, env=environment)) == ours
        assert stored(run(*words, "--platform", "linux/arm64/v8", env=environment)) == theirs
    assert saves(engine) == []
    refused(run(*words, "--platform", "linux/s390x", env=old), 3, "for linux/s390x")


@pytest.mark.parametrize("profile", INDEXES)
def test_only_another_platform_by_an_older_api(
    project: str, run: Command, tmp_path: Path, profile: str, both: Callable[[str], tuple[str, str]]
) -> None:
    ours, theirs = both(profile)
    engine = only_arm64(profile, tmp_path)
    old = {**engine.environment, "DOCKER_API_VERSION": "1.44"}
    words = ("--project-uuid", project, known_as(archive(profile, "tinyboth")))
    if profile == "docker29-containerd":  # of nothing but an index it says no platform
        assert stored(run(*words, env=old)) == ours
    else:
        refused(run(*words, env=old), 3, "for linux/amd64", "--platform linux/arm64")
    assert stored(run(*words, "--platform", "linux/arm64", env=old)) == theirs
    # It cannot be saved by that API, and docker says so.
    refused(run(*words, "--platform", "linux/arm64", "--force", env=old), 4, "unable to create manifests file")


def test_an_image_known_by_its_universal_id_is_not_another_platforms(
    project: str, run: Command, tmp_path: Path
) -> None:
    engine = RecordedEngine("docker29-containerd", tmp_path / "engine")
    engine.add(ARCHIVES / "universal-solo.tar")
    old = {**engine.environment, "DOCKER_API_VERSION": "1.44"}
    words = ("--project-uuid", project, known_as("universal-solo.tar"))
    uuid = stored(run(*words, env=engine.environment))
    assert stored(run(*words, env=old)) == uuid
    for environment in (old, engine.environment):
        refused(run(*words, "--platform", "linux/arm64", env=environment), 3, "for linux/arm64")


def test_the_daemon_does_not_say_which_store_it_has(
    project: str, run: Command, docker_that: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    engine = RecordedEngine("docker29-containerd", tmp_path / "engine")
    fixture = archive("docker29-containerd", "tiny")
    engine.add(ARCHIVES / fixture)
    for answer in ("exit 1", "echo '[]'", "echo '{\"DriverStatus\": 5}'", "echo no JSON", "echo"):
        hidden = docker_that(f'[ "$1" != info ] || {{ {answer}; exit; }}; real "$@"')
        environment = {**hidden, "REAL_PATH": engine.environment["PATH"], "DOCKER_API_VERSION": "1.44"}
        refused(run("--project-uuid", project, known_as(fixture), env=environment), 4, "which image store")


@pytest.mark.parametrize("profile", PROFILES)
def test_docker_is_asked_only_what_matters(project: str, run: Command, tmp_path: Path, profile: str) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine", wrapper=profile == "podman4")
    fixture = archive(profile, "tiny")
    engine.add(ARCHIVES / fixture)
    words = ("--project-uuid", project, known_as(fixture))
    stored(run(*words, env=engine.environment))
    engine.calls()
    stored(run(*words, env=engine.environment))
    calls = [re.sub(" --format.*", "", call) for call in engine.calls()]
    # The recordings leave out what tells a classic store without asking (see the next test).
    more = ["info"] if profile in CLASSIC and profile != "podman4" else []
    assert calls == [f"image inspect {known_as(fixture)}", *more]


def test_an_image_with_a_graph_driver_is_in_a_classic_store(
    project: str, run: Command, docker_that: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    engine = RecordedEngine("docker28", tmp_path / "engine")
    fixture = archive("docker28", "tiny")
    engine.add(ARCHIVES / fixture)
    graph = '"GraphDriver": {"Data": {"MergedDir": "/m"}, "Name": "overlay2"}'
    described = docker_that(
        f"""[ "$2" != inspect ] || {{ real "$@" | sed 's|"Id":|{graph}, "Id":|'; exit; }}; real "$@" """
    )
    environment = {**described, "REAL_PATH": engine.environment["PATH"]}
    stored(run("--project-uuid", project, known_as(fixture), env=environment))
    assert [call.split(" --")[0] for call in engine.calls()] == [
        f"image inspect {known_as(fixture)}",
        f"image save {FACTS[fixture]['engine_id']}",
    ]


@pytest.mark.parametrize("profile", ["docker29-containerd"])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("other", ["other:1", None])
def test_the_hint_mends_an_incomplete_image(
    cluster: Cluster,
    project: str,
    run: Command,
    docker_that: Callable[[str], dict[str, str]],
    tmp_path: Path,
    profile: str,
    told: bool,
    other: str | None,
) -> None:
    """Also where the other image with the same layers has no name any more; and an unrelated one stays."""
    engine = RecordedEngine(profile, tmp_path / "engine")
    engine.add(ARCHIVES / archive("docker29-classic", "solo"), "other:1")
    name = known_as(archive(profile, "solo"))
    engine.publish(ARCHIVES / archive(profile, "solo"), name)
    unrelated = engine.add(ARCHIVES / archive(profile, "tiny"), "other:1" if other is None else "unrelated:1")
    docker = {**run.environment, **engine.environment}
    subprocess.run(["docker", "pull", name], env=docker, check=True, stdout=subprocess.DEVNULL)
    environment = engine.environment
    if not told:  # as with a client or a daemon that is too old for that
        hidden = docker_that('[ "$1" != version ] || exit 1; real "$@"')
        environment = {**hidden, "REAL_PATH": environment["PATH"]}
    failed = run("--project-uuid", project, name, env=environment)
    refused(failed, 4 if told else 5)
    assert in_project(cluster, project) == []

    remove, pull = re.search(r"(docker rmi .*), then (docker pull .*)$", failed.stderr, re.MULTILINE).groups()  # type: ignore[union-attr]
    for command in (remove, pull):
        subprocess.run(shlex.split(command), env=docker, check=True, stdout=subprocess.DEVNULL)
    stored(run("--project-uuid", project, name, env=environment))
    listed = subprocess.check_output(["docker", "image", "ls", "--all", "--quiet", "--no-trunc"], env=docker, text=True)
    assert unrelated in listed


@pytest.mark.parametrize("profile", ["docker29-containerd"])
@pytest.mark.parametrize(
    "failure",
    [
        "exit 1",
        "echo 'write /var/lib/docker/tmp: no space left on device' >&2; exit 1",
        "echo 'unexpected EOF' >&2; exit 1",
        "kill -9 $$",
        'real "$@" | head -c 20000',
        'real "$@" | tr x y',
        "true",
    ],
)
def test_no_other_failure_is_taken_for_an_incomplete_image(
    project: str, run: Command, docker_that: Callable[[str], dict[str, str]], tmp_path: Path, profile: str, failure: str
) -> None:
    engine = RecordedEngine(profile, tmp_path / "engine")
    fixture = archive(profile, "solo")
    engine.add(ARCHIVES / fixture)
    broken = docker_that(f'[ "$2" != save ] || {{ {failure}; exit; }}; real "$@"')
    environment = {**broken, "REAL_PATH": engine.environment["PATH"]}
    failed = run("--project-uuid", project, known_as(fixture), env=environment)
    assert failed.status in (4, 5)
    assert "rmi" not in failed.stderr
    assert "prune" not in failed.stderr


def test_a_foreign_layer_is_nothing_that_a_pull_brings_back(project: str, run: Command, tmp_path: Path) -> None:
    """Docker leaves it out of what it saves, and says that all is well."""
    import hashlib
    import io
    import json
    import tarfile

    fixture = ARCHIVES / archive("docker29-containerd", "solo")
    with tarfile.open(fixture) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
    index = json.loads(files["index.json"])
    old = index["manifests"][0]["digest"]
    manifest = json.loads(files.pop(f"blobs/{old.replace(':', '/')}"))
    layer = manifest["layers"][0]
    layer.update(
        mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", urls=["https://example.org/l"]
    )
    del files[f"blobs/{layer['digest'].replace(':', '/')}"]
    data = json.dumps(manifest).encode()
    index["manifests"][0].update(digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))
    files |= {"index.json": json.dumps(index).encode(), f"blobs/sha256/{hashlib.sha256(data).hexdigest()}": data}
    made = tmp_path / "foreign.tar"
    with tarfile.open(made, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    engine = RecordedEngine("docker29-containerd", tmp_path / "engine")
    engine.add(made)
    environment = {**engine.environment, "DOCKER_API_VERSION": "1.44"}
    failed = run("--project-uuid", project, known_as(archive("docker29-containerd", "solo")), env=environment)
    refused(failed, 5, "foreign")
    assert "rmi" not in failed.stderr


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("local", [True, False])
def test_a_pull_that_fails(
    cluster: Cluster, project: str, run: Command, tmp_path: Path, profile: str, local: bool
) -> None:
    """Whatever there is of the image already."""
    engine = RecordedEngine(profile, tmp_path / "engine", wrapper=profile == "podman4")
    name = "registry.example.org/d29/solo:1"
    if local:
        engine.add(ARCHIVES / archive(profile, "solo"), name)
    Catalogue(cluster.api(), project).image(name)
    for more in ((), ("--platform", "linux/arm64")):
        failed = run("--project-uuid", project, "--pull", *more, name, env=engine.environment)
        refused(failed, 4, "could not pull", name)
        assert "--pull" not in failed.stderr


def test_a_pull_without_an_engine(
    cluster: Cluster, project: str, run: Command, docker_that: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    image_id = "sha256:" + "abcdef0123" * 6 + "abcd"
    Catalogue(cluster.api(), project).image("d29/solo:1", image_id=image_id)
    denied = 'echo "Error response from daemon: pull access denied for d29/solo" >&2; exit 1'
    down = 'echo "Cannot connect to the Docker daemon at unix:///var/run/docker.sock" >&2; exit 1'
    environments = {
        "no-such-engine": {"ARV_KEEPDOCKER_ENGINE": "no-such-engine"},
        "pull access denied": docker_that(denied),
    }
    for words, environment in environments.items():
        refused(run("--project-uuid", project, "--pull", "d29/solo:1", env=environment), 4, words)
    for word in ("d29/solo:1", "d29/solo@sha256:" + "0" * 64, "abcdef012", image_id):
        refused(run("--project-uuid", project, "--pull", word, env=docker_that(down)), 4, "Cannot connect")
    # Without --pull it is found.
    stored(run("--project-uuid", project, "d29/solo:1", env=docker_that(down)))


def test_what_was_pulled_is_for_another_platform(
    project: str, run: Command, docker_that: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    """As podman and Docker's containerd store do it with an image for one platform."""
    engine = RecordedEngine("podman4", tmp_path / "engine")
    name = "registry.example.org/d29/solo:1"
    engine.add(ARCHIVES / archive("podman4", "solo"), name)
    pulls = docker_that('[ "$2" != pull ] || exit 0; exec podman "$@"')
    environment = {**pulls, "PATH": f"{pulls['PATH'].split(':')[0]}:{engine.environment['PATH']}"}
    failed = run("--project-uuid", project, "--pull", "--platform", "linux/arm64", name, env=environment)
    refused(failed, 4, "for linux/arm64", "linux/amd64")
    assert "--pull" not in failed.stderr


def test_hints_can_be_followed(project: str, run: Command, tmp_path: Path) -> None:
    engine = RecordedEngine("docker29-containerd", tmp_path / "engine")
    for words in ((), ("--pull",)):
        failed = run("--project-uuid", project, *words, "sha256:" + "0" * 64, env=engine.environment)
        refused(failed, 3)
        assert "Pull it" not in failed.stderr
    failed = run("--engine", "no-such-engine", "x")
    refused(failed, 4, "no-such-engine")
    assert "Install" not in failed.stderr
    assert "use --engine" not in failed.stderr
    # An image without a platform, as the containerd store's answer may be.
    failed = run("--project-uuid", project, "--platform", "linux/arm64", "sha256:" + "1" * 64, env=engine.environment)
    assert "None" not in failed.stderr
