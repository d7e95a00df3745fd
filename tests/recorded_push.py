"""How Docker's containerd image store pushes, as it was recorded on 29.7: every blob is asked for and then put as it
is, the manifests after what they name, the last one under the tag."""

from __future__ import annotations

import http.client
import json
import tarfile
from collections.abc import Iterator
from urllib.parse import urlencode

TYPE_CHECKING = False  # as in tests.recorded_program
if TYPE_CHECKING:
    from typing import Any

_INDEX = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_DOCUMENTS = ("index.v1+json", "manifest.list.v2+json", "manifest.v1+json", "manifest.v2+json")


class NotPushed(Exception):
    """Its only argument is what docker says."""


def push(archive: str, descriptor: dict[str, Any], name: str) -> None:
    """Push what the descriptor names, whose content is in the archive, to the registry that the name begins with."""
    host, _, rest = name.partition("/")
    repository, _, tag = rest.rpartition(":")
    print(f"The push refers to repository [{host}/{repository}]", flush=True)
    with tarfile.open(archive) as blobs:
        client = _Client(host, repository, blobs)
        for each in _children_first(blobs, descriptor):
            client.send(each, tag if each is descriptor else each["digest"])
    print(f"{tag}: digest: {descriptor['digest']} size: {descriptor['size']}")


class _Client:
    def __init__(self, host: str, repository: str, blobs: tarfile.TarFile) -> None:
        self._connection = http.client.HTTPConnection(host)
        self._base = f"/v2/{repository}"
        self._blobs = blobs

    def send(self, descriptor: dict[str, Any], reference: str) -> None:
        digest = descriptor["digest"]
        if "layers" in (content := _json(self._blobs, descriptor)) or "manifests" in content:
            if self._ask("HEAD", f"manifests/{reference}")[0] == 404:
                headers = {"Content-Type": descriptor["mediaType"]}
                self._done(self._ask("PUT", f"manifests/{reference}", _blob(self._blobs, digest), headers))
            return
        if self._ask("HEAD", f"blobs/{digest}")[0] == 200:
            print(f"{digest[7:19]}: Layer already exists", flush=True)
            return
        location = self._done(self._ask("POST", "blobs/uploads/"))
        headers = {"Content-Type": "application/octet-stream"}
        where = f"{location}?{urlencode({'digest': digest})}"
        self._done(self._ask("PUT", where, _blob(self._blobs, digest), headers))
        print(f"{digest[7:19]}: Pushed", flush=True)

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str, bytes]:
        try:
            self._connection.request(method, path if path[0] == "/" else f"{self._base}/{path}", body, headers or {})
            answer = self._connection.getresponse()
            return answer.status, answer.headers.get("Location", ""), answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotPushed(f"failed to do request: {error}") from None

    def _done(self, answer: tuple[int, str, bytes]) -> str:
        status, location, body = answer
        if status not in (201, 202):
            raise NotPushed(f"error from registry: {json.loads(body)['errors'][0]['message']}")
        return location


def _children_first(blobs: tarfile.TarFile, descriptor: dict[str, Any]) -> Iterator[dict[str, Any]]:
    content = _json(blobs, descriptor)
    for manifest in content.get("manifests", ()) if descriptor["mediaType"] in _INDEX else ():
        yield from _children_first(blobs, manifest)
    if "layers" in content:
        yield from (*content["layers"], content["config"])
    yield descriptor


def _json(blobs: tarfile.TarFile, descriptor: dict[str, Any]) -> dict[str, Any]:
    if not descriptor["mediaType"].endswith(_DOCUMENTS):
        return {}
    found: dict[str, Any] = json.loads(_blob(blobs, descriptor["digest"]))
    return found


def _blob(blobs: tarfile.TarFile, digest: str) -> bytes:
    try:
        file = blobs.extractfile(f"blobs/{digest.replace(':', '/')}")
    except KeyError:
        raise NotPushed(f"failed to copy: content digest {digest}: not found") from None
    assert file is not None
    return file.read()
