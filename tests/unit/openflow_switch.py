"""A switch as a model: it keeps flow-mods as names, does bundles as Open vSwitch does, and refuses what it is told."""

from __future__ import annotations

import dataclasses
from typing import Any

from sdn.openflow.bundle import BundleAdd, BundleControl, Verb
from sdn.openflow.errors import ONF, Error
from sdn.openflow.events import Asked
from sdn.openflow.framing import HEADER_BYTES, Type
from sdn.openflow.messages import Configuration, Features, Message, PacketOut, Plain, RoleReply, RoleRequest
from sdn.openflow.multipart import MORE, MultipartReply, MultipartRequest, Part
from sdn.openflow.notices import Port

BAD_PREREQ = (4, 9)
TABLE_FULL = (5, 1)
MSG_FAILED = 2313
FEATURES = Features(0x0000_0000_0000_002A, tables=254)


def mod(name: str, size: int = 24) -> bytes:
    """A flow-mod as far as the model looks: its body is a name."""
    body = name.encode().ljust(size, b"\0")
    return bytes([4, Type.FLOW_MOD]) + (HEADER_BYTES + len(body)).to_bytes(2, "big") + bytes(4) + body


def name_of(message: bytes) -> str:
    """What `mod` has named it."""
    return message[HEADER_BYTES:].rstrip(b"\0").decode()


@dataclasses.dataclass
class ModelSwitch:
    """`answers` gives what is to be sent for what is asked: (message, xid)."""

    refused_at_add: set[str] = dataclasses.field(default_factory=set)
    refused_at_commit: set[str] = dataclasses.field(default_factory=set)
    knows_bundles: bool = True
    done: list[str] = dataclasses.field(default_factory=list)
    frames: list[PacketOut] = dataclasses.field(default_factory=list)
    ports: list[Port] = dataclasses.field(default_factory=list)
    open: dict[int, list[tuple[int, bytes]]] = dataclasses.field(default_factory=dict)
    closed: set[int] = dataclasses.field(default_factory=set)
    log: list[str] = dataclasses.field(default_factory=list)
    silent: set[Type] = dataclasses.field(default_factory=set)
    most: int = 1 << 30

    def answers(self, asked: Asked) -> list[tuple[Message, int]]:
        """In order."""
        message, xid = asked.message, asked.xid
        kind = Type.EXPERIMENTER if isinstance(message, BundleControl | BundleAdd) else message.message_type
        if kind in self.silent:
            return []
        self.log.append(message.verb.name if isinstance(message, BundleControl) else kind.name)
        match message:
            case BundleControl():
                return self._control(message, xid)
            case BundleAdd():
                return self._add(message, xid)
            case Plain(Type.FLOW_MOD, data):
                return self._flow_mod(data.rstrip(b"\0").decode(), xid)
            case Plain(Type.BARRIER_REQUEST):
                return [(Plain(Type.BARRIER_REPLY), xid)]
            case Plain(Type.GET_CONFIG_REQUEST):
                return [(Plain(Type.GET_CONFIG_REPLY, Configuration(0, 128).body()), xid)]
            case RoleRequest(role, generation):
                return [(RoleReply(role, generation), xid)]
            case PacketOut():
                self.frames.append(message)
            case MultipartRequest():
                return self._multipart(message, xid)
        return []

    def _flow_mod(self, name: str, xid: int) -> list[tuple[Message, int]]:
        if name in self.refused_at_add:
            return [(Error(*BAD_PREREQ, mod(name)[:64]), xid)]
        self.done.append(name)
        return []

    def _add(self, message: BundleAdd, xid: int) -> list[tuple[Message, int]]:
        assert message.message[4:8] == xid.to_bytes(4, "big"), "the inner xid must be the outer one"
        if not self.knows_bundles:
            return [(Error(1, 3), xid)]
        assert message.bundle not in self.closed
        if name_of(message.message) in self.refused_at_add:
            return [(Error(*BAD_PREREQ, message.message[:64]), xid)]
        self.open[message.bundle].append((xid, message.message))
        return []

    def _control(self, message: BundleControl, xid: int) -> list[tuple[Message, int]]:
        if not self.knows_bundles:
            return [(Error(1, 3), xid)]
        if message.verb is Verb.OPEN:
            assert message.bundle not in self.open
            self.open[message.bundle] = []
        elif message.verb is Verb.CLOSE:
            self.closed.add(message.bundle)
        else:
            assert message.bundle in self.closed
            added = self.open.pop(message.bundle)
            if message.verb is Verb.COMMIT and (errors := self._commit(added, xid)):
                return errors
        return [(BundleControl(message.bundle, Verb(message.verb + 1)).message(), xid)]

    def _commit(self, added: list[tuple[int, bytes]], commit_xid: int) -> list[tuple[Message, int]]:
        """All or nothing; as Open vSwitch, the first that fails is told, then that the commit has."""
        for place, (xid, message) in enumerate(added):
            if name_of(message) in self.refused_at_commit or len(self.done) + place >= self.most:
                refusal: Any = Error(*TABLE_FULL, message[:64])
                return [(refusal, xid), (Error(0xFFFF, MSG_FAILED, b"", ONF), commit_xid)]
        self.done += [name_of(message) for _, message in added]
        return []

    def _multipart(self, message: MultipartRequest, xid: int) -> list[tuple[Message, int]]:
        if message.part == Part.PORT_DESCRIPTION:
            parts = [port.encode() for port in self.ports] or [b""]
            return [(MultipartReply(message.part, part, MORE if part is not parts[-1] else 0), xid) for part in parts]
        return [(Error(1, 2, message.body()[:64]), xid)]
