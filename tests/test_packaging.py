"""What a wheel has beside the package: a manual page and the shells' completions, made from the parser."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from arv_keepdocker.cli import help_texts
from arv_keepdocker.cli.parser import option_parser

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
COMMANDS = ("arv-keepdocker", "keepdocker")


@pytest.fixture(scope="session")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel of this very source installs under share/."""
    own = tmp_path_factory.mktemp("wheel")
    # Of the processes that run tests side by side, only the first one makes it.
    common = own.parents[1] / "wheel" if "PYTEST_XDIST_WORKER" in os.environ else own / "made"
    common.mkdir(exist_ok=True)
    with (common / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(common.glob("*.whl")):
            make_wheel(tmp_path_factory.mktemp("source"), common)
    (wheel,) = common.glob("arv_keepdocker-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(own)
    (data,) = own.glob("arv_keepdocker-*.data")
    return data / "data" / "share"


def make_wheel(source: Path, wheels: Path) -> None:
    for name in ("setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "arv_keepdocker", source / "arv_keepdocker")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    alone = ["--use-pep517", "--no-build-isolation", "--no-deps", "--no-index"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*pip, *alone, f"--wheel-dir={wheels}", str(source)], check=True, timeout=120, env=environment)


def options() -> set[str]:
    return {option for action in option_parser()._actions for option in action.option_strings}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_manual_page_has_every_option(share: Path, command: str) -> None:
    page = (share / "man" / "man1" / f"{command}.1").read_text().replace("\\", "")
    assert set(re.findall(r"(?:^|, )fB(--?[a-z][a-z-]*)fR", page, re.MULTILINE)) == options()
    assert f"{command} - {help_texts.PURPOSE}".rstrip(".") in page


@pytest.mark.parametrize("command", COMMANDS)
def test_zsh_knows_every_option(share: Path, command: str) -> None:
    script = (share / "zsh" / "site-functions" / f"_{command}").read_text()
    assert script.startswith(f"#compdef {command}\n")
    assert set(re.findall(r"(?<=[\"{,*])(--?[a-z][a-z-]*)(?=[\[,}])", script)) == options()


def completed(share: Path, line: str) -> set[str]:
    """What bash offers at the end of the line, in place of what follows the last space, : or =."""
    command = line.partition(" ")[0]
    code = f"""
        source {share}/bash-completion/completions/{command}
        compopt() {{ :; }}
        read -ra registration <<<"$(complete -p {command})"
        COMP_LINE=$1 COMP_POINT=${{#1}} COMP_TYPE=9
        for ((i = 0; i < ${{#registration[@]}}; i++)); do
            [ "${{registration[i]}}" != -F ] || "${{registration[i + 1]}}" {command}
        done
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    shell = ["bash", "--norc", "-c", code, "bash", line]
    environment = {**os.environ, "PATH": f"{share}:{os.environ['PATH']}"}
    done = subprocess.run(shell, capture_output=True, text=True, check=True, cwd=share, env=environment)
    return set(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_bash_completes(share: Path, command: str) -> None:
    docker = share / "docker"
    docker.write_text("#!/bin/sh\n[ \"$1 $2\" = 'image ls' ] && printf 'b/tool:1.0\\nb/tool:2.0\\n<none>:<none>\\n'\n")
    docker.chmod(0o755)
    assert completed(share, f"{command} -") == options()
    assert completed(share, f"{command} ") == {"images", "b/tool:1.0", "b/tool:2.0"}
    assert completed(share, f"{command} im") == {"images"}
    assert completed(share, f"{command} --pull b/tool:1") == {"1.0"}
    assert completed(share, f"{command} images --form") == {"--format"}
    assert completed(share, f"{command} images --format ") == {"table", "wide", "json", "jsonl"}
    assert completed(share, f"{command} images --format=w") == {"wide"}
    assert completed(share, f"{command} images --sort n") == {"name"}
    assert completed(share, f"{command} images --filter ref") == {"reference="}
    assert completed(share, f"{command} images --filter dangling=") == {"true", "false"}
    assert completed(share, f"{command} images --filter=d") == {"dangling=true", "dangling=false"}
    assert completed(share, f"{command} --engine ") == {"docker", "podman"}
    assert completed(share, f"{command} --platform linux/arm") == {"linux/arm64"}
    assert completed(share, f"{command} --from-archive z") == {"zsh"}
