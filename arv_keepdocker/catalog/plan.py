"""What Arvados lacks to have an image in a project: a dry run tells it, any other run makes it."""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..keep.locators import portable_data_hash
from .client import ArvadosClient, Record
from .entry import CatalogEntry
from .links import ENGINE_ID, HASH_LINK, NAME_LINK


class Action(enum.Enum):
    """What has been done for an image, or would be."""

    FOUND = "found"
    LINKED = "linked"
    COPIED = "copied"
    COMPLETED = "completed"
    """What a run that died has left was finished."""
    STORED = "stored"


@dataclass(frozen=True)
class Plan:
    """What is missing, and how it is made."""

    client: ArvadosClient
    entry: CatalogEntry
    collection: str | None
    """UUID of the project's collection that holds the image; None where that is to be made."""
    links: Sequence[tuple[str, str]]
    """The classes and names of those that are to be made."""
    original: Record | None = None
    """The collection, of another owner, that is copied."""
    properties: Record | None = None
    """What the collection's are to be, if that is something else than they are."""
    names: Sequence[str] = ()
    """Those that the collection has already, by links of the project."""
    before_links: Action = Action.FOUND
    """How the image got there, apart from its links."""
    same: frozenset[str] = frozenset()
    """UUIDs of collections that are known to hold the same image."""
    record: Record | None = None
    """The collection that has the image now, with what it holds; None where there is none."""
    whole: bool = False
    """Whether the image is there by its id and name, and only what an engine knows it by is missing, if anything."""

    @property
    def steps(self) -> list[str]:
        """What would be written to Arvados; nothing if nothing is missing."""
        entry = self.entry
        steps = []
        if self.collection is None:
            of = f", a copy of {self.original['uuid']}" if self.original is not None else ""
            steps.append(f"collection {entry.collection_name!r} in {entry.project}{of}")
        if self.properties is not None:
            steps.append(f"property {', '.join(entry.properties)} of collection {self.collection}")
        to = f"collection {self.collection}" if self.collection is not None else "it"
        return steps + [f"link {link_class} {name} to {to}" for link_class, name in self.links]

    @property
    def action(self) -> Action:
        """What carrying it out means for the image."""
        if self.before_links is not Action.FOUND or not self.steps:
            return self.before_links
        return Action.LINKED if self.original is None else Action.COPIED

    @property
    def source(self) -> str | None:
        """UUID of the collection that has the image now, whoever owns it."""
        return self.collection or (str(self.original["uuid"]) if self.original is not None else None)

    @property
    def portable_data_hash(self) -> str | None:
        """Of the collection that has the image now, and so of a copy."""
        return str(self.record["portable_data_hash"]) if self.record is not None else None

    @property
    def size(self) -> int | None:
        """Bytes that the image takes in Arvados."""
        return int(self.record["file_size_total"]) if self.record is not None else None

    def summary(self, project: str) -> str:
        """What was found and made, for people; `project` is the project's name."""
        name, by_id = self.entry.name, f"image {self.entry.image_id}"
        added = [link_name for link_class, link_name in self.links if link_class == NAME_LINK]
        what = name or next(iter(self.names), by_id)
        if self.action is Action.COMPLETED:
            return f"{what} was in Arvados in part; completed collection {self.collection}"
        if self.action is Action.COPIED:
            return f"{what} is in Arvados already; copied into {project}"
        if added:
            names = f"the name {added[0]}" if len(added) == 1 else f"the names {', '.join(added)}"
            return f"{next(iter(self.names), by_id)} is in Arvados already; added {names}"
        return f"{what} is in Arvados already" + ("; added the id by which it is found" if self.links else "")

    def carry_out(self) -> str:
        """Write only what is missing, and return the UUID of the project's collection. Raises ArvadosError."""
        entry, uuid = self.entry, self.collection
        if uuid is None:
            assert self.original is not None
            what = f"a copy of {self.original['uuid']} in {entry.project}"
            uuid = create_collection(self.client, what, entry, self.original["manifest_text"])
        if self.properties is not None:
            self.client.update("collections", uuid, {"properties": self.properties})
        for link_class, name in self.links:
            self._link(uuid, link_class, name)
        return uuid

    def _link(self, uuid: str, link_class: str, name: str) -> None:
        entry = self.entry
        link = {
            "head_uuid": uuid,
            "link_class": link_class,
            "name": name,
            "owner_uuid": entry.project,
            "properties": dict(entry.link_properties),
        }
        same = [[key, "=", link[key]] for key in ("head_uuid", "link_class", "name", "owner_uuid")]
        if link_class == HASH_LINK and entry.engine_id is not None:
            same.append([f"properties.{ENGINE_ID}", "=", entry.engine_id])

        def find_existing() -> Record | None:
            return next(self.client.list_all("links", same, []), None)

        self.client.create("links", f"the {link_class} link {name} to {uuid}", link, find_existing)


def create_collection(client: ArvadosClient, what: str, entry: CatalogEntry, manifest_text: str) -> str:
    """Make a collection of the project, which is no image before it has its links, and return its UUID.

    Raises ArvadosError.
    """
    collection = {
        "manifest_text": manifest_text,
        "name": entry.collection_name,
        "owner_uuid": entry.project,
        "properties": entry.properties,
    }

    def find_existing() -> Record | None:
        """One with this content that nothing calls an image, as a run leaves it that dies."""
        for candidate in with_content(client, entry.project, portable_data_hash(manifest_text)):
            if not any(client.list_all("links", [["head_uuid", "=", candidate["uuid"]]], [])):
                return candidate
        return None

    return str(client.create("collections", what, collection, find_existing, ensure_unique_name=True)["uuid"])


def with_content(client: ArvadosClient, project: str, content: str) -> Iterator[Record]:
    """The collections of the project that have this portable data hash."""
    filters = [["owner_uuid", "=", project], ["portable_data_hash", "=", content]]
    return client.list_all("collections", filters, [])
