"""Faults, settings and the log of requests."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest
import requests
from arvados.api import api_from_config
from arvados.keep import KeepClient

from arv_keepdocker.sandbox import Sandbox, SandboxError

from .conftest import Http, keep_url

FOO = hashlib.md5(b"foo").hexdigest()


def test_status(active: Http, clean: Sandbox) -> None:
    clean.fault("status", service="api", path="users/current", status=503, errors=["try later"], skip=1, times=2)
    statuses = [active("GET", "users/current").status_code for _ in range(4)]
    assert statuses == [200, 503, 503, 200]
    assert [(f["seen"], f["struck"]) for f in clean.faults()] == [(4, 2)]


@pytest.mark.parametrize(
    ("spec", "strikes"),
    [
        ({"method": "GET"}, True),
        ({"method": "POST"}, False),
        ({"path": r'links\?.*"docker_image_hash"'}, True),
        ({"path": "collections"}, False),
        ({"service": "keep"}, False),
        ({"body": "hash"}, False),
    ],
)
def test_matching(active: Http, clean: Sandbox, spec: dict[str, Any], strikes: bool) -> None:
    clean.fault("status", status=418, **spec)
    response = active("GET", "links", params={"filters": '[["link_class","=","docker_image_hash"]]'})
    assert response.status_code == (418 if strikes else 200)


def test_matching_the_body(active: Http, clean: Sandbox) -> None:
    clean.fault("status", method="POST", path="links", body="docker_image_repo", status=500)
    assert active("POST", "links", {"link_class": "docker_image_hash"}).status_code == 200
    assert active("POST", "links", {"link_class": "docker_image_repo+tag"}).status_code == 500


@pytest.mark.parametrize("action", ["drop", "drop-after", "half-body"])
def test_connection_faults(active: Http, clean: Sandbox, action: str) -> None:
    name = f"{action} {time.time()}"
    clean.fault(action, service="api", method="POST", path="/links")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        active("POST", "links", {"name": name})
    # All but "drop" did the work.
    assert len(active.list("links", filters=[["name", "=", name]])["items"]) == (action != "drop")


def test_garbage(active: Http, clean: Sandbox) -> None:
    clean.fault("garbage", service="api")
    response = active("GET", "users/current")
    assert response.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        response.json()


def test_delay_then_another(active: Http, clean: Sandbox) -> None:
    clean.fault("delay", seconds=0.3)
    clean.fault("status", status=500)
    before = time.monotonic()
    assert active("GET", "users/current").status_code == 500
    assert time.monotonic() - before >= 0.3


def test_expired_signature(active: Http, clean: Sandbox) -> None:
    keep = keep_url(active)
    locator = active.put_block(b"foo")
    clean.fault("expired-signature", service="api")
    clean.fault("expired-signature", service="keep", method="GET|HEAD", times=2)
    active.good("GET", "users/current")
    status, text = active.bad("POST", "collections", {})
    assert status == 403
    assert "PermissionDeniedError" in text
    assert [active(m, keep + locator).status_code for m in ("GET", "HEAD", "GET")] == [401, 401, 200]


@pytest.mark.parametrize(("action", "status"), [("full", 507), ("read-only", 405)])
def test_keep_faults(active: Http, clean: Sandbox, action: str, status: int) -> None:
    keep = keep_url(active)
    clean.fault(action, service="keep", method="PUT")
    assert active("PUT", keep + FOO, data=b"foo").status_code == status
    assert active("PUT", keep + FOO, data=b"foo").status_code == 200


def test_half_a_block(active: Http, clean: Sandbox) -> None:
    keep = keep_url(active)
    locator = active.put_block(b"foo")
    clean.fault("half-body", service="keep", method="GET")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        active("GET", keep + locator)


def test_bad_orders(clean: Sandbox) -> None:
    with pytest.raises(SandboxError, match="unknown action"):
        clean.fault("explode")
    with pytest.raises(SandboxError):
        clean.fault("drop", nonsense=1)
    with pytest.raises(SandboxError):
        clean.fault("drop", path="(")
    with pytest.raises(SandboxError):
        clean.settings(nonsense=1)


def test_control_is_for_administrators(active: Http, nobody: Http) -> None:
    assert active.bad("GET", "/sandbox/requests")[0] == 403
    assert nobody.bad("GET", "/sandbox/requests")[0] == 401


def test_log(active: Http, clean: Sandbox) -> None:
    keep = keep_url(active)
    active.list("links", filters=[["name", "=", "x"]])
    active("PUT", keep + FOO, data=b"foo")
    active.bad("GET", "links/nosuch")
    listing, put, missing = clean.requests()[-3:]
    assert (listing["service"], listing["method"], listing["path"]) == ("api", "GET", "/arvados/v1/links")
    assert listing["query"] == {"filters": '[["name", "=", "x"]]'}
    assert listing["response_size"] > 20
    assert (put["service"], put["method"], put["path"], put["request_size"]) == ("keep", "PUT", f"/{FOO}", 3)
    assert missing["status"] == 404
    assert abs(missing["time"] - time.time()) < 60
    clean.clear_requests()
    assert clean.requests() == []


def test_latency_and_bandwidth(active: Http, clean: Sandbox) -> None:
    keep = keep_url(active)
    data = bytes(1 << 20)
    locator = active.put_block(data)
    clean.settings(latency_ms=200, keep_bandwidth=2e6)
    for minimum, method, path, body in (
        (0.2, "GET", "users/current", None),
        (0.7, "PUT", keep + hashlib.md5(data).hexdigest(), data),
        (0.7, "GET", keep + locator, None),
    ):
        before = time.monotonic()
        assert active(method, path, data=body).status_code == 200
        assert minimum <= time.monotonic() - before < minimum + 2


def test_keep_stopped(active: Http, clean: Sandbox) -> None:
    keep = keep_url(active)
    with ThreadPoolExecutor(1) as pool:
        with clean.keep_stopped():
            put = pool.submit(active, "PUT", keep + FOO, data=b"foo")
            with pytest.raises(FutureTimeoutError):
                put.result(0.5)
        assert put.result(10).status_code == 200


def test_keep_stopped_in_the_middle(active: Http, clean: Sandbox) -> None:
    """What was begun goes on; a limit of the bandwidth makes sure that there is a middle."""
    keep = keep_url(active)
    data = bytes(1 << 20)
    clean.settings(keep_bandwidth=1 << 20)
    reading = threading.Event()

    def body() -> Iterator[bytes]:
        for start in range(0, len(data), 1 << 16):
            if start:
                reading.set()
            yield data[start : start + (1 << 16)]

    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(active, "PUT", keep + hashlib.md5(data).hexdigest(), data=body())
        assert reading.wait(10)
        with clean.keep_stopped(), pytest.raises(FutureTimeoutError):
            put.result(1.5)
        assert put.result(10).status_code == 200


def test_bandwidth_is_felt_by_the_sender(active: Http, clean: Sandbox) -> None:
    """The last piece is taken near the end, not when it fits into some buffer."""
    keep = keep_url(active)
    data = bytes(8 << 20)
    clean.settings(keep_bandwidth=4 << 20)
    taken: list[float] = []

    def body() -> Iterator[bytes]:
        for start in range(0, len(data), 1 << 16):
            taken.append(time.monotonic())
            yield data[start : start + (1 << 16)]

    active("PUT", keep + hashlib.md5(data).hexdigest(), data=body())
    assert (taken[-1] - taken[0]) / (time.monotonic() - taken[0]) > 0.5


def test_keep_proxy(active: Http, clean: Sandbox) -> None:
    keep = keep_url(active)
    clean.settings(keep_proxy=True)
    assert active.good("GET", "keep_services/accessible")["items"][0]["service_type"] == "proxy"
    response = active("PUT", keep + FOO, data=b"foo")
    assert response.headers["X-Keep-Replicas-Stored"] == "2"
    assert "X-Keep-Storage-Classes-Confirmed" not in response.headers
    api = api_from_config("v1", clean.environment(), cache=False)
    try:
        assert KeepClient(api_client=api, num_retries=0).put(b"foo").startswith(f"{FOO}+3+A")
    finally:
        api.close()


def test_rails_down(active: Http, clean: Sandbox) -> None:
    keep = keep_url(active)
    clean.fault("rails-down", times=None)
    for method, path in (("GET", "users/current"), ("POST", "links"), ("GET", "/discovery/v1/apis/arvados/v1/rest")):
        status, text = active.bad(method, path)
        assert status == 500
        assert text.startswith(f'{method.capitalize()} "//railsapi.internal/')
        assert "connection refused" in text
    assert active.good("GET", "config")["ClusterID"] == "zzzzz"
    assert active("PUT", keep + FOO, data=b"foo").status_code == 200


def test_changed_for_a_while(clean: Sandbox) -> None:
    before = clean.settings()
    with clean.changed(signature_ttl=7, keep_proxy=True):
        assert clean.settings() == {**before, "signature_ttl": 7, "keep_proxy": True}
    assert clean.settings() == before


def test_busy(active: Http, clean: Sandbox) -> None:
    clean.fault("busy")
    response = active("GET", "users/current")
    assert (response.status_code, response.content) == (503, b"")
    assert active("GET", "users/current").status_code == 200


@pytest.mark.parametrize("action", ["rails-down", "busy"])
def test_faults_of_the_api_only(clean: Sandbox, action: str) -> None:
    with pytest.raises(SandboxError, match="of the API only"):
        clean.fault(action, service="keep")


def test_blocks_that_are_none(clean: Sandbox) -> None:
    with pytest.raises(SandboxError, match="no MD5 hash"):
        clean.lose_block("nonsense")


def test_formats(nobody: Http, clean: Sandbox) -> None:
    clean.settings(docker_image_formats=[])
    assert nobody.good("GET", "/discovery/v1/apis/arvados/v1/rest")["dockerImageFormats"] == []
