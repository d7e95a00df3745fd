"""What a wheel has beside the package: a manual page and the shells' completions, made from the parser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from arv_keepdocker.cli.main import option_parser

ROOT = Path(__file__).parent.parent
COMMANDS = ("arv-keepdocker", "keepdocker")


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel of this very source installs under share/."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "arv_keepdocker", source / "arv_keepdocker")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    alone = ["--use-pep517", "--no-build-isolation", "--no-deps", "--no-index"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*pip, *alone, f"--wheel-dir={wheels}", str(source)], check=True, timeout=120, env=environment)
    (wheel,) = wheels.glob("arv_keepdocker-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheels)
    (data,) = wheels.glob("arv_keepdocker-*.data")
    return data / "data" / "share"


def options() -> set[str]:
    return {option for action in option_parser()._actions for option in action.option_strings}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_manual_page_has_every_option(share: Path, command: str) -> None:
    page = (share / "man" / "man1" / f"{command}.1").read_text().replace("\\", "")
    assert set(re.findall(r"fB(--?[a-z][a-z-]*)fR", page)) == options() - {"-h", "--help"}
    assert "exit status" in page
    assert f"{command} - Put container images into Arvados" in page.replace("fB", "").replace("fR", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_zsh_knows_every_option(share: Path, command: str) -> None:
    script = (share / "zsh" / "site-functions" / f"_{command}").read_text()
    assert script.startswith(f"#compdef {command}\n")
    assert set(re.findall(r"(?<=[\"{,*])(--?[a-z][a-z-]*)(?=[\[,}])", script)) == options()


def completed(share: Path, command: str, *words: str) -> set[str]:
    """What bash offers for the last word."""
    script = share / "bash-completion" / "completions" / command
    code = f"""
        source {script}
        read -ra registration <<<"$(complete -p {command})"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        for ((i = 0; i < ${{#registration[@]}}; i++)); do
            [ "${{registration[i]}}" != -F ] || "${{registration[i + 1]}}" "$1" "${{!#}}" "${{@: -2:1}}"
        done
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    shell = ["bash", "--norc", "-c", code, "bash", command, *words]
    done = subprocess.run(shell, capture_output=True, text=True, check=True, cwd=share)
    return set(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_bash_completes(share: Path, command: str) -> None:
    assert completed(share, command, "-") == options()
    assert completed(share, command, "images", "--form") == {"--format"}
    assert completed(share, command, "images", "--format", "") == {"table", "wide", "json", "jsonl"}
    assert completed(share, command, "images", "--sort", "n") == {"name"}
    assert completed(share, command, "--from-archive", "z") == {"zsh"}
