"""Settings that cannot be right are said at once; what may pass is tried again, and told."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from arv_keepdocker.sandbox import Sandbox
from arv_keepdocker.sandbox.certificate import tls_context
from tests.conftest import Cluster, Command, stored
from tests.test_failures import failed

AT_ONCE = 5
"""Seconds."""
RETRYING = re.compile(r"arv-keepdocker: (.+); trying again in \d+ s \((\d+) of (\d+)\)")


@contextmanager
def at_once() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < AT_ONCE


def no_lines_of_the_sdk(stderr: str) -> bool:
    return all(line.startswith("arv-keepdocker: ") for line in stderr.splitlines())


# What cannot heal


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("https://{}", "it is a URL; leave out https://"),
        ("http://{}/", "it is a URL; leave out http://"),
        ("{}/", "it has a / in it"),
        ("{}/arvados/v1", "it has a / in it"),
        ("{}?x", "it has a ? in it"),
        ("me:swordfish@{}", "a user name"),
        (" {}", "white space"),
        ("{}\n", "white space"),
        ("a host", "white space"),
        ("127.0.0.1:99999", "'99999' is not a port number"),
        ("127.0.0.1:https", "'https' is not a port number"),
        ("127.0.0.1:", "'' is not a port number"),
        ("127.0.0.1:0", "'0' is not a port number"),
        ("::1", "brackets"),
        ("[::1", "brackets"),
        ("a..b", "not a host name"),
        ("x" * 64, "not a host name"),
        ("-x", "not a host name"),
        ("$ARVADOS", "not a host name"),
    ],
)
def test_a_host_that_is_none(sandbox: Sandbox, run: Command, spelling: str, words: str) -> None:
    host = spelling.format(sandbox.environment()["ARVADOS_API_HOST"])
    sandbox.clear_requests()
    with at_once():
        result = run("images", env={"ARVADOS_API_HOST": host})
    failed(result, 6, "ARVADOS_API_HOST", words)
    assert "swordfish" not in result.stderr
    assert sandbox.requests() == []


def test_a_host_that_is_not_known(run: Command) -> None:
    with at_once():
        result = run("images", env={"ARVADOS_API_HOST": "nosuch.invalid:443"})
    failed(result, 6, "nosuch.invalid:443", "does not resolve", "ARVADOS_API_HOST")


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        *(("\n", place) for place in ("begin", "middle", "end")),
        *zip("\r\t \x0b\x1f\x7f\xa0é€\u2028", itertools.cycle(["middle", "end", "begin"]), strict=False),
        ("\\n", "middle"),
        ("\\x", "middle"),
        ("\\", "end"),
    ],
)
def test_a_token_that_no_header_takes(sandbox: Sandbox, run: Command, bad: str, place: str) -> None:
    token = run.environment["ARVADOS_API_TOKEN"]
    secret = token.rpartition("/")[2]
    spoiled = {"begin": bad + token, "middle": token[:-25] + bad + token[-25:], "end": token + bad}[place]
    sandbox.clear_requests()
    with at_once():
        result = run("images", env={"ARVADOS_API_TOKEN": spoiled})
    failed(result, 6, "ARVADOS_API_TOKEN has ", "Copy the token again")
    assert sandbox.requests() == []
    assert secret[:25] not in result.stderr
    assert secret[-25:] not in result.stderr


def test_such_a_token_from_the_settings_file_and_in_a_client(
    sandbox: Sandbox, run: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = run.environment["ARVADOS_API_TOKEN"]
    spoiled = f"{token[:-25]} {token[-25:]}"
    settings = tmp_path / "home" / ".config" / "arvados" / "settings.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"ARVADOS_API_TOKEN={spoiled}\n")
    sandbox.clear_requests()
    result = run("images", env={"ARVADOS_API_TOKEN": None})
    failed(result, 6, "white space")
    assert token[-25:] not in result.stderr
    from arvados.api import api_from_config

    from arv_keepdocker import main

    api = api_from_config("v1", {**sandbox.environment(), "ARVADOS_API_TOKEN": spoiled}, cache=False)
    sandbox.clear_requests()
    try:
        with pytest.raises(SystemExit) as end:
            main(["images"], install_sig_handlers=False, api=api)
    finally:
        api.close_connections()
    assert end.value.code == 6
    shown = capsys.readouterr().err
    assert "white space" in shown
    assert token[-25:] not in shown
    assert sandbox.requests() == []


def test_a_certificate_that_is_not_trusted(run: Command) -> None:
    with at_once():
        result = run("images", env={"ARVADOS_API_HOST_INSECURE": None})
    failed(result, 6, "not trusted: self-signed certificate", "SSL_CERT_FILE", "ARVADOS_API_HOST_INSECURE")


def test_a_file_of_certificates_that_is_not_there(run: Command) -> None:
    result = run("images", env={"ARVADOS_API_HOST_INSECURE": None, "SSL_CERT_FILE": "/nosuch.pem"})
    failed(result, 6, "not trusted", "SSL_CERT_FILE names /nosuch.pem, which does not exist.")


def test_what_the_hint_says_helps(sandbox: Sandbox, run: Command) -> None:
    trusting = {"ARVADOS_API_HOST_INSECURE": None, "SSL_CERT_FILE": str(sandbox.certificate)}
    assert run("images", env=trusting).status == 0


def test_a_certificate_for_another_host(run: Command, tmp_path: Path) -> None:
    with answering(tmp_path, at="127.0.0.2") as host, at_once():
        trusting = {"ARVADOS_API_HOST_INSECURE": None, "SSL_CERT_FILE": str(tmp_path / "page.pem")}
        result = run("images", env={"ARVADOS_API_HOST": host, **trusting})
    failed(result, 6, "not trusted: IP address mismatch", "127.0.0.2", "ARVADOS_API_HOST_INSECURE")


def test_an_archive_for_another_platform(run: Command, archive: str) -> None:
    result = run("--from-archive", archive, "--platform", "linux/arm64")
    failed(result, 5, "the archive has no image for linux/arm64", ", only for linux/amd64")


def test_a_file_of_certificates_that_is_none(run: Command, archive: str) -> None:
    with at_once():
        result = run("images", env={"ARVADOS_API_HOST_INSECURE": None, "SSL_CERT_FILE": archive})
    failed(result, 6, "certificate", "SSL_CERT_FILE")


class _Page(BaseHTTPRequestHandler):
    """Somebody else's server."""

    status, kind, page = 200, "text/html", b"<html>It works!</html>"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def answering(directory: Path | None, at: str = "127.0.0.1", **answer: object) -> Iterator[str]:
    """The host and port of a server that speaks HTTPS if it has a directory for its certificate, else HTTP."""
    with ThreadingHTTPServer((at, 0), type("Page", (_Page,), answer)) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if directory is not None:
            server.socket = tls_context(directory / "page.pem").wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{at}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"status": 404},
        {"kind": "application/json", "page": b"{}"},
        {"kind": "application/json", "page": b"[]"},
        {"page": b""},
    ],
)
def test_a_server_that_is_not_arvados(run: Command, tmp_path: Path, answer: dict[str, object]) -> None:
    with answering(tmp_path, "127.0.0.1", **answer) as host, at_once():
        result = run("images", env={"ARVADOS_API_HOST": host})
    failed(result, 6, host, "not Arvados", "ARVADOS_API_HOST")
    assert no_lines_of_the_sdk(result.stderr)


