"""Finds an image in the container engine or, if the engine lacks it or cannot be asked, in Arvados."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..catalog.entry import PLATFORM, CatalogEntry
from ..errors import EngineError, EngineUnavailableError, ImageNotFoundError, KeepdockerError
from ..images.image import Selection
from ..images.platform import USUAL, Platform
from ..images.reference import Reference, familiar
from ..sources.engine_image import EngineImage, PlatformNotFoundError
from ..sources.pushed.temporary_names import TemporaryNames
from ..terminal.display import Style
from ..terminal.progress import Activity
from .found_image import FoundImage, Lookup
from .request import Request, Tools

if TYPE_CHECKING:  # not needed for an image that is there already
    from ..sources.source import Source

_PUSHED = 16 << 20
"""Bytes that an image has at least for pushing it to be faster than saving it, as the engine counts them."""


def find_in_engine(request: Request, project: str, tools: Tools) -> FoundImage:
    """The image in the engine, pulled first with --pull; without --pull, perhaps one that only Arvados has.

    Raises ImageNotFoundError or EngineError.
    """
    reference = request.reference
    assert reference is not None
    try:
        return _find_in_engine(reference, request, project, tools)
    except (EngineError, ImageNotFoundError) as error:
        # A registry that has refused an engine refuses others, too.
        refused = request.pull and not isinstance(error, (EngineUnavailableError, ImageNotFoundError))
        if reference.name is not None and not refused and not request.via_arv_put:
            error.hint = " ".join(filter(None, [error.hint, "With --from-registry, no engine is needed."]))
        raise


def _find_in_engine(reference: Reference, request: Request, project: str, tools: Tools) -> FoundImage:
    if request.pull:
        reference = _to_be_pulled(reference, tools)
        if reference.name is not None:
            image = _pull(reference.name, request, tools)
            return _found_image(image, reference.name, request, project, tools)
    try:
        found = tools.engine.find_image(str(reference), request.platform)
        problem: KeepdockerError = _not_in_engine(reference, tools)
    except PlatformNotFoundError as error:
        error.hint = _other_platform_hint(error, _resolved(reference, error.image).name, request)
        return _of_other_platform(error, reference, request, project, tools)
    except EngineError as error:
        if request.pull:
            raise
        found, problem = None, error
    if found is not None:
        return _found_image(found, _resolved(reference, found).name, request, project, tools)
    return _find_in_arvados(reference, request, project, tools, problem)


def _found_image(image: EngineImage, name: str | None, request: Request, project: str, tools: Tools) -> FoundImage:
    TemporaryNames(tools.cache, tools.display.warning).take_back(tools.engine)
    universal = image.containerd if request.universal is None else request.universal
    entry = CatalogEntry(project, image.id, name, request.title, universal=universal).with_timestamp(image.created)
    certain = not image.containerd and not universal
    single = image.several_platforms is not True
    if not certain:
        # The id that is recorded is a digest that only the archive tells, or an earlier run's link.
        platform = image.platform if image.several_platforms is not False else None
        entry = replace(entry, engine_id=image.id, platform=platform)
    # The universal form has the same id everywhere, so an engine that has it from Arvados knows it by that. In any
    # other form, the engine's Id may be one that compute nodes do not know the image by.
    loaded = [replace(entry, engine_id=None, platform=None, universal=True)] if single else []
    return FoundImage(
        entry,
        partial(_source, image, request, tools),
        Selection(name, image.platform if image.containerd else None),
        lookup=Lookup.BY_ID if certain else Lookup.BY_DIGEST,
        single_image=single,
        also_recorded_as=loaded,
        created=image.created,
        platform=image.platform,
        in_engine=image if not (request.via_push or request.via_arv_put) else None,
    )


def _source(image: EngineImage, request: Request, tools: Tools) -> "Source":
    """The source: the engine pushes the image if that was asked for or is known to be faster; else it saves it."""
    pushes = False if request.via_arv_put else request.via_push
    if pushes is None:
        pushes = _is_pushed_faster(image, tools)
    if not pushes:
        from ..sources.engine_source import EngineSource

        return EngineSource(tools.engine, image)
    from ..sources.pushed.push_notes import PushNotes
    from ..sources.pushed.push_source import PushSource
    from .uploaders import streaming_uploader

    names = TemporaryNames(tools.cache, tools.display.warning)
    uploader = streaming_uploader(request, tools, request.dry_run)
    return PushSource(
        tools.engine, image, names, PushNotes(uploader.journal, uploader.resume, uploader.remember), tools.display.note
    )


def _is_pushed_faster(image: EngineImage, tools: Tools) -> bool:
    """Docker's containerd store pushes what it has, as it is; its classic store first compresses it (measured with
    `tests.bench.via_push`: a quarter of the time of saving, and twice as long)."""
    is_large = (image.size or 0) >= _PUSHED
    return image.containerd and is_large and not tools.engine.is_elsewhere(image.podman)


def _of_other_platform(
    error: PlatformNotFoundError, reference: Reference, request: Request, project: str, tools: Tools
) -> FoundImage:
    """Arvados may have the right image where the engine has it for another platform only.

    It is looked up by the index's digest and the platform. An Id that is not an index's belongs to the other image.
    """
    if request.force or not error.image.several_platforms:
        raise error
    image = replace(error.image, platform=error.wanted, created=None)
    found = _found_image(image, _resolved(reference, image).name, request, project, tools)
    return replace(found, unavailable=error, substitute_warning=f"{error}; using the image that Arvados has of it")


def _find_in_arvados(
    wanted: Reference, request: Request, project: str, tools: Tools, problem: KeepdockerError
) -> FoundImage:
    """The image in Arvados, by name or id. Raises the engine's `problem` if Arvados does not have it, either."""
    if request.force:
        raise problem
    try:
        own = USUAL if isinstance(problem, EngineError) else tools.engine.platform
        stored = tools.catalog.find_image(wanted, request.platform or own, certain=request.platform is not None)
    except ImageNotFoundError as error:
        raise type(problem)(_joined(problem, str(error)), error.hint or problem.hint) from error
    if stored is None:
        raise type(problem)(_nowhere(problem), problem.hint) from problem
    image, reference = stored
    assert image.image_id is not None
    return FoundImage(
        CatalogEntry(project, image.image_id, reference.name, request.title),
        source=None,
        lookup=Lookup.BY_ID,
        stored=image,
        unavailable=ImageNotFoundError(f"image {wanted} was in Arvados just now and is gone"),
        substitute_warning=f"{problem}; using the image that Arvados has in {image.collection}",
        platform=Platform.recorded(image.properties.get(PLATFORM)),
    )


