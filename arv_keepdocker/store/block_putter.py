"""Sends one block to Keep, and again while that may help."""

import re
import threading
from functools import partial
from typing import Any

from ..catalog.arvados_errors import KeepProblem, keep_error, services_answered, worded
from ..catalog.client import ArvadosClient
from ..catalog.keep_services import find_keep_services
from ..errors import ArvadosError
from ..keep import put_verification
from ..keep.sent_bytes import SentBytes

_LONGEST_CONNECT = 128
"""Seconds."""


class BlockPutter:
    """Stores blocks in Keep. Safe for use in several threads.

    Replication and storage classes are the cluster's defaults.
    """

    def __init__(self, client: ArvadosClient) -> None:
        self._client = client
        self._keep = client.api.keep
        self.sent_so_far = SentBytes.of(self._keep).sent
        """How many bytes have been sent of the block `md5+size` that is being sent."""
        self._copies = client.replication
        self._answered = False
        """Whether Keep has stored a block: then an error that looks like a wrong address is a passing one."""
        self._asking = threading.Lock()
        self._services_known = False

    def __call__(self, data: bytes, key: str) -> str:
        """Store the block and return its signed locator; `key` is its `md5+size`. Raises ArvadosError."""
        return self._client.retry("Keep to take a block", partial(self._put, data, key))

    def _put(self, data: bytes, key: str) -> str:
        from arvados.errors import KeepRequestError

        self._find_services()
        try:
            locator: str = self._keep.put(data, copies=self._copies, num_retries=0)
        except KeepRequestError as error:
            self._services_known = False
            raise self._explained(error) from error
        except Exception as error:  # the client lets through what libcurl raises
            raise ArvadosError(f"Keep did not take a block: {error}") from error
        self._answered = True
        put_verification.check(key, locator)
        return locator

    def _find_services(self) -> None:
        """Ask for the Keep services, once, and again after a failure: the SDK would retry that silently."""
        if self._services_known or hasattr(self._keep, "local_store"):
            return
        with self._asking:
            if not self._services_known:
                find_keep_services(self._client, self._keep, again=True)
                self._services_known = True

    def _explained(self, error: Any) -> ArvadosError:
        """The SDK's error, with what each of the services answered."""
        problems = {service: KeepProblem.of(each) for service, each in error.request_errors().items()}
        if any(problem.timed_out for problem in problems.values()):
            self._be_patient()
        words = services_answered(problems)
        request = re.search(r"\[(req-\w+)\]", str(error))
        said = f"{words or worded(str(error))}{f' ({request[1]})' if request is not None and words else ''}"
        return keep_error(f"Keep did not take a block: {said}", problems.values(), self._answered)

    def _be_patient(self) -> None:
        """Double the time that a connection may take, from the SDK's two seconds on, as its own retries do."""
        for name in ("timeout", "proxy_timeout"):
            seconds, *others = getattr(self._keep, name)
            setattr(self._keep, name, (min(2 * seconds, _LONGEST_CONNECT), *others))
