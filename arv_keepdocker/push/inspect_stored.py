"""Inspects an image in Arvados without reading its layers, and says how to remove wrong links."""

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..catalog.client import Record
from ..catalog.links import HASH_LINK, parse_time
from ..catalog.located import Located
from ..errors import ArchiveError, ArvadosError
from ..images import configuration
from ..images.canonical import Arrangement, parse
from ..images.configuration import Configuration
from ..keep.known_layers import END_LIMIT
from ..keep.locators import block_key, block_size, blocks_of_one_file, files
from ..sources.arvados import Get
from .request import Outcome, Request, Tools
from .uploaders import streaming_uploader

_REMOTE = "+R"
"""The beginning of the hint in a locator whose block is on another cluster."""


@dataclass(frozen=True)
class Form:
    """The form of a canonical archive in Arvados."""

    universal: bool
    arrangement: Arrangement | None = None
    """None if it was not read, because the journal knows the archive."""

    @property
    def configuration(self) -> Configuration | None:
        return configuration.read(self.arrangement.config) if self.arrangement is not None else None


def structure_problems(located: Located, project: str) -> list[str]:
    """Why the collection is not an image, and which links contradict it; empty if all is well."""
    where = f"collection {located.uuid}"
    try:
        there = files(located.record["manifest_text"])
    except ValueError as error:
        return [f"{where} has a manifest that cannot be read: {error}"]
    if len(there) != 1:
        return [f"{where} has {len(there) or 'no'} files, and an image is one file"]
    return [
        f"link {link['uuid']} says that {where} is image {link['name']}, and its file is {next(iter(there))}"
        for link in wrong_links(located, project)
    ]


def wrong_links(located: Located, project: str) -> Sequence[Record]:
    """The links of the collection's owner or the project with another id than the file's name."""
    trusted = {located.owner, project}
    links = [
        link
        for link in located.links
        if link["link_class"] == HASH_LINK
        and (link["owner_uuid"] in trusted or (located.asked is not None and link["name"].startswith(located.asked)))
    ]
    try:
        (path,) = files(located.record["manifest_text"])
    except ValueError:  # it is no manifest, or one of none or several files, none of which the links can be about
        return []
    name = path.rpartition("/")[2]
    return [link for link in links if f"{link['name']}.tar" != name]  # of podman, upstream leaves out `sha256:`


def is_remote(located: Located) -> bool:
    """Whether the blocks are on another cluster, so that a collection here cannot use them."""
    return any(_REMOTE in block for block in located.record["manifest_text"].split())


def known_form(located: Located, request: Request, tools: Tools, get: Get) -> Form | None:
    """The form of a canonical archive; None for any other, or one whose file is named for another image.

    If an earlier run on this machine knows it, nothing is read, else the last block. Raises ArchiveError if that is
    lost, and ArvadosError.
    """
    blocks = blocks_of_one_file(located.record["manifest_text"])
    if not blocks or located.image_id is None or block_size(blocks[-1]) > END_LIMIT:
        return None
    uploader = streaming_uploader(request, tools, dry_run=True)
    journal = uploader.journal if request.resume else None
    key = block_key(blocks[-1])
    noted = journal.read(0).forms.get(key) if journal is not None else None
    if noted is not None and request.platform is None and located.by_id is not None:
        return Form(noted[1]) if noted[0] == located.image_id else None
    arrangement = last_block(located, blocks, get)
    if arrangement is None:
        return None
    if journal is not None and request.remember and noted is None:
        journal.add_form(key, arrangement.image_id, arrangement.universal)
    return Form(arrangement.universal, arrangement) if arrangement.image_id == located.image_id else None


def last_block(located: Located, blocks: Sequence[str], get: Get) -> Arrangement | None:
    """The canonical archive in these blocks, according to the last one; None if they are not one."""
    if not blocks or block_size(blocks[-1]) > END_LIMIT:
        return None
    try:
        return parse(get(blocks[-1]), list(map(block_size, blocks)))
    except ArchiveError as error:
        raise type(error)(f"collection {located.uuid}: {error}") from error


def tell_of_old_links(located: Located, outcome: Outcome, tools: Tools, mended: bool) -> None:
    """Print which links still point to the old collection, and how to remove them.

    If the image was not `mended`, but stored in another form, only links with the same names are printed.
    """
    names = {outcome.name, *outcome.plan.entry.further_names}
    links = [link for link in located.links if mended or link["name"] in names]
    if not links or outcome.collection in (None, located.uuid):
        return
    said = ", ".join(f"{link['link_class']} {link['name']} ({link['uuid']})" for link in links)
    tools.display.note(f"these links to the old collection, {located.uuid}, stay: {said}")
    removable = [str(link["uuid"]) for link in links if _may_remove(link, tools)]
    if removable:
        tools.display.note(f"to remove {'them' if len(removable) > 1 else 'it'}: {removal_command(removable, tools)}")
    if len(removable) < len(links):
        owners = dict.fromkeys(str(link["owner_uuid"]) for link in links if link["uuid"] not in removable)
        which = "the others" if removable else "them" if len(links) > 1 else "it"
        tools.display.note(f"only someone who may write to {', '.join(owners)} can remove {which}")


def wait_to_be_newer(located: Located) -> None:
    """Wait for at most a second, so that the links to come are newer than those of the collection.

    Of images made at the same time, Arvados prefers the one with the newer link, and compares whole seconds.
    """
    times = [parse_time(link["created_at"]) for link in located.links]
    newest = max((each.timestamp() for each in times if each is not None), default=0.0)
    left = math.floor(newest) + 1 - time.time()
    if 0 < left <= 1:
        time.sleep(left)


def removal_command(links: Sequence[str], tools: Tools) -> str:
    """The command that removes the links with these UUIDs."""
    script = (
        'import arvados; links = arvados.api("v1").links(); '
        f'[links.delete(uuid=uuid).execute() for uuid in "{" ".join(links)}".split()]'
    )
    return shlex.join([tools.python, "-c", script])


def _may_remove(link: Record, tools: Tools) -> bool:
    owner, projects = str(link["owner_uuid"]), tools.catalog.projects
    try:
        return projects.why_not_writable(projects.resolve(owner)) is None
    except ArvadosError:
        return False
