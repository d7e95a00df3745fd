"""The document that describes an image in a canonical archive: a manifest or, in the universal form, the universal
document, which is both a manifest and a configuration (see `canonical`)."""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ArchiveError
from .image import UNIVERSAL_OF
from .layers import Layer, sha256
from .media_types import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST

_EMBEDDED_LIMIT = 1 << 20
"""Bytes of the largest configuration that the universal document carries."""
_OF_MANIFESTS = {"schemaversion", "mediatype", "artifacttype", "config", "layers", "subject", "annotations"}
"""The members of a manifest (OCI image specification), in lower case, because Go ignores case."""
_OF_DESCRIPTORS = {"mediatype", "digest", "size", "urls", "annotations", "data", "platform", "artifacttype"}


def manifest(config: bytes, layers: Iterable[Layer]) -> bytes:
    """The plain form's document, an OCI image manifest."""
    return dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config),
            "layers": list(map(_layer_descriptor, layers)),
        }
    )


def universal_document(config: bytes, layers: Iterable[Layer]) -> bytes:
    """The universal form's. Raises ArchiveError if the configuration is not a JSON object that can be written again."""
    document = _without_manifest(_parsed(config))
    annotations = {UNIVERSAL_OF: base64.b64encode(config).decode()}
    return dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            **document,
            "config": {**document["config"], **descriptor(OCI_CONFIG, config)},
            "layers": list(map(_layer_descriptor, layers)),
            **({"annotations": annotations} if len(config) <= _EMBEDDED_LIMIT else {}),
        }
    )


def _without_manifest(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without members that a manifest has, but always with `config` and `history`: without `history`,
    podman takes a universal document for a manifest only."""
    found: dict[str, Any] = {"config": {}}
    history: Any = None
    for key, value in config.items():
        if _folded(key) == "config":
            settings = value if isinstance(value, dict) else {}
            found["config"] = {name: each for name, each in settings.items() if _folded(name) not in _OF_DESCRIPTORS}
        elif _folded(key) == "history":
            history = value
        elif _folded(key) not in _OF_MANIFESTS:
            found[key] = value
    return {**found, "history": history if history is not None else []}


def is_same_image(config: bytes, other: bytes) -> bool:
    """Whether two configurations differ at most in what makes a universal document of one."""
    return _without_manifest(_parsed(config)) == _without_manifest(_parsed(other))


def _folded(key: str) -> str:
    """A member's name as Go compares it (encoding/json)."""
    return key.casefold()


def _parsed(config: bytes) -> dict[str, Any]:
    try:
        document = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"the image's configuration is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ArchiveError("the image's configuration is not a JSON object")
    return document


def descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    """The OCI content descriptor of a document."""
    return {"mediaType": media_type, "digest": sha256(blob), "size": len(blob)}


def _layer_descriptor(layer: Layer) -> dict[str, Any]:
    compression = f"+{layer.compression}" if layer.compression is not None else ""
    return {"mediaType": OCI_LAYER + compression, "digest": layer.stored_digest, "size": layer.size}


def layer_of(descriptor: Mapping[str, Any], diff_id: str) -> Layer:
    """The layer that has this descriptor."""
    compression = descriptor["mediaType"].removeprefix(OCI_LAYER).removeprefix("+") or None
    digest = descriptor["digest"]
    return Layer(diff_id, int(descriptor["size"]), digest if digest != diff_id else "", compression)


def dump(document: object) -> bytes:
    """Compact JSON, in ASCII, since readers differ on other characters."""
    try:
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # 1e999 reads as infinity, which JSON cannot write
        raise ArchiveError(f"the image's configuration cannot be written again: {error}") from error
