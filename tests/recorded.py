"""A `docker` that answers as those that Debian does not have were recorded to answer, on archives that they saved.

It knows what this program asks and refuses everything else, so that nothing is guessed. Run as a program, it is that
docker; its images are in a JSON file beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"

# What client and server agree on, by the server's version.
API = {"20.10.24": "1.41", "25.0.13": "1.44", "28.5.2": "1.50", "29.0.1": "1.52", "29.7.2": "1.55"}
_INDEX = "application/vnd.oci.image.index.v1+json"


class RecordedDocker:
    """An engine with its own images; put `environment` into a command's to have it found."""

    def __init__(self, directory: Path, version: str, store: str) -> None:
        directory.mkdir(parents=True)
        self.path = directory
        self._state: dict[str, Any] = {"version": version, "store": store, "local": [], "registry": []}
        program = directory / "docker"
        program.write_text(f"#!{sys.executable} -IS\n" + Path(__file__).read_text())
        program.chmod(0o755)
        self.environment = {"PATH": f"{directory}:{os.environ['PATH']}"}
        self._save()

    def _save(self) -> None:
        (self.path / "state.json").write_text(json.dumps(self._state))

    def add(self, fixture: str, where: str = "local", **changes: Any) -> dict[str, Any]:
        """Give it, or its registry, an image that a docker of its kind has saved; `changes` replace facts of it."""
        facts = json.loads((FIXTURES / "fixtures.json").read_text())[fixture]
        shutil.copy(FIXTURES / "archives" / fixture, self.path / fixture)
        index = (facts.get("index_json") or [{}])[0]
        image = {
            "archive": fixture,
            "name": (facts.get("repo_tags") or [None])[0],
            "id": facts.get("engine_id") or index.get("digest"),
            "created": facts.get("created"),
            "media_type": index.get("mediaType"),
            "platform": facts.get("platform") or "linux/amd64",
            "platforms": [facts.get("platform") or "linux/amd64"],
            "complete": facts.get("complete", True),
            **changes,
        }
        self._state[where].append(image)
        self._save()
        return image

    def calls(self) -> list[str]:
        """How it was called, since the last time this was asked."""
        log = self.path / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


def fail(status: int, stderr: str, stdout: str = "") -> None:
    sys.stdout.write(stdout)
    sys.stderr.write(stderr + "\n")
    sys.exit(status)


class Program:
    """One call of the recorded docker."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = json.loads((directory / "state.json").read_text())
        self.api = tuple(int(part) for part in API[self.state["version"]].split("."))
        self.containerd = self.state["store"] == "containerd"

    def run(self, words: list[str]) -> None:
        with (self.directory / "calls").open("a") as log:
            log.write(" ".join(words) + "\n")
        if words == ["version", "--format", "{{json .}}"]:
            print(json.dumps({"Client": {"ApiVersion": API[self.state["version"]]}}))
            return
        command, *rest = words[1:] if words[0] == "image" else words
        platform = None
        if "--platform" in rest:
            at = rest.index("--platform")
            platform = rest[at + 1]
            del rest[at : at + 2]
            self.check_platform_flag(command)
        quiet = rest[:1] == ["--quiet"]
        rest = rest[1:] if quiet else rest
        if len(rest) != 1 or command not in ("inspect", "save", "pull"):
            fail(99, f"not recorded: {' '.join(words)}")
        getattr(self, command)(rest[0], platform)

    def check_platform_flag(self, command: str) -> None:
        needed = {"inspect": (1, 49), "save": (1, 48), "pull": (1, 32)}[command]
        if self.api == (1, 41) and command != "pull":
            fail(125, f"unknown flag: --platform\nSee 'docker image {command} --help'.")
        if self.api < needed:
            wanted, agreed = (".".join(map(str, version)) for version in (needed, self.api))
            fail(1, f'"--platform" requires API version {wanted}, but the Docker daemon API version is {agreed}')

    def found(self, reference: str) -> dict[str, Any] | None:
        digits = reference.removeprefix("sha256:")
        for image in self.state["local"]:
            familiar = (image["name"] or "").removeprefix("docker.io/library/").removeprefix("docker.io/")
            if reference in (image["name"], familiar):
                return dict(image)
        for image in self.state["local"]:
            if all(digit in "0123456789abcdef" for digit in digits) and image["id"].startswith(f"sha256:{digits}"):
                return dict(image)
        return None

    def inspect(self, reference: str, platform: str | None) -> None:
        image = self.found(reference)
        if image is None:
            error = "Error response from daemon: No such image: " if self.api > (1, 41) else "Error: No such image: "
            fail(1, error + reference, "[]\n")
            return
        described: dict[str, Any] = {
            "Id": image["id"],
            "RepoTags": [image["name"]] if image["name"] else [],
            "Created": image["created"],
            "Size": (self.directory / image["archive"]).stat().st_size,
        }
        shown = platform or image["platform"]
        if shown not in image["platforms"]:
            if self.state["version"] != "29.7.2" or not self.containerd:
                why = (
                    f"does not provide the specified platform ({shown})"
                    if self.containerd
                    else f"its platform ({image['platform']}) does not match the specified platform ({shown})"
                )
                fail(1, f"Error response from daemon: image with reference {reference} was found but {why}", "[]\n")
            shown = "/"
            del described["Created"]
        described["Os"], described["Architecture"], described["Variant"] = (*shown.split("/"), "")[:3]
        if self.containerd:
            described["Descriptor"] = {"mediaType": image["media_type"], "digest": image["id"]}
        print(json.dumps([described]))

    def save(self, reference: str, platform: str | None) -> None:
        image = self.found(reference)
        if image is None:
            fail(1, f"Error response from daemon: No such image: {reference}")
            return
        if platform is not None and (platform not in image["platforms"] or not image["complete"]):
            fail(1, f"Error response from daemon: no suitable export target found for platform {platform}")
        with (self.directory / image["archive"]).open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)

    def pull(self, reference: str, platform: str | None) -> None:
        for image in self.state["registry"]:
            if image["name"] == reference and platform in (None, *image["platforms"]):
                self.state["local"] = [each for each in self.state["local"] if each["name"] != reference] + [image]
                (self.directory / "state.json").write_text(json.dumps(self.state))
                print(reference)
                return
        fail(1, f"Error response from daemon: manifest for {reference} not found: manifest unknown: manifest unknown")


if __name__ == "__main__":
    Program(Path(sys.argv[0]).parent).run(sys.argv[1:])
