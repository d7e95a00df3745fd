"""Finds the Keep services."""

from typing import Any

from ..errors import ArvadosError
from .arvados_errors import explained
from .client import ArvadosClient
from .connection import without_sdk_retries


def find_keep_services(client: ArvadosClient, keep_client: Any, again: bool = False) -> None:
    """Have an `arvados.keep.KeepClient` ask for the services, before it does so itself with silent retries.

    What it knows already is asked for only if `again` is set. Raises ArvadosError.
    """
    from arvados.errors import NoKeepServersError

    with explained("asking for the Keep services"), without_sdk_retries(client.api._http):
        try:
            keep_client.build_services_list(force_rebuild=again)
        except NoKeepServersError as error:
            raise ArvadosError("Arvados names no Keep service that you can use") from error
        except (TypeError, LookupError, AttributeError) as error:  # what the SDK makes of an answer that is no list
            raise ValueError("it is not a list of Keep services") from error
