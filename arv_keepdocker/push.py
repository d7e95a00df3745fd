"""The story of one image: find it, look for it in Arvados, save and upload it if it is not there, record it."""

import contextlib
import time as clock
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from .catalog.entry import NAME_LIMIT, PLATFORM, Entry
from .catalog.links import in_utc, parse_time
from .catalog.plan import Made, Plan
from .catalog.records import Catalog
from .catalog.stored_images import StoredImage
from .errors import ArchiveError, ArvadosError, CacheError, EngineError, ImageNotFoundError, KeepdockerError, UsageError
from .images.platform import USUAL, Platform
from .images.reference import Reference, familiar
from .keep.cache import Cache
from .sources.described import EngineImage, PlatformNotFoundError
from .sources.engine import Engine
from .sources.pushed.names import TemporaryNames
from .terminal.display import Display, Style

if TYPE_CHECKING:  # not needed for an image that is there already, nor is what uploads
    from .images.image import Image, Wanted
    from .keep.units import LayerState
    from .sources.registry.source import RegistrySource
    from .sources.source import Source
    from .store.streaming import Streaming

_CLOCK_TOLERANCE = 24 * 60 * 60
"""Seconds by which another machine's clock may be ahead."""
_FORMAT = "v2"
"""Arvados' name for images whose id is `sha256:` and a digest; older ones had another id and format."""


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    reference: Reference | None
    """None only for an archive, which may name its image itself."""
    archive: str | None = None
    """The file, or `-`, that the image is in, instead of an engine."""
    registry: bool = False
    """Get the image from its registry, instead of an engine."""
    insecure: bool = False
    """Take a registry that cannot prove who it is."""
    platform: Platform | None = None
    universal: bool | None = None
    """Whether to store the universal form; None lets the engine decide."""
    project: str | None = None
    title: str | None = None
    """The name that the collection shall have."""
    pull: bool = False
    force: bool = False
    """Store the image even if it is there already."""
    force_image_format: bool = False
    resume: bool = True
    """Go on with what an interrupted run has left."""
    remember: bool = True
    """Take notes of what is sent, for a run that goes on."""
    threads: int = 2
    """How many blocks are sent at a time, by default as many as arv-put sends."""
    dry_run: bool = False
    """Write nothing to Arvados."""
    via_push: bool | None = None
    """Whether the engine is to push the image, not to save it; None lets the engine decide."""
    via_arv_put: bool = False
    put_arguments: Sequence[str] = ()
    """Options for arv-put."""


@dataclass(frozen=True)
class Tools:
    """What a run works with."""

    engine: Engine
    catalog: Catalog
    cache: Cache
    display: Display


@dataclass(frozen=True)
class Outcome:
    """What has become of an image, or would have."""

    plan: Plan
    """What was missing in Arvados, beside the blocks."""
    collection: str | None
    """UUID of the one that it is in; None where that would have been made."""
    sent: int = 0
    """Bytes, of a dry run those that would have been sent."""
    layers: Sequence["LayerState"] = ()
    """Of a dry run that would have sent something."""

    @property
    def image_id(self) -> str:
        return self.plan.entry.image_id

    @property
    def name(self) -> str | None:
        return self.plan.entry.name


class Taken(Protocol):
    """A whole, checked image that can be stored."""

    image_id: str
    """By which it will be found where it is loaded."""
    image: "Image"
    universal: bool
    """Whether it is stored in the universal form."""

    def store(self, entry: Entry) -> str: ...


class Way(Protocol):
    """How the bytes get from where they are to Keep."""

    def take(self, source: "Source", wanted: "Wanted", universal: bool) -> AbstractContextManager[Taken]: ...


@dataclass(frozen=True)
class _Found:
    """An image, wherever it was found."""

    image_id: str
    reference: Reference
    in_engine: EngineImage | None = None
    missing: PlatformNotFoundError | None = None
    """Why the engine cannot give `in_engine`, which only Arvados may have then."""
    in_arvados: StoredImage | None = None


def push(options: Options, tools: Tools) -> Outcome:
    """Store the image in Arvados unless it is there.

    Raises a KeepdockerError.
    """
    _check_name(options.reference.name if options.reference is not None else None)
    if options.title is not None:
        tools.catalog.check_title(options.title)
    project = tools.catalog.projects.find(options.project)
    outcome = _push(project, options, tools)
    if not options.dry_run and outcome.collection is not None:
        if outcome.plan.made is not Made.STORED:
            tools.display.note(outcome.plan.summary(tools.catalog.projects.called(project)))
        _warn_of_another(outcome.plan, outcome.collection, tools)
    return outcome


