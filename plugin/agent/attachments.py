"""The attach contract's verbs on this host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

from plugin.agent.channel import Clock, wait_bounded
from plugin.agent.releases import Releases
from plugin.agent.session import Pending, Session
from plugin.agent.wiring import AttachmentKey, Wiring
from sdn.model.address import address_number, family_of, parse_interface, parse_prefix
from sdn.model.contract import (
    AddRequest,
    AddResult,
    CheckRequest,
    DelRequest,
    DelResult,
    GcRequest,
    Handover,
    StatusRequest,
)
from sdn.model.errors import HawseError, Kind, conflict, invalid, not_found, unavailable
from sdn.model.ids import EndpointId
from sdn.model.resources import Endpoint, Network
from sdn.model.stream import Attached, AttachRequest, Settled
from sdn.reconcile.datapath import Datapath, LocalPort, Sandbox
from sdn.service.log import get_logger

ATTACH_S = 10.0
"""How long ADD waits for the controller's decision; a client's own patience is rarely longer."""
SETTLE_MS = 20
INTERFACE_NAME_BYTES_MAX = 15
INTERFACES_MAX = 1000


class Namespaces(Protocol):
    """What is asked of a container's namespace, by its descriptor."""

    def is_namespace(self, fd: int) -> bool:
        """Whether it is one, of the network kind."""

    def open(self, fd: int) -> Sandbox:
        """It, with its cookie (SO_NETNS_COOKIE); the caller closes the door. Raises: OSError."""

    def interfaces(self, fd: int) -> set[str]:
        """The names that are taken inside."""


