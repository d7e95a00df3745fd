"""Checks an image in Arvados: what is wrong with it, and what storing it anew would write.

Every block and every layer is read: block by block in a canonical archive, or else as an archive. An image that cannot
run anywhere has faults; one that can be mended, or only lacks records, has findings and steps.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..catalog.client import Record
from ..catalog.located import Located
from ..errors import ArchiveError, NoDecoderError, PlatformNotSavedError
from ..images import configuration
from ..images.canonical import Arrangement, arrange
from ..images.layers import NoSink
from ..images.platform import Platform
from ..keep.journal_of_checks import key_of
from ..keep.locators import block_key, block_key_of, block_size, blocks_of_one_file, files
from ..sources.arvados import ArvadosSource, BlockError
from ..store.checking import Checking
from .found_image import FoundImage
from .from_arvados import as_archive, find, looking
from .inspect_stored import is_remote, last_block, structure_problems
from .lookup import look_up_anew
from .request import Request, Tools

_PLAIN = "Docker's containerd image store does not find it; in the universal form, every engine does"


@dataclass(frozen=True)
class Facts:
    """What reading the image has shown."""

    faults: Sequence[str] = ()
    """Why it cannot run anywhere."""
    findings: Sequence[str] = ()
    """What else is wrong."""
    image_id: str | None = None
    """The id that it has, or would get if stored anew."""
    form: str | None = None
    """`plain` or `universal`, if it is in the canonical form."""
    universal: bool = False
    in_place: bool = False
    """Whether it is in the wanted form."""
    engine_id: str | None = None
    platform: str | None = None
    created: str | None = None
    names: Sequence[str] = ()
    """The names in the archive."""
    end: str | None = None
    """The last block (`md5+size`) of the archive that would be stored, which identifies the archive."""
    layers: Sequence[Sequence[Any]] = ()
    """The diff ids and sizes, base first."""


@dataclass(frozen=True)
class Verdict:
    """The result of the check of one image."""

    located: Located
    facts: Facts
    names: Sequence[str]
    """The names that it has, or would get."""
    steps: Sequence[str] = ()
    """What would be written."""
    seconds: float = 0.0

    @property
    def word(self) -> str:
        """`good`, `incomplete`, `mendable`, `mended` or `broken`."""
        if self.facts.faults:
            return "broken"
        if self.facts.in_place:
            return "incomplete" if self.steps else "good"
        return "mendable" if self.steps else "mended"

    @property
    def exit_status(self) -> int:
        if self.facts.faults:
            return ArchiveError.exit_status
        return 7 if self.steps else 0


def locate_image(request: Request, project: str, tools: Tools) -> Located:
    """The collection to check. Raises ImageNotFoundError or ArvadosError."""
    return find(request, project, looking(tools))


def check(located: Located, request: Request, project: str, tools: Tools, checking: Checking) -> Verdict:
    """Read the image, and say what is wrong with it. Raises ArvadosError, and ArchiveError for another platform."""
    started = time.monotonic()
    tools = looking(tools)
    wrong = structure_problems(located, project)
    if len(_files(located)) != 1:
        return Verdict(located, Facts(wrong), located.names)
    words = [located.content, str(located.image_id), str(request.universal), str(request.platform)]
    key = key_of(["image", *words])
    facts = checking.once(key, lambda: _Reader(located, request, project, checking).facts(key))
    found = as_archive(located, request, project, checking.get)
    names = [name for name in (found.entry.name, *found.entry.further_names) if name] or facts.names
    facts = replace(facts, faults=[*wrong, *facts.faults])
    steps = _steps(found, facts, names, request, tools) if not facts.faults else []
    return Verdict(located, facts, names, steps, time.monotonic() - started)


def _files(located: Located) -> dict[str, Any]:
    try:
        return dict(files(located.record["manifest_text"]))
    except ValueError:
        return {}


class _Reader:
    """Reads one image."""

    def __init__(self, located: Located, request: Request, project: str, checking: Checking) -> None:
        self._located = located
        self._request = request
        self._project = project
        self._checking = checking
        (self._pieces,) = _files(located).values()
        self._blocks = blocks_of_one_file(located.record["manifest_text"])

    def facts(self, key: str) -> Facts:
        """Raises ArvadosError, and ArchiveError for another platform."""
        try:
            arrangement = last_block(self._located, self._blocks, self._checking.get)
        except BlockError as error:
            return Facts(self._lost() or [str(error)])
        if arrangement is not None and not is_remote(self._located):
            universal = self._request.universal
            if arrangement.image_id == self._located.image_id and universal in (None, arrangement.universal):
                return self._canonical(arrangement)
        with suppress(TypeError):  # of another version
            if (known := self._checking.checks.find(key)) is not None:
                facts = Facts(**known)
                self._checking.count(sum(piece.size for piece in self._pieces))
                return facts
        facts = self._archive(arrangement)
        if not facts.faults:
            self._checking.checks.add(key, asdict(facts))
        return facts

    def _lost(self) -> list[str]:
        return self._checking.lost([piece.locator for piece in self._pieces])

    def _canonical(self, arrangement: Arrangement) -> Facts:
        faults = self._checking.faults(arrangement, self._blocks)
        try:
            about = configuration.read(arrangement.config)
        except ArchiveError as error:
            return Facts([*faults, str(error)])
        if self._request.platform is not None and not about.platform.matches(self._request.platform):
            raise PlatformNotSavedError(
                f"collection {self._located.uuid} has the image for {about.platform}, not for {self._request.platform}"
            )
        layers = {layer.diff_id: layer.size for segment in arrangement.segments for layer in segment.layers}
        return Facts(
            faults,
            [] if arrangement.universal else [_PLAIN],
            image_id=arrangement.image_id,
            form="universal" if arrangement.universal else "plain",
            universal=arrangement.universal,
            in_place=True,
            platform=str(about.platform),
            created=about.created,
            layers=[(diff_id, layers.get(diff_id)) for diff_id in about.diff_ids],
        )

    def _archive(self, canonical: Arrangement | None) -> Facts:
        """The image as an archive, whatever its form."""
        found = as_archive(self._located, self._request, self._project, self._checking.get)
        assert found.source is not None
        source = found.source()
        assert isinstance(source, ArvadosSource)
        recorded = self._located.image_id
        try:
            image = source.deliver(NoSink(), found.wanted)
            by_manifest = image.is_by_manifest(recorded)
            wanted = self._request.universal
            arrangement = arrange(image, image.is_target(recorded) if wanted is None else wanted)
        except BlockError as error:
            return Facts(self._lost() or [str(error)])
        except (PlatformNotSavedError, NoDecoderError):
            raise
        except ArchiveError as error:
            return Facts([str(error)])
        findings = _findings(recorded, image.id, by_manifest, canonical is not None)
        findings += [] if by_manifest or image.is_target(recorded) else [_PLAIN]
        findings += image.warnings
        form = ("universal" if canonical.universal else "plain") if canonical is not None else None
        return Facts(
            findings=findings,
            image_id=arrangement.image_id,
            form=form,
            universal=arrangement.universal,
            engine_id=recorded if by_manifest else None,
            platform=str(image.platform),
            created=image.created,
            names=image.names,
            end=block_key_of(arrangement.end),
            layers=[(layer.diff_id, layer.size) for layer in image.layers],
        )


def _findings(recorded: str | None, image_id: str, by_manifest: bool, canonical: bool) -> list[str]:
    findings = []
    if by_manifest:
        findings.append(f"only Docker's containerd image store finds it by its id, {recorded}; others by {image_id}")
    elif recorded is None:
        findings.append("compute nodes do not find it: the collection is not one file named for the image's id")
    elif recorded != image_id and not canonical:
        findings.append(f"no engine finds it by its id, {recorded}; it is image {image_id}")
    if not canonical:
        findings.append("it is not in the canonical form")
    return findings


def _steps(found: FoundImage, facts: Facts, names: Sequence[str], request: Request, tools: Tools) -> list[str]:
    """What storing it would write, in words."""
    located = found.located
    assert located is not None
    catalog, entry = tools.catalog, found.entry
    entry = replace(entry, image_id=str(facts.image_id), universal=facts.universal)
    entry = replace(entry, name=names[0] if names else None, further_names=tuple(names[1:]))
    if request.force:
        return catalog.plan_new(entry).steps
    if facts.in_place:
        properties = located.by_id.properties if located.by_id is not None else {}
        return catalog.plan_reuse_of(replace(entry, link_properties=properties), located.record).steps
    if facts.engine_id is not None:
        entry = replace(entry, engine_id=facts.engine_id, platform=Platform.recorded(facts.platform))
    entry = entry.with_timestamp(facts.created)
    mends = located if facts.form in (None, "universal" if facts.universal else "plain") else None
    plan = look_up_anew(entry, mends, request, catalog, accepts=lambda record: _ends(record, facts))
    return (plan or catalog.plan_new(entry)).steps


def _ends(record: Record, facts: Facts) -> bool:
    """Whether the collection holds exactly the archive that would be stored: its last block tells."""
    blocks = blocks_of_one_file(record["manifest_text"])
    return bool(blocks) and block_key(blocks[-1]) == facts.end and block_size(blocks[-1]) > 0