def _push(project: str, options: Options, tools: Tools) -> Outcome:
    if options.archive is not None:
        return _push_archive(options.archive, project, options, tools)
    if options.registry:
        return _push_from_registry(project, options, tools)
    found = _find(options, tools)
    if found.in_engine is not None:
        return _push_from_engine(found.in_engine, found, project, options, tools)
    entry = Entry(project, found.image_id, found.reference.name, options.title)
    with _only_one_run(entry.image_id, options, tools):
        plan = tools.catalog.adopt(entry, found.in_arvados)
        if plan is None:
            raise ImageNotFoundError(f"image {options.reference} was in Arvados just now and is gone")
        return _carried_out(plan, options, tools)


def _push_from_engine(image: EngineImage, found: _Found, project: str, options: Options, tools: Tools) -> Outcome:
    universal = image.containerd if options.universal is None else options.universal
    _warn_of_time(image.created, tools)
    entry = Entry(project, image.id, found.reference.name, options.title, universal=universal).made_at(image.created)
    if image.containerd or universal:
        # The id that is recorded is a digest that only the archive tells, or an earlier run's link.
        platform = image.platform if image.several_platforms is not False else None
        entry = replace(entry, engine_id=image.id, platform=platform)
    TemporaryNames(tools.cache, tools.display.warning).take_back(tools.engine)
    with _only_one_run(image.id, options, tools):
        outcome = _stored_already(entry, image, options, tools)
        if found.missing is not None:
            if outcome is None:
                raise found.missing
            tools.display.warning(f"{found.missing}; using the image that Arvados has of it")
        _warn_of_platform(image.platform, options, tools)
        if outcome is None:
            tools.catalog.projects.check_writable(project)
            _check_format(options, tools)
            outcome = _save_and_store(image, entry, options, tools)
        if not options.dry_run:
            tools.cache.discard(image.id, outcome.image_id)
        return outcome


def _stored_already(entry: Entry, image: EngineImage, options: Options, tools: Tools) -> Outcome | None:
    """What Arvados has of the image, as far as its id tells before it is saved."""
    if options.force or entry.engine_id is None:
        return _there(entry, options, tools)
    single = image.several_platforms is not True
    outcome = _recognized(entry, single, options, tools)
    if outcome is not None or not single:
        return outcome
    # The universal form has the same id everywhere, so an engine that has it from Arvados knows it by that. In any
    # other form, the engine's Id may be one that compute nodes do not know the image by.
    plan = tools.catalog.adopt(replace(entry, engine_id=None, platform=None, universal=True))
    return _carried_out(plan, options, tools) if plan is not None else None


def _save_and_store(image: EngineImage, entry: Entry, options: Options, tools: Tools) -> Outcome:
    """Save, upload and record the image."""
    from .images.image import Wanted

    tools.cache.remove_leftovers()
    wanted = Wanted(entry.name, image.platform if image.containerd else None)
    way = _way(options, tools)
    with way.take(_source(image, way, options, tools), wanted, entry.universal) as taken:
        was_certain = entry.engine_id is None and taken.image_id == image.id
        learned = taken.image_id != image.id
        entry = replace(entry, image_id=taken.image_id, engine_id=image.id if learned else None)
        entry = entry.made_at(taken.image.created)
        _pass_on_warnings(taken.image, tools)
        if taken.image.created != image.created:
            _warn_of_time(taken.image.created, tools)
        stored = None if was_certain else _there(entry, options, tools)
        return stored or _made(taken, entry, options, tools)


def _source(image: EngineImage, way: Way, options: Options, tools: Tools) -> "Source":
    from .sources.archives import EngineSource
    from .store.streaming import Streaming

    if not options.via_push or not isinstance(way, Streaming):
        return EngineSource(tools.engine, image)
    from .sources.pushed.notes import PushNotes
    from .sources.pushed.source import PushSource

    names = TemporaryNames(tools.cache, tools.display.warning)
    notes = PushNotes(way.journal, way.resume, way.remember)
    return PushSource(tools.engine, image, names, notes, tools.display.note)


