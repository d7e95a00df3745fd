"""The token is shown and kept nowhere, nobody else can read what is kept, and nobody else is talked to."""

from __future__ import annotations

import base64
import http.server
import io
import json
import os
import re
import sys
import textwrap
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from arv_keepdocker.sandbox.certificate import tls_context
from arv_keepdocker.terminal.display import Display
from tests import images
from tests.conftest import Cluster, Command, stored
from tests.engines import Engine
from tests.test_failures import DockerThat, Way, failed, nothing_recorded, wait_until

DEBUGGING = pytest.mark.parametrize("debug", [None, "1"], ids=["", "debugging"])


def secret_of(run: Command) -> str:
    """The part of the token by which one can be the user."""
    token = run.environment["ARVADOS_API_TOKEN"]
    secret = token.rpartition("/")[2]
    assert len(secret) > 30
    return secret


def kept(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and not path.is_symlink()}


# Shown and kept nowhere


def test_the_engine_is_not_told(
    engine: Engine, project: str, run: Command, docker_that: DockerThat, tmp_path: Path
) -> None:
    image = images.build(engine.host)
    tells = docker_that(f'{{ echo "$0 $*"; tr "\\0" "\\n" </proc/$PPID/cmdline; env; }} >>{tmp_path}/told; real "$@"')
    stored(run.anew()("--project-uuid", project, image.name, env=tells))
    told = (tmp_path / "told").read_text()
    assert f"image save {image.id}" in told
    assert "XDG_CACHE_HOME" in told
    assert secret_of(run) not in told


@DEBUGGING
def test_what_goes_well_shows_and_keeps_no_token(
    engine: Engine, project: str, run: Command, tmp_path: Path, debug: str | None
) -> None:
    image = images.build(engine.host)
    for words in (["--project-uuid", project, image.name], ["images", "--project-uuid", project]):
        result = run(*words, env={"ARVADOS_DEBUG": debug})
        assert result.status == 0
        assert ("DEBUG" in result.stderr) == (debug is not None and words[0] != "images")
        assert secret_of(run) not in result.stdout + result.stderr
    files = kept(tmp_path)
    assert any("discovery" in str(path) for path in files)
    assert not [path for path, data in files.items() if secret_of(run).encode() in data]


@DEBUGGING
def test_an_interrupted_upload_keeps_no_token(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, tmp_path: Path, debug: str | None, way: Way
) -> None:
    image = images.build(engine.host)
    sandbox.fault("status", service="keep", method="PUT", status=503, times=None)
    result = run(*way, "--project-uuid", project, "--retries=0", image.name, env={"ARVADOS_DEBUG": debug})
    assert result.status == 6
    assert secret_of(run) not in result.stderr
    files = kept(tmp_path)
    assert any(path.name == f"{image.id}.tar" for path in files) == bool(way)
    assert not [path for path, data in files.items() if secret_of(run).encode() in data]


@DEBUGGING
@pytest.mark.parametrize("path", ["users/current", "/links", "/collections", "discovery"])
@pytest.mark.parametrize("whole", [True, False], ids=["token", "secret"])
def test_arvados_repeats_the_token(
    sandbox: Sandbox, project: str, run: Command, archive: str, path: str, whole: bool, debug: str | None
) -> None:
    told = run.environment["ARVADOS_API_TOKEN"] if whole else secret_of(run)
    says = [f"who is {told}?\nnobody is {told}"]
    sandbox.fault("status", service="api", path=path, status=422, errors=says, times=None)
    result = run("--retries=0", "--from-archive", archive, env={"ARVADOS_DEBUG": debug})
    assert result.status == 6
    assert secret_of(run) not in result.stderr
    assert "nobody is (hidden)" in result.stderr
    assert ("Traceback" in result.stderr) == (debug is not None)


def spellings(token: str) -> dict[str, str]:
    """A token as libraries, servers and terminals may write it."""
    both = token.encode()
    return {
        "repr": repr(token),
        "repr of repr": repr(repr(token)),
        "JSON": json.dumps(token).replace("/", "\\/"),
        "list": repr(list(token)),
        "URL": urllib.parse.quote(token, safe=""),
        "URL in URL": urllib.parse.quote(urllib.parse.quote(token, safe=""), safe=""),
        "all percent": "".join(f"%{byte:02X}" for byte in both),
        "hexadecimal escapes": "".join(f"\\x{byte:02x}" for byte in both),
        "Unicode escapes": "".join(f"\\u{byte:04X}" for byte in both),
        "octal escapes": "".join(f"\\{byte:03o}" for byte in both),
        "HTML": "".join(f"&#{byte};" for byte in both),
        "HTML, hexadecimal": "".join(f"&#x{byte:X};" for byte in both),
        "shell": token.replace("/", "\\/").replace("-", "\\-"),
        "capitals": token.upper(),
        "hexadecimal": both.hex(),
        **{f"Basic, {user}": base64.b64encode(user.encode() + b":" + both).decode() for user in ("u", "us", "usr")},
        "base64 for URLs": base64.urlsafe_b64encode(both + b"??>").decode(),
        "wrapped": "\n".join(textwrap.wrap(token, 20)),
        "quoted pieces": " ".join(f"'{piece}'" for piece in textwrap.wrap(token, 16)),
        "begin": token[:-20],
        "end": token[-20:],
    }


