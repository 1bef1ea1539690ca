"""`hawse controller`: the process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdn.model.errors import HawseError, invalid
from sdn.service.daemon import Daemon, add_arguments, run_daemon, tune_collector
from sdn.service.startup import lean_imports

if TYPE_CHECKING:
    from sdn.controller.listen import Address, OpenflowAddress
    from sdn.controller.options import Options, Pool
    from sdn.controller.tls import Identity

POOL_LENGTHS = {4: 24, 6: 64}
"""What automatic subnets have, unless the pool itself is smaller."""


def run(options: argparse.Namespace) -> int:
    """Run the controller until it is told to stop; the exit code. Raises: HawseError where it cannot start."""
    from sdn.controller.listen import DEFAULT, advertised, parse_listen, parse_openflow

    openflow = [parse_openflow(text) for text in options.openflow]
    addresses = [parse_listen(text) for text in options.listen] or [DEFAULT]
    urls = advertised(options.advertise, addresses)  # refused before anything is made
    if options.discoverable:
        from sdn.service.discovery import announced, require_library

        require_library()
        announced(urls)
    core_options = _core_options(options.pool, options.vni_first)

    async def serve(daemon: Daemon) -> None:
        await _serve(daemon, addresses, openflow, options.advertise, core_options, discoverable=options.discoverable)

    return run_daemon("controller", options, serve, needs_root=False, quick_loop=True)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = "Run the controller: REST on a unix socket in its root, host streams on TCP in TLS."
    add_arguments(parser)
    parser.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        action="append",
        default=[],
        help="where hosts connect; repeatable; [v6]:port; default 127.0.0.1:4780",
    )
    parser.add_argument(
        "--advertise",
        metavar="URL",
        action="append",
        default=[],
        help="what hosts are told, https://ADDRESS:PORT; repeatable; default: where it listens",
    )
    parser.add_argument(
        "--openflow",
        metavar="ssl:ADDRESS[:PORT]",
        action="append",
        default=[],
        help="where switches without an agent connect; repeatable; tcp:… takes whoever knows a datapath id",
    )
    parser.add_argument(
        "--discoverable",
        action="store_true",
        help="announce it on the local segments by multicast DNS, for 'hawse join --discover'",
    )
    parser.add_argument(
        "--pool",
        metavar="PREFIX",
        action="append",
        default=[],
        help="automatic subnets are cut from it; repeatable, IPv4 and IPv6",
    )
    parser.add_argument("--vni-first", metavar="N", type=int, default=1, help="the lowest VNI to give out")


def _core_options(pools: Sequence[str], vni_first: int) -> Options:
    from sdn.controller.options import DEFAULT_POOLS, Options
    from sdn.model.address import family_of
    from sdn.model.resources import VNI_MAX

    if not 1 <= vni_first <= VNI_MAX:
        raise invalid(f"--vni-first {vni_first} is not a VNI", f"it is 1 to {VNI_MAX}", vni_first=vni_first)
    chosen = tuple(_parse_pool(text) for text in pools)
    families = {family_of(pool.prefix) for pool in chosen}
    kept = tuple(pool for pool in DEFAULT_POOLS if family_of(pool.prefix) not in families)
    return Options(pools=chosen + kept, vni_first=vni_first)


def _parse_pool(text: str) -> Pool:
    from sdn.controller.options import Pool
    from sdn.model.address import parse_prefix

    prefix = parse_prefix(text)
    return Pool(str(prefix), max(POOL_LENGTHS[prefix.family], prefix.length))


async def _serve(
    daemon: Daemon,
    addresses: Sequence[Address],
    openflow: Sequence[OpenflowAddress],
    advertise: Sequence[str],
    core_options: Options,
    *,
    discoverable: bool,
) -> None:
    with lean_imports():
        import aiohttp  # noqa: F401 - its first import of many, at a third of the price

    from sdn.controller.core import Core
    from sdn.controller.edge import Edge
    from sdn.controller.listen import advertised
    from sdn.controller.measured import MeasuredStore
    from sdn.controller.metrics import Metrics
    from sdn.controller.server import serving, steering
    from sdn.controller.tls import open_identity, renewing
    from sdn.store.sqlite import SqliteStore

    identity = open_identity(daemon.root.tls)
    metrics = Metrics()
    store = MeasuredStore(await SqliteStore.open(daemon.root.database), metrics.commit_s.observe, time.monotonic)
    try:
        core = await Core.start(store, clock=time.time, random_bits=secrets.randbits, options=core_options)
        edge = Edge(core, identity, daemon.log, metrics)
        try:
            path = daemon.root.controller_socket
            async with (
                serving(edge, path, addresses, identity.server_context()) as bound,
                steering(edge, openflow) as steered,
            ):
                edge.controllers = advertised(advertise, bound)
                write_client_file(daemon.root.client_file, f"unix:{path}")
                edge.ready = True
                tune_collector()  # what was imported and loaded meanwhile stays, too
                told = {"openflow": [str(one) for one in steered]} if steered else {}
                daemon.log.info("serving", listen=[str(one) for one in bound], **told, revision=core.revision)
                daemon.ready()
                announced = _announced(daemon, identity, edge.controllers, bound if discoverable else ())
                async with announced, renewing(identity, daemon.log):
                    await daemon.stopping.wait()
                edge.ready = False
                await core.close()  # ends every stream and wait, so that the listeners can close at once
        finally:
            await core.close()
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def _announced(
    daemon: Daemon, identity: Identity, urls: Sequence[str], bound: Sequence[Address]
) -> AsyncIterator[None]:
    """While inside, be found by others on the segments of `bound`, if any."""
    announcing = asyncio.create_task(_announce(daemon, identity, urls, [one.host for one in bound])) if bound else None
    try:
        yield
    finally:
        if announcing is not None:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)


async def _announce(daemon: Daemon, identity: Identity, urls: Sequence[str], bound: Sequence[str]) -> None:
    """Under each authority that a token may name; nobody depends on it, so its failure is only told."""
    from sdn.service.discovery import announcing

    while True:
        changed = identity.replaced.next
        async with contextlib.AsyncExitStack() as stack:
            try:
                for authority in identity.authority.trusted:
                    await stack.enter_async_context(announcing(authority.fingerprint, urls, bound))
                daemon.log.info("announced by multicast DNS", urls=list(urls))
            except HawseError as error:
                daemon.log.warning("cannot announce this controller", reason=error.message)
            await changed.wait()


def write_client_file(path: Path, url: str) -> None:
    """Tell the commands of this root where the controller is; whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"controller": url}) + "\n")
    temporary.replace(path)
