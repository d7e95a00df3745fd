"""What runs as `docker` and `podman` where an engine is a recorded one (tests.recorded).

It has to start fast, so it imports little. Members of `image inspect` that an archive does not determine (GraphDriver,
Metadata, Parent, ...) are left out. Where nothing was recorded, it says so and exits with 99. As docker does, it speaks
an older API where DOCKER_API_VERSION says so.
"""

from __future__ import annotations

import json
import os
import re
import sys

TYPE_CHECKING = False  # importing typing is slow
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

OWN_PLATFORM = "linux/amd64"
"""The platform of all engines that were recorded."""

_RECORDINGS = f"{os.path.dirname(os.path.abspath(__file__))}/fixtures/cli"
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_REFERENCE = r"[a-z0-9]+([._/:-]+[a-z0-9]+)*(:\w[\w.-]*)?(@sha256:[0-9a-f]{64})?|sha256:\w+"
_DAEMON = "Error response from daemon:"


class State:
    """What the engine and its registry have; read again for each change, since the program changes it too."""

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/state.json"
        self.images: list[dict[str, Any]] = []
        self.registry: dict[str, dict[str, Any]] = {}

    def read(self) -> None:
        with open(self._path) as file:
            self.images, self.registry = json.load(file)

    def write(self) -> None:
        with open(f"{self._path}.new", "w") as file:
            json.dump([self.images, self.registry], file)
        os.replace(f"{self._path}.new", self._path)

    def keep(self, image: dict[str, Any], names: Sequence[str], pulled: Sequence[str] = ()) -> bool:
        """Have the image under these names too; returns whether it did not have them all."""
        known: dict[str, Any] = next(
            (each for each in self.images if each["id"] == image["id"]), {"names": [], "pulled": []}
        )
        new = [name for name in names if name not in known["names"]]
        for each in self.images:
            each["names"] = [name for name in each["names"] if name not in new]
        self.images = [each for each in self.images if each is not known]
        digests = sorted({*known["pulled"], *pulled})
        self.images.append({**image, "names": known["names"] + new, "pulled": digests})
        self.write()
        return bool(new)


def full_name(name: str) -> str:
    """With domain and tag, as Docker completes it."""
    domain, _, path = name.partition("/")
    if not path or not (re.search("[.:]", domain) or domain == "localhost"):
        domain, path = "docker.io", name
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return f"{domain}/{path}" + ("" if re.search("[:@]", path) else ":latest")


def local_name(profile: str, name: str) -> str:
    """The full name of what is loaded or tagged as `name`."""
    is_short = full_name(name).startswith("docker.io/") and not name.startswith("docker.io/")
    return full_name(f"localhost/{name}" if profile == "podman4" and is_short else name)


def _repository(name: str) -> str:
    return re.sub(r"(:[^/:@]+)?(@.*)?$", "", name)


def is_same_platform(platform: str, other: str) -> bool:
    return _normalized(platform) == _normalized(other)


def _normalized(platform: str) -> str:
    """As containerd does it."""
    for pattern, usual in ("/arm64/v8$", "/arm64"), ("/arm$", "/arm/v7"), ("/amd64/v1$", "/amd64"):
        platform = re.sub(pattern, usual, platform)
    return platform


class _Failure(Exception):
    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def _not_recorded(what: str) -> _Failure:
    return _Failure(f"not recorded: {what}", 99)


