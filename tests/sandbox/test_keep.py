"""Keep: blocks in and out, signatures, and what it refuses."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from arvados.api import api_from_config
from arvados.keep import KeepClient

from arv_keepdocker.sandbox import Sandbox

from .conftest import Http, keep_url

FOO = hashlib.md5(b"foo").hexdigest()
EMPTY = hashlib.md5(b"").hexdigest()


@pytest.fixture(scope="module")
def keep(active: Http) -> str:
    return keep_url(active)


def test_put(active: Http, keep: str) -> None:
    response = active("PUT", keep + FOO, data=b"foo")
    assert response.status_code == 200
    assert re.fullmatch(FOO + r"\+3\+A[0-9a-f]{40}@[0-9a-f]{8}\n", response.text)
    assert response.headers["X-Keep-Replicas-Stored"] == "2"
    assert response.headers["X-Keep-Storage-Classes-Confirmed"] == "default=2"


def test_put_does_not_check_the_token(nobody: Http, keep: str) -> None:
    assert nobody("PUT", keep + FOO, data=b"foo").text == f"{FOO}+3\n"
    signed = nobody("PUT", keep + FOO, data=b"foo", token="whatever").text.strip()
    assert nobody("GET", keep + signed, token="whatever").content == b"foo"


@pytest.mark.parametrize(
    ("path", "data", "headers", "status", "text"),
    [
        (EMPTY, b"foo", {}, 400, r"content hash .* did not match specified locator"),
        (FOO, b"x" * ((64 << 20) + 1), {}, 413, ""),
        (FOO, b"foo", {"X-Keep-Storage-Classes": "nosuch"}, 507, "insufficient storage"),
        ("nonsense", b"foo", {}, 400, "Bad Request"),
        ("", b"foo", {}, 400, "Bad Request"),
    ],
)
def test_bad_put(
    active: Http, keep: str, path: str, data: bytes, headers: dict[str, str], status: int, text: str
) -> None:
    response = active("PUT", keep + path, data=data, headers=headers)
    assert response.status_code == status
    assert re.search(text, response.text)


def test_get_and_head(active: Http, keep: str) -> None:
    locator = active.put_block(b"foo")
    assert active("GET", keep + locator).content == b"foo"
    head = active("HEAD", keep + locator)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "3", b"")
    empty = active.put_block(b"")
    assert active("GET", keep + empty).content == b""


def test_bad_get(active: Http, spectator: Http, nobody: Http, keep: str, clean: Sandbox) -> None:
    locator = active.put_block(b"foo")
    clean.settings(signature_ttl=-5)
    expired = active.put_block(b"foo")
    clean.settings(signature_ttl=1209600)
    absent = active("PUT", keep + FOO, data=b"foo").text.strip().replace(FOO, "0" * 32)
    for http, path, status, text in (
        (active, f"{FOO}+3", 400, "invalid signature"),
        (active, f"{EMPTY}+0", 400, "invalid signature"),
        (spectator, locator, 400, "invalid signature"),
        (active, absent, 400, "invalid signature"),
        (active, expired, 401, "expired signature"),
        (nobody, locator, 401, "no token provided in Authorization header"),
        (active, FOO, 405, ""),
    ):
        response = http("GET", keep + path)
        assert response.status_code == status
        assert text in response.text
        assert http("HEAD", keep + path).status_code == status


def test_hints_are_not_signed(active: Http, keep: str) -> None:
    locator = active.put_block(b"foo")
    assert active("GET", keep + locator.replace("+3+", "+3+Kx+")).content == b"foo"


@pytest.mark.parametrize("size", ["+9+", "+2+", "+0+"])
def test_wrong_size(active: Http, keep: str, size: str) -> None:
    response = active("GET", keep + active.put_block(b"foo").replace("+3+", size))
    assert (response.status_code, response.content) == (200, b"")


def test_junk_paths(active: Http, nobody: Http, keep: str) -> None:
    for path in ("", "nonsense", FOO[:-1], f"{FOO}+3+a", f"index/{FOO}"):
        assert active("GET", keep + path).status_code == 400
    assert active("POST", keep + FOO, data=b"foo").status_code == 400
    assert active("GET", f"{keep}_health/ping").status_code == 403
    assert nobody("GET", f"{keep}_health/ping").status_code == 401


def test_headers(active: Http, keep: str) -> None:
    put = active("PUT", keep + FOO, data=b"foo", headers={"X-Request-Id": "req-ours"})
    assert (put.headers["Content-Type"], put.headers["X-Request-Id"]) == ("text/plain; charset=utf-8", "req-ours")
    assert active("GET", f"{keep}{FOO}+3").headers["Content-Type"] == "text/plain; charset=utf-8"
    head = active("HEAD", keep + put.text.strip())
    assert "Content-Type" not in head.headers
    assert re.fullmatch(r"req-\w{20}", active("PUT", keep + FOO, data=b"foo").headers["X-Request-Id"])


def test_lost_block(active: Http, sandbox: Sandbox, keep: str) -> None:
    locator = active.put_block(b"to be lost")
    assert locator[:32] in sandbox.blocks()
    assert sandbox.lose_block(locator)
    assert locator[:32] not in sandbox.blocks()
    assert [active(method, keep + locator).status_code for method in ("GET", "HEAD")] == [404, 404]
    assert not sandbox.lose_block(locator)
    active.put_block(b"to be lost")
    assert active("GET", keep + locator).content == b"to be lost"


def test_absent_block(active: Http, keep: str) -> None:
    with Sandbox(discard_blocks=True) as other:
        http = Http(other, "active")
        url = keep_url(http)
        locator = http.put_block(b"foo")
        assert http("GET", url + locator).status_code == 404
        assert http("HEAD", url + locator).headers["Content-Length"] == "3"
        http.session.close()


def test_one_block_from_many(active: Http, keep: str) -> None:
    before = threading.active_count()
    data = bytes(range(256)) * (1 << 16)
    with ThreadPoolExecutor(8) as pool:
        locators = list(pool.map(lambda _: active.put_block(data), range(8)))
    assert active("GET", keep + locators[0]).content == data
    assert threading.active_count() <= before


# Several services


@pytest.fixture(scope="module")
def two() -> Iterator[Sandbox]:
    with Sandbox(keep_services=2) as running:
        yield running


def test_two_services(two: Sandbox) -> None:
    two.clear_requests()
    api = api_from_config("v1", two.environment(), cache=False)
    try:
        client = KeepClient(api_client=api, num_retries=0)
        assert client.get(client.put(b"foo", copies=2)) == b"foo"
    finally:
        api.close()
    puts = [entry["instance"] for entry in two.requests() if entry["method"] == "PUT"]
    assert sorted(puts) == [0, 1]


def test_one_of_two_fails(two: Sandbox) -> None:
    http = Http(two, "active")
    two.fault("full", service="keep", instance=1, times=None)
    answers = [http("PUT", keep_url(http, n) + FOO, data=b"foo") for n in range(2)]
    two.clear_faults()
    http.session.close()
    assert [answer.status_code for answer in answers] == [200, 507]
    assert answers[0].headers["X-Keep-Replicas-Stored"] == "1"