def test_a_server_that_does_not_speak_https(run: Command) -> None:
    with answering(None) as host, at_once():
        result = run("images", env={"ARVADOS_API_HOST": host})
    failed(result, 6, host, "does not speak HTTPS")


@pytest.mark.parametrize(
    "url", ["nonsense", "keep.example.org:25107", "http://", "ftp://keep/", "http://keep:x/", "//k"]
)
def test_a_keep_service_that_is_no_url(run: Command, url: str) -> None:
    for value in (url, f"http://127.0.0.1:1/ {url}"):
        with at_once():
            result = run("images", env={"ARVADOS_KEEP_SERVICES": value})
        failed(result, 6, "ARVADOS_KEEP_SERVICES", repr(url), "not a URL")


@pytest.mark.parametrize(
    ("url", "words"),
    [("http://nosuch.invalid/", "resolve"), ("https://{api}/", "certificate")],
)
def test_keep_that_cannot_be_found_or_trusted(
    sandbox: Sandbox, project: str, run: Command, archive: str, tmp_path: Path, url: str, words: str
) -> None:
    with answering(tmp_path) as host:
        services = {"ARVADOS_KEEP_SERVICES": url.format(api=host), "SSL_CERT_FILE": str(sandbox.certificate)}
        with at_once():
            result = run(
                *("--project-uuid", project, "--from-archive", archive),
                env={**services, "ARVADOS_API_HOST_INSECURE": None},
            )
    failed(result, 6, "Keep", words)
    assert "Run the same command again" not in result.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can be somebody else")
