"""What one transaction changed, as the topics need it."""

from __future__ import annotations

import dataclasses

from sdn.model.ids import EndpointId, HostId, NetworkId, TenantId
from sdn.model.resources import Endpoint, Host, Network

Topic = str
"""`tenant/ID`, `network/ID` or `host/ID`."""


@dataclasses.dataclass(slots=True)
class Effects:
    """Values are as they went into the store (msgpack). Gained and lost are net over the whole transaction."""

    tenants: dict[TenantId, bytes] = dataclasses.field(default_factory=dict)
    networks: dict[NetworkId, bytes] = dataclasses.field(default_factory=dict)
    networks_gone: list[Network] = dataclasses.field(default_factory=list)
    hosts: dict[HostId, tuple[Host | None, bytes]] = dataclasses.field(default_factory=dict)
    """The host before, and the bytes after."""
    hosts_gone: list[HostId] = dataclasses.field(default_factory=list)
    endpoints: dict[EndpointId, bytes] = dataclasses.field(default_factory=dict)
    endpoints_gone: list[Endpoint] = dataclasses.field(default_factory=list)
    gained: set[tuple[Topic, HostId]] = dataclasses.field(default_factory=set)
    lost: set[tuple[Topic, HostId]] = dataclasses.field(default_factory=set)

    def gain(self, topic: Topic, host: HostId) -> None:
        """The host holds the topic now."""
        if (topic, host) in self.lost:
            self.lost.remove((topic, host))
        else:
            self.gained.add((topic, host))

    def lose(self, topic: Topic, host: HostId) -> None:
        """The host holds the topic no longer."""
        if (topic, host) in self.gained:
            self.gained.remove((topic, host))
        else:
            self.lost.add((topic, host))
