"""Queries for links and the collections that they point to, of which there may be tens of thousands."""

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
"""How full the page of a range should be: one that overflows takes another request."""
_NOTHING: Record = {}


@dataclass
class LinkedCollections:
    """Links that give names and image ids, and the collections among their heads that the user can read."""

    names: list[Link] = field(default_factory=list)
    """Links that give names, in no order; a link may occur twice."""
    hashes: list[Link] = field(default_factory=list)
    """Links that give image ids, likewise."""
    ids: dict[str, str] = field(default_factory=dict)
    """Image ids by the UUIDs of collections, for those that have no link in `hashes`."""
    collections: dict[str, Record] = field(default_factory=dict)
    """The requested fields of the collections, by UUID."""


def linked_collections(
    client: ArvadosClient, links: Iterable[Record], project: str | None, fields: Sequence[str]
) -> LinkedCollections:
    """The links, and their collections with these `fields`; with `project`, only collections that it owns.

    A collection that was moved out of the project leaves its links there. It must not be found: then arvados-cwl-runner
    makes a copy in the project.
    """
    linked = LinkedCollections()
    for record in links:
        (linked.hashes if record["link_class"] == HASH_LINK else linked.names).append(Link.of(record))
    heads = client.own_collections(sorted({link.collection for link in [*linked.hashes, *linked.names]}))
    portions = [partial(readable_collections, client, portion, owned_by(project), fields) for portion in chunks(heads)]
    with client.workers(["collections"]) if len(portions) > 1 else Workers([Connection(client.resources)]) as workers:
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
    """The collections among `uuids` that the user can read and that match the `filters`, with these `fields`.

    Without fields, they are counted first, which costs the server a fraction of a list (0.03 s instead of 0.5 s for a
    thousand images), and listed only if some are missing.
    """
    filters = [["uuid", "in", uuids], *filters]
    if not fields and client.count("collections", filters, connection) == len(uuids):
        return [(uuid, _NOTHING) for uuid in uuids]
    found = client.list_all("collections", filters, fields, connection)
    return [(record["uuid"], {name: record[name] for name in fields} or _NOTHING) for record in found]


def all_linked_collections(client: ArvadosClient, project: str | None, fields: Sequence[str]) -> LinkedCollections:
    """All links that give names or image ids, and their collections; with `project`, only what it owns.

    A small cluster takes two requests. On a large one, ranges of UUIDs are listed side by side, and the properties of
    links that give ids are read only where they matter.
    """
    links, more = client.list_page("links", [_CLASSES, *owned_by(project)], FIELDS)
    return (
        _LargeCluster(client, project, fields).read(links)
        if more
        else linked_collections(client, links, project, fields)
    )


def owned_by(project: str | None) -> Sequence[Sequence[object]]:
    """The filters for what a project owns; empty for None."""
    return [] if project is None else [["owner_uuid", "=", project]]


class _LargeCluster:
    """Reads the links of a cluster that has many."""

    def __init__(self, client: ArvadosClient, project: str | None, fields: Sequence[str]) -> None:
        self._client = client
        self._owned = owned_by(project)
        self._fields = fields
        self._linked = LinkedCollections()
        self._heads: dict[str, str] = {}
        self._unclear: set[str] = set()

    def read(self, first: Sequence[Record]) -> LinkedCollections:
        """`first` is the first page of links, by UUID."""
        linked = self._linked
        for record in first:
            self._take(record["link_class"], [Link.of(record)])
        with self._client.workers(["links", "collections"]) as workers:
            ranges = [partial(self._links, *query) for query in self._ranges(first)]
            for link_class, links in workers.each(ranges):
                self._take(link_class, links)
            heads = self._client.own_collections(self._heads)
            # Of what was stored meanwhile, only some links may have been read.
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
        """Keep the links of one class, with one string for all heads that are equal, to save memory."""
        for link in links:
            head = self._heads.setdefault(link.collection, link.collection)
            if link_class == NAME_LINK:
                self._linked.names.append(link._replace(collection=head))
            elif self._linked.ids.setdefault(head, link.name) != link.name:
                self._unclear.add(head)

    def _ranges(self, first: Sequence[Record]) -> Iterator[tuple[str, Sequence[Sequence[object]]]]:
        """Queries for all links after the first page: link classes and filters, about a page for each."""
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
        """All links to the collections: those that give names, and those that give ids."""
        filters = [["head_uuid", "in", heads], _CLASSES, *self._owned]
        both: dict[str, list[Link]] = {NAME_LINK: [], HASH_LINK: []}
        for record in self._client.list_all("links", filters, FIELDS, connection):
            both[record["link_class"]].append(Link.of(record))
        return both[NAME_LINK], both[HASH_LINK]