def _push_archive(file: str, project: str, options: Options, tools: Tools) -> Outcome:
    from .images.image import Wanted
    from .sources.archives import FileSource

    given = options.reference.name if options.reference is not None else None
    wanted = Wanted(given, options.platform)
    source = FileSource(file)
    # What can be read only once is sent while it is read, unless that is known to be in vain.
    refusal = None if source.repeatable else tools.catalog.projects.refusal(project)
    way = _way(options if refusal is None else replace(options, dry_run=True), tools)
    with way.take(source, wanted, bool(options.universal)) as taken:
        image = taken.image
        _warn_of_platform(image.platform, options, tools)
        _pass_on_warnings(image, tools)
        _warn_of_time(image.created, tools)
        name, *further = [given] if given is not None else image.names or [None]
        for each in (name, *further):
            _check_name(each)
        if name is None:
            tools.display.note(_how_to_name(image))
        universal = bool(options.universal) or taken.universal
        entry = Entry(project, taken.image_id, name, options.title, universal=universal)
        entry = replace(entry, further_names=tuple(filter(None, further))).made_at(image.created)
        with _only_one_run(entry.image_id, options, tools):
            stored = _there(entry, options, tools)
            if stored is None:
                tools.catalog.projects.check_writable(project)
                _check_format(options, tools)
            return stored or _made(taken, entry, options, tools)


def _push_from_registry(project: str, options: Options, tools: Tools) -> Outcome:
    from .sources.registry.source import open_registry

    reference = options.reference
    assert reference is not None
    if options.insecure:
        tools.display.warning("others on the network can read the registry's password and change what it sends")
    retries = tools.catalog.cluster.retries
    source = open_registry(reference, options.platform, tools.display, retries, options.insecure)
    digest = source.head()
    # A name that stands for one image alone means that, whatever it is for.
    single = source.is_index is False and options.platform is None
    entry = Entry(project, digest, reference.name, options.title, universal=bool(options.universal))
    entry = replace(entry, engine_id=digest, platform=None if single else options.platform or USUAL)
    with _only_one_run(digest, options, tools):
        outcome = None if options.force else _recognized(entry, single, options, tools)
        return outcome or _fetch_and_store(source, entry, options, tools)


def _fetch_and_store(source: "RegistrySource", entry: Entry, options: Options, tools: Tools) -> Outcome:
    """Store what the registry has, unless Arvados turns out to have it by another name or from elsewhere."""
    found = source.describe()
    about = found.configuration
    _warn_of_platform(about.platform, options, tools)
    _warn_of_time(about.created, tools)
    entry = replace(entry, image_id=found.image_id, platform=options.platform or about.platform).made_at(about.created)
    with _only_one_run(entry.image_id, options, tools):
        outcome = None if entry.universal else _there(entry, options, tools)
        if outcome is not None:
            return outcome
        tools.catalog.projects.check_writable(entry.project)
        _check_format(options, tools)
        if options.dry_run:
            layers = _streaming(options, tools).layers_known(
                entry.name, [(layer.diff_id, layer.size) for layer in found.layers]
            )
            return Outcome(tools.catalog.new(entry), None, sum(layer.size for layer in layers if layer.new), layers)
        return _fetched(source, entry, options, tools)


def _fetched(source: "RegistrySource", entry: Entry, options: Options, tools: Tools) -> Outcome:
    from .images.image import Wanted

    with _streaming(options, tools).take(source, Wanted(entry.name, options.platform), entry.universal) as taken:
        tools.display.note(f"{source.fetched / (1 << 20):.1f} MiB came from the registry")
        _pass_on_warnings(taken.image, tools)
        entry = replace(entry, image_id=taken.image_id)
        outcome = _there(entry, options, tools) if entry.universal else None
        outcome = outcome or _made(taken, entry, options, tools)
    for digest in taken.image.digests:
        if digest != entry.engine_id and outcome.collection is not None:  # an engine may know it by that
            tools.catalog.link(outcome.collection, replace(entry, engine_id=digest).made_at(taken.image.created))
    return outcome


def _recognized(entry: Entry, single: bool, options: Options, tools: Tools) -> Outcome | None:
    """The image that Arvados has by a digest that it is known by elsewhere."""
    for image_id in tools.catalog.recognize(entry, single):
        plan = tools.catalog.adopt(replace(entry, image_id=image_id))
        if plan is not None:
            return _carried_out(plan, options, tools)
    return None


def _how_to_name(image: "Image") -> str:
    """What to do about an image that has no name."""
    known, tag = (f", only the tag {image.tags[0]}", image.tags[0]) if image.tags else ("", "TAG")
    return f"the archive gives its image no name{known}; to give it one, add IMAGE {tag}"


def _there(entry: Entry, options: Options, tools: Tools) -> Outcome | None:
    """What Arvados has of an image whose id is certain."""
    plan = None if options.force else tools.catalog.adopt(entry) or tools.catalog.complete(entry)
    return _carried_out(plan, options, tools) if plan is not None else None