def _nowhere(problem: KeepdockerError) -> str:
    if isinstance(problem, ImageNotFoundError):
        return f"{problem}, and neither does Arvados, as far as you can see"
    return _joined(problem, "Arvados has no such image that you may read")


def _joined(problem: KeepdockerError, more: str) -> str:
    """Both in one line; what docker says of itself may end like a sentence."""
    said = str(problem)
    return f"{said} {more}" if said.endswith((".", "?", "!")) else f"{said}; {more}"


def _resolved(reference: Reference, image: EngineImage) -> Reference:
    """The reference as the engine understood it: a short word of hexadecimal digits may be a name or an id."""
    if reference.id_prefix is None:
        return reference
    named = reference.name in [familiar(name) for name in image.names]
    return replace(reference, id_prefix=None) if named else reference.as_id()


def _to_be_pulled(reference: Reference, tools: Tools) -> Reference:
    """The reference to pull. An image given by its id cannot be newer anywhere, so it is not pulled."""
    if reference.id_prefix is None or reference.name is None:
        return reference
    image = tools.engine.inspect(str(reference))
    return _resolved(reference, image) if image is not None else reference


def _pull(name: str, request: Request, tools: Tools) -> EngineImage:
    display = tools.display
    display.note(f"pulling {name}")
    if display.is_shared:
        with Activity(display, f"{tools.engine.name} is pulling {name}"):
            tools.engine.pull(name, None, request.platform)
    else:
        shown = display.progress is Style.LINE and display.stream.isatty()
        tools.engine.pull(name, display.stream if shown else None, request.platform)
    try:
        image = tools.engine.find_image(name, request.platform)
    except PlatformNotFoundError as error:
        hint = _other_platform_hint(error, name, request)
        raise EngineError(f"{tools.engine.name} pulled {name}, but {error}", hint) from error
    if image is None:
        raise EngineError(f"{tools.engine.name} pulled {name} and does not have it")
    return image


def _not_in_engine(reference: Reference, tools: Tools) -> ImageNotFoundError:
    hint = f"Pull it with {tools.engine.name}, or use --pull."
    if reference.name is None:
        hint = "An id cannot be pulled; with --pull, give the image's name."
    return ImageNotFoundError(f"{tools.engine.name} has no image {reference}", hint)


def _other_platform_hint(error: PlatformNotFoundError, name: str | None, request: Request) -> str | None:
    remedies = [f"store the one for {platform} with --platform {platform}" for platform in error.there]
    if name is not None and not request.pull:
        asked = f"--pull --platform {error.wanted}"
        remedies.insert(0, f"pull it: {asked if request.platform is not None else '--pull'}")
    words = ", or ".join(remedies)
    return f"{words[0].upper()}{words[1:]}." if words else None
