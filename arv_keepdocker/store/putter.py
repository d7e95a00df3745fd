"""One block to Keep, tried again while that may help."""

import re
import threading
from functools import partial
from typing import Any

from ..catalog.api_errors import KeepProblem, explained, worded
from ..catalog.client import Cluster
from ..catalog.connection import once
from ..errors import ArvadosError
from ..keep import put_answers
from ..keep.wire import Wire

_LONGEST_CONNECT = 128
"""Seconds."""


class Putter:
    """Stores a block in Keep and returns its signed locator, or raises ArvadosError; in several threads if need be.

    Replication and storage classes are the cluster's defaults.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._keep = cluster.api.keep
        self.left = Wire.of(self._keep).left
        """How many bytes have left of the block with this `md5+size`, while it is being sent."""
        self._copies = cluster.replication
        self._answered = False
        """Whether a block was stored: what answers to that is Keep, and was found."""
        self._asking = threading.Lock()
        self._services_known = False

    def __call__(self, data: bytes, key: str) -> str:
        """`key` is the block's md5 and size as `md5+size`, which takes time to compute."""
        return self._cluster.attempts("Keep to take a block", partial(self._put, data, key))

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
        put_answers.check(key, locator)
        return locator

    def _find_services(self) -> None:
        """Ask, once, and again after a failure, where Keep is: the SDK would try that again in silence."""
        from arvados.errors import NoKeepServersError

        if self._services_known or hasattr(self._keep, "local_store"):
            return
        with self._asking, explained("asking for the Keep services"), once(self._cluster.api._http):
            if not self._services_known:
                try:
                    self._keep.build_services_list(force_rebuild=True)
                except NoKeepServersError as error:
                    raise ArvadosError("Arvados names no Keep service that you can use") from error
                self._services_known = True

    def _explained(self, error: Any) -> ArvadosError:
        """What the SDK says of the services that were asked, one of which would have had to do more."""
        problems = {service: KeepProblem.of(each) for service, each in error.request_errors().items()}
        if any(problem.timed_out for problem in problems.values()):
            self._be_patient()
        passing = [problem.trouble for problem in problems.values() if problem.passes(self._answered)]
        hints = [problem.hint for problem in problems.values() if problem.hint is not None]
        words = "; ".join(f"{service.rstrip('/')}: {problem.words}" for service, problem in problems.items())
        request = re.search(r"\[(req-\w+)\]", str(error))
        said = f"{words or worded(str(error))}{f' ({request[1]})' if request is not None and words else ''}"
        return ArvadosError(f"Keep did not take a block: {said}", next(iter(hints), None), next(iter(passing), None))

    def _be_patient(self) -> None:
        """Give a connection more time to come about than the SDK's two seconds, as its own attempts would."""
        for name in ("timeout", "proxy_timeout"):
            seconds, *others = getattr(self._keep, name)
            setattr(self._keep, name, (min(2 * seconds, _LONGEST_CONNECT), *others))