def _carried_out(plan: Plan, options: Options, tools: Tools) -> Outcome:
    if plan.steps:
        refusal = tools.catalog.projects.refusal(plan.entry.project)
        if refusal is not None and not plan.whole:
            raise refusal
        plan = plan if refusal is None else replace(plan, links=())
    return Outcome(plan, plan.source if options.dry_run else plan.carry_out())


def _made(taken: Taken, entry: Entry, options: Options, tools: Tools) -> Outcome:
    # What was universal already is found as such later, whatever was asked for now.
    entry = replace(entry, universal=entry.universal or taken.universal).made_at(taken.image.created)
    plan = tools.catalog.new(entry)
    if not options.dry_run:
        return Outcome(plan, taken.store(entry))
    from .store.streaming import Streamed

    assert isinstance(taken, Streamed)
    return Outcome(plan, None, taken.sent, taken.layers)


def _warn_of_another(plan: Plan, uuid: str, tools: Tools) -> None:
    """A workflow gets what Arvados prefers, which need not be what was just stored."""
    name, catalog = plan.entry.name, tools.catalog
    try:
        other = catalog.other_than(plan, uuid)
        if other is None:
            return
        content = catalog.cluster.get("collections", uuid)["portable_data_hash"]
    except ArvadosError as error:
        tools.display.warning(f"could not find out which image a workflow gets that asks for {name}: {error}")
        return
    tools.display.warning(
        f"a workflow that asks for {name} gets another image, {other.image_id} in {other.collection} "
        f"(made {in_utc(other.created)}), which Arvados prefers; for this one, ask for {content}, or store it under "
        "another tag"
    )


def _way(options: Options, tools: Tools) -> Way:
    if options.via_arv_put:
        from .store.via_arv_put import ViaArvPut

        resume = options.resume and not options.force
        return ViaArvPut(tools.catalog, tools.cache, tools.display, options.put_arguments, resume)
    return _streaming(options, tools)


def _streaming(options: Options, tools: Tools) -> "Streaming":
    from .store.streaming import Streaming

    return Streaming(
        tools.catalog,
        tools.cache,
        tools.display,
        options.threads,
        reuse=not options.force,
        resume=options.resume and not options.force,
        remember=options.remember and not options.dry_run,
        dry_run=options.dry_run,
    )


def _check_name(name: str | None) -> None:
    """Before everything else: Arvados would refuse the name's link when all is done."""
    if name is not None and len(name) > NAME_LIMIT:
        raise UsageError(f"the name {name} has {len(name)} characters; Arvados takes {NAME_LIMIT}")


def _warn_of_platform(platform: Platform | None, options: Options, tools: Tools) -> None:
    if options.platform is None and platform is not None and not platform.matches(USUAL):
        tools.display.warning(f"the image is for {platform}, which the cluster's compute nodes may not be")


def _warn_of_time(created: str | None, tools: Tools) -> None:
    """Of several images of a name, the scheduler takes the one that was made last."""
    time = parse_time(created)
    if time is not None and time.timestamp() > clock.time() + _CLOCK_TOLERANCE:
        tools.display.warning(
            f"the image says that it was made in the future, at {created}: "
            "until then, workflows prefer it to newer images of the same name"
        )


def _pass_on_warnings(image: "Image", tools: Tools) -> None:
    for warning in image.warnings:
        tools.display.warning(warning)


def _find(options: Options, tools: Tools) -> _Found:
    """The image in the engine, or where that has none or cannot be asked, in Arvados; with --pull, what was pulled."""
    reference = options.reference
    assert reference is not None
    if options.pull:
        reference = _to_be_pulled(reference, tools)
        if reference.name is not None:
            image = _pulled(reference.name, options, tools)
            return _Found(image.id, replace(reference, id_prefix=None), image)
    try:
        found = tools.engine.find(str(reference), options.platform)
        problem: KeepdockerError = _not_in_engine(options, tools)
    except PlatformNotFoundError as error:
        error.hint = _other_platform_hint(error, _resolved(reference, error.image).name, options)
        return _other_platform(error, reference, options)
    except EngineError as error:
        if options.pull:
            raise
        found, problem = None, error
    if found is not None:
        return _Found(found.id, _resolved(reference, found), found)
    return _find_in_arvados(reference, options, tools, problem)


