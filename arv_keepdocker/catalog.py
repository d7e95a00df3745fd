"""What Arvados records of an image: a collection with one file, and links that give it an id and names.

Links come last and in this order: collection, docker_image_hash, docker_image_repo+tag. Without them the scheduler
does not see the image, so a run that dies half way leaves nothing that could be taken for an image, and the next one
finds the collection and completes it.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import listing
from .blocks import portable_data_hash
from .cluster import ArvadosRefusedError, Cluster, Record, like
from .errors import ArvadosError, ImageNotFoundError, UsageError
from .links import ENGINE_ID, HASH_LINK, NAME_LINK
from .listing import StoredImage
from .platforms import Platform
from .reference import Reference

NAME_PROPERTY = "docker-image-repo-tag"
NAME_LIMIT = 255
"""Characters of a collection's or a link's name (Arvados: character varying(255))."""
PLATFORM = "arv:platform"
UNIVERSAL = "arv:universal"
_OF_REPOSITORY = 20
"""Images of one repository that are looked at for blocks to reuse; their versions tend to share them."""
_OF_ALL = 50
"""Likewise of all images, which may have the same base."""
_GROUP = re.compile(r"[0-9a-z]{5}-j7d0g-[0-9a-z]{15}")
_USER = re.compile(r"[0-9a-z]{5}-tpzed-[0-9a-z]{15}")
_FILE = re.compile(r"sha256(?::|\\072)([0-9a-f]{64})\.tar")


@dataclass(frozen=True)
class Entry:
    """How an image is to be recorded: what the collection and its links will say."""

    project: str
    """UUID of the project, or of the user whose home it is, that owns everything."""
    image_id: str
    name: str | None
    """`repository:tag`, or None for an image given by its id: it gets no name."""
    title: str | None = None
    """The collection's name where the user gave one."""
    link_properties: Mapping[str, object] = field(default_factory=dict)
    engine_id: str | None = None
    """What the engine calls the image where that is not its id here: a digest that no archive tells."""
    platform: Platform | None = None
    """Where `engine_id` names images for several platforms: this one's."""
    universal: bool = False
    """Whether it is stored in the universal form; the plain form of the image is another image then."""

    @property
    def collection_name(self) -> str:
        if self.title is not None:
            return self.title
        # The server refuses slashes in a name.
        words = ["Docker image", *([self.name.replace("/", " ")] if self.name else [])]
        image_id = self.image_id[:12]
        return f"{' '.join(words)[: NAME_LIMIT - len(image_id) - 1]} {image_id}"

    def made_at(self, created: str | None) -> "Entry":
        """The entry with what its links are to say: the time by which the scheduler finds the newest of several images,
        and how a later run recognizes the image."""
        properties: dict[str, object] = {"image_timestamp": created} if created else {}
        return replace(self, link_properties={**properties, **self.recognized_by})

    @property
    def recognized_by(self) -> dict[str, object]:
        """The link properties of our own."""
        properties: dict[str, object] = {UNIVERSAL: True} if self.universal else {}
        if self.engine_id is not None:
            properties[ENGINE_ID] = self.engine_id
            if self.platform is not None:
                properties[PLATFORM] = str(self.platform)
        return properties

    @property
    def filename(self) -> str:
        return f"{self.image_id}.tar"

    @property
    def properties(self) -> dict[str, object]:
        return {NAME_PROPERTY: self.name} if self.name is not None else {}


