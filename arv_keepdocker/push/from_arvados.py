"""Finding an image in Arvados itself: to give it a name, to copy it, or to store it anew as it should be."""

from dataclasses import replace
from functools import partial

from ..catalog.catalog import Catalog
from ..catalog.client import Record
from ..catalog.entry import PLATFORM, CatalogEntry
from ..catalog.links import ENGINE_ID, text
from ..catalog.located import Located, load, locate
from ..catalog.plan import Plan
from ..catalog.snapshot import Snapshot
from ..errors import ArchiveError, ImageNotFoundError
from ..images.image import Selection
from ..images.platform import Platform
from ..keep.known_layers import StoredManifest
from ..keep.locators import files
from ..sources.arvados import ArvadosSource, Get
from ..store.block_reader import block_checker
from .found_image import FoundImage
from .inspect_stored import Form, is_remote, known_form, removal_command, structure_problems, wrong_links
from .request import Request, Tools


def find_in_arvados(request: Request, project: str, tools: Tools) -> FoundImage:
    """The image that Arvados has in the collection that is meant.

    Raises ImageNotFoundError, ArvadosError, or ArchiveError for what cannot be an image.
    """
    tools = looking(tools)
    located = find(request, project, tools)
    if problems := structure_problems(located, project):
        wrong = [str(link["uuid"]) for link in wrong_links(located, project)]
        hint = f"If the file is right, remove the wrong links: {removal_command(wrong, tools)}" if wrong else None
        raise ArchiveError("; ".join(problems), hint)
    get = block_checker(tools.catalog.client)
    found = as_archive(located, request, project, get)
    form = known_form(located, request, tools, get)
    if form is None:
        return found
    if not is_remote(located) and request.universal in (None, form.universal) and not request.force:
        return _in_place(found, located, form, request, tools)
    return replace(found, manifests=[_manifest(located, tools)])


def looking(tools: Tools) -> Tools:
    """With what is asked for once and remembered."""
    if isinstance(tools.catalog.client, Snapshot):
        return tools
    return replace(tools, catalog=Catalog(Snapshot(tools.catalog.client), tools.catalog.projects))


def snapshot_of(tools: Tools) -> Snapshot:
    """What is remembered."""
    assert isinstance(tools.catalog.client, Snapshot)
    return tools.catalog.client


def find(request: Request, project: str, tools: Tools) -> Located:
    """The collection that is meant. Raises ImageNotFoundError or ArvadosError."""
    client = snapshot_of(tools)
    assert request.sought is not None
    load(client, [request.sought], [request.name] if request.name is not None else [])
    return locate(client, request.sought, project, request.platform)


def as_archive(located: Located, request: Request, project: str, get: Get) -> FoundImage:
    """The image that only reading the collection's one file tells."""
    names = [request.name] if request.name is not None else located.names
    properties = located.by_id.properties if located.by_id is not None else {}
    entry = CatalogEntry(
        project,
        "",
        names[0] if names else None,
        request.title,
        engine_id=text(properties.get(ENGINE_ID)),
        platform=Platform.recorded(properties.get(PLATFORM)),
        universal=bool(request.universal),
        further_names=tuple(names[1:]),
    )
    (pieces,) = files(located.record["manifest_text"]).values()
    plain = request.universal is False
    return FoundImage(
        entry,
        lambda: ArvadosSource(f"collection {located.uuid}", pieces, located.image_id, get, plain),
        Selection(entry.name, request.platform),
        takes_names=not names,
        located=located,
    )


def _in_place(found: FoundImage, located: Located, form: Form, request: Request, tools: Tools) -> FoundImage:
    """Of what is as it is wanted, only links are missing, or a copy in the project."""
    about = form.configuration
    if request.platform is not None and about is not None and not about.platform.matches(request.platform):
        what = f"collection {located.uuid} has the image"
        raise ImageNotFoundError(f"{what} for {about.platform}, not for {request.platform}")
    entry = replace(found.entry, image_id=str(located.image_id), universal=form.universal)
    if located.by_id is not None:
        entry = replace(entry, link_properties={**located.by_id.properties, **entry.own_link_properties})
    else:
        entry = entry.with_timestamp(about.created if about is not None else None)
    return replace(found, entry=entry, takes_names=False, in_place=partial(_plan, tools.catalog, entry, located.record))


def _plan(looked_up: Catalog, entry: CatalogEntry, record: Record, catalog: Catalog | None) -> Plan:
    """What is missing as it was looked up or, with a `catalog`, as that says now."""
    return (catalog or looked_up).plan_reuse_of(entry, record)


def _manifest(located: Located, tools: Tools) -> StoredManifest:
    mine = located.record.get("modified_by_user_uuid") == tools.catalog.projects.user["uuid"]
    return StoredManifest(located.record["manifest_text"], mine=mine)