def _to_be_pulled(reference: Reference, tools: Tools) -> Reference:
    """By its name, unless it is an id: what the engine has by its id cannot be newer anywhere."""
    if reference.id_prefix is None or reference.name is None:
        return reference
    image = tools.engine.look(str(reference))
    return _resolved(reference, image) if image is not None else reference


def _other_platform(error: PlatformNotFoundError, reference: Reference, options: Options) -> _Found:
    """The image that the engine has for another platform only: Arvados may have the one that is meant.

    Of an index it is known by the index's digest and the platform; of anything else, the Id is another image's.
    """
    if options.force or not error.image.several_platforms:
        raise error
    image = replace(error.image, platform=error.wanted, created=None)
    return _Found(image.id, _resolved(reference, image), image, error)


def _other_platform_hint(error: PlatformNotFoundError, name: str | None, options: Options) -> str | None:
    ways = [f"store the one for {platform} with --platform {platform}" for platform in error.there]
    if name is not None and not options.pull:
        asked = f"--pull --platform {error.wanted}"
        ways.insert(0, f"pull it: {asked if options.platform is not None else '--pull'}")
    words = ", or ".join(ways)
    return f"{words[0].upper()}{words[1:]}." if words else None


def _find_in_arvados(wanted: Reference, options: Options, tools: Tools, problem: KeepdockerError) -> _Found:
    if options.force:
        raise problem
    try:
        own = USUAL if isinstance(problem, EngineError) else tools.engine.platform
        stored = tools.catalog.find(wanted, options.platform or own, certain=options.platform is not None)
    except ImageNotFoundError as error:
        raise type(problem)(f"{problem}; {error}", error.hint or problem.hint) from error
    if stored is None:
        without = "With --from-registry, no engine is needed."
        hint = " ".join(filter(None, [problem.hint, without if wanted.name is not None else None])) or None
        raise type(problem)(f"{problem}; and Arvados has no such image that you may read", hint) from problem
    image, reference = stored
    tools.display.warning(f"{problem}; using the image that Arvados has in {image.collection}")
    _warn_of_platform(Platform.recorded(image.properties.get(PLATFORM)), options, tools)
    assert image.image_id is not None
    return _Found(image.image_id, reference, in_arvados=image)


def _resolved(reference: Reference, image: EngineImage) -> Reference:
    """Whether a word that may be a name or the beginning of an id was the one or the other to the engine."""
    if reference.id_prefix is None:
        return reference
    named = reference.name in [familiar(name) for name in image.names]
    return replace(reference, id_prefix=None) if named else reference.as_id()


def _pulled(name: str, options: Options, tools: Tools) -> EngineImage:
    display = tools.display
    display.note(f"pulling {name}")
    shown = display.progress is Style.LINE and display.stream.isatty()
    tools.engine.pull(name, display.stream if shown else None, options.platform)
    try:
        image = tools.engine.find(name, options.platform)
    except PlatformNotFoundError as error:
        hint = _other_platform_hint(error, name, options)
        raise EngineError(f"{tools.engine.name} pulled {name}, but {error}", hint) from error
    if image is None:
        raise EngineError(f"{tools.engine.name} pulled {name} and does not have it")
    return image


def _not_in_engine(options: Options, tools: Tools) -> ImageNotFoundError:
    assert options.reference is not None
    hint = f"Pull it with {tools.engine.name}, or use --pull."
    if options.reference.name is None:
        hint = "An id cannot be pulled; with --pull, give the image's name."
    return ImageNotFoundError(f"{tools.engine.name} has no image {options.reference}", hint)


def _check_format(options: Options, tools: Tools) -> None:
    formats = tools.catalog.image_formats
    if _FORMAT in formats:
        return
    takes = f"takes the formats {', '.join(map(repr, formats))}" if formats else "does not say which formats it takes"
    problem = f"the cluster {takes}; the image's is {_FORMAT!r}"
    if not options.force_image_format:
        raise ArchiveError(problem, "With --force-image-format it is stored all the same.")
    tools.display.warning(problem)


@contextlib.contextmanager
def _only_one_run(image_id: str, options: Options, tools: Tools) -> Iterator[None]:
    """Wait until no other run stores this image: it may be there afterwards."""
    if options.dry_run:
        yield
        return

    def waiting(pid: int | None) -> AbstractContextManager[None]:
        who = f"process {pid}" if pid is not None else "another run"
        return tools.display.waiting(f"{who}, which is storing image {image_id}", at_once=True)

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(tools.cache.lock(image_id, waiting))
        except CacheError as error:
            tools.display.warning(f"{error}; going on without keeping other runs from storing the same image")
        yield
