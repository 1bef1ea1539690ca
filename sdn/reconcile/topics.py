"""One transaction of the stream while it arrives: checked and decoded at once, applied by the world at its Sync."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping

import msgspec

from sdn.model.codec import Decoder
from sdn.model.errors import HawseError, Kind
from sdn.model.resources import Endpoint, Host, Member, Network, Tenant
from sdn.model.stream import Delta, Drop

Value = Tenant | Network | Member | Endpoint | Host

_tenant: Decoder[Tenant] = Decoder(Tenant, "a tenant")
_network: Decoder[Network] = Decoder(Network, "a network")
_member: Decoder[Member] = Decoder(Member, "a member")
_endpoint: Decoder[Endpoint] = Decoder(Endpoint, "an endpoint")
_host: Decoder[Host] = Decoder(Host, "a host")


class StreamBrokenError(HawseError):
    """What arrived does not fit what is here. The remedy is a new stream whose hello names no topic."""

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(
            Kind.INTERNAL, message, hint="the agent asks the controller for the whole state again", facts=facts
        )


def split_topic(topic: str) -> tuple[str, str]:
    """`network/ID` as (kind, id)."""
    kind, _, id_ = topic.partition("/")
    return kind, id_


def decode(topic: str, key: str, raw: bytes) -> Value | None:
    """A value by its topic and key (the table of `sdn.model.stream`); None: of a kind that a newer peer knows.

    Raises: StreamBrokenError when it cannot be decoded or is not what its key says.
    """
    kind, id_ = split_topic(topic)
    part, _, part_id = key.partition("/")
    try:
        match kind, part:
            case "tenant", "tenant":
                tenant = _tenant.msgpack(raw)
                return _check(topic, key, tenant, tenant.id == id_)
            case "network", "network":
                network = _network.msgpack(raw)
                return _check(topic, key, network, network.id == id_)
            case "network", "member":
                member = _member.msgpack(raw)
                return _check(topic, key, member, member.host == part_id)
            case "network", "endpoint":
                endpoint = _share(_endpoint.msgpack(raw))
                return _check(topic, key, endpoint, endpoint.id == part_id and endpoint.network == id_)
            case "host", "host":
                host = _host.msgpack(raw)
                return _check(topic, key, host, host.id == id_)
            case _:
                return None
    except StreamBrokenError:
        raise
    except HawseError as error:
        raise StreamBrokenError(f"{key} of {topic} cannot be read: {error.message}", topic=topic, key=key) from None


def _check(topic: str, key: str, value: Value, fits: bool) -> Value:
    if not fits:
        raise StreamBrokenError(f"{key} of {topic} holds the value of something else", topic=topic, key=key)
    return value


_NO_LABELS: dict[str, str] = {}


def _share(endpoint: Endpoint) -> Endpoint:
    """Let the thousands of endpoints share the strings that they repeat; nobody else has seen the value yet."""
    for field in ("host", "incarnation", "tenant", "network", "ifname", "client", "scope"):
        msgspec.structs.force_setattr(endpoint, field, sys.intern(getattr(endpoint, field)))
    if not endpoint.labels:
        msgspec.structs.force_setattr(endpoint, "labels", _NO_LABELS)
    return endpoint


@dataclasses.dataclass(slots=True)
class Staged:
    """What a transaction does to one topic. `anew`: its content before is void. `dropped`: it is held no longer."""

    revision: int
    anew: bool
    dropped: bool = False
    puts: dict[str, Value] = dataclasses.field(default_factory=dict)
    deletes: set[str] = dataclasses.field(default_factory=set)


class Transaction:
    """Collects deltas and drops. `held`: the revision of every topic that its deltas may go on from."""

    def __init__(self, held: Mapping[str, int]) -> None:
        self._held = held
        self.topics: dict[str, Staged] = {}

    def drop(self, drop: Drop) -> None:
        """The topic is held no longer; one that never was is fine."""
        self.topics[drop.topic] = Staged(drop.revision, anew=True, dropped=True)

    def delta(self, delta: Delta) -> None:
        """Raises: StreamBrokenError when it does not go on from what is here, or a value cannot be decoded."""
        staged = Staged(delta.revision, anew=True) if delta.previous == 0 else self._go_on(delta)
        for key in delta.deletes:
            staged.puts.pop(key, None)
            staged.deletes.add(key)
        for key, raw in delta.puts.items():
            value = decode(delta.topic, key, raw)
            if value is not None:
                staged.deletes.discard(key)
                staged.puts[key] = value
        self.topics[delta.topic] = staged

    def _go_on(self, delta: Delta) -> Staged:
        staged = self.topics.get(delta.topic)
        here = staged.revision if staged else self._held.get(delta.topic, 0)
        if staged is not None and staged.dropped:
            here = 0
        if here != delta.previous or delta.revision < delta.previous:
            raise StreamBrokenError(
                f"a change of {delta.topic} goes on from revision {delta.previous} to {delta.revision}, "
                f"but revision {here} is here",
                topic=delta.topic,
                previous=delta.previous,
                revision=delta.revision,
                here=here,
            )
        if staged is None:
            return Staged(delta.revision, anew=False)
        staged.revision = delta.revision
        return staged
