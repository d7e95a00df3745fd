"""What Arvados says of images: links, and the collections that they point to, be it tens of thousands."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..parallel import Workers
from . import uuid_ranges
from .client import ArvadosClient, Record, chunks
from .connection import Connection
from .links import FIELDS, HASH_LINK, NAME_LINK, Link

_CLASSES = ["link_class", "in", [HASH_LINK, NAME_LINK]]
_FEWER_FIELDS = {NAME_LINK: ("created_at", "head_uuid", "name", "properties"), HASH_LINK: ("head_uuid", "name")}
_FILL = 0.85
"""How full the page of a range shall be: one that overflows costs another request."""
_NOTHING: Record = {}


@dataclass
class LinkedCollections:
    """Links that say names and ids, and the collections that the user can read."""

    names: list[Link] = field(default_factory=list)
    """Those that say names, in no order; one may be there twice."""
    hashes: list[Link] = field(default_factory=list)
    """Those that say ids, likewise."""
    ids: dict[str, str] = field(default_factory=dict)
    """Ids by the UUIDs of collections for which no link in `hashes` says it."""
    collections: dict[str, Record] = field(default_factory=dict)
    """By their UUIDs, the fields that were asked for."""


def linked_collections(
    client: ArvadosClient, links: Iterable[Record], project: str | None, fields: Sequence[str]
) -> LinkedCollections:
    """The links and their collections, as far as the `project` owns these if there is one, with these `fields`.

    A collection that was moved out of the project leaves its links there; arvados-cwl-runner relies on its not being
    found, for then it makes a copy in the project.
    """
    linked = LinkedCollections()
    for record in links:
        (linked.hashes if record["link_class"] == HASH_LINK else linked.names).append(Link.of(record))
    heads = client.own_collections(sorted({link.collection for link in [*linked.hashes, *linked.names]}))
    portions = [partial(readable_collections, client, portion, owned_by(project), fields) for portion in chunks(heads)]
    with client.workers(["collections"]) if len(portions) > 1 else Workers([Connection(client.api)]) as workers:
        for found in workers.each(portions):
            linked.collections.update(found)
    return linked


def readable_collections(
    client: ArvadosClient,
    uuids: Sequence[str],
    filters: Sequence[Sequence[object]],
    fields: Sequence[str],
    connection: Connection,
) -> list[tuple[str, Record]]:
    """Those of the collections that the user can read and that pass the `filters`, with these `fields`.

    Where none of these is asked for they are only counted, which costs the server a fraction (on an Arvados with a
    thousand images, 0.03 s instead of 0.5), unless some are missing.
    """
    filters = [["uuid", "in", uuids], *filters]
    if not fields and client.count("collections", filters, connection) == len(uuids):
        return [(uuid, _NOTHING) for uuid in uuids]
    found = client.list_all("collections", filters, fields, connection)
    return [(record["uuid"], {name: record[name] for name in fields} or _NOTHING) for record in found]


def all_linked_collections(client: ArvadosClient, project: str | None, fields: Sequence[str]) -> LinkedCollections:
    """Every link that says a name or an id, and their collections; only what the `project` owns if there is one.

    Of few, two requests do. Of many, ranges of UUIDs are asked for side by side, and what a link with an id says
    beside that only where it matters.
    """
    links, more = client.list_page("links", [_CLASSES, *owned_by(project)], FIELDS)
    return (
        _LargeCluster(client, project, fields).read(links)
        if more
        else linked_collections(client, links, project, fields)
    )


def owned_by(project: str | None) -> Sequence[Sequence[object]]:
    """The filters for what a project owns; none for None."""
    return [] if project is None else [["owner_uuid", "=", project]]


class _LargeCluster:
    """Reads the links of a large cluster."""

    def __init__(self, client: ArvadosClient, project: str | None, fields: Sequence[str]) -> None:
        self._client = client
        self._owned = owned_by(project)
        self._fields = fields
        self._linked = LinkedCollections()
        self._heads: dict[str, str] = {}
        self._unclear: set[str] = set()

    def read(self, first: Sequence[Record]) -> LinkedCollections:
        """`first` are the links that have the least UUIDs."""
        linked = self._linked
        for record in first:
            self._take(record["link_class"], [Link.of(record)])
        with self._client.workers(["links", "collections"]) as workers:
            ranges = [partial(self._links, *query) for query in self._ranges(first)]
            for link_class, links in workers.each(ranges):
                self._take(link_class, links)
            heads = self._client.own_collections(self._heads)
            # What was stored meanwhile may have been seen in part.
            named = {link.collection for link in linked.names}
            self._unclear.update(head for head in heads if head not in linked.ids or head not in named)
            del named
            again = [partial(self._whole_links, chunk) for chunk in chunks(sorted(self._unclear))]
            for names, hashes in workers.each(again):
                linked.names += names
                linked.hashes += hashes
            portions = [
                partial(readable_collections, self._client, chunk, self._owned, self._fields) for chunk in chunks(heads)
            ]
            for found in workers.each(portions):
                linked.collections.update((self._heads[uuid], record) for uuid, record in found)
        return linked

    def _take(self, link_class: str, links: Iterable[Link]) -> None:
        """Keep the links of one class; of all that have the same UUID, only one copy of that."""
        for link in links:
            head = self._heads.setdefault(link.collection, link.collection)
            if link_class == NAME_LINK:
                self._linked.names.append(link._replace(collection=head))
            elif self._linked.ids.setdefault(head, link.name) != link.name:
                self._unclear.add(head)

    def _ranges(self, first: Sequence[Record]) -> Iterator[tuple[str, Sequence[Sequence[object]]]]:
        """The classes of links and the filters by which to ask for all after the first, about a page for each."""
        last = first[-1]["uuid"]
        for link_class in (HASH_LINK, NAME_LINK):
            count = sum(record["link_class"] == link_class for record in first)
            pages = uuid_ranges.left_after(last, count) / (len(first) * _FILL)
            for limits in uuid_ranges.split(last, max(1, math.ceil(pages))):
                yield link_class, limits

    def _links(
        self, link_class: str, limits: Sequence[Sequence[object]], connection: Connection
    ) -> tuple[str, list[Link]]:
        filters = [["link_class", "=", link_class], *limits, *self._owned]
        found = self._client.list_all("links", filters, _FEWER_FIELDS[link_class], connection)
        return link_class, [Link.of(record) for record in found]

    def _whole_links(self, heads: Sequence[str], connection: Connection) -> tuple[list[Link], list[Link]]:
        """All links to the collections: those that say names, and those that say ids."""
        filters = [["head_uuid", "in", heads], _CLASSES, *self._owned]
        both: dict[str, list[Link]] = {NAME_LINK: [], HASH_LINK: []}
        for record in self._client.list_all("links", filters, FIELDS, connection):
            both[record["link_class"]].append(Link.of(record))
        return both[NAME_LINK], both[HASH_LINK]