def test_no_spelling_of_the_token_is_shown(sandbox: Sandbox, run: Command) -> None:
    token = run.environment["ARVADOS_API_TOKEN"]
    for part in (token, secret_of(run)):
        for name, spelling in spellings(part).items():
            shown = cleaned(token, f"<{spelling}>")
            assert "(hidden)" in shown, name
            assert len(shown) < len("<(hidden)>") + 16, name
    says = [f"{name}: {spelling}" for name, spelling in spellings(token).items()]
    for debug in (None, "1"):
        sandbox.clear_faults()
        sandbox.fault("status", service="api", path="/links", status=422, errors=says, times=None)
        result = run("--retries=0", "images", env={"ARVADOS_DEBUG": debug})
        assert result.status == 6
        for spelling in spellings(token).values():
            assert spelling not in result.stderr
            assert spelling.replace("\\", "\\\\") not in result.stderr


def test_what_is_no_token_is_shown(run: Command) -> None:
    token = run.environment["ARVADOS_API_TOKEN"]
    for text in (
        "docker says: no",
        "/etc/arvados 100% \\x41 &amp; &#65;",
        "zzzzz-4zz18-0123456789abcde",
        "sha256:" + "0a" * 32,
    ):
        assert cleaned(token, text) == text


def cleaned(token: str, text: str) -> str:
    """The text as the program shows it to the user whose token that is."""
    display = Display(io.StringIO())
    display.hide(token)
    return display.clean(text)


def test_a_token_on_the_command_line(run: Command) -> None:
    token = run.environment["ARVADOS_API_TOKEN"]
    for words in ([token], ["images", token, token, token], [f"--{token}"], ["--limit", token], ["--filter", token]):
        result = run(*words)
        assert result.status != 0
        assert secret_of(run) not in result.stderr


@DEBUGGING
def test_keep_repeats_the_token(sandbox: Sandbox, project: str, run: Command, archive: str, debug: str | None) -> None:
    says = [f"who is {run.environment['ARVADOS_API_TOKEN']}?"]
    sandbox.fault("status", service="keep", status=422, errors=says, times=None)
    words = ("--project-uuid", project, "--retries=0", "--from-archive", archive)
    result = run(*words, env={"ARVADOS_DEBUG": debug})
    assert result.status == 6
    assert secret_of(run) not in result.stderr


# As threads do that still send a block when another could not be stored.
SAYS_MORE_AFTERWARDS = """
import logging, os, sys
from arv_keepdocker.cli import main

for _ in range(2):
    try:
        main.main(sys.argv[1:])
    except SystemExit:
        logging.getLogger("arvados.keep").debug("who is %s?", os.environ["ARVADOS_API_TOKEN"])
"""


def test_the_sdk_repeats_the_token_when_the_run_has_ended(run: Command) -> None:
    python = replace(run, argv=[sys.executable, "-c", SAYS_MORE_AFTERWARDS], warm=None)
    result = python("images", env={"ARVADOS_DEBUG": "1"})
    assert secret_of(run) not in result.stderr
    assert result.stderr.count("who is (hidden)?") == 2


@DEBUGGING
def test_docker_repeats_the_token(run: Command, docker_that: DockerThat, debug: str | None) -> None:
    environment = docker_that(f"echo 'who is {run.environment['ARVADOS_API_TOKEN']}?' >&2; exit 1")
    result = run(images.unique_name(), env={**environment, "ARVADOS_DEBUG": debug})
    assert result.status == 4
    assert secret_of(run) not in result.stderr
    assert "who is (hidden)?" in result.stderr


def test_a_token_from_the_settings_file_is_a_token_too(sandbox: Sandbox, run: Command, tmp_path: Path) -> None:
    settings = tmp_path / "home" / ".config" / "arvados" / "settings.conf"
    settings.parent.mkdir(parents=True)
    token = run.environment["ARVADOS_API_TOKEN"]
    settings.write_text(f"ARVADOS_API_TOKEN={token}\n")
    sandbox.fault("status", service="api", path="/links", status=422, errors=[f"who is {token}?"], times=None)
    result = run("--retries=0", "images", env={"ARVADOS_API_TOKEN": None})
    failed(result, 6, "who is (hidden)?")
    assert secret_of(run) not in result.stderr


