"""`hawse runtime`: the daemon put together. Lean: a machine may run many of them, each for a host of a lab."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os

from sdn.service.daemon import Daemon, add_arguments, run_daemon


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = "Run this host's containers."
    add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """The command. Returns the exit code. Raises: HawseError, for the command line to print."""
    return run_daemon("runtime", options, serve)


async def serve(daemon: Daemon) -> None:
    """Serve until `daemon.stopping`. Raises: HawseError when it cannot begin."""
    from runtime.daemon.assembly import Assembly
    from runtime.daemon.supervisor_link import SupervisorLink, end_supervisor
    from sdn.service.contract_server import ContractServer

    missed = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(SupervisorLink(daemon.root, missed.set))
        assembly = Assembly(daemon.root, supervisor)
        stack.push_async_callback(assembly.close)
        for work in (supervisor.listen(assembly), assembly.around.releases.run(), assembly.compare_when(missed)):
            assembly.around.tasks.begin(work)
        await assembly.recovery.recover()
        server = ContractServer(daemon.root.runtime_socket, assembly.verbs.handler())
        await server.start()
        stack.push_async_callback(server.close)
        daemon.log.info("serving", pid=os.getpid(), containers=sum(assembly.containers.counts().values()))
        daemon.ready()
        await daemon.stopping.wait()
    end_supervisor(daemon.root)  # where containers live it stays with them
