"""What a host knows about itself: its VTEPs, what its uplinks carry, what it reaches by itself, who it is."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol, TypeVar

from plugin.agent.channel import Cancellable, Clock
from plugin.agent.configuration import Configuration, controller_address, local_socket
from plugin.kernel import link, namespace, route
from plugin.kernel.netlink import DumpInterruptedError, LostEventsError, NetlinkError, NetlinkSocket
from plugin.kernel.route import Uplink
from sdn.model.address import Family, family_of, parse_address
from sdn.model.errors import HawseError
from sdn.service.log import get_logger

T = TypeVar("T")

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MTU_UNKNOWN_BYTES = 1500
DEBOUNCE_S = 0.2
"""A link that comes up brings a dozen notifications; they are one change."""
GROUP_IPV4_ROUTE, GROUP_IPV6_ROUTE = 1 << 6, 1 << 10
READ_TRIES = 3


@dataclasses.dataclass(frozen=True, slots=True)
class HostFacts:
    """See resources.Host. `mtu_bytes`: the smallest of the uplinks that the VTEPs are on."""

    vtep4: str | None
    vtep6: str | None
    mtu_bytes: int
    routes: tuple[str, ...]


class Underlay(Protocol):
    """What is asked of the host's own network."""

    def uplink_to(self, address: str) -> Uplink | None:
        """The way to an address; None: there is none."""

    def uplink_of(self, address: str) -> Uplink | None:
        """The link that has one of the host's own addresses; None: none has."""

    def prefixes(self) -> tuple[str, ...]:
        """What the host reaches by itself, sorted."""


def read_facts(configuration: Configuration, underlay: Underlay, resolve: Callable[[str], list[str]]) -> HostFacts:
    """The facts as of now. `resolve`: a controller's host part -> its addresses.

    The VTEP of a family is the source address of the route to the first controller address of that family.
    """
    uplinks: dict[Family, Uplink] = {}
    for url in configuration.controllers:
        if local_socket(url) is not None:
            continue
        for address in resolve(controller_address(url)[0]):
            family = family_of(address)
            if family not in uplinks:
                uplink = _uplink(underlay, address)
                if uplink is not None:
                    uplinks[family] = uplink
    for given in (configuration.vtep4, configuration.vtep6):
        if given is not None:
            # an address that no link has yet is used all the same: it may come
            uplinks[family_of(given)] = underlay.uplink_of(given) or Uplink(given, "", MTU_UNKNOWN_BYTES)
    vtep4, vtep6 = uplinks.get(4), uplinks.get(6)
    return HostFacts(
        vtep4=vtep4.source if vtep4 else None,
        vtep6=vtep6.source if vtep6 else None,
        mtu_bytes=min((uplink.mtu_bytes for uplink in uplinks.values()), default=MTU_UNKNOWN_BYTES),
        routes=underlay.prefixes(),
    )


def _uplink(underlay: Underlay, address: str) -> Uplink | None:
    """The way to a controller's address, as other hosts would come back on it."""
    uplink = underlay.uplink_to(address)
    if uplink is None or not uplink.source or ip_address(uplink.source).is_loopback:
        return None  # of a controller on 127.0.0.1 there is nothing to learn
    # To an address of this very host the route leads over `lo`: the link that has the address is what counts.
    return (underlay.uplink_of(uplink.source) or uplink) if uplink.source == address else uplink


def resolve_host(host: str) -> list[str]:
    """The addresses of a name or literal; an unknown name has none."""
    try:
        return [parse_address(host)]
    except HawseError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(row[4][0]) for row in found))


def read_incarnation() -> str:
    """Boot id and cookie of this process's network namespace: differs for each machine start and each lab host."""
    return f"{BOOT_ID.read_text().strip()}:{namespace.cookie()}"


OWN_PREFIX = "hw"
"""Of every device of ours: the switch's end of the way out has this host's VTEP as well, and is no uplink."""


class KernelUnderlay:
    """The network namespace that the agent runs in."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket.open()

    def uplink_to(self, address: str) -> Uplink | None:
        """See Underlay."""
        try:
            return route.uplink_to(self._netlink, address)
        except NetlinkError:
            return None

    def uplink_of(self, address: str) -> Uplink | None:
        """See Underlay."""
        for index, interface in self._rows(lambda: route.dump_addresses(self._netlink)):
            if interface.rpartition("/")[0] == address:
                out = link.get(self._netlink, index=index)
                if not out.name.startswith(OWN_PREFIX):
                    return Uplink(address, out.name, out.mtu_bytes)
        return None

    def prefixes(self) -> tuple[str, ...]:
        """See Underlay."""
        return tuple(self._rows(lambda: route.prefixes(self._netlink)))

    def _rows(self, dump: Callable[[], Iterable[T]]) -> list[T]:
        for _ in range(READ_TRIES - 1):
            try:
                return list(dump())
            except DumpInterruptedError:
                continue
        return list(dump())

    def close(self) -> None:
        """Let go of the socket."""
        self._netlink.close()


class FactsWatch:
    """Reads the facts again whenever addresses, routes or links of the agent's namespace change, debounced."""

    def __init__(self, read: Callable[[], HostFacts], changed: Callable[[HostFacts], None], clock: Clock) -> None:
        self._read = read
        self._changed = changed
        self._clock = clock
        self._timer: Cancellable | None = None
        self._log = get_logger("facts")
        groups = (
            link.GROUP_LINK | route.GROUP_IPV4_ADDRESS | route.GROUP_IPV6_ADDRESS | GROUP_IPV4_ROUTE | GROUP_IPV6_ROUTE
        )
        self._netlink = NetlinkSocket.open(groups=groups)
        asyncio.get_running_loop().add_reader(self._netlink.fileno(), self._notified)

    def _notified(self) -> None:
        try:
            for _ in self._netlink.events():
                pass
        except LostEventsError:
            pass  # which they were does not matter: all is read again
        if self._timer is None:
            self._timer = self._clock.call_later(DEBOUNCE_S, self._read_again)

    def _read_again(self) -> None:
        self._timer = None
        try:
            facts = self._read()
        except (OSError, NetlinkError, DumpInterruptedError) as error:
            self._log.warning("facts cannot be read", reason=str(error))
            return
        self._changed(facts)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._netlink.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._netlink.close()
