"""The control interface under /sandbox/: faults, settings and the log of requests, for the administrator's token."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from .blocks import BlockStore
from .call import Call
from .cluster import Cluster
from .errors import ApiError
from .faults import Faults
from .request_log import RequestLog
from .responses import Answer


def _hash(asked: Call) -> str:
    md5 = str(asked.params.get("md5"))
    if not re.fullmatch("[0-9a-f]{32}", md5):
        raise ValueError(f"{md5!r} is no MD5 hash")
    return md5


class Control:
    """Answers the requests under /sandbox/."""

    def __init__(self, cluster: Cluster, faults: Faults, request_log: RequestLog, blocks: BlockStore) -> None:
        self._cluster = cluster
        self._faults = faults
        self._request_log = request_log
        self._routes: dict[tuple[str, str], Callable[[Call], Any]] = {
            ("GET", "/sandbox/faults"): lambda _: faults.described(),
            ("POST", "/sandbox/faults"): lambda asked: {"id": faults.add(asked.body).id},
            ("DELETE", "/sandbox/faults"): lambda _: faults.clear(),
            ("GET", "/sandbox/blocks"): lambda _: blocks.hashes(),
            ("DELETE", "/sandbox/blocks"): lambda asked: blocks.lose(_hash(asked)),
            ("GET", "/sandbox/requests"): lambda _: request_log.described(),
            ("DELETE", "/sandbox/requests"): lambda _: request_log.clear(),
            ("GET", "/sandbox/settings"): lambda _: cluster.settings.described(),
            ("POST", "/sandbox/settings"): lambda asked: cluster.change_settings(asked.body),
        }

    def answer(self, asked: Call) -> Answer:
        route = self._routes.get((asked.method, asked.path))
        if route is None:
            raise ApiError(404, "no such control route")
        if not asked.caller.is_admin:
            raise ApiError(403, "only for the administrator")
        try:
            result = route(asked)
        except (TypeError, ValueError) as error:
            raise ApiError(422, str(error)) from None
        return Answer(200, json.dumps(result).encode())
