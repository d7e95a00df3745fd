"""The images in Arvados, in the order in which the API server prefers them."""

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from ..images.reference import DEFAULT_TAG
from . import queries
from .client import ArvadosClient, Record, like
from .links import EPOCH, FIELDS, HASH_LINK, NAME_LINK, Link, age_key, parse_time
from .queries import LinkedCollections, owned_by

_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})", re.IGNORECASE)
_OWNER = ("owner_uuid",)
_SECOND = datetime.timedelta(seconds=1)

ImageListing = tuple[str, dict[str, Any]]
"""A collection's UUID, and a dictionary with the keys that arvados-cwl-runner and arv-copy use."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One name (or none) of one collection that is an image by its links."""

    collection: str
    """The collection's UUID."""
    record: Record
    """The requested fields of the collection."""
    image_id: str | None
    """The name of the docker_image_hash link; None if there is only a name."""
    name: str | None
    """The name of the docker_image_repo+tag link, `repository:tag`; None if there is only an id."""
    link: Link
    """The link that decides the order: the oldest of those with the same name and head."""

    @property
    def owner(self) -> str:
        """UUID of the project or user that owns the collection."""
        return str(self.record["owner_uuid"])

    @property
    def size(self) -> int:
        """Bytes of the collection's content."""
        return int(self.record["file_size_total"])

    @property
    def timestamp(self) -> int:
        """When the image was built, in seconds since 1970; 0 if unknown."""
        return in_seconds(self.link.time)

    @property
    def order(self) -> tuple[int, datetime.datetime]:
        """A sort key; the greater is preferred.

        The API server compares image_timestamp in whole seconds, none counting as 1970, then the link's age
        (measured on Arvados 3.2.1).
        """
        return self.timestamp, self.link.created

    @property
    def properties(self) -> Record:
        """The properties of the deciding link."""
        return self.link.properties

    @property
    def created(self) -> datetime.datetime:
        """When the image was built or, if that is unknown, the link was created; in the time zone as recorded."""
        return parse_time(self.link.time) or self.link.created

    def as_listing(self) -> ImageListing:
        repository, tag = ("<none>", "<none>") if self.name is None else split_name(self.name)
        return self.collection, {
            "dockerhash": self.image_id or "<unknown>",
            "repo": repository,
            "tag": tag,
            "timestamp": self.created.replace(tzinfo=None),
            "collection": self.collection,
            "_sort_key": self.order,
        }


def in_seconds(image_timestamp: object) -> int:
    """The time that a link records, in seconds since 1970; 0 if it is none."""
    time = parse_time(image_timestamp)
    return 0 if time is None else (time - EPOCH) // _SECOND


def split_name(name: str) -> tuple[str, str]:
    """The repository and tag of a recorded name; of `repo@sha256:<hex>` the halves at the last colon."""
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon else (tag, "<none>")


def all_images(client: ArvadosClient, project: str | None = None, fields: Sequence[str] = _OWNER) -> list[StoredImage]:
    """All readable images, the most preferred first; with `project`, those whose links and collection it owns."""
    return _ordered(queries.all_linked_collections(client, project, fields))


def by_name(
    client: ArvadosClient, name: str, project: str | None = None, fields: Sequence[str] = _OWNER
) -> list[StoredImage]:
    """The readable images that have exactly this `repository:tag`, the most preferred first."""
    filters = [["link_class", "=", NAME_LINK], ["name", "=", name], *owned_by(project)]
    links = list(client.list_all("links", filters, FIELDS))
    links += _links_of(client, links, HASH_LINK, project)
    return _ordered(queries.linked_collections(client, links, project, fields))


def names_in_repository(client: ArvadosClient, repository: str, project: str | None = None) -> list[str]:
    """The names of the readable images of a repository, `repository:tag`, the most preferred first."""
    filters = [["link_class", "=", NAME_LINK], ["name", "like", f"{like(repository)}:%"], *owned_by(project)]
    links = list(client.list_all("links", filters, FIELDS))
    images = _ordered(queries.linked_collections(client, links, project, _OWNER))
    return list(dict.fromkeys(image.name for image in images if image.name is not None))


def preferred_collection(client: ArvadosClient, name: str) -> str | None:
    """The head of the most preferred link of this `repository:tag`, whether or not the user can read it.

    It takes one request, which is enough if the head is the expected one.
    """
    filters = [["link_class", "=", NAME_LINK], ["name", "=", name]]
    links = [Link.of(record) for record in client.list_all("links", filters, FIELDS)]
    images = _ordered(LinkedCollections(names=links, collections={link.collection: {} for link in links}))
    return images[0].collection if images else None