# Nobody else can read it


@pytest.mark.parametrize("umask", ["000", "022", "077", "277", "777"])
def test_files_are_the_users_own_whatever_the_umask(
    engine: Engine, sandbox: Sandbox, project: str, run: Command, tmp_path: Path, umask: str, way: Way
) -> None:
    image = images.build_big(engine.host, 10, layers=2)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "new" / "cache")}
    # Of the first blocks that are sent at once, one arrives.
    sandbox.fault("delay", service="keep", method="PUT", seconds=20, skip=0 if way else 1, times=None)
    own = os.umask(int(umask, 8))
    process = run.start(*way, "--project-uuid", project, image.name, env=environment)
    os.umask(own)
    directory = tmp_path / "new" / "cache" / "arvados" / "docker"
    wait_until(lambda: any(fault["struck"] for fault in sandbox.faults()) and len(list(directory.iterdir())) > 1)
    process.kill()
    process.communicate()
    assert directory.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    (kept_for_next_run,) = set(modes) - {f"{image.id}.lock"}
    assert kept_for_next_run == f"{image.id}.tar" if way else kept_for_next_run.endswith(".journal")
    assert set(modes.values()) == {0o600}
    sandbox.clear_faults()
    stored(run(*way, "--project-uuid", project, image.name, env=environment))
    assert [path.name for path in directory.iterdir() if path.suffix != ".journal"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_a_cache_directory_of_somebody_else(
    engine: Engine, cluster: Cluster, project: str, run: Command, tmp_path: Path
) -> None:
    image = images.build(engine.host)
    directory = tmp_path / "cache" / "arvados" / "docker"
    directory.mkdir(parents=True)
    os.chown(directory, 1, 1)
    failed(run("--via-arv-put", "--project-uuid", project, image.name), 1, "not a directory that belongs to you")
    assert nothing_recorded(cluster, project)
    assert list(directory.iterdir()) == []
    # It can be done without.
    result = run("--project-uuid", project, image.name)
    stored(result)
    assert "not a directory that belongs to you" in result.stderr
    assert list(directory.iterdir()) == []


def test_no_core_files(engine: Engine, project: str, run: Command, docker_that: DockerThat, tmp_path: Path) -> None:
    """Neither ours, with the token in it, nor the engine's program's."""
    image = images.build(engine.host)
    allowed = Command(
        ["sh", "-c", 'ulimit -S -c $(ulimit -H -c); exec "$@"', "sh", *run.argv],
        run.directory,
        run.environment,
        run.processes,
    )
    tells = docker_that(f'{{ ulimit -c; grep core /proc/$PPID/limits; }} >>{tmp_path}/told; real "$@"')
    stored(allowed("--project-uuid", project, image.name, env=tells))
    told = (tmp_path / "told").read_text().splitlines()
    assert set(told[::2]) == {"0"}
    assert all(re.fullmatch(r"Max core file size\s+0\s.*", line) for line in told[1::2])


# Nobody else is talked to


class _Listener(http.server.BaseHTTPRequestHandler):
    """A Keep service of somebody else's; it refuses everything."""

    heard: list[str]

    def do_PUT(self) -> None:
        self.heard.append(self.path)
        self.send_error(403)

    do_GET = do_HEAD = do_POST = do_PUT

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def listening(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """The URL of a server whose certificate nobody knows, and what it hears."""
    heard: list[str] = []
    handler = type("Handler", (_Listener,), {"heard": heard})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # of TLS that the client gives up
        server.socket = tls_context(directory / "other.pem").wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}/", heard
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("insecure", [None, "0", "no", "1", "yes"])
def test_servers_are_checked_unless_the_user_says_otherwise(
    sandbox: Sandbox, project: str, run: Command, archive: str, tmp_path: Path, insecure: str | None
) -> None:
    trusting = insecure in ("1", "yes")
    with listening(tmp_path) as (url, heard):
        keep = {
            "ARVADOS_API_HOST_INSECURE": insecure,
            "SSL_CERT_FILE": str(sandbox.certificate),
            "ARVADOS_KEEP_SERVICES": url,
        }
        words = ("--project-uuid", project, "--retries=0", "--from-archive", archive)
        failed(run(*words, env=keep), 6, "403" if trusting else "ertificate")
        assert bool(heard) == trusting
        heard.clear()
        host = url.removeprefix("https://").removesuffix("/")
        failed(run(*words, env={**keep, "ARVADOS_API_HOST": host}), 6, "403" if trusting else "ertificate")
        assert bool(heard) == trusting
