"""`hawse agent`: the core with the kernel, the controller and the local socket at its edges."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from sdn.model.errors import invalid
from sdn.model.version import VERSION
from sdn.service.daemon import Daemon, add_arguments, run_daemon

DATAPATHS = ("bridge", "openflow")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = "Wire this host's containers as the controller decides."
    add_arguments(parser)
    parser.add_argument("--config", metavar="FILE", default=None, help="who this host is (default: STATE/agent.json)")
    parser.add_argument("--datapath", choices=DATAPATHS, default="bridge", help="what is programmed")
    parser.add_argument(
        "--ovsdb", metavar="PATH", default=None,
        help="the socket of Open vSwitch's database, for --datapath openflow (default: /run/openvswitch/db.sock)",
    )  # fmt: skip
    parser.add_argument(
        "--settle-ms", metavar="N", type=int, default=20, help="how long an attachment waits for other hosts (0: not)"
    )
    parser.add_argument(
        "--clean", action="store_true", help="remove what is Hawse's from this host's kernel, and end; the agent is off"
    )
    parser.add_argument(
        "--start-fd", metavar="N", type=int, default=None, help="a socket: says '1' there when able, begins at a '1'"
    )


def run(options: argparse.Namespace) -> int:
    """The command. Returns the exit code. Raises: HawseError, for the command line to print."""
    if options.settle_ms < 0:
        raise invalid("--settle-ms is negative", "give 0 to wait not at all")
    if options.clean:
        from plugin.agent.cleaning import clean

        return clean(options)
    return run_daemon("agent", options, lambda daemon: serve(daemon, options), quick_loop=True)


async def serve(daemon: Daemon, options: argparse.Namespace) -> None:
    """Serve until `daemon.stopping`. Raises: HawseError when it cannot begin."""
    from plugin.agent.configuration import read_configuration
    from plugin.agent.core import AgentCore, Identity
    from plugin.agent.examination import Examination
    from plugin.agent.facts import FactsWatch, HostFacts, KernelUnderlay, read_facts, read_incarnation, resolve_host
    from plugin.agent.features import PROBE, require_features, trials_of
    from plugin.agent.held import checked_start_fd, wait_told
    from plugin.agent.journal import Journal
    from plugin.agent.keeper import Keeper
    from plugin.agent.predecessor import Choice, Predecessor
    from plugin.agent.responder import Responder
    from plugin.agent.sandboxes import KernelNamespaces
    from plugin.agent.stream import Dialer
    from plugin.kernel import namespace
    from sdn.model.resources import Datapath as DatapathName
    from sdn.service.contract import contract_handler
    from sdn.service.contract_server import ContractServer

    loop = asyncio.get_running_loop()
    held = checked_start_fd(options.start_fd)
    kind = DatapathName(options.datapath)
    require_features(daemon.root.run / PROBE, trials_of(kind))
    choice = Choice(kind, Path(options.ovsdb) if options.ovsdb else None)
    async with contextlib.AsyncExitStack() as stack:
        # Before it is told to begin: who joins has not used the token yet when it finds that there is no switch.
        datapath = Predecessor(daemon.root).succeed(choice)
        stack.callback(datapath.close)
        if not await wait_told(held, daemon.stopping):
            return
        path = Path(options.config) if options.config else daemon.root.agent_file
        configuration = read_configuration(path)
        journal = Journal.open(daemon.root.journal)
        stack.callback(journal.close)
        underlay = KernelUnderlay()
        stack.callback(underlay.close)

        def read() -> HostFacts:
            return read_facts(configuration, underlay, resolve_host)

        dialer = Dialer(configuration)
        keeper = Keeper(path, configuration, dialer.use)

        responder = Responder(lambda: (core.facts.vtep4, core.facts.vtep6), loop)
        stack.callback(responder.close)
        core = AgentCore(
            Identity(configuration.host, read_incarnation(), VERSION, kind),
            read(),
            dial=dialer,
            datapath=datapath,
            namespaces=KernelNamespaces(),
            journal=journal,
            clock=loop,
            random=random.random,
            settle_ms=options.settle_ms,
            answer_probes=responder.obey,
            keeper=keeper,
        )
        await core.start()
        watch = FactsWatch(read, core.change_facts, loop)
        stack.callback(watch.close)
        running = asyncio.create_task(core.run())
        stack.push_async_callback(_end, running)
        examination = Examination(core, lambda: keeper.configuration, namespace.cookie(), loop)
        handler = contract_handler(core.attachments, examination.examine)
        server = ContractServer(daemon.root.agent_socket, handler)
        await server.start()
        stack.push_async_callback(server.close)
        await _first_of(core.first_contact(), daemon.stopping.wait(), running)
        daemon.ready()
        await _first_of(daemon.stopping.wait(), running)


async def _first_of(*waits: Coroutine[Any, Any, object] | asyncio.Task[None]) -> None:
    """Wait until one is done; of a task that failed, raise what it raised."""
    tasks = [wait if isinstance(wait, asyncio.Task) else asyncio.create_task(wait) for wait in waits]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, wait in zip(tasks, waits, strict=True):
        if task is not wait:
            task.cancel()
    for task in done:
        task.result()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
