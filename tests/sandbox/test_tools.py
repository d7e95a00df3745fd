"""The SDK's own programs, unmodified."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import images

from .conftest import Http, unique

SCRIPTS = Path(sysconfig.get_path("scripts"))
Tool = Callable[..., bytes]


@pytest.fixture
def tool(sandbox: Sandbox, tmp_path: Path) -> Tool:
    environment = {
        **os.environ,
        **sandbox.environment(),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    def run(name: str, *arguments: object, status: int = 0) -> bytes:
        command = [str(SCRIPTS / name), *map(str, arguments)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, timeout=120)
        assert done.returncode == status, done.stderr.decode()
        return done.stdout

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(images.noise((64 << 20) + 12345))
    return path


def test_put_list_get(tool: Tool, active: Http, data: Path, tmp_path: Path) -> None:
    project = active.project()
    uuid = tool("arv-put", "--project-uuid", project, "--name", unique(), data).decode().strip()
    made = active.good("GET", f"collections/{uuid}")
    assert (made["owner_uuid"], made["file_size_total"]) == (project, data.stat().st_size)
    assert tool("arv-ls", uuid) == b"./data.bin\n"
    for source in (uuid, made["portable_data_hash"]):
        assert tool("arv-get", f"{source}/data.bin", "-") == data.read_bytes()
    (tmp_path / "copy").mkdir()
    tool("arv-get", f"{uuid}/", tmp_path / "copy")
    assert (tmp_path / "copy" / "data.bin").read_bytes() == data.read_bytes()


def test_image_name(tool: Tool, active: Http, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"x")
    name = f"sha256:{'e' * 64}.tar"
    uuid = tool("arv-put", "--no-progress", "--filename", name, path).decode().strip()
    assert f":sha256\\072{'e' * 64}.tar\n" in active.good("GET", f"collections/{uuid}")["manifest_text"]


def test_resume(tool: Tool, data: Path, clean: Sandbox) -> None:
    """The collection is refused once its first block is there; the second run does not send that again."""
    clean.fault("status", service="api", method="POST", path="/collections", status=422, times=None)
    tool("arv-put", "--retries", "0", data, status=1)
    clean.clear_faults()
    puts = [entry for entry in clean.requests() if entry["method"] == "PUT"]
    assert len(puts) == 2
    clean.clear_requests()
    tool("arv-put", data)
    assert len([entry for entry in clean.requests() if entry["method"] == "PUT"]) < 2


def test_unknown_project(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"x")
    tool("arv-put", "--project-uuid", "zzzzz-j7d0g-nosuchproject00", "data.bin", status=1)
