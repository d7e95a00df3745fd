"""The catalog of images in Arvados: for each a collection with one file, and links that give it an id and names.

They are created in this order: collection, docker_image_hash link, docker_image_repo+tag links. The scheduler does not
see an image without links, so a run that dies half way leaves nothing that could be taken for an image, and the next
run finds the collection and completes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import ArvadosError, ImageNotFoundError, UsageError, quoted
from ..images.platform import Platform
from ..images.reference import Reference
from . import stored_images
from .arvados_errors import ArvadosRefusedError
from .client import ArvadosClient, Record, like
from .entry import PLATFORM, UNIVERSAL, CatalogEntry, image_id_in
from .links import ENGINE_ID, HASH_LINK, NAME_LINK
from .plan import Action, Plan, create_collection, with_content
from .projects import Projects
from .stored_images import StoredImage

_OF_REPOSITORY = 20
"""Images of one repository whose blocks can be reused; versions tend to share blocks."""
_AT_LEAST = 3
"""Images of each repository, if there are many repositories."""
_MANIFESTS = 500
"""Manifests to read at most."""
_OF_ALL = 50
"""Newest images of all repositories, which may have the same base."""

Accepts = Callable[[Record], bool]
"""Decides whether a collection that holds the image may be used."""


def accept_any(record: Record) -> bool:
    """Use any collection."""
    return True


class Catalog:
    """Finds and records images. Every method raises ArvadosError if Arvados refuses or cannot be asked."""

    def __init__(self, client: ArvadosClient, projects: Projects | None = None) -> None:
        self.client = client
        self.projects = projects or Projects(client)

    @property
    def image_formats(self) -> Sequence[str]:
        """The image formats that the cluster accepts; empty if it does not say."""
        return self.client.image_formats()

    def check_title(self, title: str) -> None:
        """Raise UsageError for a collection's name that this cluster refuses, of those that `entry` lets pass."""
        if "/" in title and not self.client.takes_slashes:
            raise UsageError(f"--name {quoted(title)}: this cluster accepts no name with a slash in it")

    def find_image(
        self, reference: Reference, platform: Platform, certain: bool
    ) -> tuple[StoredImage, Reference] | None:
        """The readable image that Arvados prefers for the reference, and the reference as a name or as an id.

        Images known to be for another platform are left out and, with `certain`, those whose platform is not known.
        Raises ImageNotFoundError if only such images are left, or if several ids begin with the given one.
        """
        image = self._preferred(reference.name, platform, certain) if reference.name is not None else None
        if image is not None:
            return image, replace(reference, id_prefix=None)
        if reference.id_prefix is not None:
            images = [
                image
                for image in stored_images.by_id_prefix(self.client, reference.id_prefix)
                if image.image_id is not None
            ]
            ids = sorted({str(image.image_id) for image in images})
            if len(ids) > 1:
                raise ImageNotFoundError(f"{reference} is the beginning of {len(ids)} ids in Arvados: {', '.join(ids)}")
            for image in images:
                if (not certain or _is_for(image, platform, False)) and self._held(image.collection) == image.image_id:
                    return image, reference.as_id()
        return None

    def _preferred(self, name: str, platform: Platform, certain: bool) -> StoredImage | None:
        others: list[str] = []
        for image in stored_images.by_name(self.client, name):
            if not _is_for(image, platform, not certain):
                others.append(str(Platform.recorded(image.properties.get(PLATFORM)) or ""))
            elif (image_id := self._held(image.collection)) is not None:
                return replace(image, image_id=image_id)
        known = list(dict.fromkeys(filter(None, others)))
        if known:
            has = " and ".join(known)
            raise ImageNotFoundError(f"Arvados has {name} for {has}", f"Choose it with --platform {known[0]}.")
        return None

    def plan_reuse(
        self, entry: CatalogEntry, known: StoredImage | None = None, accepts: Accepts = accept_any
    ) -> Plan | None:
        """The plan to give the project an image that Arvados has, without uploading anything.

        None if the user can read no image with this id that `accepts` accepts. `known` is an image that may lack the
        link with its id.
        """
        images = [*stored_images.by_hash_link(self.client, entry.image_id), *([known] if known is not None else [])]
        if entry.universal:
            images = [image for image in images if image.properties.get(UNIVERSAL) is True]
        images.sort(key=lambda image: image.owner != entry.project)  # stable: keeps the preference
        for image in images:
            record = self._collection(image.collection)
            if record is not None and _holds(record, entry, accepts):
                break
        else:
            return None
        entry = replace(entry, link_properties={**image.properties, **entry.own_link_properties})
        same = frozenset(image.collection for image in images)
        if image.owner == entry.project:
            return self._plan(entry, image.collection, record, same=same)
        # One that an earlier run has made is used.
        made = next(with_content(self.client, entry.project, record["portable_data_hash"]), None)
        uuid = str(made["uuid"]) if made is not None else None
        return self._plan(entry, uuid, record, original=record, same=same)

    def plan_reuse_of(self, entry: CatalogEntry, record: Record) -> Plan:
        """The plan to give the project the image in this collection: the collection itself, or a copy of it."""
        if record.get("owner_uuid") == entry.project:
            return self._plan(entry, str(record["uuid"]), record)
        copies = [str(copy["uuid"]) for copy in with_content(self.client, entry.project, record["portable_data_hash"])]
        same = frozenset({str(record["uuid"]), *copies})
        if not copies:
            return self._plan(entry, None, record, original=record, same=same)
        plans = [self._plan(entry, uuid, record, same=same) for uuid in copies]
        return min(plans, key=lambda plan: len(plan.links))

    def ids_by_digest(self, entry: CatalogEntry, single: bool) -> list[str]:
        """The ids of stored images that the engine or registry knows as `entry.engine_id`, the most preferred first.

        With `single`, that is the digest of one platform's manifest, and links need not name the platform.
        """
        images = stored_images.by_hash_link(self.client, condition=[f"properties.{ENGINE_ID}", "=", entry.engine_id])
        wanted = [
            str(image.image_id)
            for image in images
            if (image.properties.get(UNIVERSAL) is True) == entry.universal
            and (entry.platform is None or _is_for(image, entry.platform, single))
        ]
        return list(dict.fromkeys(wanted))

    def plan_completion(self, entry: CatalogEntry, accepts: Accepts = accept_any) -> Plan | None:
        """The plan to complete a collection that a run left in the project without links; None if there is none."""
        for uuid in self._unfinished(entry):
            record = self._collection(uuid)
            if record is not None and _holds(record, entry, accepts):
                return self.plan_recording(uuid, entry)
        return None

    def plan_recording(self, uuid: str, entry: CatalogEntry) -> Plan:
        """The plan to make the collection `uuid`, which holds the image, an image: its property, then the links."""
        collection = self.client.get("collections", uuid)
        if image_id_in(collection["manifest_text"]) != entry.image_id:
            raise ArvadosError(f"collection {uuid} does not hold the one file {entry.filename}")
        # An update replaces the properties as a whole, and the server may manage some of them.
        there = collection["properties"] or {}
        properties = {**there, **entry.properties}
        missing = properties if properties != there else None
        return self._plan(entry, uuid, collection, properties=missing, before_links=Action.COMPLETED)

    def plan_new(self, entry: CatalogEntry) -> Plan:
        """The plan for an image that Arvados does not have."""
        return Plan(self.client, entry, None, entry.links, before_links=Action.STORED)

    def add_links(self, uuid: str, entry: CatalogEntry) -> None:
        """Create the links to the collection that are missing. With them it is an image."""
        self._plan(entry, uuid).carry_out()

    def preferred_instead(self, plan: Plan, uuid: str) -> StoredImage | None:
        """The image that Arvados prefers to the plan's image, which is in collection `uuid`, for the same name; None if
        the plan's image is preferred."""
        name = plan.entry.name
        if name is None or stored_images.preferred_collection(self.client, name) in (uuid, *plan.same):
            return None
        for image in stored_images.by_name(self.client, name):
            image_id = self._held(image.collection)
            if image_id is not None:
                return None if image_id == plan.entry.image_id else replace(image, image_id=image_id)
        return None

    def create_collection(self, entry: CatalogEntry, manifest_text: str) -> str:
        """Create a collection in the project, which is not an image before `add_links`, and return its UUID.

        Raises ArvadosRefusedError with status 403 also if the server does not accept a locator's signature.
        """
        what = f"collection {entry.collection_name!r} in {entry.project}"
        return create_collection(self.client, what, entry, manifest_text)

    def newest_manifests(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """The signed manifests of readable images, the newest of the names' repositories and of all, each with the UUID
        of the user who last modified it.

        It takes a few requests, and one for each repository.
        """
        queries: list[tuple[list[list[object]], int]] = []
        repositories = dict.fromkeys(stored_images.split_name(name)[0] for name in names)
        for repository in repositories:
            versions: list[list[object]] = [["link_class", "=", NAME_LINK], ["name", "like", f"{like(repository)}:%"]]
            queries.append((versions, max(_OF_REPOSITORY // len(repositories), _AT_LEAST)))
        queries.append(([["link_class", "=", HASH_LINK]], _OF_ALL))
        links = [
            link for query, limit in queries for link in self.client.list_newest("links", query, ["head_uuid"], limit)
        ]
        uuids = self.client.own_collections(dict.fromkeys(link["head_uuid"] or "" for link in links))
        if not uuids:
            return []
        fields = ["manifest_text", "modified_by_user_uuid"]
        collections = self.client.list_newest("collections", [["uuid", "in", uuids[:_MANIFESTS]]], fields, _MANIFESTS)
        return [(str(one["manifest_text"]), str(one["modified_by_user_uuid"])) for one in collections]

    def _held(self, uuid: str) -> str | None:
        """The id of the image in a collection; None if it holds something else or does not exist."""
        record = self._collection(uuid)
        return image_id_in(record["manifest_text"]) if record is not None else None

    def _collection(self, uuid: str) -> Record | None:
        try:
            return self.client.get("collections", uuid)
        except ArvadosRefusedError as error:
            if error.http_status == 404:
                return None
            raise

    def _plan(
        self,
        entry: CatalogEntry,
        uuid: str | None,
        record: Record | None = None,
        original: Record | None = None,
        properties: Record | None = None,
        before_links: Action = Action.FOUND,
        same: frozenset[str] = frozenset(),
    ) -> Plan:
        """The plan for a collection or, if `uuid` is None, for a copy of `original` that is to be created."""
        there: list[Record] = []
        if uuid is not None:
            owned = [["head_uuid", "=", uuid], ["owner_uuid", "=", entry.project]]
            there = list(self.client.list_all("links", owned, ["link_class", "name", "properties"]))
        missing = [wanted for wanted in entry.links if not any(_says(link, wanted, entry) for link in there)]
        names = tuple(link["name"] or "" for link in there if link["link_class"] == NAME_LINK)
        known = {(link["link_class"], link["name"]) for link in there}
        whole = uuid is not None and properties is None and known.issuperset(entry.links)
        return Plan(self.client, entry, uuid, missing, original, properties, names, before_links, same, record, whole)

    def _unfinished(self, entry: CatalogEntry) -> list[str]:
        """UUIDs of the project's collections that may hold the image.

        A search in `any` text column includes the names of files (Arvados: services/api/app/models/collection.rb). The
        collection's name is searched, too: unless the user chose it, it contains a part of the id.
        """
        digits = entry.image_id.removeprefix("sha256:")
        owned = ["owner_uuid", "=", entry.project]
        name = like(entry.collection_name)
        found: list[str] = []
        for condition in (["any", "like", f"%{digits}.tar%"], ["name", "like", f"{name}%"]):
            found += [record["uuid"] for record in self.client.list_all("collections", [owned, condition], [])]
        return list(dict.fromkeys(found))


def _holds(record: Record, entry: CatalogEntry, accepts: Accepts) -> bool:
    return image_id_in(record["manifest_text"]) == entry.image_id and accepts(record)


def _says(link: Record, wanted: tuple[str, str], entry: CatalogEntry) -> bool:
    if (link["link_class"], link["name"]) != wanted:
        return False
    # Engines may know the image by several ids; a later run on this one shall find it by its own.
    by_engine = wanted[0] == HASH_LINK and entry.engine_id is not None
    return not by_engine or (link["properties"] or {}).get(ENGINE_ID) == entry.engine_id


def _is_for(image: StoredImage, platform: Platform, by_default: bool) -> bool:
    recorded = image.properties.get(PLATFORM)
    if recorded is None:
        return by_default
    named = Platform.recorded(recorded)
    return named is not None and named.matches(platform)
