"""Container engines that cannot be installed here: a `docker` and a `podman` that answer as recordings of them say.

What they say about an image is read from its archive. See tests.recorded_program for what is run.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.recorded_program import INDEXES, OWN_PLATFORM, Program, State, full_name, is_same_platform, local_name

PROFILES = (
    "docker20",
    "docker25",
    "docker28",
    "docker28-containerd",
    "docker29-classic",
    "docker29-containerd",
    "docker29.0-containerd",
    "podman4",
)
_ENTRY = """#!{python} -IS
import signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
sys.path.insert(0, {root!r})
from tests.recorded_program import Program
sys.exit(Program({profile!r}, {directory!r}).main(sys.argv[1:]))
"""
_WRAPPER = """#!/bin/sh
echo "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg." >&2
exec "{podman}" "$@"
"""


class RecordedEngine:
    """An engine with a folder of its own; `profile` is one of PROFILES.

    Its program is `docker`, or `podman`, and then with `wrapper` also the `docker` of Debian's podman-docker.
    """

    def __init__(self, profile: str, directory: Path, *, wrapper: bool = False) -> None:
        if profile not in PROFILES:
            raise ValueError(f"{profile!r} is not one of {', '.join(PROFILES)}")
        self._profile = profile
        self._directory = directory = directory.absolute()
        self._bin = directory / "bin"
        self._bin.mkdir(parents=True)
        program = self._bin / ("podman" if profile == "podman4" else "docker")
        # Isolated, without `site` and outside of a virtual environment: it is to start fast.
        program.write_text(
            _ENTRY.format(
                python=os.path.realpath(sys.executable),
                root=str(Path(__file__).parents[1]),
                profile=profile,
                directory=str(directory),
            )
        )
        program.chmod(0o755)
        if wrapper:
            docker = self._bin / "docker"
            docker.write_text(_WRAPPER.format(podman=program))
            docker.chmod(0o755)
        self._directory = directory
        self._calls = directory / "calls"
        self._state = State(str(directory))
        self._state.write()

    def answer(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What its program says to these words, without a process for it; not for `save`."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = Program(self._profile, str(self._directory)).main(list(words))
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    @property
    def environment(self) -> dict[str, str]:
        """To be added to the environment of whoever is to find this engine."""
        return {"PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}"}

    def calls(self) -> list[str]:
        """How it was called since this was asked the last time."""
        calls = self._calls.read_text().splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return calls

    def add(self, archive: Path, name: str | None = None, *, platforms: Sequence[str] | None = None) -> str:
        """Have the image that is in the archive, which is what `save` will write, byte for byte; returns its Id.

        Its names are those in the archive, unless one is given; added again it has one more. `platforms` are those
        whose content the store has, if they are others than the archive says. An archive without the content that it
        names stands for an image that the containerd store saves like that.
        """
        image, names = _describe(self._profile, archive, platforms)
        self._state.read()
        self._state.keep(image, [local_name(self._profile, each) for each in ([name] if name else names)])
        return str(image["id"])

    def publish(self, archive: Path, name: str, *, digest: str | None = None) -> None:
        """Have the image in the engine's registry, for `pull`; `digest` is that of its manifest there."""
        image, _ = _describe(self._profile, archive, None)
        if self._profile.endswith("-containerd"):
            # What is saved where it was pulled and only its manifests were kept.
            image["incomplete"] = str(self._directory / f"{image['id']}-incomplete.tar")
            _leave_out_content(archive, Path(image["incomplete"]))
        self._state.read()
        self._state.registry[full_name(name)] = {**image, "digest": digest or image["digest"]}
        self._state.write()


