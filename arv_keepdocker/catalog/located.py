"""Finds the collection of an image given by a name, an id, a collection's UUID or a portable data hash."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..errors import ArvadosError, ImageNotFoundError, UsageError
from ..images import reference
from ..images.platform import Platform
from ..images.reference import Reference
from ..keep.locators import block_size, locators
from . import stored_images
from .arvados_errors import ArvadosRefusedError
from .client import ArvadosClient, Record
from .entry import PLATFORM, image_id_in
from .links import HASH_LINK, NAME_LINK, Link
from .snapshot import Snapshot

_UUID = re.compile(r"[0-9a-z]{5}-4zz18-[0-9a-z]{15}")
_CONTENT = re.compile(r"([0-9a-f]{32}\+\d+)(?:\+[A-Z]\S*)?")
_LINK = ("created_at", "head_uuid", "link_class", "name", "owner_uuid", "properties")
_COLLECTION = ("file_size_total", "manifest_text", "modified_by_user_uuid", "owner_uuid", "portable_data_hash")
_SOURCES = "SOURCE is a name, an id, a collection's UUID or a portable data hash."
_SHORT_ID = re.compile(r"[0-9a-f]{6,}")
_SHOWN = 5


@dataclass(frozen=True)
class Sought:
    """How the user refers to an image in Arvados; one of `uuid`, `content` and `reference` is set."""

    text: str
    uuid: str | None = None
    """A collection's UUID."""
    content: str | None = None
    """A portable data hash."""
    reference: Reference | None = None

    @classmethod
    def parse(cls, text: str) -> "Sought":
        """Parse SOURCE. Raises UsageError if it is none of these."""
        if _UUID.fullmatch(text):
            return cls(text, uuid=text)
        if content := _CONTENT.fullmatch(text):
            return cls(text, content=content[1])
        if re.fullmatch(r"[0-9a-z]{5}-[0-9a-z]{5}-[0-9a-z]{15}", text):
            raise UsageError(f"{text} is not the UUID of a collection", _SOURCES)
        try:
            return cls(text, reference=reference.parse(text))
        except UsageError as error:
            raise UsageError(str(error), _SOURCES) from error


@dataclass(frozen=True)
class Located:
    """A collection that may hold the image, and its links."""

    record: Record
    links: Sequence[Record]
    """The readable links that give it an id or a name, the oldest first."""
    asked: str | None = None
    """The id, or the beginning of it, by which a link has led here."""

    @property
    def uuid(self) -> str:
        """The collection's UUID, or its portable data hash if only that is known."""
        return str(self.record["uuid"])

    @property
    def content(self) -> str:
        return str(self.record["portable_data_hash"])

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(map(block_size, set(locators([self.record["manifest_text"]]))))

    @property
    def owner(self) -> str | None:
        """UUID of the collection's owner, if known."""
        return self.record.get("owner_uuid") or None

    @property
    def image_id(self) -> str | None:
        """The id in the name of the collection's file."""
        return image_id_in(self.record["manifest_text"])

    @property
    def names(self) -> list[str]:
        """The names that it has, without those that docker rejects, and ids that upstream has recorded as names."""
        found = dict.fromkeys(link["name"] for link in self.links if link["link_class"] == NAME_LINK)
        ids = [self.image_id or "", *(link["name"] for link in self.links if link["link_class"] == HASH_LINK)]
        return [name for name in found if _is_name(name, ids)]

    @property
    def by_id(self) -> Link | None:
        """The oldest link with the id in the file's name."""
        links = [link for link in self.links if link["link_class"] == HASH_LINK and link["name"] == self.image_id]
        return Link.of(links[0]) if links else None


def _is_name(text: str, ids: Iterable[str]) -> bool:
    try:
        repository = reference.parse(text).repository
    except UsageError:
        return False
    if repository is None:
        return False
    return not (_SHORT_ID.fullmatch(repository) and any(each.startswith(f"sha256:{repository}") for each in ids))


def load(client: Snapshot, wanted: Iterable[Sought], names: Iterable[str] = ()) -> None:
    """Read the records of all these images, and of other `names`, at once. Raises ArvadosError."""
    found = list(wanted)
    references = [each.reference for each in found if each.reference is not None]
    words = [word for each in references for word in (each.name, each.id_prefix) if word is not None]
    client.load([*words, *names])
    uuids = client.own_collections(each.uuid for each in found if each.uuid is not None)
    client.load_collections(uuids, [each.content for each in found if each.content is not None])


