"""What the program says of itself: help, and the tables that the manual page is made from, are true."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import arv_keepdocker
from arv_keepdocker import errors
from arv_keepdocker.cli import help_texts, manual
from arv_keepdocker.cli.filters import Filters
from arv_keepdocker.cli.parser import option_parser
from arv_keepdocker.errors import UsageError
from tests import images
from tests.conftest import Command, stored
from tests.engines import Engine

PACKAGE = Path(arv_keepdocker.__file__).parent
SDKS = {"ARVADOS_API_HOST_INSECURE", "SSL_CERT_FILE"}
"""Environment variables that only the SDK reads."""
DOCKERS = {"DOCKER_HOST"}
NOT_THE_USERS = {"HOME", "CACHE_DIRECTORY", "CONFIGURATION_DIRECTORY", "DOCKER_CONTENT_TRUST"}
NOT_VARIABLES = {
    *("HTTP_REQUEST", "WRONG_VERSION_NUMBER"),  # OpenSSL's reasons
    *("BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID"),  # a registry's
    *("MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_UNKNOWN", "SIZE_INVALID"),
}


def sections(text: str) -> dict[str, str]:
    """The help's parts by their titles."""
    parts = re.split(r"^([a-z ]+):\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_help_comes_in_groups_that_fit_a_terminal(run: Command) -> None:
    result = run("--help", env={"COLUMNS": "200"})
    assert (result.status, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) < 80
    found = sections(result.stdout)
    groups = ["image", "source", "project", "transfer", "output", "listing"]
    assert list(found) == [*groups, "exit status", "environment", "files"]
    assert not re.findall(r"`|%\(", result.stdout)
    for action in option_parser()._actions:
        names = ", ".join(action.option_strings) or action.metavar
        assert [title for title in groups if re.search(rf"^  {names}( |$)", found[title], re.MULTILINE)], names
    for status, meaning in help_texts.EXIT_STATUSES.items():
        assert re.search(rf"^  {status} +{meaning.split()[0]}", found["exit status"], re.MULTILINE)
    for table, title in ((help_texts.ENVIRONMENT, "environment"), (help_texts.FILES, "files")):
        assert [line.split()[0] for line in found[title].splitlines() if re.match("  [^ ]", line)] == list(table)


def test_short_help(run: Command) -> None:
    result = run("-h", env={"COLUMNS": "200"})
    assert (result.status, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "usage: arv-keepdocker [OPTIONS] IMAGE [TAG]"
    assert len(lines) < 32
    assert max(map(len, lines)) < 80
    assert "--help" in lines[-1]
    assert len(run("--help").stdout.splitlines()) > 2 * len(lines)


def test_abbreviated_help(run: Command) -> None:
    assert run("--he").stdout == run("debian", "--help").stdout == run("--help").stdout


def test_exit_statuses_are_those_that_there_are() -> None:
    def below(cls: type[errors.KeepdockerError]) -> set[int]:
        return {cls.exit_status}.union(*map(below, cls.__subclasses__()))

    others = {0, 7, 130, 143}
    assert set(help_texts.EXIT_STATUSES) == below(errors.KeepdockerError) | others


def variables() -> set[str]:
    """What looks like the name of an environment variable anywhere in the package but in the tables."""
    trees = [
        ast.parse(path.read_text())
        for path in PACKAGE.rglob("*.py")
        if not {"sandbox", "help_texts.py"} & {*path.parts}
    ]
    texts = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {text for text in texts if isinstance(text, str) and re.fullmatch(r"TERM|HOME|[A-Z]+(_[A-Z]+)+", text)}


def test_environment_variables_are_those_that_there_are() -> None:
    others = variables() - NOT_THE_USERS - NOT_VARIABLES
    assert set(help_texts.ENVIRONMENT) == others | SDKS | DOCKERS


def test_files_are_where_they_are_said_to_be(engine: Engine, run: Command, project: str) -> None:
    home = run.directory / "home"
    settings, cache = "~/.config/arvados/settings.conf", "~/.cache/arvados/docker"
    assert {settings, cache} < {*help_texts.FILES}
    names = ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN")
    path = home / settings.removeprefix("~/")
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{name}={run.environment[name]}\n" for name in names))
    environment = {**dict.fromkeys(names), "XDG_CACHE_HOME": None}
    stored(run("--project-uuid", project, images.build(engine.host).name, env=environment))
    assert list((home / cache.removeprefix("~/")).iterdir())


def test_json_has_the_keys_that_are_documented(engine: Engine, run: Command, project: str) -> None:
    stored(run("--project-uuid", project, images.build(engine.host).name))
    for form in ("json", "jsonl"):
        found = json.loads(run("images", "--project-uuid", project, "--format", form).stdout)
        (image,) = found if form == "json" else [found]
        assert list(image) == list(help_texts.JSON_KEYS)


def test_filters_are_those_that_there_are(run: Command) -> None:
    for pattern in help_texts.FILTERS:
        Filters.parse([pattern])
    keys = dict.fromkeys(pattern.partition("=")[0] for pattern in help_texts.FILTERS)
    with pytest.raises(UsageError) as error:
        Filters.parse(["nosuch=1"])
    assert error.value.hint == f"There are {', '.join(f'{key}=...' for key in keys)}."


def test_examples_are_commands_that_there_are() -> None:
    for _, command in help_texts.EXAMPLES:
        ours = [part for part in command.split(" | ") if part.startswith("arv-keepdocker ")]
        assert ours
        for part in ours:
            option_parser().parse_intermixed_args(shlex.split(part)[1:])


def test_the_manual_page(tmp_path: Path) -> None:
    page = manual.page(option_parser(), "1.2.3", "2024-03-01")
    titles = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "FILTERS", "JSON", "EXAMPLES"]
    assert re.findall(r'^\.SH "(.+)"$', page, re.MULTILINE) == [
        *titles,
        "EXIT STATUS",
        "ENVIRONMENT",
        "FILES",
        "SEE ALSO",
    ]
    assert not re.findall(r"^[.'](?!TH |SH |SS |TP$|PP$|RS 4$|RE$|nf$|fi$|br$|B ).*", page, re.MULTILINE)
    plain = re.sub(r"\\f[BIR]", "", page).replace("\\-", "-").replace("\\(ti", "~").replace("\\&", "")
    tables = (
        help_texts.EXIT_STATUSES,
        help_texts.ENVIRONMENT,
        help_texts.FILES,
        help_texts.FILTERS,
        help_texts.JSON_KEYS,
        help_texts.RESULT_KEYS,
        help_texts.CHECK_KEYS,
    )
    for term in [str(term) for table in tables for term in table] + [command for _, command in help_texts.EXAMPLES]:
        assert f"\n{term}\n" in plain
    (tmp_path / "page.1").write_text(page)
    for checker in (["mandoc", "-T", "lint"], ["groff", "-man", "-ww", "-z"]):
        if shutil.which(checker[0]):
            done = subprocess.run([*checker, "page.1"], cwd=tmp_path, capture_output=True, text=True)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
