"""Reads what Arvados has of many images at once, and answers later queries from memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .client import ArvadosClient, Record
from .links import ENGINE_ID, HASH_LINK, NAME_LINK

_LINK = ("created_at", "head_uuid", "link_class", "name", "owner_uuid", "properties")
_COLLECTION = (
    "file_size_total",
    "manifest_text",
    "modified_by_user_uuid",
    "name",
    "owner_uuid",
    "portable_data_hash",
    "properties",
)
_BY_ENGINE = f"properties.{ENGINE_ID}"

_MEETS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda value, operand: bool(value == operand),
    "in": lambda value, operand: value in operand,
}
"""The filter operators that are evaluated here; queries with others go to the server."""


class Snapshot(ArvadosClient):
    """A client that knows all records of some images: queries about them are answered without a request, as they were
    when they were read. All other requests go to the server."""

    def __init__(self, client: ArvadosClient) -> None:
        super().__init__(client.api, 0)
        self.retry = client.retry
        self._values: dict[str, set[str]] = {"name": set(), _BY_ENGINE: set(), "head_uuid": set()}
        """By field: the values for which all links are known."""
        self._links: dict[str, Record] = {}
        self._contents: set[str] = set()
        """The portable data hashes that all collections are known of."""
        self._collections: dict[str, Record | None] = {}
        """By UUID; None for collections that the user cannot read."""

    def load(self, names: Iterable[str], digests: Iterable[str] = ()) -> None:
        """Read the links and collections of images, given by names and by digests: their ids, or the digests by which
        engines and registries know them. It takes a few requests for any number of images. Raises ArvadosError."""
        digests = sorted(set(digests))
        classes = ["link_class", "in", [HASH_LINK, NAME_LINK]]
        self._load("name", [*names, *digests], [classes])
        self._load(_BY_ENGINE, digests, [["link_class", "=", HASH_LINK]])
        self._load_heads([link["head_uuid"] or "" for link in self._links.values()])

    def load_collections(self, uuids: Iterable[str], contents: Iterable[str] = ()) -> None:
        """Read collections by their UUIDs, and all that have these portable data hashes, and the links to them."""
        wanted = sorted(set(contents) - self._contents)
        with_these = super().list_in("collections", "portable_data_hash", wanted, [], _COLLECTION)
        found = {record["uuid"]: record for record in with_these}
        self._collections.update(found)
        self._contents.update(wanted)
        self._load_heads([*uuids, *found])

    def with_content(self, content: str) -> list[Record]:
        """The readable collections that have this portable data hash, which was loaded."""
        assert content in self._contents
        records = [record for record in self._collections.values() if record is not None]
        return [record for record in records if record["portable_data_hash"] == content]

    def _load_heads(self, heads: Sequence[str]) -> None:
        self._load("head_uuid", heads, [["link_class", "in", [HASH_LINK, NAME_LINK]]])
        wanted = sorted(set(self.own_collections(heads)) - self._collections.keys())
        found = {record["uuid"]: record for record in super().list_in("collections", "uuid", wanted, [], _COLLECTION)}
        self._collections.update({uuid: found.get(uuid) for uuid in wanted})

    def _load(self, field: str, values: Iterable[str], filters: Sequence[Sequence[object]]) -> None:
        wanted = sorted(set(values) - self._values[field])
        self._links.update((link["uuid"], link) for link in super().list_in("links", field, wanted, filters, _LINK))
        self._values[field].update(wanted)

    def get(self, resource: str, uuid: str, **parameters: object) -> Record:
        known = self._collections.get(uuid) if resource == "collections" and not parameters else None
        return known if known is not None else super().get(resource, uuid, **parameters)

    def list_all(self, resource: str, filters: Sequence[Sequence[object]], *more: Any) -> Iterator[Record]:
        known = self._known_records(resource, filters)
        if known is None or any(str(operator) not in _MEETS for _, operator, _ in filters):
            return super().list_all(resource, filters, *more)
        return (record for record in known if all(_meets(record, each) for each in filters))

    def list_in(
        self, resource: str, field: str, values: Sequence[str], filters: Sequence[Sequence[object]], *more: Any
    ) -> Iterator[Record]:
        if values and self._known_records(resource, [[field, "in", values]]) is not None:
            return self.list_all(resource, [*filters, [field, "in", values]], *more)
        return super().list_in(resource, field, values, filters, *more)

    def _known_records(self, resource: str, filters: Sequence[Sequence[Any]]) -> Iterable[Record] | None:
        """Known records that include all that match the filters; None if some may not be known."""
        for field, operator, operand in filters:
            values = {"=": [operand], "in": operand}.get(operator, [])
            if not values:
                continue
            if resource == "links" and self._values.get(field, set()).issuperset(values):
                return self._links.values()
            if resource == "collections" and field == "uuid" and self._collections.keys() >= set(values):
                return [record for record in self._collections.values() if record is not None]
        return None


def _meets(record: Record, condition: Sequence[Any]) -> bool:
    field, operator, operand = condition
    first, _, key = field.partition(".")
    value = record[first]
    return _MEETS[operator]((value or {}).get(key) if key else value, operand)
