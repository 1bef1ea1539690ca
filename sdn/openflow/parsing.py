"""Which value a message becomes, by its type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sdn.openflow.bundle import ADD, CONTROL, BundleAdd, BundleControl
from sdn.openflow.errors import ONF, Error
from sdn.openflow.framing import HEADER_BYTES, ProtocolError, Type, type_name
from sdn.openflow.messages import (
    Configuration,
    EchoReply,
    EchoRequest,
    Experimenter,
    Features,
    Hello,
    PacketOut,
    Plain,
    RoleReply,
    RoleRequest,
)
from sdn.openflow.multipart import MultipartReply, MultipartRequest
from sdn.openflow.notices import FlowRemoved, PacketIn, PortStatus


def parse(frame: bytes) -> Any:
    """A whole message, whose header a Framer has checked, as the value it is. Raises: ProtocolError.

    Those that have no value of their own become Plain.
    """
    return _PARSERS.get(Type(frame[1]), _plain)(frame)


def _plain(frame: bytes) -> Plain:
    return Plain(Type(frame[1]), frame[HEADER_BYTES:])


def _nothing(frame: bytes) -> Plain:
    if len(frame) > HEADER_BYTES:
        why = f"is {len(frame)}, but there is nothing after {HEADER_BYTES} bytes"
        raise ProtocolError(type_name(frame[1]), "length", 2, why)
    return _plain(frame)


def _experimenter(frame: bytes) -> Any:
    message = Experimenter.parse(frame)
    return _EXTENSIONS.get((message.experimenter, message.kind), Experimenter.parse)(frame)


_EXTENSIONS: Final[dict[tuple[int, int], Callable[[bytes], Any]]] = {
    (ONF, CONTROL): BundleControl.parse,
    (ONF, ADD): BundleAdd.parse,
}
_PARSERS: Final[dict[Type, Callable[[bytes], Any]]] = {
    Type.HELLO: Hello.parse,
    Type.ERROR: Error.parse,
    Type.ECHO_REQUEST: EchoRequest.parse,
    Type.ECHO_REPLY: EchoReply.parse,
    Type.FEATURES_REQUEST: _nothing,
    Type.FEATURES_REPLY: Features.parse,
    Type.GET_CONFIG_REQUEST: _nothing,
    Type.GET_CONFIG_REPLY: Configuration.parse,
    Type.SET_CONFIG: Configuration.parse,
    Type.PACKET_IN: PacketIn.parse,
    Type.FLOW_REMOVED: FlowRemoved.parse,
    Type.PORT_STATUS: PortStatus.parse,
    Type.PACKET_OUT: PacketOut.parse,
    Type.MULTIPART_REQUEST: MultipartRequest.parse,
    Type.MULTIPART_REPLY: MultipartReply.parse,
    Type.BARRIER_REQUEST: _nothing,
    Type.BARRIER_REPLY: _nothing,
    Type.ROLE_REQUEST: RoleRequest.parse,
    Type.ROLE_REPLY: RoleReply.parse,
    Type.EXPERIMENTER: _experimenter,
}
"""Others are handed on as they are."""
