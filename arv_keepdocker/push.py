"""The story of one image: find it, look for it in Arvados, save and upload it if it is not there, record it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .cache import Cache
from .catalog import Catalog, Entry
from .cluster import Cluster
from .display import Display
from .engine import Engine, EngineImage
from .errors import ArchiveError, CacheError, EngineError, ImageNotFoundError, KeepdockerError
from .listing import StoredImage
from .reference import Reference

_FORMAT = "v2"
"""Arvados' name for images whose id is `sha256:` and a digest; older ones had another id and format."""


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    reference: Reference
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
class _Found:
    """An image, wherever it was found."""

    image_id: str
    reference: Reference
    in_engine: EngineImage | None = None
    in_arvados: StoredImage | None = None


def push(options: Options, engine: Engine, cluster: Cluster, cache: Cache, display: Display) -> str:
    """Store the image in Arvados unless it is there, and return the UUID of its collection.

    Raises a KeepdockerError.
    """
    catalog = Catalog(cluster)
    project = catalog.project(options.project)
    found = _find(options, engine, catalog, display)
    entry = Entry(project, found.image_id, found.reference.name, options.title)
    if found.in_engine is not None:
        entry = entry.made_at(found.in_engine.created)
    with _only_one_run(cache, entry.image_id, display):
        stored = None if options.force else catalog.adopt(entry, found.in_arvados) or catalog.complete(entry)
        if stored is not None:
            return stored
        if found.in_engine is None:
            raise ImageNotFoundError(f"image {options.reference} was in Arvados just now and is gone")
        _check_format(cluster, options, display)
        return _store(found.in_engine, entry, options, engine, catalog, cache, display)


def _find(options: Options, engine: Engine, catalog: Catalog, display: Display) -> _Found:
    """The image in the engine, or where that has none or cannot be asked, in Arvados."""
    reference = options.reference
    image: EngineImage | None = None
    problem: KeepdockerError | None = None
    try:
        image = engine.find(str(reference))
    except EngineError as error:
        problem = error
    if image is not None:
        reference = _resolved(reference, image)
    if options.pull and problem is None and reference.name is not None:
        try:
            image = _pulled(reference.name, engine, display)
            reference = replace(reference, id_prefix=None)
        except EngineError as error:
            if image is not None:  # there may be a newer one, which is what was asked for
                raise
            problem = error
    if image is not None:
        return _Found(image.id, reference, in_engine=image)
    return _find_in_arvados(options, catalog, display, problem or _not_in_engine(options))


def _find_in_arvados(options: Options, catalog: Catalog, display: Display, problem: KeepdockerError) -> _Found:
    if options.force:
        raise problem
    stored = catalog.find(options.reference)
    if stored is None:
        raise type(problem)(f"{problem}, and Arvados has no such image that you may read", problem.hint) from problem
    image, reference = stored
    display.warning(f"{problem}; using the image that Arvados has in {image.collection}")
    assert image.image_id is not None
    return _Found(image.image_id, reference, in_arvados=image)


def _resolved(reference: Reference, image: EngineImage) -> Reference:
    """Whether a word that may be a name or the beginning of an id was the one or the other to the engine."""
    if reference.id_prefix is None:
        return reference
    return replace(reference, id_prefix=None) if reference.name in image.names else reference.as_id()


def _pulled(name: str, engine: Engine, display: Display) -> EngineImage:
    display.note(f"pulling {name}")
    engine.pull(name, display.stream if display.progress else None)
    image = engine.find(name)
    if image is None:
        raise EngineError(f"docker pulled {name} and does not have it")
    return image


def _not_in_engine(options: Options) -> ImageNotFoundError:
    hint = None if options.pull else "Pull it with docker, or use --pull."
    return ImageNotFoundError(f"docker has no image {options.reference}", hint)


def _check_format(cluster: Cluster, options: Options, display: Display) -> None:
    formats = cluster.image_formats()
    if _FORMAT in formats:
        return
    takes = f"takes the formats {', '.join(map(repr, formats))}" if formats else "does not say which formats it takes"
    problem = f"the cluster {takes}; the image's is {_FORMAT!r}"
    if not options.force_image_format:
        raise ArchiveError(problem, "With --force-image-format it is stored all the same.")
    display.warning(problem)


def _store(
    image: EngineImage,
    entry: Entry,
    options: Options,
    engine: Engine,
    catalog: Catalog,
    cache: Cache,
    display: Display,
) -> str:
    """Save, upload and record the image."""
    from . import upload  # not needed, with all that it needs, for an image that is there already

    cache.remove_leftovers()
    path, saved = upload.save(engine, image, cache, display, options.resume and not options.force)
    entry = replace(entry, image_id=saved.image_id).made_at(saved.created)
    stored = None
    if saved.image_id != image.id and not options.force:
        # Some engines call an image by another digest than its configuration's.
        stored = catalog.adopt(entry) or catalog.complete(entry)
    if stored is None:
        stored = upload.store(path, entry, options.put_arguments, catalog)
    path.unlink(missing_ok=True)
    return stored


@contextlib.contextmanager
def _only_one_run(cache: Cache, image_id: str, display: Display) -> Iterator[None]:
    """Wait until no other run stores this image: it may be there afterwards."""

    def waiting(pid: int | None) -> None:
        who = f"process {pid}" if pid is not None else "another run"
        display.note(f"waiting for {who}, which is storing image {image_id}")

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(cache.lock(image_id, waiting))
        except CacheError as error:
            display.warning(f"{error}; going on without keeping other runs from storing the same image")
        yield
