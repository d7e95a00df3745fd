"""The running cluster: its directory, certificate and ports, its listeners, and its end."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from . import cluster_info, ports, seed, trash, users
from .api import Api
from .blocks import BlockStore
from .certificate import tls_context
from .cluster import Cluster
from .faults import Faults
from .keep import KeepService
from .request_log import RequestLog
from .responses import drop_content_type

_SWEEP_INTERVAL = 60
_MAXIMUM_REQUEST = 134217728
_LONGEST_LINE = 8 << 20
_GARBAGE = 20_000
READY = "# ready"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StartError(Exception):
    """The cluster cannot be started."""


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    directory: Path
    api_port: int = 0
    keep_port: int = 0
    keep_services: int = 1
    seed_images: int = 0
    seed_owner: str = "active"
    seed_number: int = 1
    discard_blocks: bool = False
    watch_stdin: bool = False

    @property
    def ports(self) -> list[int]:
        """The ports of the API and of the Keep services; 0 for any."""
        return [self.api_port, *(self.keep_port and self.keep_port + i for i in range(self.keep_services))]


def lock(directory: Path) -> int:
    """Lock the directory for as long as the returned descriptor is open."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StartError(f"{directory}: another sandbox is running on this directory") from None
    return descriptor


async def _listen(stack: AsyncExitStack, handler: _Handler, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
    application = web.Application(client_max_size=_MAXIMUM_REQUEST)
    application.on_response_prepare.append(drop_content_type)
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(
        application,
        access_log=None,
        shutdown_timeout=0.5,
        max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_LINE,
        read_bufsize=1 << 20,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, sock, ssl_context=tls, backlog=512).start()


async def _sweep(cluster: Cluster) -> None:
    while True:
        await asyncio.sleep(_SWEEP_INTERVAL)
        with cluster.database.transaction():
            trash.sweep(cluster)


def _until_told(options: Options) -> asyncio.Event:
    """An event that is set by SIGTERM, SIGINT or, if requested, the end of standard input."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.watch_stdin:

        def readable() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin.fileno())
                stop.set()

        loop.add_reader(sys.stdin.fileno(), readable)
    return stop


def _prepare(cluster: Cluster, options: Options) -> str:
    """Add what the database lacks. Returns what to print when the cluster is ready."""
    database = cluster.database
    with database.transaction():
        if database.fact("populated") is None:
            users.populate(database)
            database.set_fact("populated", "1")
        users.populate_groups(database)
        cluster_info.describe_keep_services(cluster)
        tokens = users.initial_tokens(database)
        if options.seed_owner not in tokens:
            raise StartError(f"--seed-owner {options.seed_owner}: no such user")
        seeded = f"seed {options.seed_number}"
        if options.seed_images and database.fact(seeded) is None:
            owner = tokens[options.seed_owner]["uuid"]
            seed.seed_images(database, options.seed_images, owner, options.seed_number)
            database.set_fact(seeded, str(options.seed_images))
    record = options.directory / "users.json"
    record.write_text(json.dumps(tokens, indent=2) + "\n")
    return "\n".join(
        [
            f"export ARVADOS_API_HOST={ports.HOST}:{cluster.api_port}",
            f"export ARVADOS_API_TOKEN={tokens['active']['token']}",
            "export ARVADOS_API_HOST_INSECURE=1",
            f"# UUIDs and tokens of all users: {record}",
            READY,
        ]
    )


async def serve(options: Options) -> None:
    """Run a cluster until told to stop."""
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    async with AsyncExitStack() as stack:
        stop = _until_told(options)
        listeners = ports.bind_all(options.ports, options.directory / "ports.json")
        for listener in listeners:
            stack.callback(listener.close)
        cluster = Cluster.open(options.directory)
        stack.callback(cluster.close)
        cluster.api_port, *cluster.keep_ports = (listener.getsockname()[1] for listener in listeners)
        keep_threads = stack.enter_context(ThreadPoolExecutor(4, "keep"))
        announcement = _prepare(cluster, options)

        faults, request_log = Faults(), RequestLog()
        blocks = BlockStore(options.directory / "keep", options.discard_blocks)
        api = Api(cluster, faults, request_log, blocks)
        # One service alone keeps two copies; of several, each keeps one.
        replicas = 2 if options.keep_services == 1 else 1
        await _listen(stack, api.handle, listeners[0], tls_context(options.directory / "certificate.pem"))
        for number, listener in enumerate(listeners[1:]):
            service = KeepService(cluster, blocks, faults, request_log, keep_threads, number, replicas)
            await _listen(stack, service.handle, listener, None)
        sweeping = asyncio.create_task(_sweep(cluster))
        stack.callback(sweeping.cancel)
        # Modules stay, and requests leave little garbage: to look for it takes a twentieth of all time.
        gc.freeze()
        gc.set_threshold(_GARBAGE)
        print(announcement, flush=True)
        await stop.wait()