def locate(client: Snapshot, sought: Sought, project: str, platform: Platform | None = None) -> Located:
    """The collection that SOURCE means; of several, the one that Arvados prefers.

    Raises ImageNotFoundError or ArvadosError.
    """
    if sought.uuid is not None:
        return _located(client, _collection(client, sought.uuid))
    if sought.content is not None:
        return _with_content(client, sought.content, project)
    assert sought.reference is not None
    wanted = sought.reference
    for prefix in (None, wanted.id_prefix):
        uuids = _named(client, wanted, platform) if prefix is None else _by_id(client, prefix)
        records = [_collection(client, uuid) for uuid in uuids]
        # What the scheduler cannot take for an image is no better than nothing to it.
        records.sort(key=lambda record: _unlike(record, prefix))
        if records:
            content = records[0]["portable_data_hash"]
            same = [each for each in records if each["portable_data_hash"] == content]
            return replace(_best(client, same, project), asked=prefix)
    raise _not_found(client, sought)


def _unlike(record: Record, image_id: str | None) -> bool:
    held = image_id_in(record["manifest_text"])
    return held is None or (image_id is not None and not held.startswith(image_id))


def _named(client: Snapshot, wanted: Reference, platform: Platform | None) -> list[str]:
    images = stored_images.by_name(client, wanted.name) if wanted.name is not None else []
    recorded = [(image, Platform.recorded(image.properties.get(PLATFORM))) for image in images]
    return [
        image.collection
        for image, known in recorded
        if platform is None or known is None or known.matches(platform) or len(images) == 1
    ]


def _by_id(client: Snapshot, prefix: str) -> list[str]:
    images = [image for image in stored_images.by_id_prefix(client, prefix) if image.image_id is not None]
    ids = sorted({str(image.image_id) for image in images})
    if len(ids) > 1:
        raise ImageNotFoundError(f"{prefix} is the beginning of {len(ids)} ids in Arvados: {', '.join(ids[:_SHOWN])}")
    return [image.collection for image in images]


def _with_content(client: Snapshot, content: str, project: str) -> Located:
    records = client.with_content(content)
    if not records:  # the controller asks other clusters, too
        return _located(client, _collection(client, content))
    return _best(client, records, project)


def _best(client: Snapshot, records: Sequence[Record], project: str) -> Located:
    """The best of collections with the same content, the project's own if possible, with the links to all of them."""
    found = [_located(client, record) for record in records]
    best = max(found, key=lambda each: (each.by_id is not None, each.owner == project))
    links = {link["uuid"]: link for each in (best, *found) for link in each.links}
    return Located(best.record, sorted(links.values(), key=_age))


def _located(client: Snapshot, record: Record) -> Located:
    heads = client.own_collections([record["uuid"]])
    classes = ["link_class", "in", [HASH_LINK, NAME_LINK]]
    links = list(client.list_in("links", "head_uuid", heads, [classes], _LINK)) if heads else []
    return Located(record, sorted(links, key=_age))


def _age(link: Record) -> tuple[str, str]:
    return link["created_at"] or "", link["uuid"]


def _collection(client: ArvadosClient, uuid: str) -> Record:
    try:
        return client.get("collections", uuid)
    except ArvadosRefusedError as error:
        if error.http_status != 404:
            raise
        raise ImageNotFoundError(_gone(client, uuid)) from error


def _gone(client: ArvadosClient, uuid: str) -> str:
    if _UUID.fullmatch(uuid):
        try:
            if client.get("collections", uuid, include_trash=True).get("is_trashed"):
                return f"collection {uuid} is in the trash"
        except ArvadosError:
            pass
    return f"there is no collection {uuid} that you may read"


def _not_found(client: Snapshot, sought: Sought) -> ImageNotFoundError:
    wanted = sought.reference
    assert wanted is not None
    name = wanted.name
    problem = f"Arvados has no image {wanted} that you may read"
    if name is None:
        return ImageNotFoundError(problem)
    links = client.list_all("links", [["link_class", "=", NAME_LINK], ["name", "=", name]], ["head_uuid"])
    heads = {link["head_uuid"] for link in links}
    if heads:
        lost = ", ".join(sorted(str(head) for head in heads)[:_SHOWN])
        return ImageNotFoundError(
            f"{problem}: {lost}, which has the name, is in the trash, or in a project that you may not read"
        )
    tags = stored_images.names_in_repository(client, wanted.repository or "")
    more = f" and {len(tags) - _SHOWN} more" if len(tags) > _SHOWN else ""
    there = f"There {'are' if len(tags) > 1 else 'is'} {', '.join(tags[:_SHOWN])}{more}."
    return ImageNotFoundError(problem, there if tags else None)
