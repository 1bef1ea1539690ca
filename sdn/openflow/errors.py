"""What a switch refuses, by name: types and codes of errors, and what kind of error of ours each is.

Source: OpenFlow 1.3.5, section 7.5.4; ONF EXT-230 (bundles on 1.3); ovs-vswitchd's own, as its headers number them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Final

from sdn.model.errors import HawseError, Kind
from sdn.openflow.framing import HEADER_BYTES, Layout, Type

ONF: Final = 0x4F4E4600
NICIRA: Final = 0x00002320
EXPERIMENTER: Final = 0xFFFF

_CODES: Final = {
    "HELLO_FAILED": "INCOMPATIBLE EPERM",
    "BAD_REQUEST": "BAD_VERSION BAD_TYPE BAD_MULTIPART BAD_EXPERIMENTER BAD_EXP_TYPE EPERM BAD_LEN BUFFER_EMPTY "
    "BUFFER_UNKNOWN BAD_TABLE_ID IS_SLAVE BAD_PORT BAD_PACKET MULTIPART_BUFFER_OVERFLOW",
    "BAD_ACTION": "BAD_TYPE BAD_LEN BAD_EXPERIMENTER BAD_EXP_TYPE BAD_OUT_PORT BAD_ARGUMENT EPERM TOO_MANY BAD_QUEUE "
    "BAD_OUT_GROUP MATCH_INCONSISTENT UNSUPPORTED_ORDER BAD_TAG BAD_SET_TYPE BAD_SET_LEN BAD_SET_ARGUMENT",
    "BAD_INSTRUCTION": "UNKNOWN_INST UNSUP_INST BAD_TABLE_ID UNSUP_METADATA UNSUP_METADATA_MASK BAD_EXPERIMENTER "
    "BAD_EXP_TYPE BAD_LEN EPERM",
    "BAD_MATCH": "BAD_TYPE BAD_LEN BAD_TAG BAD_DL_ADDR_MASK BAD_NW_ADDR_MASK BAD_WILDCARDS BAD_FIELD BAD_VALUE "
    "BAD_MASK BAD_PREREQ DUP_FIELD EPERM",
    "FLOW_MOD_FAILED": "UNKNOWN TABLE_FULL BAD_TABLE_ID OVERLAP EPERM BAD_TIMEOUT BAD_COMMAND BAD_FLAGS",
    "GROUP_MOD_FAILED": "GROUP_EXISTS INVALID_GROUP WEIGHT_UNSUPPORTED OUT_OF_GROUPS OUT_OF_BUCKETS "
    "CHAINING_UNSUPPORTED WATCH_UNSUPPORTED LOOP UNKNOWN_GROUP CHAINED_GROUP BAD_TYPE BAD_COMMAND BAD_BUCKET BAD_WATCH "
    "EPERM",
    "PORT_MOD_FAILED": "BAD_PORT BAD_HW_ADDR BAD_CONFIG BAD_ADVERTISE EPERM",
    "TABLE_MOD_FAILED": "BAD_TABLE BAD_CONFIG EPERM",
    "QUEUE_OP_FAILED": "BAD_PORT BAD_QUEUE EPERM",
    "SWITCH_CONFIG_FAILED": "BAD_FLAGS BAD_LEN EPERM",
    "ROLE_REQUEST_FAILED": "STALE UNSUP BAD_ROLE",
    "METER_MOD_FAILED": "UNKNOWN METER_EXISTS INVALID_METER UNKNOWN_METER BAD_COMMAND BAD_FLAGS BAD_RATE BAD_BURST "
    "BAD_BAND BAD_BAND_VALUE OUT_OF_METERS OUT_OF_BANDS",
    "TABLE_FEATURES_FAILED": "BAD_TABLE BAD_METADATA BAD_TYPE BAD_LEN BAD_ARGUMENT EPERM",
}
"""A type's place is its number, a code's likewise."""

_TYPES: Final = [(name, codes.split()) for name, codes in _CODES.items()]
_BUNDLE: Final = (
    "UNKNOWN EPERM BAD_ID BUNDLE_EXIST BUNDLE_CLOSED OUT_OF_BUNDLES BAD_TYPE BAD_FLAGS MSG_BAD_LEN MSG_BAD_XID "
    "MSG_UNSUP MSG_CONFLICT MSG_TOO_MANY MSG_FAILED TIMEOUT BUNDLE_IN_PROGRESS"
)
_EXPERIMENTERS: Final[dict[int, dict[int, str]]] = {
    ONF: {2300 + code: f"BUNDLE_FAILED {name}" for code, name in enumerate(_BUNDLE.split())}
    | {2600: "BAD_INSTRUCTION DUP_INST", 4250: "BAD_ACTION BAD_SET_MASK"},
    NICIRA: {
        2: "BAD_REQUEST NXM_INVALID",
        3: "BAD_REQUEST NXM_BAD_TYPE",
        4: "BAD_REQUEST MUST_BE_ZERO",
        6: "FLOW_MONITOR_FAILED MONITOR_EXISTS",
        7: "FLOW_MONITOR_FAILED BAD_FLAGS",
        8: "FLOW_MONITOR_FAILED UNKNOWN_MONITOR",
        10: "BAD_REQUEST UNENCODABLE_ERROR",
        11: "BAD_ACTION MUST_BE_ZERO",
        12: "FLOW_MOD_FAILED HARDWARE",
        15: "BAD_ACTION BAD_CONJUNCTION",
        42: "BAD_ACTION CT_DATAPATH_SUPPORT",
        43: "BAD_MATCH CT_DATAPATH_SUPPORT",
    },
}
_VENDORS: Final = {ONF: "ONF", NICIRA: "Nicira"}

HELLO_FAILED: Final = 0
INCOMPATIBLE: Final = 0
BAD_REQUEST: Final = 1
BAD_EXPERIMENTER: Final = 3
_EXHAUSTED: Final = frozenset(
    {"FLOW_MOD_FAILED TABLE_FULL", "GROUP_MOD_FAILED OUT_OF_GROUPS", "METER_MOD_FAILED OUT_OF_METERS"}
    | {"BUNDLE_FAILED OUT_OF_BUNDLES", "BUNDLE_FAILED MSG_TOO_MANY"}
)

_LAYOUT: Final = Layout("type:H code:H")
_EXPERIMENTER_LAYOUT: Final = Layout("type:H exp_type:H experimenter:I")


@dataclasses.dataclass(frozen=True, slots=True)
class Error:
    """ERROR. `data`: at least the first 64 bytes of what is refused, or, for HELLO_FAILED, a text.

    An experimenter's error has its `experimenter`, and as `code` the exp_type.
    """

    message_type: ClassVar = Type.ERROR

    type: int
    code: int
    data: bytes = b""
    experimenter: int = 0

    @property
    def text(self) -> str:
        """Type and code by name: `FLOW_MOD_FAILED TABLE_FULL`."""
        if self.type == EXPERIMENTER:
            name = _EXPERIMENTERS.get(self.experimenter, {}).get(self.code)
            return name or f"error {self.code} of {_VENDORS.get(self.experimenter, f'{self.experimenter:#010x}')}"
        if self.type >= len(_TYPES):
            return f"error of type {self.type}, code {self.code}"
        name, codes = _TYPES[self.type]
        text = f"{name} {codes[self.code]}" if self.code < len(codes) else f"{name}, code {self.code}"
        if self.type == HELLO_FAILED and self.data:
            says = self.data.rstrip(b"\0\n").decode("ascii", "backslashreplace")[:200]
            text += f" ({''.join(c if c.isprintable() else '?' for c in says)})"
        return text

    @property
    def refused_xid(self) -> int | None:
        """The xid of the message that is sent back, if enough of it is."""
        return int.from_bytes(self.data[4:8], "big") if len(self.data) >= HEADER_BYTES else None

    def body(self) -> bytes:
        """Without the header."""
        if self.type == EXPERIMENTER:
            return _EXPERIMENTER_LAYOUT.pack(self.type, self.code, self.experimenter) + self.data
        return _LAYOUT.pack(self.type, self.code) + self.data

    @classmethod
    def parse(cls, frame: bytes) -> Error:
        """Of a whole message. Raises: ProtocolError."""
        error_type, code = _LAYOUT.unpack(frame)
        if error_type != EXPERIMENTER:
            return cls(error_type, code, frame[_LAYOUT.end :])
        error_type, code, experimenter = _EXPERIMENTER_LAYOUT.unpack(frame)
        return cls(error_type, code, frame[_EXPERIMENTER_LAYOUT.end :], experimenter)


class RefusedError(HawseError):
    """A switch refuses what was asked. `error` is its answer."""

    def __init__(self, error: Error, message: str, **facts: Any) -> None:
        super().__init__(kind_of(error), message, facts={"openflow_error": error.text, **facts})
        self.error = error


def kind_of(error: Error) -> Kind:
    """What kind of error of ours it is: what a switch does not understand of us is our fault."""
    text = error.text
    if text in _EXHAUSTED:
        return Kind.EXHAUSTED
    if text.endswith((" EPERM", " IS_SLAVE")):
        return Kind.DENIED
    if text == "BUNDLE_FAILED TIMEOUT":
        return Kind.UNAVAILABLE
    return Kind.INTERNAL


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """Why a group of a bundle was left out. `message`: its place in the group; None: the group as a whole."""

    message: int | None
    error: Error

    @property
    def text(self) -> str:
        """The switch's words."""
        return self.error.text

    def as_error(self, what: str) -> RefusedError:
        """For a user. `what` was to be written, e.g. `the flows of endpoint e1 on hwint`."""
        facts = {} if self.message is None else {"place": self.message}
        return RefusedError(self.error, f"the switch refuses {what}: {self.text}", **facts)