def by_id_prefix(
    client: ArvadosClient, id_prefix: str, project: str | None = None, fields: Sequence[str] = _OWNER
) -> list[StoredImage]:
    """The readable images whose id begins with `id_prefix` (`sha256:` and digits), the most preferred first."""
    whole = len(id_prefix) == len("sha256:") + 64
    links = _hash_links(client, ["name", "=", id_prefix] if whole else ["name", "like", f"{id_prefix}%"], project)
    links += _links_of(client, links, NAME_LINK, project)
    return _ordered(queries.linked_collections(client, links, project, fields))


def by_hash_link(
    client: ArvadosClient, image_id: str | None = None, condition: Sequence[object] | None = None
) -> list[StoredImage]:
    """The readable collections with a docker_image_hash link named `image_id`, or one that matches `condition`,
    whatever their names; the most preferred first."""
    condition = ["name", "=", image_id] if condition is None else condition
    return _ordered(queries.linked_collections(client, _hash_links(client, condition, None), None, _OWNER))


def matching(
    client: ArvadosClient,
    name: str | None = None,
    tag: str | None = None,
    project: str | None = None,
    fields: Sequence[str] = (),
) -> list[StoredImage]:
    """All images, or those of a name: exactly `name`:`tag` or, without a tag, those whose id begins with `name`.

    `fields` are the fields to read of the collections.
    """
    if not name:
        return all_images(client, project, fields)
    if name == "sha256" and tag is not None:
        # arvados-cwl-runner cuts an id at the colon.
        name, tag = f"{name}:{tag}", None
    found = by_name(client, f"{name}:{tag or DEFAULT_TAG}", project, fields)
    digits = _ID_PREFIX.fullmatch(name)
    if not found and tag is None and digits is not None:
        found = by_id_prefix(client, f"sha256:{digits[1].lower()}", project, fields)
    return found


def owner_names(client: ArvadosClient, images: Iterable[StoredImage]) -> dict[str, str]:
    """The names of the projects and users that own the images, by UUID, as far as the user can read them."""
    owners = sorted({image.owner for image in images})
    projects = [uuid for uuid in owners if uuid.startswith(f"{client.uuid_prefix}-j7d0g-")]
    users = [uuid for uuid in owners if uuid.startswith(f"{client.uuid_prefix}-tpzed-")]
    names = {group["uuid"]: group["name"] or "" for group in client.list_in("groups", "uuid", projects, [], ["name"])}
    for user in client.list_in("users", "uuid", users, [], ["first_name", "last_name"]):
        names[user["uuid"]] = f"{user['first_name'] or ''} {user['last_name'] or ''}".strip()
    return names


def _hash_links(client: ArvadosClient, condition: Sequence[object], project: str | None) -> list[Record]:
    return list(client.list_all("links", [["link_class", "=", HASH_LINK], condition, *owned_by(project)], FIELDS))


def _links_of(client: ArvadosClient, links: Iterable[Record], link_class: str, project: str | None) -> list[Record]:
    """The links of this class to the same collections."""
    heads = sorted({link["head_uuid"] for link in links})
    filters = [["link_class", "=", link_class], *owned_by(project)]
    return list(client.list_in("links", "head_uuid", heads, filters, FIELDS))


def _ordered(found: LinkedCollections) -> list[StoredImage]:
    """The images, the most preferred first; those that are equal to the server are in a fixed order.

    Of several links with the same name and head, the server takes the oldest.
    """
    images: list[StoredImage] = []
    hashes: dict[str, Link] = {}
    for link in sorted(found.hashes, key=age_key):
        hashes.setdefault(link.collection, link)
    named: set[str] = set()
    for key in (age_key, attrgetter("name"), attrgetter("collection")):
        found.names.sort(key=key)
    for (collection, name), links in groupby(found.names, key=attrgetter("collection", "name")):
        if (record := found.collections.get(collection)) is not None:
            image_id = hashes[collection].name if collection in hashes else found.ids.get(collection)
            images.append(StoredImage(collection, record, image_id, name, next(links)))
            named.add(collection)
    for collection, link in sorted(hashes.items()):
        if collection in found.collections and collection not in named:
            images.append(StoredImage(collection, found.collections[collection], link.name, None, link))
    # Sorted by `order`, without a tuple for each image.
    for key in (attrgetter("link.created"), attrgetter("timestamp")):
        images.sort(key=key, reverse=True)
    return images