def _describe(profile: str, path: Path, platforms: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    """The image as the state has it, and its names in the archive."""
    blobs = _blobs(path)
    manifest = json.loads(blobs["manifest.json"])[0]
    is_complete = all(name in blobs for name in [manifest["Config"], *manifest["Layers"]])
    image: dict[str, Any] = {
        "archive": str(path.absolute()),
        "complete": is_complete,
        "descriptor": None,
        "layers": [re.sub(r"^blobs/sha256/|/layer\.tar$|\.tar$", "", layer) for layer in manifest["Layers"]],
    }
    if profile.endswith("-containerd"):
        if "index.json" not in blobs:
            raise ValueError(f"{path} has no index.json: the containerd store makes up an Id for it")
        descriptor = json.loads(blobs["index.json"])["manifests"][0]
        # Saving adds to them; of those that the store has for itself, this one is known.
        annotations = {k: v for k, v in descriptor.pop("annotations", {}).items() if k == "config.digest"}
        descriptor.update({"annotations": annotations} if annotations else {})
        variants = _variants(blobs, descriptor, platforms)
        image.update(id=descriptor["digest"], digest=descriptor["digest"], descriptor=descriptor, variants=variants)
    else:
        if not is_complete:
            raise ValueError(f"{path} is not complete: only the containerd store has such images")
        config = blobs[manifest["Config"]]
        size = sum(_size(blobs[layer], as_tar=profile == "podman4") for layer in manifest["Layers"])
        # In a registry its manifest's digest depends on how its layers were compressed: any will do.
        image.update(
            id=f"sha256:{hashlib.sha256(config).hexdigest()}",
            digest=f"sha256:{hashlib.sha256(blobs['manifest.json']).hexdigest()}",
            variants=[_variant(json.loads(config), size, platforms[0] if platforms else None)],
        )
    return image, manifest["RepoTags"] or []


def _leave_out_content(path: Path, target: Path) -> None:
    """Copy the archive without its configurations and layers."""
    with tarfile.open(path) as archive, tarfile.open(target, "w") as copy:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            data = file.read() if file else b""
            if member.isdir() or not member.name.startswith("blobs/") or b'"mediaType"' in data[:4096]:
                copy.addfile(member, io.BytesIO(data))


def _blobs(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if not member.isdir()}
        return {name: file.read() for name, file in files.items() if file}


def _size(layer: bytes, *, as_tar: bool) -> int:
    if layer.startswith(b"\x1f\x8b"):
        layer = gzip.decompress(layer)
    if as_tar:
        return len(layer)
    return sum(member.size for member in tarfile.open(fileobj=io.BytesIO(layer)) if member.isreg())


def _variants(
    blobs: dict[str, bytes], descriptor: dict[str, Any], platforms: Sequence[str] | None
) -> list[dict[str, Any]]:
    """What the containerd store says of the image for each of its platforms."""

    def blob(digest: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(blobs.get(f"blobs/{digest.replace(':', '/')}", b"{}"))
        return found

    target, named = blob(descriptor["digest"]), [descriptor]
    if descriptor["mediaType"] in INDEXES:
        # An attestation is a manifest of the platform unknown/unknown.
        named = [manifest for manifest in target["manifests"] if manifest["platform"]["os"] != "unknown"]
    variants = []
    for manifest in named:
        content = blob(manifest["digest"])
        config = blob(content["config"]["digest"]) if content else {}
        # The content is absent from an incomplete archive, not from the store.
        platform = None if config or manifest is not descriptor else OWN_PLATFORM
        if "platform" in manifest:
            parts = (manifest["platform"].get(part) for part in ("os", "architecture", "variant"))
            platform = "/".join(filter(None, parts))
        elif platforms:
            platform = platforms[0]
        is_there = bool(config) or manifest is descriptor
        if platform and platforms is not None:
            is_there = any(is_same_platform(platform, each) for each in platforms)
        if not is_there:
            content, config = {}, {}
        size = manifest["size"] + (descriptor["size"] if manifest is not descriptor else 0)
        if content:
            size += content["config"]["size"] + sum(layer["size"] for layer in content["layers"])
        variant = _variant(config, size, platform if is_there else None)
        shown = {"platform": platform or variant["platform"], "there": is_there, "descriptor": manifest}
        variants.append({**variant, **shown})
    return variants


def _variant(config: dict[str, Any], size: int, platform: str | None) -> dict[str, Any]:
    """What `image inspect` says of the image for a platform, by default the configuration's own."""
    configured = (config.get("os", ""), config.get("architecture", ""), config.get("variant", ""))
    system, architecture, variant = [*platform.split("/"), ""][:3] if platform else configured
    members = {
        "Created": config.get("created"),
        "Config": config.get("config") or {},
        "Architecture": architecture,
        "Variant": variant,
        "Os": system,
        "Size": size,
        "RootFS": {"Type": "layers", "Layers": config["rootfs"]["diff_ids"]} if config else {},
    }
    for optional in ("Created", "Variant"):
        if not members[optional]:
            del members[optional]
    return {"platform": "/".join(filter(None, (system, architecture, variant))), "there": True, "members": members}
