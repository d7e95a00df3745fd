"""Media types of images: the OCI image specification's, and those of Docker that came before them.

https://github.com/opencontainers/image-spec/blob/main/media-types.md,
https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

INDEX_TYPES = (OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = (OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
CONFIG_TYPES = (
    OCI_CONFIG,
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",  # what very old versions of docker wrote
)
LAYER_PREFIXES = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
"""How the media types of layers begin; the compression follows."""