@pytest.mark.parametrize("complete", [True, False])
def test_the_home_directory_of_somebody_else(run: Command, tmp_path: Path, complete: bool) -> None:
    home = tmp_path / "home"
    settings = home / ".config" / "arvados" / "settings.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("ARVADOS_API_HOST=elsewhere\n")
    home.chmod(0o700)
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *run.argv]
    other = Command(argv, Path("/"), run.environment, run.processes)
    source = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    if other("--version", env=source).status:
        pytest.skip("nobody else can read this program")
    result = other("images", env={**source, **({} if complete else {"ARVADOS_API_HOST": None})})
    if complete:
        assert result.status == 0, result.stderr
    else:
        failed(result, 6, "ARVADOS_API_HOST not set", "settings.conf cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("variable", "kind"),
    [
        *(("HOME", kind) for kind in ("pipe", "directory", "socket", "device", "link to a pipe")),
        *((name, "pipe") for name in ("XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "CONFIGURATION_DIRECTORY")),
    ],
)
def test_settings_that_are_no_file(run: Command, tmp_path: Path, variable: str, kind: str) -> None:
    """The SDK would read a pipe or a device until there is no more, which may never be."""
    below = {"HOME": ".config/arvados", "CONFIGURATION_DIRECTORY": ""}
    settings = tmp_path / "settings" / below.get(variable, "arvados") / "settings.conf"
    settings.parent.mkdir(parents=True)
    if kind == "directory":
        settings.mkdir()
    elif kind == "socket":
        os.mknod(settings, stat.S_IFSOCK | 0o600)  # bind() takes no path as long as the tests' may be
    elif kind == "device":
        settings.symlink_to("/dev/zero")
    elif kind == "link to a pipe":
        os.mkfifo(settings.with_name("pipe"))
        settings.symlink_to("pipe")
    else:
        os.mkfifo(settings)
    environment = {"XDG_CONFIG_HOME": None, variable: str(tmp_path / "settings")}
    result = run("images", env=environment)
    assert result.status == 0, result.stderr
    assert f"warning: {settings} is not a regular file, and was not read" in result.stderr
    result = run("images", env={**environment, "ARVADOS_API_HOST": None})
    failed(result, 6, f"ARVADOS_API_HOST not set, and {settings} is not a regular file")


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "", "1e3"])
def test_retries_that_are_no_number(run: Command, value: str) -> None:
    failed(run(f"--retries={value}", "images"), 2, f"{value!r} is not a number of 0 or more")


def test_more_threads_than_anybody_has(project: str, run: Command, archive: str, way: tuple[str, ...]) -> None:
    stored(run(*way, "--project-uuid", project, "--threads", "100000", "--from-archive", archive))


# What may heal


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        (500, "GET", "discovery"),
        (503, "GET", "/config"),
        (429, "GET", "/groups/"),
        (500, "POST", "/collections"),
        (502, "POST", "/links"),
        (408, "GET", "/links"),
    ],
)
def test_arvados_fails_for_a_while(
    sandbox: Sandbox, project: str, run: Command, archive: str, status: int, method: str, path: str
) -> None:
    sandbox.fault("status", service="api", method=method, path=path, status=status, errors=["wait"], times=2)
    result = run("--silent", "--project-uuid", project, "--from-archive", archive)
    stored(result)
    told = [match.groups() for match in RETRYING.finditer(result.stderr)]
    assert told == [(f"Arvados answered {status}", "1", "10"), (f"Arvados answered {status}", "2", "10")]
    assert no_lines_of_the_sdk(result.stderr)


@pytest.mark.parametrize("action", ["drop", "half-body", "drop-after"])
def test_arvados_breaks_off(sandbox: Sandbox, project: str, run: Command, archive: str, action: str) -> None:
    sandbox.fault(action, service="api", method="GET", path="/groups/", times=1)
    result = run("--silent", "--retries=3", "--project-uuid", project, "--from-archive", archive)
    stored(result)
    if "drop" not in action:  # the library under the SDK asks again itself when nothing came
        assert [match[2] for match in RETRYING.finditer(result.stderr)] == ["1"]
    assert no_lines_of_the_sdk(result.stderr)


