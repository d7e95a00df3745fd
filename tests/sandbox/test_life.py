"""Starting, stopping and starting again."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox, SandboxError

from .conftest import Http, keep_url

COMMAND = [sys.executable, "-m", "arv_keepdocker.sandbox"]
ROOT = Path(__file__).parents[2]


def _start(output: Path, *arguments: str, temporary: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    with output.open("wb") as file:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=file, stderr=subprocess.PIPE, env=environment)
    for _ in range(200):
        if "# ready" in output.read_text() or process.poll() is not None:
            break
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shell(tmp_path: Path, number: signal.Signals) -> None:
    """The printed lines are shell code; the temporary directory is gone afterwards."""
    output, temporary = tmp_path / "env", tmp_path / "tmp"
    temporary.mkdir()
    with _start(output, temporary=temporary) as process:
        assert os.listdir(temporary)
        script = f'eval "$(cat {output})"; echo $ARVADOS_API_HOST $ARVADOS_API_TOKEN $ARVADOS_API_HOST_INSECURE'
        words = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split()
        assert words[0].startswith("127.0.0.1:")
        assert words[1].startswith("v2/")
        assert words[2] == "1"
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert os.listdir(temporary) == []


def test_kept_between_starts(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    states = []
    for _ in range(2):
        with Sandbox(directory=directory, seed_images=3) as sandbox:
            http = Http(sandbox, "active")
            locator = http.put_block(b"foo")
            states.append((sandbox.environment(), sandbox.users, keep_url(http)))
            uuid = (tmp_path / "uuid").read_text() if len(states) == 2 else http.file()["uuid"]
            (tmp_path / "uuid").write_text(uuid)
            assert http.good("GET", f"collections/{uuid}")["file_count"] == 1
            assert http("GET", keep_url(http) + locator).content == b"foo"
            assert http.list("collections", filters=[["name", "like", "Docker image %"]])["items_available"] == 3
            http.session.close()
    assert states[0] == states[1]
    for path in directory.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_directory_of_an_older_sandbox(tmp_path: Path) -> None:
    """What it lacks is added; what is in it stays."""
    group = "zzzzz-j7d0g-000000000000000"
    with Sandbox(directory=tmp_path) as sandbox:
        uuid = sandbox.api("POST", "workflows", {"name": "kept"}, "active")["uuid"]
    database = sqlite3.connect(tmp_path / "cluster.sqlite3")
    with database:
        database.execute("ALTER TABLE workflows DROP COLUMN collection_uuid")
        database.execute("DELETE FROM groups WHERE uuid = ?", (group,))
    database.close()
    with Sandbox(directory=tmp_path) as sandbox:
        assert sandbox.api("GET", f"workflows/{uuid}", user="active")["name"] == "kept"
        assert sandbox.api("POST", "workflows", {"collection_uuid": ""}, "active")["collection_uuid"] == ""
        assert sandbox.api("GET", f"groups/{group}", user="active")["name"] == "System group"


def test_busy_directory(tmp_path: Path) -> None:
    with (
        Sandbox(directory=tmp_path / "d"),
        _start(tmp_path / "env", f"--directory={tmp_path / 'd'}", temporary=tmp_path) as second,
    ):
        assert second.wait(10) == 1
        assert second.stderr is not None
        assert b"another sandbox is running on this directory" in second.stderr.read()


def test_busy_port(tmp_path: Path) -> None:
    with Sandbox() as first:
        port = first.url.rpartition(":")[2]
        with pytest.raises(SandboxError, match="did not start"):
            Sandbox(arguments=(f"--api-port={port}",))


def test_stops_with_its_parent(tmp_path: Path) -> None:
    code = "import os; from arv_keepdocker.sandbox import Sandbox; s = Sandbox(); print(s.pid, flush=True)"
    code += "; os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    pid = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"{pid} still runs")


def test_import_is_light() -> None:
    code = "import sys, arv_keepdocker.sandbox; sys.exit('aiohttp' in sys.modules or 'cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0


def test_seed(tmp_path: Path) -> None:
    uuids = []
    for _ in range(2):
        with Sandbox(seed_images=200, seed_owner="spectator") as sandbox:
            http = Http(sandbox, "spectator")
            hashes = http.list("links", filters=[["link_class", "=", "docker_image_hash"]], limit=1000)
            tags = http.list("links", filters=[["link_class", "=", "docker_image_repo+tag"]], limit=1000)
            collections = http.list("collections", select=["uuid", "manifest_text", "file_count"], limit=1000)
            assert hashes["items_available"] == collections["items_available"] == 200 < tags["items_available"]
            assert {item["file_count"] for item in collections["items"]} == {1}
            assert all(":sha256\\072" in item["manifest_text"] for item in collections["items"])
            request = {"container_image": tags["items"][0]["name"], "command": ["true"], "state": "Committed"}
            if tags["items"][0]["name"].count(":") == 1:
                http.create("container_requests", **request)
            uuids.append([item["uuid"] for item in collections["items"]])
            http.session.close()
            other = Http(sandbox, "active")
            assert other.list("collections")["items"] == []
            other.session.close()
    assert uuids[0] == uuids[1]
