"""The tests' own engines and images are what the other tests take them for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import images
from tests.engines import Daemon, Engine, Registry

TIME = "2020-01-02T03:04:05Z"


def inspect(engine: Engine, name: str) -> dict[str, object]:
    inspected: dict[str, object] = json.loads(engine.docker("image", "inspect", name))[0]
    return inspected


def test_the_engine_sees_the_image_that_was_computed(engine: Engine) -> None:
    image = images.build(engine.host, layers=[{"a": b"1"}, {"b/c": b"2"}], created=TIME)
    inspected = inspect(engine, image.name)
    assert inspected["RootFS"] == {"Type": "layers", "Layers": image.diff_ids}
    assert inspected["Created"] == image.created == TIME
    if not inspected.get("Descriptor"):  # the containerd store's Id is another digest
        assert inspected["Id"] == image.id


def test_images_are_unique_unless_all_is_given(engine: Engine) -> None:
    assert images.build(engine.host).id != images.build(engine.host).id
    first, second = (images.build(engine.host, layers=[{"a": b"1"}], created=TIME) for _ in range(2))
    assert first.id == second.id
    assert first.name != second.name


def test_a_big_image_has_its_size_in_its_layers(engine: Engine, tmp_path: Path) -> None:
    image = images.build_big(engine.host, 6, layers=3)
    assert len(set(image.diff_ids)) == 3
    engine.docker("save", "--output", str(tmp_path / "saved.tar"), image.name)
    assert 6 * 2**20 < (tmp_path / "saved.tar").stat().st_size < 7 * 2**20


def test_pushed_by_one_engine_an_image_runs_in_another(
    engine: Engine, other_engine: Engine, registry: Registry
) -> None:
    image = images.build_runnable(engine.host)
    pushed = f"{registry.host}/{image.name}"
    engine.docker("tag", image.name, pushed)
    engine.docker("push", pushed)
    other_engine.forget(image.id)
    other_engine.docker("pull", pushed)
    assert inspect(other_engine, pushed)["RootFS"] == {"Type": "layers", "Layers": image.diff_ids}
    assert other_engine.docker("run", "--rm", "--network", "none", pushed) == "hello\n"


def test_all_images_and_containers_of_a_run_are_removed(other_engine: Engine) -> None:
    image = images.build_runnable(other_engine.host)
    other_engine.docker("tag", image.name, f"second-{image.name}")
    other_engine.docker("create", image.name)
    other_engine.forget_all()
    assert image.name.split(":")[0] not in other_engine.docker("images") + other_engine.docker("ps", "--all")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a private engine")


@needs_root
@pytest.mark.usefixtures("engine")
def test_a_killed_daemon_is_unreachable() -> None:
    with Daemon() as daemon:
        daemon.kill()
        with pytest.raises(RuntimeError, match=r"Cannot connect|failed to connect"):
            daemon.docker("images")


@needs_root
@pytest.mark.usefixtures("engine", "registry")
def test_no_service_outlives_a_killed_run() -> None:
    script = """if True:
        from tests.engines import Daemon, Registry
        with Daemon() as daemon, Registry() as registry:
            print(daemon.pid, daemon.directory, registry.directory, flush=True)
            input()
    """
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as run:
        assert run.stdout
        left = [Path(path) for path in run.stdout.readline().split()]
        left[0] = Path(f"/proc/{left[0]}")
        assert all(path.exists() for path in left)
        run.kill()
    deadline = time.monotonic() + 10
    while any(path.exists() for path in left):
        assert time.monotonic() < deadline
        time.sleep(0.05)