class Program:
    """What is run as `docker` or `podman`."""

    def __init__(self, profile: str, directory: str) -> None:
        self._profile = profile
        self._is_podman = profile == "podman4"
        self._is_containerd = profile.endswith("-containerd")
        self._calls = f"{directory}/calls"
        self._state = State(directory)
        self._state.read()

    def main(self, arguments: list[str]) -> int:
        with open(self._calls, "a") as calls:
            calls.write(" ".join(arguments) + "\n")
        try:
            command = arguments.pop(0) if arguments else ""
            if command == "image" and arguments:
                command = arguments.pop(0)
            elif command == "inspect":
                raise _not_recorded("inspect, which looks at containers first")
            if command in ("version", "info"):
                return self._recorded(command, arguments)
            commands = {"inspect": self._inspect, "pull": self._pull, "save": self._save}
            if self._is_containerd and (stores := self._of_containerd_store().get(command)):
                stores(arguments)
                return 0
            if command not in commands:
                raise _not_recorded(command)
            options, operands = self._parse(command, arguments)
            if command == "inspect" and len(operands) > 1:
                print(json.dumps([self._inspected(each, None) for each in operands], ensure_ascii=False))
                return 0
            if len(operands) != 1 or not re.fullmatch(_REFERENCE, operands[0]):
                raise _not_recorded(f"{command} {operands}")
            commands[command](operands[0], options)
            return 0
        except _Failure as failure:
            sys.stderr.write(f"{failure}\n")
            return failure.status

    def _of_containerd_store(self) -> dict[str, Callable[[list[str]], None]]:
        return {
            "ls": self._list,
            "prune": self._prune,
            "rm": self._remove,
            "rmi": self._remove,
            "tag": self._tag,
            "import": self._import,
            "push": self._push,
            "context": self._context,
        }

    def _parse(self, command: str, arguments: list[str]) -> tuple[dict[str, str], list[str]]:
        short = {"-f": "--format", "-q": "--quiet", "-o": "--output"}
        flags = {"inspect": "--format", "pull": "--quiet", "save": "--output", "push": "--quiet"}
        options, operands = {}, []
        while arguments and arguments[0] != "--":
            argument = arguments.pop(0)
            if not argument.startswith("-"):
                operands.append(argument)
                continue
            flag, equals, value = argument.partition("=")
            flag = short.get(flag, flag)
            if flag == "--platform":
                self._check_platform_flag(command)
            elif flag != flags[command]:
                raise _not_recorded(argument)
            if flag != "--quiet" and not equals:
                value = arguments.pop(0) if arguments else ""
            options[flag] = value
        return options, operands + arguments[1:]

    def _check_platform_flag(self, command: str) -> None:
        if command == "pull":
            return
        if self._is_podman:
            raise _Failure(f"Error: unknown flag: --platform\nSee 'podman image {command} --help'", 125)
        if self._profile == "docker20":
            raise _Failure(f"unknown flag: --platform\nSee 'docker image {command} --help'.", 125)
        least, spoken = {"inspect": "1.49", "save": "1.48", "push": "1.46"}[command], self._api_version()
        if spoken < least:
            raise _Failure(f'"--platform" requires API version {least}, but the Docker daemon API version is {spoken}')

    def _api_version(self) -> str:
        """What client and daemon speak; 1.40 and later have two digits after the point."""
        forced = os.environ.get("DOCKER_API_VERSION")
        return forced or str(self._recorded_version()["Client"]["ApiVersion"])

    def _recorded_version(self) -> dict[str, Any]:
        with open(f"{_RECORDINGS}/{self._profile}.json") as file:
            version: dict[str, Any] = json.loads(json.load(file)["version-json"]["out"])
            return version

    def _recorded(self, command: str, arguments: list[str]) -> int:
        with open(f"{_RECORDINGS}/{self._profile}.json") as file:
            recordings = json.load(file)
        template = " ".join(arguments).replace("--format=", "--format ").replace("-f ", "--format ")
        if command == "version" and template == "--format {{json .Server}}":
            print(_compact(json.loads(recordings["version-json"]["out"]).get("Server")))
            return 0
        if command == "version" and template == "--format {{json .}}" and "DOCKER_API_VERSION" in os.environ:
            version = json.loads(recordings["version-json"]["out"])
            version["Client"]["ApiVersion"] = self._api_version()
            print(_compact(version))
            return 0
        if command == "info" and template == "--format {{json .}}" and not self._is_podman:
            print(_compact(_info(recordings["info"]["out"])))
            return 0
        found = recordings.get({"": command, "--format {{json .}}": f"{command}-json"}.get(template))
        if not found:
            raise _not_recorded(f"{command} {template}")
        sys.stdout.write(found["out"])
        sys.stderr.write(found["err"])
        return int(found["rc"])

    def _inspect(self, reference: str, options: dict[str, str]) -> None:
        template = options.get("--format")
        if template not in (None, "{{json .}}"):
            raise _not_recorded(f"--format {template}")
        try:
            shown = self._inspected(reference, options.get("--platform"))
        except _Failure as failure:
            # Whoever was asked for a list gives an empty one; docker ends the line that a template would have filled.
            if failure.status != 99 and not (template and self._is_podman):
                print("" if template else "[]")
            raise
        if template and not self._is_podman:
            print(_compact(shown))
        else:
            print(json.dumps([shown], indent=5 if self._is_podman else 4, ensure_ascii=False))

    def _inspected(self, reference: str, platform: str | None) -> dict[str, Any]:
        image = self._find(reference)
        variant, shown_id, descriptor = self._described(image), image["id"], image["descriptor"]
        if platform:
            variant = self._of_platform(image, reference, platform)
            if descriptor:
                descriptor = variant["descriptor"]
                shown_id = descriptor["digest"]
        if "Created" not in variant["members"] and self._profile in ("docker20", "podman4"):
            raise _not_recorded("an image without a time")
        return {
            "Id": shown_id.removeprefix("sha256:") if self._is_podman else shown_id,
            "RepoTags": [self._shown(name) for name in self._names(image)],
            "RepoDigests": [self._shown(name) for name in self._digests(image)],
            **variant["members"],
            **({"VirtualSize": variant["members"]["Size"]} if self._profile in ("docker20", "podman4") else {}),
            **(
                {"Descriptor": descriptor} if descriptor and os.environ.get("DOCKER_API_VERSION", "2") >= "1.48" else {}
            ),
        }

    def _described(self, image: dict[str, Any]) -> dict[str, Any]:
        """29.7 describes an index by its own platform's image, though that be without content."""
        own = next((each for each in image["variants"] if is_same_platform(each["platform"], OWN_PLATFORM)), None)
        return dict(own) if own and self._profile == "docker29-containerd" else _own(image)

    def _of_platform(self, image: dict[str, Any], reference: str, platform: str) -> dict[str, Any]:
        found = next((each for each in image["variants"] if is_same_platform(each["platform"], platform)), None)
        # 29.7 shows whatever the index names, though it be without content.
        if found and (found["there"] or self._profile == "docker29-containerd"):
            return dict(found)
        was_found = f"{_DAEMON} image with reference {reference} was found but"
        if not self._is_containerd:
            own = image["variants"][0]["platform"]
            raise _Failure(f"{was_found} its platform ({own}) does not match the specified platform ({platform})")
        if not found and self._profile != "docker29-containerd":
            raise _not_recorded(f"--platform {platform}, which the image does not name")
        raise _Failure(f"{was_found} does not provide the specified platform ({platform})")

    def _names(self, image: dict[str, Any]) -> list[str]:
        return list(image["names"]) if self._is_podman else sorted(image["names"])

    def _digests(self, image: dict[str, Any]) -> list[str]:
        if self._is_containerd:
            return list(dict.fromkeys(f"{_repository(name)}@{image['id']}" for name in self._names(image)))
        return list(image["pulled"])

    def _shown(self, full: str) -> str:
        return full if self._is_podman else re.sub(r"^docker\.io/(library/)?", "", full)

    def _find(self, reference: str) -> dict[str, Any]:
        """The image that the engine resolves the reference to."""
        images = self._state.images
        if digits := re.fullmatch(r"sha256:(\w+)|([0-9a-f]{64})", reference):
            if self._is_podman and not re.fullmatch("(sha256:)?[0-9a-f]{64}", reference):
                said = f"Error: inspecting object: {reference}: invalid format: no 64-byte hexadecimal value"
                raise _Failure(said, 125)
            found = [each for each in images if each["id"].startswith(f"sha256:{digits[1] or digits[2]}")]
        elif "@" in reference:
            repository, digest = reference.split("@")
            known = f"{_repository(full_name(repository))}@{digest}"
            found = [each for each in images if known in self._digests(each)]
            if self._is_podman:  # any repository will do
                found = [each for each in images if any(known.endswith(f"@{digest}") for known in self._digests(each))]
        else:
            full = [local_name(self._profile, reference), full_name(reference)]
            found = [each for name in full for each in images if name in each["names"]][:1]
            if not found and re.fullmatch("[0-9a-f]+", reference):
                found = [each for each in images if each["id"].startswith(f"sha256:{reference}")]
        if len(found) == 1:
            return found[0]
        if found and self._is_containerd:
            raise _Failure(f"{_DAEMON} ambiguous reference")
        raise self._no_image(reference)

    def _no_image(self, reference: str) -> _Failure:
        if self._is_podman:
            return _Failure(f"Error: inspecting object: {re.sub(':[^/:@]+@', '@', reference)}: image not known", 125)
        if self._profile == "docker20":
            return _Failure(f"Error: No such image: {reference}")
        if re.fullmatch("[0-9a-f]{64}", reference):
            reference = f"sha256:{reference}"
        elif not reference.startswith("sha256:"):
            reference = self._shown(full_name(reference))
        return _Failure(f"{_DAEMON} No such image: {reference}")

    def _pull(self, reference: str, options: dict[str, str]) -> None:
        name, is_loud = full_name(reference), "--quiet" not in options
        if "@" in reference or (self._is_podman and not reference.startswith(name.partition("/")[0])):
            raise _not_recorded(f"pull {reference}")
        repository, tag = _repository(name), name.rpartition(":")[2]
        if is_loud and self._is_podman:
            sys.stderr.write(f"Trying to pull {name}...\n")
        elif is_loud and _repository(reference) == reference:
            print("Using default tag: latest", flush=True)
        image = self._state.registry.get(name)
        if not image:
            raise self._not_in_registry(self._shown(name))
        if "--platform" in options and not is_same_platform(_own(image)["platform"], options["--platform"]):
            raise _not_recorded(f"pull --platform {options['--platform']}")
        is_new = self._state.keep(self._kept(image), [name], [f"{repository}@{image['digest']}"])
        if self._is_podman:
            blobs = "".join(f"Copying blob sha256:{layer}\n" for layer in image["layers"])
            progress = f"Getting image source signatures\n{blobs}Copying config {image['id']}\n"
            if is_loud:
                sys.stderr.write(f"{progress}Writing manifest to image destination\nStoring signatures\n")
            print(image["id"].removeprefix("sha256:"))
            return
        if is_loud:
            print(f"{tag}: Pulling from {repository.partition('/')[2]}")
            for step in ("Pulling fs layer", "Download complete", "Pull complete") if is_new else ():
                print("\n".join(f"{layer[:12]}: {step}" for layer in image["layers"]))
            status = "Downloaded newer image" if is_new else "Image is up to date"
            print(f"Digest: {image['digest']}\nStatus: {status} for {self._shown(name)}")
        print(name)

    def _kept(self, image: dict[str, Any]) -> dict[str, Any]:
        """What the containerd store keeps of an image that is pulled: not what is unpacked already for another one that
        begins with the same layer, though it may have that in other bytes (measured on 29.7)."""
        known = next((each for each in self._state.images if each["id"] == image["id"]), None)
        if known or not self._is_containerd:
            return known or image
        content = {layer for each in self._state.images if each["complete"] for layer in each["layers"]}
        is_unpacked = any(_base(each) == _base(image) for each in self._state.images)
        if is_unpacked and not content >= set(image["layers"]):
            return {**image, "archive": image["incomplete"], "complete": False}
        return image

    def _list(self, arguments: list[str]) -> None:
        if sorted(arguments) != ["--all", "--no-trunc", "--quiet"]:
            raise _not_recorded(f"ls {arguments}")
        for each in self._state.images:
            print(each["id"])

    def _prune(self, arguments: list[str]) -> None:
        if arguments not in (["-f"], ["--force"]):
            raise _not_recorded(f"prune {arguments}")
        self._state.images = [each for each in self._state.images if each["names"]]
        self._state.write()

    def _remove(self, references: list[str]) -> None:
        for reference in references:
            image = self._find(reference)
            named = [name for name in (full_name(reference),) if name in image["names"]]
            if not named and len(image["names"]) > 1:
                raise _Failure(f"{_DAEMON} conflict: unable to delete {reference} (must be forced)")
            image["names"] = [name for name in image["names"] if named and name not in named]
            if not image["names"]:
                self._state.images.remove(image)
            print(f"Untagged: {reference}")
        self._state.write()

    def _tag(self, arguments: list[str]) -> None:
        reference, name = arguments
        self._state.keep(self._find(reference), [local_name(self._profile, name)])

    def _import(self, arguments: list[str]) -> None:
        """An empty image gets the name; the one that had it stays."""
        if arguments[:1] != ["-"] or sys.stdin.buffer.read() != bytes(1024):
            raise _not_recorded(f"import {arguments}")
        empty = {**self._state.images[0], "id": f"sha256:{os.urandom(32).hex()}", "names": [], "pulled": []}
        self._state.keep(empty, [full_name(arguments[1])])
        print(empty["id"])

    def _push(self, arguments: list[str]) -> None:
        from tests import recorded_push  # slow to import

        options, (name,) = self._parse("push", arguments)
        image = self._find(name)
        descriptor = image["descriptor"]
        if "--platform" in options and descriptor["mediaType"] in INDEXES:
            descriptor = self._of_platform(image, name, options["--platform"])["descriptor"]
        try:
            recorded_push.push(image["archive"], descriptor, name)
        except recorded_push.NotPushed as error:
            raise _Failure(str(error)) from None

    def _context(self, arguments: list[str]) -> None:
        if arguments != ["inspect", "--format", "{{.Endpoints.docker.Host}}"]:
            raise _not_recorded(f"context {arguments}")
        print("unix:///var/run/docker.sock")

    def _not_in_registry(self, name: str) -> _Failure:
        unknown = "manifest unknown: manifest unknown"
        if self._is_podman:
            reading = f"reading manifest {name.rpartition(':')[2]} in {_repository(name)}"
            return _Failure(f"Error: initializing source docker://{name}: {reading}: {unknown}", 125)
        if self._is_containerd:
            return _Failure(f'{_DAEMON} failed to resolve reference "{name}": {name}: not found')
        return _Failure(f"{_DAEMON} manifest for {name} not found: {unknown}")

    def _save(self, reference: str, options: dict[str, str]) -> None:
        if re.fullmatch("docker29.*-containerd", self._profile) and re.fullmatch("[0-9a-f]{64}", reference):
            said = f"invalid repository name ({reference}), cannot specify 64-byte hexadecimal strings"
            raise _Failure(f"{_DAEMON} {said}")
        try:
            image = self._find(reference)
        except _Failure as failure:
            if self._is_podman and str(failure).endswith("image not known"):
                raise _Failure(str(failure).replace("inspecting object: ", ""), 125) from None
            if self._profile == "docker20":
                raise _Failure(f"{_DAEMON} reference does not exist") from None
            raise _not_recorded(f"save of what is not there: {failure}") from None
        self._check_saved(image, options.get("--platform"))
        with open(image["archive"], "rb") as archive, open(options.get("--output", 1), "wb") as output:
            while chunk := archive.read(1024 * 1024):
                output.write(chunk)

    def _check_saved(self, image: dict[str, Any], platform: str | None) -> None:
        """That the store has what it is to save. Of each message only the beginning was written down."""
        wanted = platform or OWN_PLATFORM
        found = next((each for each in image["variants"] if is_same_platform(each["platform"], wanted)), None)
        is_there = found and found["there"]
        if not self._is_containerd:
            if platform and not is_there:
                raise _not_recorded(f"save --platform {platform} of an image for another one")
        elif platform:
            if not is_there or not image["complete"]:
                raise _Failure(f"{_DAEMON} no suitable export target found for platform {platform}")
        elif image["descriptor"]["mediaType"] in INDEXES and not is_there:
            if not found:
                raise _not_recorded(f"save of an index that does not name {OWN_PLATFORM}")
            said = f"NotFound: content digest {found['descriptor']['digest']}: not found"
            raise _Failure(f"{_DAEMON} unable to create manifests file: {said}")


def _own(image: dict[str, Any]) -> dict[str, Any]:
    """What the engine takes when no platform is asked for."""
    there = [each for each in image["variants"] if each["there"]] or image["variants"]
    return next((dict(each) for each in there if is_same_platform(each["platform"], OWN_PLATFORM)), dict(there[0]))


def _base(image: dict[str, Any]) -> str | None:
    """The layer that the image begins with, unpacked."""
    layers: list[str] = _own(image)["members"]["RootFS"].get("Layers", [])
    return layers[0] if layers else None


def _info(text: str) -> dict[str, Any]:
    """What `docker info` says of the image store, in JSON; it prints the same as text."""
    block = re.search(r"^ Storage Driver: (.*)\n((?:  .*\n)*)", text, re.MULTILINE)
    if not block:
        raise _not_recorded("info without a storage driver")
    status = [line.strip().split(": ", 1) for line in block[2].splitlines()]
    return {"Driver": block[1], "DriverStatus": status, "OSType": "linux", "Architecture": "x86_64"}


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