class Attachments:
    """Serves `sdn.service.contract`. Requests of one container are served one after another, others side by side."""

    def __init__(
        self,
        wiring: Wiring,
        session: Session,
        releases: Releases,
        datapath: Datapath,
        namespaces: Namespaces,
        clock: Clock,
        settle_ms: int = SETTLE_MS,
    ) -> None:
        self._wiring = wiring
        self._session = session
        self._releases = releases
        self._datapath = datapath
        self._namespaces = namespaces
        self._clock = clock
        self._settle_ms = settle_ms
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._log = get_logger("attachments")

    # ADD ------------------------------------------------------------------------------------------------------------

    async def add(self, request: AddRequest, fd: int | None) -> AddResult:
        """Attach. Raises: HawseError, of the controller or of this host; nothing is left then."""
        if request.handover is not Handover.NAMESPACE:
            raise invalid("this host hands an interface over in the container's namespace only", "leave `handover` out")
        if not self._session.live:
            raise self._session.away
        with self._sandbox(fd) as sandbox:
            if sandbox is None:
                raise invalid("ADD came without the container's namespace", "send its descriptor with the request")
            container = request.container or f"netns-{sandbox.cookie}"
            async with self._alone(container):
                ifname = request.ifname or self._free_name(sandbox, container)
                _check_interface_name(ifname)
                return await self._add(request, (container, ifname), sandbox)

    async def _add(self, request: AddRequest, key: AttachmentKey, sandbox: Sandbox) -> AddResult:
        made = self._wiring.made(key)
        self._wiring.expect(key, sandbox)
        self._releases.hurry()
        try:
            pending = self._session.request(
                lambda session, number: AttachRequest(
                    session=session,
                    request=number,
                    client=request.client,
                    scope=request.scope,
                    container=key[0],
                    ifname=key[1],
                    sandbox=sandbox.cookie,
                    network=request.network,
                    addresses=request.addresses,
                    mac=request.mac,
                    name=request.name,
                    aliases=request.aliases,
                    labels=request.labels,
                )
            )
            try:
                attached = await self._attached(pending, sandbox)
                late = await self._settle(pending, attached.network, request.settle_ms)
            finally:
                self._session.forget(pending)
        except HawseError:
            await self._undo(key, sandbox, made)
            raise
        finally:
            self._wiring.unexpect(key)
        return _result(attached, late)

    async def _undo(self, key: AttachmentKey, sandbox: Sandbox, made: EndpointId | None) -> None:
        """An ADD has failed, perhaps after its deltas had come and were wired (the reply was lost): nothing stays.

        But what was `made` before it: an ADD that is repeated takes nothing away.
        """
        endpoint = self._wiring.world.local_endpoint(*key)
        if endpoint is None or endpoint.sandbox != sandbox.cookie or endpoint.id == made:
            return
        self._wiring.release([endpoint], sandbox)
        # Neither controller nor disk: the next snapshot brings it up again. What made the ADD fail matters more.
        with contextlib.suppress(HawseError):
            await self._releases.release([endpoint.id], "its ADD failed")

    async def _attached(self, pending: Pending, sandbox: Sandbox) -> Attached:
        """The controller's decision, wired: its deltas came before it, and were made real as they came."""
        if not await wait_bounded(self._clock, pending.reply, ATTACH_S):
            # Should it be decided after all, nothing waits for it here, and it is released as gone.
            raise unavailable(f"the controller did not answer within {ATTACH_S:g} s", "try again")
        attached: Attached = pending.reply.result()
        endpoint = attached.endpoint
        problem = self._wiring.problem(endpoint)
        if not problem:
            return attached
        self._log.warning("attachment undone", endpoint=endpoint.id, container=endpoint.container, reason=problem)
        known = self._wiring.world.endpoint(endpoint.id) is not None
        self._wiring.release([endpoint])
        await self._releases.release([endpoint.id], f"could not be wired: {problem}")
        if not known:
            raise unavailable(f"{endpoint.ifname} of container {endpoint.container}: {problem}", "try again")
        if endpoint.ifname in self._namespaces.interfaces(sandbox.fd):
            raise conflict(
                f"container {endpoint.container} has an interface {endpoint.ifname} already, which Hawse did not make",
                "choose another name with --ifname, or remove that interface",
                interface=endpoint.ifname,
            )
        raise HawseError(
            Kind.INTERNAL,
            f"cannot wire {endpoint.ifname} of container {endpoint.container} to {attached.network.name}: {problem}",
            hint="nothing was left; correct the cause and try again",
            facts={"endpoint": endpoint.id, "reason": problem},
        )

    async def _settle(self, pending: Pending, network: Network, settle_ms: int | None) -> tuple[str, ...]:
        """Wait for the other hosts, so that the first packet is not lost; the names of those that are not in step."""
        bound_ms = self._settle_ms if settle_ms is None else settle_ms
        if bound_ms <= 0:
            return ()
        if not await wait_bounded(self._clock, pending.settled, bound_ms / 1000):
            return self._wiring.other_hosts(network)
        if pending.settled.exception() is not None:  # the controller went away; what was attached stays attached
            return self._wiring.other_hosts(network)
        settled: Settled = pending.settled.result()
        return settled.late

    def _free_name(self, sandbox: Sandbox, container: str) -> str:
        taken = self._namespaces.interfaces(sandbox.fd)
        taken |= {endpoint.ifname for endpoint in self._wiring.attachments(container)}
        for number in range(INTERFACES_MAX):
            if f"eth{number}" not in taken:
                return f"eth{number}"
        raise invalid(f"container {container} has {INTERFACES_MAX} interfaces", "name one with `ifname`")

    # DEL ------------------------------------------------------------------------------------------------------------

    async def delete(self, request: DelRequest, fd: int | None) -> DelResult:
        """Detach; succeeds when there is nothing, when the namespace is gone, and when the controller is away."""
        if fd is not None and not self._namespaces.is_namespace(fd):
            fd = None  # it only helps; without it the inside goes with its other end
        with self._sandbox(fd) as sandbox:
            container = self._container(request.container, sandbox)
            async with self._alone(container):
                if not self._wiring.world.complete:
                    return await self._delete_blindly(container, request)
                endpoint = self._find(container, request.ifname, request.network)
                if endpoint is None:
                    return DelResult()
                self._wiring.release([endpoint], sandbox)
                await self._releases.release([endpoint.id])
                return DelResult(endpoint=endpoint.id, ifname=endpoint.ifname, addresses=endpoint.addresses)

    async def _delete_blindly(self, container: str, request: DelRequest) -> DelResult:
        """The agent was restarted and has not met the controller: the kernel knows enough, but no network's name."""
        port = self._find_port(container, request.ifname)
        if port is None:
            return DelResult()
        if request.network and not request.ifname:
            raise unavailable(
                f"which interface of container {container} is in network {request.network} is not known "
                "before the controller is reached",
                "name the interface with --ifname, or try again in a moment",
            )
        self._wiring.sever(port)
        await self._releases.release([_endpoint_id(port)])
        return DelResult(endpoint=port.endpoint, ifname=port.ifname)

    # CHECK, GC, STATUS ----------------------------------------------------------------------------------------------

    async def check(self, request: CheckRequest, fd: int | None) -> None:
        """Raises: NOT_FOUND; CONFLICT with every difference as a sentence (also in `facts.problems`)."""
        with self._sandbox(fd) as sandbox:
            container = self._container(request.container, sandbox)
            async with self._alone(container):
                if not self._wiring.world.complete:
                    if self._find_port(container, request.ifname) is None:
                        raise _absent(container, request.ifname)
                    return
                endpoint = self._find(container, request.ifname, "")
                if endpoint is None:
                    raise _absent(container, request.ifname)
                problems = self._problems(endpoint, sandbox)
        if problems:
            raise conflict(
                f"{endpoint.ifname} of container {container} is not as it was made: {'; '.join(problems)}",
                "detach and attach it again",
                problems=problems,
            )

    def _problems(self, endpoint: Endpoint, sandbox: Sandbox | None) -> list[str]:
        problem = self._wiring.problem(endpoint)
        if sandbox is None:
            return [problem] if problem else []
        if sandbox.cookie != endpoint.sandbox:
            return ["this is not the namespace that it was attached in"]
        network = self._wiring.world.context().networks[endpoint.network]
        inside = self._datapath.check(endpoint, network.mtu_bytes, sandbox)
        return [problem, *inside] if problem else inside

    async def collect(self, request: GcRequest) -> None:
        """Release all of (client, scope) that is not valid. Raises: UNAVAILABLE before the first snapshot."""
        if not self._wiring.world.complete:
            raise unavailable("whose the attachments on this host are is not known yet", "try again in a moment")
        valid = set(request.valid)
        stale = [
            endpoint
            for endpoint in self._wiring.world.local_endpoints()
            if (endpoint.client, endpoint.scope) == (request.client, request.scope)
            and (endpoint.container, endpoint.ifname) not in valid
        ]
        if stale:
            self._log.info("collecting", client=request.client, scope=request.scope, count=len(stale))
            self._wiring.release(stale)
            await self._releases.release([endpoint.id for endpoint in stale], "no longer valid")

    async def status(self, request: StatusRequest) -> dict[str, Any]:
        """Raises: UNAVAILABLE when ADD would fail."""
        if not self._session.live:
            raise self._session.away
        if not self._wiring.world.complete:
            raise unavailable("the controller's first snapshot is still on its way", "try again in a moment")
        return {"revision": self._wiring.world.revision, "failures": self._wiring.failures()}

    # Which one ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _sandbox(self, fd: int | None) -> Iterator[Sandbox | None]:
        if fd is None:
            yield None
            return
        if not self._namespaces.is_namespace(fd):
            raise invalid(
                "the descriptor that came with the request is not of a network namespace",
                "open /proc/PID/ns/net, or the file that `ip netns add` made",
            )
        sandbox = self._namespaces.open(fd)
        try:
            yield sandbox
        finally:
            if sandbox.door is not None:
                sandbox.door.close()

    def _container(self, container: str, sandbox: Sandbox | None) -> str:
        if container:
            return container
        if sandbox is None:
            raise invalid("neither a container nor a namespace was named", "give one of them")
        return f"netns-{sandbox.cookie}"

    def _find(self, container: str, ifname: str, reference: str) -> Endpoint | None:
        """The attachment that is meant. Raises: CONFLICT when it could be several."""
        if ifname:
            endpoint = self._wiring.world.local_endpoint(container, ifname)
            stranger = endpoint is not None and reference and not self._wiring.is_network(endpoint, reference)
            return None if stranger else endpoint
        found = list(self._wiring.attachments(container))
        if reference:
            found = [endpoint for endpoint in found if self._wiring.is_network(endpoint, reference)]
        if len(found) > 1:
            raise _ambiguous(container, [endpoint.ifname for endpoint in found])
        return found[0] if found else None

    def _find_port(self, container: str, ifname: str) -> LocalPort | None:
        found = [
            port
            for port in self._wiring.ports()
            if port.container == container and (not ifname or port.ifname == ifname)
        ]
        if len(found) > 1:
            raise _ambiguous(container, [port.ifname for port in found])
        return found[0] if found else None

    @contextlib.asynccontextmanager
    async def _alone(self, container: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(container, (asyncio.Lock(), 0))
        self._locks[container] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            users = self._locks[container][1] - 1
            if users:
                self._locks[container] = (lock, users)
            else:
                del self._locks[container]


def _endpoint_id(port: LocalPort) -> Any:
    return port.endpoint


def _absent(container: str, ifname: str) -> HawseError:
    return not_found(
        f"container {container} has no attachment {ifname or 'of its own'} on this host",
        "attach it",
        container=container,
    )


def _ambiguous(container: str, names: list[str]) -> HawseError:
    return conflict(
        f"container {container} has several such attachments: {', '.join(sorted(names))}",
        "name one with --ifname",
        interfaces=sorted(names),
    )


def _check_interface_name(name: str) -> None:
    """What the kernel's dev_valid_name takes. Raises: INVALID."""
    if (
        len(name.encode()) > INTERFACE_NAME_BYTES_MAX
        or name in (".", "..", "lo")
        or any(character in "/:" or character.isspace() for character in name)
        or not name.isprintable()
    ):
        raise invalid(
            f"{name!r} is not a name for an interface",
            f"use up to {INTERFACE_NAME_BYTES_MAX} characters without '/', ':' and blanks, and not lo",
        )


def _result(attached: Attached, late: tuple[str, ...]) -> AddResult:
    endpoint, network = attached.endpoint, attached.network
    return AddResult(
        endpoint=endpoint.id,
        network=network.id,
        tenant=attached.tenant.id,
        revision=attached.revision,
        ifname=endpoint.ifname,
        mac=endpoint.mac,
        mtu_bytes=network.mtu_bytes,
        sandbox=endpoint.sandbox,
        addresses=endpoint.addresses,
        gateways=tuple(_gateway(network, address) for address in endpoint.addresses),
        late=late,
    )


def _gateway(network: Network, interface: str) -> str:
    """The gateway of the subnet that an address is in; empty where a subnet was taken away meanwhile."""
    address, _ = parse_interface(interface)
    for subnet in network.subnets:
        prefix = parse_prefix(subnet.prefix)
        if prefix.family == family_of(address) and address_number(address) in prefix:
            return subnet.gateway
    return ""
