"""The address of a collection in the Workbench."""

from .client import ArvadosClient


def collection_url(client: ArvadosClient, uuid: str) -> str | None:
    """The URL of a collection in the cluster's Workbench 2; None if the cluster names no Workbench 2."""
    url = client.api._rootDesc.get("workbench2Url")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return None
    return f"{url.rstrip('/')}/collections/{uuid}"
