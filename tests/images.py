"""Small real images for the tests, made without a base image, a build or a network."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from tests.engines import LABEL, RUN, Engine

BUSYBOX = Path("/bin/busybox")

Layer = Mapping[str, bytes]

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Image:
    name: str
    id: str
    diff_ids: list[str]
    created: str


# Every image that this run made.
BUILT: list[Image] = []


def unique_name() -> str:
    return f"akd-{RUN}-{next(_numbers)}/thing:v1"


_NOISE = os.urandom(1 << 20)


def noise(size: int) -> bytes:
    """Bytes like no others, which gzip cannot make fewer; os.urandom takes ten times as long."""
    return b"".join(os.urandom(32) + _NOISE for _ in range(-(-size // len(_NOISE))))[:size]


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(content), 0o755
    archive.addfile(member, io.BytesIO(content))


def _layer_tar(files: Layer) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            _add(archive, path, content)
    return buffer.getvalue()


def write_archive(
    file: IO[bytes],
    name: str | None = None,
    *,
    layers: Iterable[Layer] | None = None,
    cmd: Sequence[str] = ("/bin/busybox", "true"),
    created: str | None = None,
) -> Image:
    """Write an image as `docker save` of Docker 20 does; without layers and a time given, it is unlike any other.

    The same layers and time make the same image within a run.
    """
    name = name or unique_name()
    # Docker drops zeros at the end when it shows a time.
    created = created or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f1Z")
    diff_ids = []
    with tarfile.open(fileobj=file, mode="w") as archive:
        for files in layers if layers is not None else [{"unique": os.urandom(32)}]:
            layer = _layer_tar(files)
            diff_ids.append(hashlib.sha256(layer).hexdigest())
            _add(archive, f"{diff_ids[-1]}/layer.tar", layer)
        config = json.dumps(
            {
                "architecture": os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64"),
                "os": "linux",
                "created": created,
                "config": {"Cmd": list(cmd), "Labels": dict([LABEL])},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}" for diff_id in diff_ids]},
                "history": [{"created": created} for _ in diff_ids],
            }
        ).encode()
        digest = hashlib.sha256(config).hexdigest()
        _add(archive, f"{digest}.json", config)
        paths = [f"{diff_id}/layer.tar" for diff_id in diff_ids]
        manifest = [{"Config": f"{digest}.json", "RepoTags": [name], "Layers": paths}]
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    image = Image(name, f"sha256:{digest}", [f"sha256:{diff_id}" for diff_id in diff_ids], created)
    BUILT.append(image)
    return image


def build(
    host: str | None,
    name: str | None = None,
    *,
    layers: Iterable[Layer] | None = None,
    cmd: Sequence[str] = ("/bin/busybox", "true"),
    created: str | None = None,
) -> Image:
    """Make an image (see `write_archive`) in the engine at `host`."""
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        image = write_archive(file, name, layers=layers, cmd=cmd, created=created)
        file.flush()
        Engine(host).load(Path(file.name))
    return image


def build_runnable(
    host: str | None, name: str | None = None, cmd: Sequence[str] = ("/bin/busybox", "echo", "hello")
) -> Image:
    """An image that runs (with `--network none`): a static busybox is all that it has."""
    return build(host, name, layers=[{"bin/busybox": BUSYBOX.read_bytes()}], cmd=cmd)


def build_big(host: str | None, mebibytes: int, layers: int = 1, name: str | None = None) -> Image:
    """An image that does not compress, its size divided among its layers."""
    size = mebibytes * 2**20 // layers
    return build(host, name, layers=({f"random{number}": noise(size)} for number in range(layers)))