def test_a_server_that_starts_late(sandbox: Sandbox, run: Command) -> None:
    """Nothing listens there yet: the port is free, and what is told names it only in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    result = run("--retries=1", "images", env={"ARVADOS_API_HOST": host})
    failed(result, 6, "Connection refused", "(1 of 1)", host)


@pytest.mark.parametrize(
    "fault", [{"action": "status", "status": 503}, {"action": "status", "status": 429}, {"action": "drop"}]
)
def test_keep_fails_for_a_while(
    sandbox: Sandbox, project: str, run: Command, archive: str, fault: dict[str, object]
) -> None:
    sandbox.fault(
        str(fault["action"]), service="keep", method="PUT", times=1, **{k: v for k, v in fault.items() if k != "action"}
    )
    result = run("--silent", "--project-uuid", project, "--from-archive", archive)
    stored(result)
    (told,) = RETRYING.findall(result.stderr)
    assert told[0].startswith(f"Keep answered {fault['status']}" if "status" in fault else "no answer from Keep (")
    assert no_lines_of_the_sdk(result.stderr)


def test_arvados_fails_when_it_is_asked_for_keep(sandbox: Sandbox, project: str, run: Command, archive: str) -> None:
    sandbox.fault("status", service="api", path="keep_services", status=500, times=2)
    result = run("--silent", "--project-uuid", project, "--from-archive", archive)
    stored(result)
    assert [match[1] for match in RETRYING.finditer(result.stderr)] == ["Arvados answered 500"] * 2


def test_what_arv_put_tries_again_is_told(sandbox: Sandbox, project: str, run: Command, archive: str) -> None:
    sandbox.fault("status", service="keep", method="PUT", status=503, times=1)
    sandbox.fault("status", service="api", method="POST", path="/collections", status=500, times=1)
    result = run("--silent", "--via-arv-put", "--project-uuid", project, "--from-archive", archive)
    stored(result)
    assert "arv-put: Keep answered 503" in result.stderr
    assert "Arvados answered 500; trying again in" in result.stderr
    assert no_lines_of_the_sdk(result.stderr)


@pytest.mark.parametrize("status", [403, 404, 422])
def test_a_refusal_is_not_tried_again(sandbox: Sandbox, project: str, run: Command, archive: str, status: int) -> None:
    sandbox.fault("status", service="api", method="POST", path="/collections", status=status, errors=["no"], times=None)
    result = run("--project-uuid", project, "--from-archive", archive)
    failed(result, 6, "no")
    assert "again" not in result.stderr
    assert sandbox.faults()[0]["struck"] == 1


def test_that_the_same_command_goes_on_is_said_where_it_does(
    sandbox: Sandbox, project: str, run: Command, archive: str
) -> None:
    sandbox.fault("status", service="api", method="POST", path="/collections", status=503, times=None)
    failed(run("--retries=0", "--project-uuid", project, "--from-archive", archive), 6, "Run the same command again")


# Words


def test_what_arvados_says_comes_without_addresses_inside_the_cluster(
    sandbox: Sandbox, project: str, run: Command, archive: str
) -> None:
    query = "filters=%5B%5B%22a%22%2C%22b%22%5D%5D&limit=1000"
    says = [
        f"//railsapi.internal/arvados/v1/links?{query}: 422 Unprocessable Entity: Name is bad: really (req-0123abc)"
    ]
    sandbox.fault("status", service="api", path="/links", status=422, errors=says, times=None)
    result = run("images")
    failed(result, 6, "422 Unprocessable Entity: Name is bad: really (req-0123abc)")
    for part in ("railsapi", "limit=1000", "filters="):
        assert part not in result.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("service", "what"), [("api", "waiting for Arvados: "), ("keep", "waiting for Keep to take a block")]
)
def test_what_takes_long_is_told(
    sandbox: Sandbox, project: str, run: Command, archive: str, service: str, what: str
) -> None:
    path = "/groups/" if service == "api" else None
    sandbox.fault("delay", service=service, path=path, seconds=11.5, times=1)
    process = run.start("--silent", "--project-uuid", project, "--from-archive", archive)
    assert process.stderr is not None
    told = process.stderr.readline()
    assert what in told
    process.communicate()
    assert process.returncode == 0


def test_a_collections_name_that_is_not_used(cluster: Cluster, project: str, run: Command, archive: str) -> None:
    note = "the collection exists already, so --name was not used; --force stores the image again"
    words = ("--project-uuid", project, "--from-archive", archive)
    uuid = stored(run(*words))
    name = f"a name {os.urandom(4).hex()}"
    for more in ((), ("other/name:1",)):  # found, then given a name
        result = run(*words, "--name", name, *more)
        assert stored(result) == uuid
        assert note in result.stderr
    forced = run(*words, "--name", name, "--force")
    assert cluster.api().collections().get(uuid=stored(forced)).execute()["name"] == name
    for result in (forced, run(*words)):
        assert "--name" not in result.stderr
    given = ("--project-uuid", project, "--name", name, "--from-arvados")
    assert "--name" not in run(*given, stored(forced)).stderr
    assert note in run(*given, uuid).stderr
    several = run(*given, "--images-from", "-", input=f"{stored(forced)}\n{uuid}\n")
    assert several.stderr.count(note) == 1
