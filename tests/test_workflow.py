"""A CWL workflow whose images --images-from has stored: arvados-cwl-runner finds them all, and needs no docker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from tests import images
from tests.conftest import Cluster, Command
from tests.engines import Engine

VERSION = "3.2.1"
DOCUMENT = Path(__file__).parent.parent / ".github" / "MANY.md"
WORKFLOW = """\
cwlVersion: v1.2
class: Workflow
inputs: {word: {type: string, default: hello}}
outputs: {result: {type: File, outputSource: count/result}}
steps:
  say: {run: tool.cwl, in: {word: word}, out: [result]}
  count:
    run:
      class: CommandLineTool
      requirements: {DockerRequirement: {dockerPull: "OTHER"}}
      baseCommand: wc
      inputs: {file: {type: File, inputBinding: {}}}
      outputs: {result: stdout}
    in: {file: say/result}
    out: [result]
"""
TOOL = """\
cwlVersion: v1.2
class: CommandLineTool
hints: {DockerRequirement: {dockerPull: "TOOL"}}
baseCommand: echo
inputs: {word: {type: string, inputBinding: {}}}
outputs: {result: stdout}
"""


@pytest.fixture(scope="session")
def cwl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of arvados-cwl-runner and cwl-utils, in an environment of their own: their requirements are exact.

    It is kept in the one that the tests run in. ARV_KEEPDOCKER_TEST_CWL names another one.
    """
    there = os.environ.get("ARV_KEEPDOCKER_TEST_CWL")
    if there:
        return Path(there, "bin")
    is_kept = sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK)
    directory = Path(sys.prefix, f"cwl-{VERSION}") if is_kept else tmp_path_factory.mktemp("cwl")
    installed = directory / "installed"
    if installed.exists():
        return directory / "bin"
    venv.create(directory, with_pip=True, clear=True)
    pip = [str(directory / "bin" / "pip"), "install", "--quiet", "--no-compile"]  # of which little is used
    done = subprocess.run(
        [*pip, f"arvados-cwl-runner=={VERSION}", "setuptools<81"], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        pytest.skip(f"arvados-cwl-runner cannot be installed: {done.stderr[-500:]}")
    installed.touch()
    return directory / "bin"


@pytest.mark.long
def test_every_image_of_a_workflow_is_found(
    engine: Engine, cluster: Cluster, project: str, cwl: Path, run: Command, tmp_path: Path
) -> None:
    from arvados.collection import Collection

    tool, other, runner = (images.build(engine.host) for _ in range(3))
    (tmp_path / "workflow.cwl").write_text(WORKFLOW.replace("OTHER", other.name))
    (tmp_path / "tool.cwl").write_text(TOOL.replace("TOOL", tool.name))
    (tmp_path / "bin").mkdir()
    for name in ("sed", "true", "sh"):
        (tmp_path / "bin" / name).symlink_to(f"/bin/{name}")
    path = {"PATH": f"{cwl}:{tmp_path / 'bin'}"}  # without docker
    (extract,) = re.findall("^cwl-docker-extract .*$", DOCUMENT.read_text(), re.MULTILINE)
    extracted = replace(run.anew(), argv=["sh", "-c", extract])(env=path)
    assert extracted.status == 0, extracted.stderr
    assert sorted((tmp_path / "images.txt").read_text().splitlines()) == sorted([tool.name, other.name])

    with (tmp_path / "images.txt").open("a") as file:
        file.write(f"{runner.name}\n")
    stored = run("--project-uuid", project, "--portable-data-hash", "--images-from", "images.txt")
    assert stored.status == 0, stored.stderr
    contents = {name: content for content, name in map(str.split, stored.stdout.splitlines())}

    words = ("--submit", "--no-wait", "--project-uuid", project, "--submit-runner-image", runner.name, "workflow.cwl")
    runner_command = replace(run.anew(), argv=[str(cwl / "arvados-cwl-runner")])
    submitted = runner_command(*words, env=path, timeout=300)
    assert submitted.status == 0, submitted.stderr
    request = cluster.api().container_requests().get(uuid=submitted.stdout.strip()).execute()
    assert request["container_image"] in (runner.name, contents[runner.name])
    steps = request["mounts"]["/var/lib/cwl/workflow.json"]["content"]["$graph"][0]["steps"]
    uploaded = Collection(steps[0]["run"].removeprefix("keep:").partition("/")[0], api_client=cluster.api())
    packed = "".join(uploaded.open(name).read() for name in ("workflow.cwl", "tool.cwl"))
    for image in (tool, other):
        assert contents[image.name] in packed  # as dockerCollectionPDH
