"""The images that Arvados has, in the order in which its API server prefers them."""

import datetime
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ciso8601

from .cluster import Cluster, Record
from .reference import DEFAULT_TAG

HASH_LINK = "docker_image_hash"
NAME_LINK = "docker_image_repo+tag"
_FIELDS = ("created_at", "head_uuid", "link_class", "name", "owner_uuid", "properties")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})", re.IGNORECASE)

ImageListing = tuple[str, dict[str, Any]]
"""A collection's UUID and what is known of it; the keys are those that arvados-cwl-runner and arv-copy use."""


@dataclass(frozen=True)
class StoredImage:
    """One name (or none) of one collection that links call a container image."""

    collection: str
    """The collection's UUID."""
    owner: str
    """UUID of the project or user that owns the collection."""
    image_id: str | None
    """From the docker_image_hash link; None where only a name is known."""
    name: str | None
    """`repository:tag` from the docker_image_repo+tag link; None where only the id is known."""
    link: Record
    """The link that decides the order: the oldest of those that say the same."""

    @property
    def order(self) -> tuple[int, datetime.datetime, str]:
        """Greater is more preferred.

        The API server compares image_timestamp in whole seconds, none counting as 1970, then the link's age
        (measured on Arvados 3.2.1); what is equal to the server keeps a fixed order here.
        """
        image_time = self._image_time()
        seconds = 0 if image_time is None else int((image_time - _EPOCH).total_seconds() // 1)
        return (seconds, _time(self.link["created_at"]) or _EPOCH, self.link["uuid"])

    @property
    def properties(self) -> Record:
        """The deciding link's."""
        return self.link["properties"] or {}

    def _image_time(self) -> datetime.datetime | None:
        return _time(self.properties.get("image_timestamp"))

    def as_listing(self) -> ImageListing:
        repository, tag = ("<none>", "<none>") if self.name is None else split_name(self.name)
        return self.collection, {
            "dockerhash": self.image_id or "<unknown>",
            "repo": repository,
            "tag": tag,
            "timestamp": (self._image_time() or _time(self.link["created_at"]) or _EPOCH).replace(tzinfo=None),
            "collection": self.collection,
            "_sort_key": self.order,
        }


def split_name(name: str) -> tuple[str, str]:
    """The repository and tag of a recorded name; of `repo@sha256:<hex>` the halves at the last colon."""
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon else (tag, "<none>")


def every(cluster: Cluster, project: str | None = None) -> list[StoredImage]:
    """All images that the user can read, the most preferred first; with `project` those that it owns, links and all."""
    links = list(cluster.find("links", [["link_class", "in", [HASH_LINK, NAME_LINK]], *_owned(project)], _FIELDS))
    return _ordered(_readable(cluster, links, project))


def named(cluster: Cluster, name: str, project: str | None = None) -> list[StoredImage]:
    """The readable images that have exactly this `repository:tag`, the most preferred first."""
    links = list(
        cluster.find("links", [["link_class", "=", NAME_LINK], ["name", "=", name], *_owned(project)], _FIELDS)
    )
    return _ordered(_readable(cluster, links + _links_of(cluster, links, HASH_LINK, project), project))


def by_id(cluster: Cluster, id_prefix: str, project: str | None = None) -> list[StoredImage]:
    """The readable images whose id begins with `id_prefix` (`sha256:` and digits), the most preferred first."""
    whole = len(id_prefix) == len("sha256:") + 64
    links = _hash_links(cluster, ["name", "=", id_prefix] if whole else ["name", "like", f"{id_prefix}%"], project)
    return _ordered(_readable(cluster, links + _links_of(cluster, links, NAME_LINK, project), project))


def holders(
    cluster: Cluster, image_id: str | None = None, condition: Sequence[object] | None = None
) -> list[StoredImage]:
    """The readable collections that are linked as `image_id`, or whose link with their id meets another filter,
    whatever their names; the most preferred first."""
    condition = ["name", "=", image_id] if condition is None else condition
    return _ordered(_readable(cluster, _hash_links(cluster, condition, None), None))


def matching(
    cluster: Cluster, name: str | None = None, tag: str | None = None, project: str | None = None
) -> list[StoredImage]:
    """All images, or those of a name: exactly `name`:`tag` first, and without a tag also ids that begin with `name`."""
    if not name:
        return every(cluster, project)
    if name == "sha256" and tag is not None:
        # arvados-cwl-runner cuts an id at the colon.
        name, tag = f"{name}:{tag}", None
    found = named(cluster, f"{name}:{tag or DEFAULT_TAG}", project)
    digits = _ID_PREFIX.fullmatch(name)
    if not found and tag is None and digits is not None:
        found = by_id(cluster, f"sha256:{digits[1].lower()}", project)
    return found


def _owned(project: str | None) -> Sequence[Sequence[object]]:
    return [] if project is None else [["owner_uuid", "=", project]]


def _hash_links(cluster: Cluster, condition: Sequence[object], project: str | None) -> list[Record]:
    return list(cluster.find("links", [["link_class", "=", HASH_LINK], condition, *_owned(project)], _FIELDS))


def _links_of(cluster: Cluster, links: Iterable[Record], link_class: str, project: str | None) -> list[Record]:
    """The links of the other class to the same collections."""
    heads = sorted({link["head_uuid"] for link in links})
    filters = [["link_class", "=", link_class], *_owned(project)]
    return list(cluster.find_in("links", "head_uuid", heads, filters, _FIELDS))


def _readable(cluster: Cluster, links: Sequence[Record], project: str | None) -> list[StoredImage]:
    """Images from links; links to collections that are gone or not readable are listed all the same by the server.

    A collection that was moved out of the `project` leaves its links there; arvados-cwl-runner relies on its not being
    found, for then it makes a copy in the project.
    """
    # A link may point to anything, and a UUID of another cluster would make the server ask that one.
    ours = re.compile(rf"{cluster.uuid_prefix}-4zz18-[0-9a-z]{{15}}")
    heads = sorted({link["head_uuid"] for link in links if ours.fullmatch(link["head_uuid"] or "")})
    owners = {
        record["uuid"]: record["owner_uuid"]
        for record in cluster.find_in("collections", "uuid", heads, _owned(project), ["owner_uuid"])
    }
    hashes: dict[str, Record] = {}
    names: dict[str, dict[str, Record]] = defaultdict(dict)
    # The server takes the oldest of several links that say the same of a collection.
    for link in sorted(links, key=lambda link: (link["created_at"], link["uuid"])):
        if link["head_uuid"] not in owners:
            continue
        if link["link_class"] == HASH_LINK:
            hashes.setdefault(link["head_uuid"], link)
        else:
            names[link["head_uuid"]].setdefault(link["name"], link)
    images: list[StoredImage] = []
    for head, owner in owners.items():
        hash_link = hashes.get(head)
        image_id = hash_link["name"] if hash_link is not None else None
        images += [StoredImage(head, owner, image_id, name, link) for name, link in names[head].items()]
        if hash_link is not None and not names[head]:
            images.append(StoredImage(head, owner, image_id, None, hash_link))
    return images


def _ordered(images: Iterable[StoredImage]) -> list[StoredImage]:
    return sorted(images, key=lambda image: image.order, reverse=True)


def _time(value: object) -> datetime.datetime | None:
    """A time as ISO 8601 has it, in UTC if it names no zone; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        time: datetime.datetime = ciso8601.parse_datetime(value)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=datetime.timezone.utc)
