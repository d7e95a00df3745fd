"""Every command in the documents is one that the program takes, and prints in README what README shows."""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from arv_keepdocker.cli.parser import option_parser
from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.bench import session as recording
from tests.conftest import Cluster, image_run_for
from tests.engines import RUN, Engine

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / ".github").glob("*.md"))]
OURS = ("arv-keepdocker", "keepdocker")
VARIABLE = [
    (r"[0-9a-z]{5}-[0-9a-z]{5}-[0-9a-z]{15}", "UUID"),
    (r"sha256:[0-9a-f]{5,64}", "ID"),
    (r"\b[0-9a-f]{32}\+[0-9]+", "HASH"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"\([0-9.]+ s\)", "(SECONDS)"),
    (r" +", " "),
]
"""What is another at every run, and what takes its place before texts are compared."""

REPOSITORIES = f"akd-{RUN}-readme"
"""In place of README's `bio`: the engine may be the user's, or have the recorded session's images of the same names."""
MARK = "------"


@dataclass
class Reader:
    """Someone who types what README says."""

    home: Path
    environment: dict[str, str]
    cluster: Cluster

    def runs(self, commands: Sequence[str]) -> list[str]:
        """What each command prints in one session of a shell, stderr and stdout as a terminal shows them."""
        script = f'{{ status=$?; echo "{MARK}"; (exit $status); }}\n'.join(f"{command}\n" for command in commands)
        words = ["bash", "-c", f"exec 2>&1\n{script}".replace("bio/", f"{REPOSITORIES}/")]
        done = subprocess.run(words, cwd=self.home, env=self.environment, stdout=subprocess.PIPE, text=True)
        return done.stdout.replace(f"{REPOSITORIES}/", "bio/").split(f"{MARK}\n")


def code(document: Path) -> list[tuple[str, str]]:
    """The code blocks, each with its language, without the indentation that they have in a list."""
    blocks = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE)) for indent, language, text in blocks]


def sessions(document: Path) -> Iterator[list[tuple[str, str]]]:
    """The commands of each block that is a session in a shell, with their outputs."""
    for language, text in code(document):
        if language == "console":
            assert text.startswith("$ ")
            parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
            yield [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def commands(document: Path) -> Iterator[str]:
    """What begins with the program's name, in a line of code or between backquotes."""
    lines = [line for _, text in code(document) for line in text.splitlines()]
    text = re.sub(r"^( *)```.*?^\1```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
        for part in re.split(r" \| | > | && ", re.sub(r"^(\$|- run:|-) ", "", line.strip())):
            if part.partition(" ")[0].rpartition("/")[2] in OURS and " " in part:
                yield part


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_have_the_options_that_there_are(document: Path) -> None:
    for command in commands(document):
        words = shlex.split(re.sub(r"\$\{\{.*?\}\}", "value", command), comments=True)[1:]
        if "X" not in words and "..." not in words:
            option_parser().parse_intermixed_args([word for word in words if word not in ("--help", "-h")])


def test_documents_show_commands() -> None:
    assert len(list(commands(ROOT / "README.md"))) > 15
    assert sum(map(len, sessions(ROOT / "README.md"))) >= 9


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (document.parent / target).exists(), target
    headings = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.+)$", text, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 200
    assert "$ arv-keepdocker images" in lines[:25]


@pytest.fixture(scope="module")
def reader(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """README's reader, who has three images in the engine, and a cluster that has none."""
    home = tmp_path_factory.mktemp("reader")
    chance = random.Random(0)
    base = {"base": chance.randbytes(30 << 20)}
    for name, layers, month in (
        ("aligner:2.0", [{"aligner": chance.randbytes(24 << 20)}], 2),
        ("tool:1.0", [base, {"tool": chance.randbytes(12 << 20)}], 3),
        ("tool:1.1", [base, {"tool": chance.randbytes(12 << 20)}], 4),
    ):
        images.build(engine.host, f"{REPOSITORIES}/{name}", layers=layers, created=f"2024-0{month}-01T12:00:00Z")
    program = home / "arv-keepdocker"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m arv_keepdocker "$@"\n')
    program.chmod(0o755)
    with Sandbox() as sandbox:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ARVADOS_", "XDG_"))}
        environment.update(engine.environment)
        environment.update(sandbox.environment())
        environment.update(HOME=str(home), PATH=f"{home}:{os.environ['PATH']}", PYTHONPATH=str(ROOT))
        cluster = Cluster(sandbox)
        yield Reader(home, environment, cluster)
        cluster.close()


def normal(text: str) -> str:
    for pattern, name in VARIABLE:
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@pytest.mark.long
def test_readme_shows_what_is_printed(reader: Reader) -> None:
    for session in sessions(ROOT / "README.md"):
        printed = reader.runs([command for command, _ in session])
        for (command, shown), output in zip(session, printed, strict=True):
            assert normal(output) == normal(shown), command


def test_a_workflow_gets_the_image_that_readme_stores(reader: Reader) -> None:
    (name,) = re.findall(r"dockerPull: (\S+)", (ROOT / "README.md").read_text())
    (listed,) = reader.runs([f"arv-keepdocker {name} 2>/dev/null"])
    api = reader.cluster.api()
    content = api.collections().get(uuid=listed.strip()).execute()["portable_data_hash"]
    home = api.users().current().execute()["uuid"]
    assert image_run_for(api, name.replace("bio/", f"{REPOSITORIES}/"), home) == content


@pytest.mark.long
def test_the_recorded_session_is_what_is_shown_today(engine: Engine) -> None:
    assert recording.normal(recording.recorded(engine)) == recording.normal(recording.FILE.read_text())
