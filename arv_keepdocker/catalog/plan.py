"""The plan for an image in a project: which records are missing. A dry run prints it, any other run carries it out."""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..keep.locators import portable_data_hash
from .client import ArvadosClient, Record
from .entry import CatalogEntry
from .links import ENGINE_ID, HASH_LINK, NAME_LINK


class Action(enum.Enum):
    """What was done for an image, or would be done by a dry run."""

    FOUND = "found"
    LINKED = "linked"
    COPIED = "copied"
    COMPLETED = "completed"
    """A collection that a run left incomplete was completed."""
    STORED = "stored"


@dataclass(frozen=True)
class Plan:
    """Which records are missing, and how to create them."""

    client: ArvadosClient
    entry: CatalogEntry
    collection: str | None
    """UUID of the project's collection that holds the image; None if it must be created."""
    links: Sequence[tuple[str, str]]
    """The classes and names of the links to create."""
    original: Record | None = None
    """The collection to copy, which has another owner."""
    properties: Record | None = None
    """The collection's new properties; None if they stay as they are."""
    names: Sequence[str] = ()
    """The names that the project's links give the collection already."""
    before_links: Action = Action.FOUND
    """What was done before any links were created."""
    same: frozenset[str] = frozenset()
    """UUIDs of other collections that hold the same image."""
    record: Record | None = None
    """The collection that holds the image now; None if there is none."""
    whole: bool = False
    """Whether the image has its id and name, so that at most a link for an engine's Id is missing."""

    @property
    def steps(self) -> list[str]:
        """What carrying it out writes to Arvados, in words; empty if nothing is missing."""
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
        """What carrying it out does for the image."""
        if self.before_links is not Action.FOUND or not self.steps:
            return self.before_links
        return Action.LINKED if self.original is None else Action.COPIED

    @property
    def source(self) -> str | None:
        """UUID of the collection that holds the image now, whoever owns it."""
        return self.collection or (str(self.original["uuid"]) if self.original is not None else None)

    @property
    def portable_data_hash(self) -> str | None:
        """The portable data hash of the collection that holds the image now, and so of a copy."""
        return str(self.record["portable_data_hash"]) if self.record is not None else None

    @property
    def title(self) -> str | None:
        """The name of the collection that holds the image now; None if there is none, or its name is not known."""
        return self.record.get("name") if self.record is not None else None

    @property
    def size(self) -> int | None:
        """Bytes of the image's collection."""
        return int(self.record["file_size_total"]) if self.record is not None else None

    def summary(self, project: str) -> str:
        """What was found and created, for people; `project` is the project's name."""
        name, by_id = self.entry.name, f"image {self.entry.image_id}"
        added = [link_name for link_class, link_name in self.links if link_class == NAME_LINK]
        what = name or next(iter(self.names), by_id)
        if self.action is Action.COMPLETED:
            return f"{what} was in Arvados in part; completed collection {self.collection}"
        if self.original is not None and self.original.get("owner_uuid") == self.entry.project:
            return f"{what} is in Arvados already; copied {self.original['uuid']}, so that Arvados prefers the copy"
        if self.action is Action.COPIED:
            return f"{what} is in Arvados already; copied into {project}"
        if added:
            names = f"the name {added[0]}" if len(added) == 1 else f"the names {', '.join(added)}"
            return f"{next(iter(self.names), by_id)} is in Arvados already; added {names}"
        return f"{what} is in Arvados already" + ("; added the id by which it is found" if self.links else "")

    def as_copy(self) -> "Plan":
        """The plan to copy the image, even within the project; a copy that a run left without links is used."""
        record = self.record
        assert record is not None
        made = next(_without_links(self.client, self.entry.project, record["portable_data_hash"]), None)
        uuid = str(made["uuid"]) if made is not None else None
        return Plan(self.client, self.entry, uuid, self.entry.links, record, same=self.same, record=record)

    def carry_out(self) -> str:
        """Create what is missing, and return the UUID of the project's collection. Raises ArvadosError."""
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
    """Create a collection in the project, which is not an image before it has links, and return its UUID.

    Raises ArvadosError.
    """
    collection = {
        "manifest_text": manifest_text,
        "name": entry.collection_name,
        "owner_uuid": entry.project,
        "properties": entry.properties,
    }

    def find_existing() -> Record | None:
        """A collection with this content and without links, as a run that dies leaves it."""
        return next(_without_links(client, entry.project, portable_data_hash(manifest_text)), None)

    return str(client.create("collections", what, collection, find_existing, ensure_unique_name=True)["uuid"])


def _without_links(client: ArvadosClient, project: str, content: str) -> Iterator[Record]:
    """The project's collections with this portable data hash that no link leads to."""
    for candidate in with_content(client, project, content):
        if not any(client.list_all("links", [["head_uuid", "=", candidate["uuid"]]], [])):
            yield candidate


def with_content(client: ArvadosClient, project: str, content: str) -> Iterator[Record]:
    """The project's collections with this portable data hash."""
    filters = [["owner_uuid", "=", project], ["portable_data_hash", "=", content]]
    return client.list_all("collections", filters, [])