class Catalog:
    """Reads and writes the records. Every method raises ArvadosError when the cluster refuses or cannot be asked."""

    def __init__(self, cluster: Cluster, read_only: bool = False) -> None:
        """With `read_only` nothing is written: the methods tell what they would use."""
        self.cluster = cluster
        self._read_only = read_only

    @property
    def image_formats(self) -> Sequence[str]:
        """The image formats that the cluster says it takes; empty if it does not say."""
        return self.cluster.image_formats()

    def project(self, uuid: str | None) -> str:
        """The UUID of the project to store in: the given one, which must be writable, or the user's home."""
        if uuid is None:
            return str(self.cluster.current_user()["uuid"])
        if _USER.fullmatch(uuid) and uuid != self.cluster.current_user()["uuid"]:
            raise ArvadosError(f"{uuid} is another user: images are stored in projects or in your own home project")
        owner = self.owner(uuid)
        # `can_write` is in the server's answer since Arvados 2.6 (sdk/go/arvados/group.go).
        if _GROUP.fullmatch(uuid) and owner.get("can_write") is False:
            raise ArvadosError(f"you may not write to project {uuid} ({owner.get('name')})")
        return uuid

    def owner(self, uuid: str) -> Record:
        """The project, or the user whose home it is, that the UUID names."""
        if not _USER.fullmatch(uuid) and not _GROUP.fullmatch(uuid):
            raise UsageError(f"{uuid!r} is not the UUID of a project")
        try:
            owner = self.cluster.get("users" if _USER.fullmatch(uuid) else "groups", uuid)
        except ArvadosRefusedError as error:
            if error.http_status != 404:
                raise
            raise ArvadosError(f"there is no project {uuid}, or you may not read it: {error}") from error
        if _GROUP.fullmatch(uuid) and owner.get("group_class") != "project":
            raise ArvadosError(f"{uuid} is not a project but a {owner.get('group_class') or 'group'}")
        return owner

    def find(self, reference: Reference) -> tuple[StoredImage, Reference] | None:
        """The readable image that Arvados prefers for what the user named, and whether that was a name or an id.

        Raises ImageNotFoundError for the beginning of more than one id.
        """
        if reference.name is not None:
            for image in listing.named(self.cluster, reference.name):
                image_id = self._held(image.collection)
                if image_id is not None:
                    return replace(image, image_id=image_id), replace(reference, id_prefix=None)
        if reference.id_prefix is not None:
            images = [image for image in listing.by_id(self.cluster, reference.id_prefix) if image.image_id is not None]
            ids = sorted({str(image.image_id) for image in images})
            if len(ids) > 1:
                raise ImageNotFoundError(f"{reference} is the beginning of {len(ids)} ids in Arvados: {', '.join(ids)}")
            for image in images:
                if self._held(image.collection) == image.image_id:
                    return image, reference.as_id()
        return None

    def adopt(self, entry: Entry, known: StoredImage | None = None) -> str | None:
        """Make an image that Arvados already has one of the project's own, and return its collection's UUID.

        Writes only what is missing, and nothing is uploaded. None if there is no image of that id to be read;
        `known` is one that may lack the link with its id.
        """
        images = [*listing.holders(self.cluster, entry.image_id), *([known] if known is not None else [])]
        if entry.universal:
            images = [image for image in images if image.properties.get(UNIVERSAL)]
        images.sort(key=lambda image: image.owner != entry.project)  # stable: keeps the preference
        image = next((image for image in images if self._held(image.collection) == entry.image_id), None)
        if image is None:
            return None
        if self._read_only:
            return image.collection
        entry = replace(entry, link_properties={**image.properties, **entry.recognized_by})
        uuid = image.collection if image.owner == entry.project else self._copy(image.collection, entry)
        self.link(uuid, entry)
        return uuid

    def recognize(self, entry: Entry) -> list[str]:
        """The ids by which an image is stored that the engine knows as `entry.engine_id`, the most preferred first."""
        images = listing.holders(self.cluster, condition=[f"properties.{ENGINE_ID}", "=", entry.engine_id])
        wanted = [
            str(image.image_id)
            for image in images
            if bool(image.properties.get(UNIVERSAL)) == entry.universal
            and (entry.platform is None or image.properties.get(PLATFORM) in (None, str(entry.platform)))
        ]
        return list(dict.fromkeys(wanted))

    def complete(self, entry: Entry) -> str | None:
        """Finish what a run that died after storing the collection has left in the project, and return its UUID."""
        for uuid in self._unfinished(entry):
            if self._held(uuid) == entry.image_id:
                if not self._read_only:
                    self.record(uuid, entry)
                return uuid
        return None

    def record(self, uuid: str, entry: Entry) -> None:
        """Give a collection that holds the image what makes it an image: its property, then the links."""
        collection = self.cluster.get("collections", uuid)
        if file_in(collection["manifest_text"]) != entry.image_id:
            raise ArvadosError(f"collection {uuid} does not hold the one file {entry.filename}")
        # An update replaces the properties as a whole, and the server may manage some of them.
        properties = {**(collection["properties"] or {}), **entry.properties}
        if properties != (collection["properties"] or {}):
            self.cluster.update("collections", uuid, {"properties": properties})
        self.link(uuid, entry)

    def create(self, entry: Entry, manifest_text: str) -> str:
        """Make a collection of the project with this content, which is no image before `link`, and return its UUID.

        Raises ArvadosRefusedError with status 403 also when the server does not accept a locator's signature.
        """
        return self._created(f"collection {entry.collection_name!r} in {entry.project}", entry, manifest_text)

    def discard(self, uuid: str) -> None:
        """Put a collection into the trash that turns out to hold something else than it is named for."""
        self.cluster.delete("collections", uuid)

    def newest_manifests(self, name: str | None) -> list[str]:
        """The signed manifests of images that the user may read: the newest of the same repository, and of all.

        A few requests, however many images there are.
        """
        queries: list[tuple[list[list[object]], int]] = []
        if name is not None:
            versions = f"{like(listing.split_name(name)[0])}:%"
            queries.append(([["link_class", "=", NAME_LINK], ["name", "like", versions]], _OF_REPOSITORY))
        queries.append(([["link_class", "=", HASH_LINK]], _OF_ALL))
        links = [link for query, limit in queries for link in self.cluster.newest("links", query, ["head_uuid"], limit)]
        uuids = self.cluster.own_collections(dict.fromkeys(link["head_uuid"] or "" for link in links))
        if not uuids:
            return []
        chosen = [["uuid", "in", uuids]]
        collections = self.cluster.newest("collections", chosen, ["manifest_text"], len(uuids))
        return [str(collection["manifest_text"]) for collection in collections]

    def _held(self, uuid: str) -> str | None:
        """The id of the image that a collection holds; None if it holds something else or is gone."""
        try:
            return file_in(self.cluster.get("collections", uuid)["manifest_text"])
        except ArvadosRefusedError as error:
            if error.http_status == 404:
                return None
            raise

    def _copy(self, uuid: str, entry: Entry) -> str:
        """A collection of the project's own with the same content; one that an earlier run has made is used."""
        original = self.cluster.get("collections", uuid)
        made = next(self._with_content(entry.project, original["portable_data_hash"]), None)
        if made is not None:
            return str(made["uuid"])
        return self._created(f"a copy of {uuid} in {entry.project}", entry, original["manifest_text"])

    def _created(self, what: str, entry: Entry, manifest_text: str) -> str:
        collection = {
            "manifest_text": manifest_text,
            "name": entry.collection_name,
            "owner_uuid": entry.project,
            "properties": entry.properties,
        }

        def made() -> Record | None:
            return self._unlinked(entry.project, portable_data_hash(manifest_text))

        return str(self.cluster.create("collections", what, collection, made, ensure_unique_name=True)["uuid"])

    def _unlinked(self, project: str, content: str) -> Record | None:
        """A collection of the project with this content that nothing calls an image, as a run leaves it that dies."""
        for collection in self._with_content(project, content):
            if not any(self.cluster.find("links", [["head_uuid", "=", collection["uuid"]]], [])):
                return collection
        return None

    def _with_content(self, project: str, content: str) -> Iterator[Record]:
        """The collections of the project that have this portable data hash."""
        filters = [["owner_uuid", "=", project], ["portable_data_hash", "=", content]]
        return self.cluster.find("collections", filters, [])

    def link(self, uuid: str, entry: Entry) -> None:
        """Make those links to the collection that are missing. With them it is an image."""
        wanted = [(HASH_LINK, entry.image_id), *([(NAME_LINK, entry.name)] if entry.name is not None else [])]
        owned = [["head_uuid", "=", uuid], ["owner_uuid", "=", entry.project]]
        there = list(self.cluster.find("links", owned, ["link_class", "name", "properties"]))
        for link_class, name in wanted:
            same = [link for link in there if (link["link_class"], link["name"]) == (link_class, name)]
            # Engines may know the image by several ids; a later run on this one shall find it by its own.
            engine_id = entry.engine_id if link_class == HASH_LINK else None
            if engine_id is not None:
                same = [link for link in same if (link["properties"] or {}).get(ENGINE_ID) == engine_id]
            if not same:
                link = {
                    "head_uuid": uuid,
                    "link_class": link_class,
                    "name": name,
                    "owner_uuid": entry.project,
                    "properties": dict(entry.link_properties),
                }
                same_link = [[key, "=", link[key]] for key in ("head_uuid", "link_class", "name", "owner_uuid")]
                if engine_id is not None:
                    same_link.append([f"properties.{ENGINE_ID}", "=", engine_id])
                made = functools.partial(self._first_link, same_link)
                self.cluster.create("links", f"the {link_class} link {name} to {uuid}", link, made)

    def _first_link(self, filters: Sequence[Sequence[object]]) -> Record | None:
        return next(self.cluster.find("links", filters, []), None)

    def _unfinished(self, entry: Entry) -> list[str]:
        """UUIDs of collections of the project that may hold the image: those where the server finds the file's name.

        A search in `any` text column includes the names of files (Arvados: services/api/app/models/collection.rb);
        the collection's own name is asked for too, which has part of the id unless the user chose it.
        """
        digits = entry.image_id.removeprefix("sha256:")
        owned = ["owner_uuid", "=", entry.project]
        name = like(entry.collection_name)
        found: list[str] = []
        for condition in (["any", "like", f"%{digits}.tar%"], ["name", "like", f"{name}%"]):
            found += [record["uuid"] for record in self.cluster.find("collections", [owned, condition], [])]
        return list(dict.fromkeys(found))


def file_in(manifest_text: str) -> str | None:
    """The image id that a manifest's one file is named for; None if it is not an image's manifest.

    arv-put writes the colon as `\\072`; both are the same name (Keep manifest format).
    """
    lines = manifest_text.splitlines()
    if len(lines) != 1:
        return None
    names = {token.split(":", 2)[2] for token in lines[0].split(" ")[1:] if re.fullmatch(r"\d+:\d+:.+", token)}
    match = _FILE.fullmatch(names.pop()) if len(names) == 1 else None
    return f"sha256:{match[1]}" if match is not None else None
