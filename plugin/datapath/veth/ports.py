"""Host ends of veths: their names, what their aliases say, their numbers, and how they are taken out of service."""

from __future__ import annotations

from typing import Final

from plugin.datapath.veth.batch import GONE, Batch
from plugin.kernel import link
from sdn.model.ids import EndpointId
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Key, LocalPort

ALIAS_PREFIX: Final = "hawse:"
PORT_PREFIX: Final = "hwv"
DOOMED: Final = 0x48570001
"""The link group of what is out of service and waits for its deletion."""
DOOMED_NOW: Final = 0x48570002
"""The link group of the chunk that is being deleted."""
_FIRST_INDEX = 100
"""Below it the kernel numbers what it numbers by itself."""


def port_name(endpoint: EndpointId) -> str:
    """The host end of an endpoint's veth."""
    return PORT_PREFIX + endpoint[-12:]


def port_alias(endpoint: Endpoint) -> str:
    """What the kernel keeps of an endpoint."""
    return alias_of(LocalPort(endpoint.id, endpoint.tenant, endpoint.container, endpoint.ifname))


def alias_of(owner: LocalPort) -> str:
    """The same, of what the kernel can tell."""
    return f"{ALIAS_PREFIX}{owner.endpoint} {owner.tenant} {owner.container} {owner.ifname}"


def parse_port_alias(alias: str) -> LocalPort | None:
    """The endpoint of a port; None where its making was cut short."""
    if not alias.startswith(ALIAS_PREFIX):
        return None
    words = alias.removeprefix(ALIAS_PREFIX).split(" ")
    if len(words) < 4:
        return None
    return LocalPort(words[0], words[1], " ".join(words[2:-1]), words[-1])


def doom(batch: Batch, key: Key, index: int, *, rename: bool) -> None:
    """Take a link out of service at once; with `rename` its name is free too. The worker deletes it."""
    batch.add(key, link.change(index, link.encode_group(DOOMED), up=False), GONE)
    if rename:
        batch.add(key, link.change(index, link.encode_name(f"hwd{index}")), GONE)


class IndexSource:
    """Numbers for new veths: above every index that was seen in any namespace where host ends are.

    Both ends get the number, and a container's interfaces all come from its host's one source, so it is free there
    too; where it is not, the kernel says so and nothing was made.
    """

    def __init__(self) -> None:
        self._next = _FIRST_INDEX

    def take(self) -> int:
        """A number that was not taken before."""
        self._next += 1
        return self._next

    def skip(self, count: int) -> None:
        """Go on further up."""
        self._next += count

    def note(self, index: int) -> None:
        """A number that is in use."""
        self._next = max(self._next, index)
