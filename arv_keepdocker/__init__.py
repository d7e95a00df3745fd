"""Put container images into Arvados.

The two functions are those that arvados-cwl-runner and arv-copy use of `arvados.commands.keepdocker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

if TYPE_CHECKING:
    from .catalog.stored_images import ImageListing

__all__ = ["list_images_in_arv", "main"]
__version__ = "1.0.0"


def main(
    arguments: Sequence[str] | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    install_sig_handlers: bool = True,
    api: Any = None,
) -> NoReturn:
    """Run the `arv-keepdocker` command and end with SystemExit, whose code is the exit status.

    `arguments` are the words after the program's name (by default those of this process), `stdout` gets the result
    and `stderr` everything else. SIGINT and SIGTERM are handled unless `install_sig_handlers` is false. `api` is an
    Arvados API client; without it one is made from the user's configuration.
    """
    from .cli.main import main as run

    run(arguments, stdout, stderr, install_sig_handlers, api)


def list_images_in_arv(
    api: Any,
    num_retries: int,
    image_name: str | None = None,
    image_tag: str | None = None,
    project_uuid: str | None = None,
) -> list[ImageListing]:
    """The container images that Arvados has and the user can read, in the order in which the API server prefers them.

    All of them, or those of the name `image_name`:`image_tag` (by default `latest`), or without a tag where there is
    no such name, those whose id begins with `image_name`; with `project_uuid` those that the project owns, links and
    collection. Requests are tried again up to `num_retries` times.

    Each item is the collection's UUID and a dictionary: the id (`dockerhash`), `repo`, `tag`, `timestamp` (a naive
    datetime, as recorded), `collection`, and `_sort_key`.

    Raises `errors.ArvadosError` when Arvados refuses or cannot be asked.
    """
    from .catalog.client import ArvadosClient
    from .catalog.stored_images import matching

    images = matching(ArvadosClient(api, num_retries), image_name, image_tag, project_uuid)
    return [image.as_listing() for image in images]
