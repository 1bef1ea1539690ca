"""The inside end of an endpoint, in the container's namespace: finished at ADD, freed at DEL, looked at by CHECK."""

from __future__ import annotations

import contextlib
import errno
import time

from plugin.kernel import ethtool, link, route
from plugin.kernel.netlink import NetlinkError, NetlinkSocket
from sdn.model.address import link_local
from sdn.model.ids import EndpointId
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Sandbox

_LINK_LOCAL_LENGTH = 64
_LOCAL_S = 0.25
_LOCAL_LOOK_S = 50e-6

Offers = dict[EndpointId, tuple[Endpoint, Sandbox]]
"""The namespaces that are handed over now, by whose they are."""


def _netlink(sandbox: Sandbox) -> contextlib.AbstractContextManager[NetlinkSocket]:
    """The way in that was handed over, or one of our own."""
    if isinstance(sandbox.door, NetlinkSocket):
        return contextlib.nullcontext(sandbox.door)
    return contextlib.closing(NetlinkSocket.open(sandbox.fd))


def finish(sandbox: Sandbox, endpoint: Endpoint, index: int, *, checksums: bool = False) -> NetlinkError | None:
    """Give the inside end its addresses and bring it up; the first error that counts. Raises: OSError.

    `checksums`: whoever takes its packets needs them with their checksums, not to be filled in on the way.

    The link-local address is set, not generated: it is the one that the guard lets pass, whatever the container's
    settings, and it is there at once. Where the container has no IPv6 it is not missed.
    """
    requests = [
        link.change(link.LOOPBACK, b"", up=True),
        link.change(index, link.encode_no_address_generation()),
        link.change(index, b"", up=True),
        route.add_address(index, f"{link_local(endpoint.mac)}/{_LINK_LOCAL_LENGTH}"),
    ]
    optional = {1, 3}
    requests += [route.add_address(index, address) for address in endpoint.addresses]
    with _netlink(sandbox) as netlink:
        if checksums:
            ethtool.write_features(netlink, endpoint.ifname, {"tx": False})
        errors = netlink.execute(requests)
        refusal = next((error for at, error in enumerate(errors) if error is not None and at not in optional), None)
        if refusal is None:
            _await_local(netlink, endpoint)
    return refusal


def _await_local(netlink: NetlinkSocket, endpoint: Endpoint) -> None:
    """Until the new IPv6 addresses are the container's own; in bounded time.

    The kernel lets packets to them in only once a worker of its (addrconf_dad_work) has run, though there is no
    duplicate detection: on a busy machine the first SYN to a new container was lost once in four hundred times.
    """
    deadline = time.monotonic() + _LOCAL_S
    for address in endpoint.addresses:
        if ":" not in address:
            continue
        with contextlib.suppress(NetlinkError):  # the container's IPv6 is off, or going
            while not route.is_local(netlink, address.partition("/")[0]) and time.monotonic() < deadline:
                time.sleep(_LOCAL_LOOK_S)


def free(sandbox: Sandbox, ifname: str, host_index: int) -> None:
    """Bring the inside end down and give its name back. Absent, or another link of that name: nothing is done."""
    with _netlink(sandbox) as netlink:
        try:
            found = link.get(netlink, name=ifname)
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return
            raise
        if found.kind != "veth" or found.peer != host_index:
            return
        down = link.change(found.index, b"", up=False)
        netlink.execute([down, link.change(found.index, link.encode_name(f"hwd{found.index}"))])


def faults(sandbox: Sandbox, endpoint: Endpoint, mtu_bytes: int, *, checksums: bool = False) -> list[str]:
    """What is wrong with the inside end, as sentences. `checksums`: see `finish`. Raises: OSError, NetlinkError."""
    name = endpoint.ifname
    with _netlink(sandbox) as netlink:
        try:
            found = link.get(netlink, name=name)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            return [f"{name} is not there"]
        addresses = {address for index, address in route.dump_addresses(netlink) if index == found.index}
        offloads = checksums and ethtool.read_feature(netlink, name, "tx")
    sentences = []
    if found.kind != "veth":
        sentences.append(f"{name} is of kind {found.kind or 'unknown'}, not veth")
    if not found.up:
        sentences.append(f"{name} is down")
    if found.mac != endpoint.mac:
        sentences.append(f"{name} has MAC {found.mac}, not {endpoint.mac}")
    if found.mtu_bytes != mtu_bytes:
        sentences.append(f"{name} has an MTU of {found.mtu_bytes}, not {mtu_bytes}")
    if offloads:
        sentences.append(f"{name} leaves checksums to others (ethtool -K {name} tx off)")
    sentences += [f"{name} lacks {address}" for address in endpoint.addresses if address not in addresses]
    return sentences
