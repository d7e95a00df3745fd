"""The discovery document and what else the SDK asks for when it starts."""

from __future__ import annotations

from typing import Any

import arvados.api
import pytest

from arv_keepdocker.sandbox import Sandbox
from tests.conftest import container_request

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
        ("containers", "create", "POST", "containers"),
        ("containers", "current", "GET", "containers/current"),
        ("containers", "update", "PUT", "containers/{uuid}"),
        ("containers", "delete", "DELETE", "containers/{uuid}"),
        ("container_requests", "update", "PUT", "container_requests/{uuid}"),
        ("container_requests", "delete", "DELETE", "container_requests/{uuid}"),
        ("workflows", "update", "PUT", "workflows/{uuid}"),
        ("workflows", "delete", "DELETE", "workflows/{uuid}"),
        ("computed_permissions", "list", "GET", "computed_permissions"),
        ("sys", "get", "POST", "sys/trash_sweep"),
        *(
            (resource, method, http, f"{resource}/{{uuid}}" if method in ("get", "update", "delete") else resource)
            for resource in ("authorized_keys", "credentials", "logs", "user_agreements", "virtual_machines")
            for method, http in (
                ("list", "GET"),
                ("get", "GET"),
                ("create", "POST"),
                ("update", "PUT"),
                ("delete", "DELETE"),
            )
        ),
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


def test_config(nobody: Http, clean: Sandbox) -> None:
    config = nobody.good("GET", "config")
    assert config["API"] == {
        "FreezeProjectRequiresDescription": False,
        "FreezeProjectRequiresProperties": {},
        "MaxItemsPerResponse": 1000,
        "MaxRequestSize": 134217728,
        "RequestTimeout": "5m",
        "UnfreezeProjectRequiresAdmin": True,
    }
    collections = config["Collections"]
    assert (collections["BlobSigningTTL"], collections["DefaultTrashLifetime"]) == ("336h", "336h")
    assert config["Services"]["Workbench1"] == config["Services"]["Workbench2"] == {"ExternalURL": ""}
    assert (collections["PreserveVersionIfIdle"], collections["ForwardSlashNameSubstitution"]) == ("10s", "")
    for seconds, text in ((1000, "16m40s"), (3661, "1h1m1s"), (3601, "1h0m1s"), (60, "1m"), (5, "5s")):
        clean.settings(signature_ttl=seconds)
        assert nobody.good("GET", "config")["Collections"]["BlobSigningTTL"] == text


@pytest.mark.parametrize(
    "path", ["authorized_keys", "logs/zzzzz-57u5n-000000000000000", "computed_permissions", "virtual_machines"]
)
def test_what_is_not_offered(active: Http, nobody: Http, path: str) -> None:
    status, text = active.bad("GET", path)
    assert status == 422
    assert "not offered here" in text
    assert nobody.bad("GET", path)[0] == 401


def test_schemas_of_what_is_not_offered(document: Any) -> None:
    for resource in document["resources"].values():
        for method in resource["methods"].values():
            assert not method["response"] or method["response"]["$ref"] in document["schemas"]


def test_workflows(active: Http) -> None:
    path = f"workflows/{active.create('workflows', name='a', definition='x')['uuid']}"
    assert active.good("PUT", path, {"workflow": {"name": "b"}})["name"] == "b"
    active.good("DELETE", path)
    assert active.bad("GET", path)[0] == 404


def test_container_requests(active: Http) -> None:
    made = active.good("POST", "container_requests", container_request("x", state="Uncommitted", output_ttl=5))
    assert made["output_ttl"] == 5
    secret = container_request("x", state="Uncommitted", secret_mounts={"/s": {"kind": "text", "content": "s"}})
    assert "secret_mounts" not in active.good("POST", "container_requests", secret)
    assert active.bad("GET", "containers/current")[0] == 404
    path = f"container_requests/{made['uuid']}"
    assert active.good("PUT", path, {"container_request": {"name": "b"}})["name"] == "b"
    image = active.image("d")["portable_data_hash"]
    committed = active.good("PUT", path, {"container_request": {"container_image": image, "state": "Committed"}})
    assert active.good("GET", f"containers/{committed['container_uuid']}")["container_image"] == image
    assert active.bad("PUT", path, {"container_request": {"name": "c"}})[0] == 422
    active.good("DELETE", path)
    assert active.bad("GET", path)[0] == 404


def test_workbench(nobody: Http, clean: Sandbox) -> None:
    clean.settings(workbench2_url="https://workbench.invalid/")
    assert nobody.good("GET", "config")["Services"]["Workbench2"]["ExternalURL"] == "https://workbench.invalid/"
    assert nobody.good("GET", "/discovery/v1/apis/arvados/v1/rest")["workbench2Url"] == "https://workbench.invalid/"
