"""Many images, one after the other in one process and several at once: nothing is left behind, and nothing grows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.conftest import Command, Result, stored
from tests.engines import Engine
from tests.test_failures import cached

ROUNDS = 10
IMAGES = 10

# Stores each image ROUNDS times as arvados-cwl-runner does, and tells after each round what the process has.
IN_A_ROW = """
import contextlib, gc, io, json, os, pathlib, resource, sys, threading
import arvados
import arv_keepdocker

way, rounds, project, *names = sys.argv[1:]
way = way.split()
api = arvados.api("v1")
limit = resource.getrlimit(resource.RLIMIT_CORE)
for _ in range(int(rounds)):
    uuids = []
    for name in names:
        stdout, stderr = io.StringIO(), io.StringIO()
        words = [*way, "--force", "--project-uuid", project, "--no-progress", *name.split(":")]
        try:
            arv_keepdocker.main(words, stdout=stdout, stderr=stderr, install_sig_handlers=False, api=api)
        except SystemExit as end:
            assert not end.code, stderr.getvalue()
        uuids.append(stdout.getvalue().strip())
    gc.collect()
    status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    children = [path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/children")]
    print(json.dumps({
        "uuids": uuids,
        "memory": int(status["VmRSS"].split()[0]),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "children": "".join(children).split(),
        "same limit": limit == resource.getrlimit(resource.RLIMIT_CORE),
    }), flush=True)
"""


def of_this_run(directory: Path) -> list[str]:
    """What there is but for notes on what was sent, the SDK's and ours, and on the API."""
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".journal" and not {"discovery", "arv-put", "keep"} & set(path.parts)
    )


@pytest.mark.long
def test_a_hundred_images_in_a_row(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, tmp_path: Path, way: tuple[str, ...]
) -> None:
    built = [images.build(engine.host) for _ in range(IMAGES)]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = Command([sys.executable, "-c", IN_A_ROW], run.directory, run.environment, run.processes)
    words = [" ".join(way), str(ROUNDS), project, *(image.name for image in built)]
    result = command(*words, env={"TMPDIR": str(temporary)}, timeout=150)
    assert result.status == 0, result.stderr
    rounds = [json.loads(line) for line in result.stdout.splitlines()]
    assert len({uuid for each in rounds for uuid in each["uuids"]}) == ROUNDS * IMAGES
    settled, last = rounds[2], rounds[-1]
    assert last["memory"] < settled["memory"] + (4 << 10)
    assert last["files"] <= settled["files"]
    assert last["threads"] <= settled["threads"]
    assert last["children"] == []
    assert last["same limit"]
    assert cached(tmp_path) == []
    assert of_this_run(tmp_path) == []


def test_eight_at_once(engine: Engine, project: str, run: Command, tmp_path: Path, way: tuple[str, ...]) -> None:
    built = [images.build(engine.host) for _ in range(8)]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = (*way, "--project-uuid", project)
    processes = [run.start(*words, image.name, env={"TMPDIR": str(temporary)}) for image in built]
    ends = [process.communicate(timeout=100) for process in processes]
    uuids = {stored(Result(process.returncode, *end)) for process, end in zip(processes, ends, strict=True)}
    assert len(uuids) == 8
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    assert cached(tmp_path) == []
    assert of_this_run(tmp_path) == []
