"""The discovery document and what else the SDK asks for when it starts."""

from __future__ import annotations

from typing import Any

import arvados.api
import pytest

from arv_keepdocker.sandbox import Sandbox

from .conftest import Http


@pytest.fixture(scope="module")
def document(nobody: Http) -> Any:
    return nobody.good("GET", "/discovery/v1/apis/arvados/v1/rest")


def test_the_sdk_can_be_built(sandbox: Sandbox) -> None:
    api = arvados.api.api_from_config("v1", sandbox.environment(), cache=False)
    try:
        assert api.users().current().execute()["username"] == "active"
        assert api.config()["StorageClasses"] == {"default": {"Default": True, "Priority": 0}}
        assert api.links().list(filters=[["name", "=", "none"]]).execute()["items"] == []
        with pytest.raises(TypeError):
            api.links().list(nonsense=1)
    finally:
        api.close()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dockerImageFormats", ["v2"]),
        ("maxRequestSize", 134217728),
        ("defaultCollectionReplication", 2),
        ("uuidPrefix", "zzzzz"),
        ("websocketUrl", ""),
        ("blobSignatureTtl", 1209600),
        ("servicePath", "arvados/v1/"),
    ],
)
def test_values(document: Any, key: str, value: object) -> None:
    assert document[key] == value


def test_root_url_has_the_real_port(document: Any, sandbox: Sandbox) -> None:
    assert document["rootUrl"] == sandbox.url + "/"


@pytest.mark.parametrize(
    ("resource", "method", "http", "path"),
    [
        ("links", "create", "POST", "links"),
        ("collections", "update", "PUT", "collections/{uuid}"),
        ("collections", "untrash", "POST", "collections/{uuid}/untrash"),
        ("groups", "contents", "GET", "groups/contents"),
        ("configs", "get", "GET", "config"),
        ("vocabularies", "get", "GET", "vocabulary"),
        ("keep_services", "accessible", "GET", "keep_services/accessible"),
        ("users", "system", "GET", "users/system"),
    ],
)
def test_methods(document: Any, resource: str, method: str, http: str, path: str) -> None:
    described = document["resources"][resource]["methods"][method]
    assert (described["httpMethod"], described["path"]) == (http, path)
    assert described["id"] == f"arvados.{resource}.{method}"


def test_defaults_are_strings(document: Any) -> None:
    parameters = document["resources"]["collections"]["methods"]["list"]["parameters"]
    assert (parameters["limit"]["default"], parameters["count"]["default"]) == ("100", "exact")
    assert parameters["include_old_versions"]["default"] == "false"


def test_keep_services_need_no_token(nobody: Http) -> None:
    answer = nobody.good("GET", "keep_services/accessible", token="bad")
    assert answer["limit"] is None
    assert answer["offset"] is None
    assert answer["etag"] == ""
    assert answer["items"][0]["service_type"] == "disk"
    assert answer["items"][0]["service_ssl_flag"] is False


def test_config_needs_no_token(nobody: Http) -> None:
    assert nobody.good("GET", "config", token="bad")["ClusterID"] == "zzzzz"
