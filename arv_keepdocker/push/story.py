"""The story of one image, whatever its source: find it, look it up in Arvados, upload it if it is missing, record it.

What a run leaves behind if it stops: before `_send`, nothing. While it uploads, blocks in Keep that no collection
refers to, and notes of them in the cache directory, from which the next run resumes. Between collection and links, a
collection that the scheduler does not see as an image; the next run finds it and completes it.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..catalog import workbench
from ..catalog.arvados_errors import ArvadosRefusedError
from ..catalog.plan import Action, Plan
from ..keep.run_lock import RunLock
from ..store.content import Content
from . import preconditions
from .found_image import FoundImage, Lookup
from .lookup import look_up, look_up_anew, look_up_id
from .request import Outcome, Request, Tools

if TYPE_CHECKING:  # not needed for an image that is there already
    from ..catalog.entry import CatalogEntry
    from .uploaders import Upload


def push(request: Request, tools: Tools) -> Outcome:
    """Store the image in Arvados unless Arvados has it. Raises a KeepdockerError."""
    start = time.monotonic()
    preconditions.check_names([request.name])
    if request.title is not None:
        tools.catalog.check_title(request.title)
    project = tools.catalog.projects.resolve(request.project)
    found = find_image(request, project, tools)
    with RunLock(tools.cache, tools.display, enabled=not request.dry_run) as lock:
        outcome = store_found(found, request, tools, lock)
    if not request.dry_run:
        report(outcome, tools)
    return replace(outcome, seconds=time.monotonic() - start)


def find_image(request: Request, project: str, tools: Tools) -> FoundImage:
    """The image in the source that the request names. Raises a KeepdockerError."""
    if request.archive is not None:
        from .from_archive import find_in_archive

        return find_in_archive(request.archive, request, project, tools)
    if request.sought is not None:
        from .from_arvados import find_in_arvados

        return find_in_arvados(request, project, tools)
    if request.registry:
        from .from_registry import find_in_registry

        return find_in_registry(request, project, tools)
    from .from_engine import find_in_engine

    return find_in_engine(request, project, tools)


def store_found(found: FoundImage, request: Request, tools: Tools, lock: RunLock) -> Outcome:
    """Use the image in Arvados if there is one; upload it otherwise."""
    for digest in found.digests:
        lock.hold(digest)  # if another run is storing it, it is in Arvados afterwards
    plan = look_up(found, request, tools.catalog, again=lock.has_waited)
    if plan is None and found.unavailable is not None:
        raise found.unavailable
    preconditions.warn_of_found(found, request, tools)
    if plan is not None:
        outcome = _carry_out(plan, request, tools)
        if not request.dry_run:
            tools.cache.remove_leftovers()
    elif found.describe is not None:
        return store_found(found.describe(), request, tools, lock)
    else:
        outcome = _send(found, request, tools, lock)
    if not request.dry_run:
        tools.cache.discard(found.digest or outcome.image_id, outcome.image_id)
    return outcome


def _send(found: FoundImage, request: Request, tools: Tools, lock: RunLock) -> Outcome:
    """Read the image, upload what Arvados lacks, and record it."""
    from .uploaders import make_uploader

    assert found.source is not None
    source, project, sends = found.source(), found.entry.project, not request.dry_run
    if found.digest is not None:
        preconditions.check_storable(project, request, tools)
    elif found.located is not None or not source.repeatable:
        # It is read only once, so it is sent meanwhile, unless the project is known not to be writable.
        sends = sends and tools.catalog.projects.why_not_writable(project) is None
    if request.dry_run and found.layers is not None:
        return _predicted_outcome(found, found.layers, request, tools)
    tools.cache.remove_leftovers()
    universal = found.entry.universal if found.located is None else request.universal
    uploader = make_uploader(request, tools, not sends, found.manifests)
    with uploader.prepare(source, found.wanted, universal) as upload:
        if source.fetched is not None:
            tools.display.note(f"{source.fetched / (1 << 20):.1f} MiB came from the registry")
        preconditions.warn_of_read(upload.image, found, request, tools)
        entry = _complete_entry(found, upload, tools)
        lock.hold(entry.image_id)
        if found.located is not None and sends:
            from .inspect_stored import wait_to_be_newer

            wait_to_be_newer(found.located)
        outcome = _record(found, entry, upload, request, tools)
    if found.records_digests and outcome.collection is not None:
        _link_digests(outcome.collection, entry, upload, tools)
    if found.located is not None and not request.dry_run:
        from .inspect_stored import tell_of_old_links

        tell_of_old_links(found.located, outcome, tools, mended=not found.manifests)
    return outcome


def _predicted_outcome(found: FoundImage, layers: Sequence[tuple[str, int]], request: Request, tools: Tools) -> Outcome:
    """The outcome of a dry run for an image whose layers are known without reading it."""
    from .uploaders import streaming_uploader

    states = streaming_uploader(request, tools, dry_run=True).layer_states(found.entry.name, layers)
    new = sum(layer.size for layer in states if layer.new)
    content = Content(None, None, new, sum(layer.size for layer in states) - new, layers=states)
    return Outcome(tools.catalog.plan_new(found.entry), None, content)


def _complete_entry(found: FoundImage, upload: "Upload", tools: Tools) -> "CatalogEntry":
    """The catalog entry, complete now that the image has been read."""
    entry, image = found.entry, upload.image
    name, *further = image.names or [None] if found.takes_names else [entry.name, *entry.further_names]
    preconditions.check_names([name, *further])
    if name is None and found.takes_names:
        known, tag = (f", only the tag {image.tags[0]}", image.tags[0]) if image.tags else ("", "TAG")
        tools.display.note(f"the archive gives its image no name{known}; to give it one, add IMAGE {tag}")
    recorded = found.located.image_id if found.located is not None else None
    if recorded is not None and image.is_by_manifest(recorded):
        entry = replace(entry, engine_id=recorded, platform=image.platform)
    engine_id = entry.engine_id or found.digest
    entry = replace(
        entry,
        image_id=upload.image_id,
        name=name,
        further_names=tuple(filter(None, further)),
        engine_id=engine_id if engine_id != upload.image_id else None,
        # What was universal already is found as such later, whatever was asked for now.
        universal=entry.universal or upload.universal,
    )
    return entry.with_timestamp(image.created)


def _carry_out(plan: Plan, request: Request, tools: Tools) -> Outcome:
    """Carry out the plan for an image in Arvados; a complete image in a read-only project stays as it is."""
    # The first link that cannot be made says why, unless something else were made before it.
    only_links = plan.collection is not None and plan.properties is None
    if plan.steps and (request.dry_run or plan.whole or not only_links):
        refusal = tools.catalog.projects.why_not_writable(plan.entry.project)
        if refusal is not None and not plan.whole:
            raise refusal
        plan = plan if refusal is None else replace(plan, links=())
    uuid = plan.source if request.dry_run else _carried_out(plan, tools)
    return Outcome(plan, uuid, Content.of(plan.record) if plan.record is not None else None)


def _carried_out(plan: Plan, tools: Tools) -> str:
    try:
        return plan.carry_out()
    except ArvadosRefusedError:
        refusal = tools.catalog.projects.why_not_writable(plan.entry.project)
        if refusal is not None:
            raise refusal from None
        raise


def _record(found: FoundImage, entry: "CatalogEntry", upload: "Upload", request: Request, tools: Tools) -> Outcome:
    """Create the collection and its links, unless Arvados turns out to have the image after all."""
    looked_up = found.lookup is Lookup.BY_ID and entry.image_id == found.entry.image_id
    if found.located is not None and upload.content is not None:
        # What comes from Arvados is there in any case, but perhaps in another archive than is wanted.
        just = upload.content.portable_data_hash
        mends = found.located if not found.manifests else None
        plan = look_up_anew(
            entry, mends, request, tools.catalog, lambda record: bool(record["portable_data_hash"] == just)
        )
    else:
        plan = None if looked_up else look_up_id(entry, request, tools.catalog)
    if plan is not None:
        return replace(_carry_out(plan, request, tools), content=upload.content)
    if found.digest is None:
        preconditions.check_storable(entry.project, request, tools)
    plan = tools.catalog.plan_new(entry)
    uuid = upload.store(entry) if not request.dry_run else None
    content = upload.content
    if content is None and uuid is not None:
        content = Content.of(tools.catalog.client.get("collections", uuid))
    return Outcome(plan, uuid, content)


def _link_digests(collection: str, entry: "CatalogEntry", upload: "Upload", tools: Tools) -> None:
    for digest in upload.image.digests:
        if digest != entry.engine_id:
            tools.catalog.add_links(collection, replace(entry, engine_id=digest).with_timestamp(upload.image.created))


def report(outcome: Outcome, tools: Tools) -> None:
    """Print what was found and created, and a warning if a workflow would get another image."""
    plan = outcome.plan
    if plan.action is not Action.STORED:
        project = tools.catalog.projects.display_name(plan.entry.project)
        tools.display.note(plan.summary(project))
    if plan.action not in (Action.STORED, Action.COPIED) and plan.entry.title not in (None, plan.title):
        again = "--force stores the image again"
        tools.display.note(f"the collection exists already, so --name was not used; {again}")
    if outcome.collection is not None and tools.display.stream.isatty() and not tools.display.is_shared:
        page = workbench.collection_url(tools.catalog.client, outcome.collection)
        if page is not None:
            tools.display.note(f"see {page}")
    preconditions.warn_of_preferred(outcome, tools)
