"""The story of one image: find it, look for it in Arvados, save and upload it if it is not there, record it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .cache import Cache
from .catalog import Catalog, Entry
from .display import Display
from .engine import Engine, EngineImage
from .errors import ArchiveError, CacheError, EngineError, ImageNotFoundError, KeepdockerError
from .listing import StoredImage
from .platforms import USUAL, Platform
from .reference import Reference, familiar

if TYPE_CHECKING:  # as `upload`, not needed for an image that is there already
    from .archive import Image

_FORMAT = "v2"
"""Arvados' name for images whose id is `sha256:` and a digest; older ones had another id and format."""


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    reference: Reference | None
    """None only for an archive, which may name its image itself."""
    archive: str | None = None
    """The file, or `-`, that the image is in, instead of an engine."""
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
class _Found:
    """An image, wherever it was found."""

    image_id: str
    reference: Reference
    in_engine: EngineImage | None = None
    in_arvados: StoredImage | None = None


def push(options: Options, tools: Tools) -> str:
    """Store the image in Arvados unless it is there, and return the UUID of its collection.

    Raises a KeepdockerError.
    """
    project = tools.catalog.project(options.project)
    if options.archive is not None:
        return _push_archive(options.archive, project, options, tools)
    found = _find(options, tools)
    if found.in_engine is not None:
        return _push_from_engine(found.in_engine, found.reference, project, options, tools)
    entry = Entry(project, found.image_id, found.reference.name, options.title)
    with _only_one_run(entry.image_id, tools):
        stored = tools.catalog.adopt(entry, found.in_arvados)
    if stored is None:
        raise ImageNotFoundError(f"image {options.reference} was in Arvados just now and is gone")
    return stored


def _push_from_engine(image: EngineImage, reference: Reference, project: str, options: Options, tools: Tools) -> str:
    universal = image.containerd if options.universal is None else options.universal
    _warn_of_platform(image.platform, options, tools)
    entry = Entry(project, image.id, reference.name, options.title, universal=universal).made_at(image.created)
    if image.containerd or universal:
        # The id that is recorded is a digest that only the archive tells, or an earlier run's link.
        platform = image.platform if image.several_platforms else None
        entry = replace(entry, engine_id=image.id, platform=platform)
    with _only_one_run(image.id, tools):
        stored = _stored_already(entry, options, tools)
        if stored is not None:
            return stored
        _check_format(options, tools)
        return _save_and_store(image, entry, options, tools)


def _stored_already(entry: Entry, options: Options, tools: Tools) -> str | None:
    """What Arvados has of the image, as far as its id tells before it is saved."""
    if options.force:
        return None
    catalog = tools.catalog
    if entry.engine_id is None:
        return catalog.adopt(entry) or catalog.complete(entry)
    adopted = (catalog.adopt(replace(entry, image_id=known)) for known in catalog.recognize(entry))
    # The universal form has the same id everywhere, so an engine that has it from Arvados knows it by that.
    return next(filter(None, adopted), None) or catalog.adopt(replace(entry, engine_id=None, platform=None))


def _save_and_store(image: EngineImage, entry: Entry, options: Options, tools: Tools) -> str:
    """Save, upload and record the image."""
    from . import upload  # not needed, with all that it needs, for an image that is there already

    tools.cache.remove_leftovers()
    wanted = upload.Wanted(entry.name, image.platform if image.containerd else None, entry.universal)
    saved = upload.save(tools.engine, image, wanted, tools.cache, tools.display, options.resume and not options.force)
    learned = saved.image_id != image.id
    entry = replace(entry, image_id=saved.image_id, engine_id=image.id if learned else None)
    entry = entry.made_at(saved.image.created)
    _warn_of_layers(saved.image, tools)
    stored = None
    if learned and not options.force:
        stored = tools.catalog.adopt(entry) or tools.catalog.complete(entry)
    if stored is None:
        stored = upload.store(saved, entry, options.put_arguments, tools.cache, tools.catalog)
    saved.path.unlink(missing_ok=True)
    return stored


def _push_archive(file: str, project: str, options: Options, tools: Tools) -> str:
    from . import upload

    name = options.reference.name if options.reference is not None else None
    wanted = upload.Wanted(name, options.platform, bool(options.universal), layout=True)
    with upload.examined(file, wanted, tools.cache, tools.display) as saved:
        _warn_of_platform(saved.image.platform, options, tools)
        _warn_of_layers(saved.image, tools)
        name = name or next(iter(saved.image.names), None)
        entry = Entry(project, saved.image_id, name, options.title, universal=wanted.universal)
        entry = entry.made_at(saved.image.created)
        with _only_one_run(entry.image_id, tools):
            stored = None if options.force else tools.catalog.adopt(entry) or tools.catalog.complete(entry)
            if stored is not None:
                return stored
            _check_format(options, tools)
            return upload.store(saved, entry, options.put_arguments, tools.cache, tools.catalog)


def _warn_of_platform(platform: Platform | None, options: Options, tools: Tools) -> None:
    if options.platform is None and platform is not None and not platform.matches(USUAL):
        tools.display.warning(f"the image is for {platform}, which the cluster's compute nodes may not be")


def _warn_of_layers(image: "Image", tools: Tools) -> None:
    if any(layer.file.compression == "zstd" for layer in image.layers):
        tools.display.warning("the image has layers compressed with zstd, which Docker 20.10 cannot load")


def _find(options: Options, tools: Tools) -> _Found:
    """The image in the engine, or where that has none or cannot be asked, in Arvados."""
    reference = options.reference
    assert reference is not None
    image: EngineImage | None = None
    problem: KeepdockerError | None = None
    try:
        image = tools.engine.find(str(reference), None if options.pull else options.platform)
    except EngineError as error:
        problem = error
    if image is not None:
        reference = _resolved(reference, image)
    if options.pull and problem is None and reference.name is not None:
        try:
            image = _pulled(reference.name, options, tools)
            reference = replace(reference, id_prefix=None)
        except EngineError as error:
            if image is not None:  # there may be a newer one, which is what was asked for
                raise
            problem = error
    if image is not None:
        return _Found(image.id, reference, in_engine=image)
    return _find_in_arvados(reference, options, tools, problem or _not_in_engine(options, tools))


def _find_in_arvados(wanted: Reference, options: Options, tools: Tools, problem: KeepdockerError) -> _Found:
    if options.force or options.platform is not None:  # what Arvados has may be for another platform
        raise problem
    stored = tools.catalog.find(wanted)
    if stored is None:
        raise type(problem)(f"{problem}; and Arvados has no such image that you may read", problem.hint) from problem
    image, reference = stored
    tools.display.warning(f"{problem}; using the image that Arvados has in {image.collection}")
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
    tools.engine.pull(name, display.stream if display.progress else None, options.platform)
    image = tools.engine.find(name, options.platform)
    if image is None:
        raise EngineError(f"{tools.engine.name} pulled {name} and does not have it")
    return image


def _not_in_engine(options: Options, tools: Tools) -> ImageNotFoundError:
    hint = None if options.pull else f"Pull it with {tools.engine.name}, or use --pull."
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
def _only_one_run(image_id: str, tools: Tools) -> Iterator[None]:
    """Wait until no other run stores this image: it may be there afterwards."""

    def waiting(pid: int | None) -> None:
        who = f"process {pid}" if pid is not None else "another run"
        tools.display.note(f"waiting for {who}, which is storing image {image_id}")

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(tools.cache.lock(image_id, waiting))
        except CacheError as error:
            tools.display.warning(f"{error}; going on without keeping other runs from storing the same image")
        yield
