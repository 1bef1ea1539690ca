"""The stream: one ordered conversation between an agent and the controller, msgpack messages on a WebSocket.

Down come `Delta`, `Drop` and `Sync` (the state), `Query`, `Credentials`, and the replies to the agent's requests; up
go `Hello`, `AttachRequest`, `DetachRequest`, `PeersRequest`, `Report`, `Facts` and `Answer`. The order is the promise:
whatever a reply depends on has arrived before the reply.

A topic's walk. `Delta(previous=0)` begins it anew: what the agent had of it is void. A later delta's `previous` is the
revision that the agent has of the topic (equal to `revision` for a further chunk of a snapshot). `Sync(R)` ends a
transaction: only then is anything applied, as a whole. After a hello without topics (the agent restarted) nothing is
removed from the kernel before the first `Sync`.

On the wire an agent sends one message at a time; the controller sends frames, msgpack arrays of the messages that were
ready together (`pack_frame`): an attachment's delta, sync and replies are one write and one read.

Keys inside a topic, and the type of their values:
    tenant/ID   `tenant` Tenant
    network/ID  `network` Network · `member/HOST` Member · `endpoint/ID` Endpoint
    host/ID     `host` Host
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sdn.model.codec import Decoder
from sdn.model.explanation import FlowFilter, Question
from sdn.model.ids import EndpointId, HostId
from sdn.model.resources import Datapath, Endpoint, Network, Tenant, Value

SNAPSHOT_CHUNK_ITEMS = 500
"""A snapshot comes in deltas of at most this many items, so that no message is large."""
FRAME_MESSAGES_MAX = 100
FRAME_BYTES_MAX = 256 << 10
"""A frame is closed at this size, so that it is at most this and one message."""


class Hello(Value, frozen=True, kw_only=True, tag="hello"):
    """The agent's first message. `topics`: topic -> revision it has; empty after a restart. See Host for the rest.

    `authorities`: fingerprints of those that it trusts, the newest first; `secret_sha256`: of the secret that it keeps.
    """

    host: HostId
    incarnation: str
    version: str = ""
    vtep4: str | None = None
    vtep6: str | None = None
    mtu_bytes: int
    datapath: Datapath = Datapath.BRIDGE
    routes: tuple[str, ...] = ()
    topics: dict[str, int] = {}
    authorities: tuple[str, ...] = ()
    secret_sha256: bytes = b""


class Facts(Value, frozen=True, kw_only=True, tag="facts"):
    """What changed about the host since its hello: all fields, not only the changed ones."""

    session: int
    vtep4: str | None = None
    vtep6: str | None = None
    mtu_bytes: int
    routes: tuple[str, ...] = ()


class AttachRequest(Value, frozen=True, kw_only=True, tag="attach"):
    """Allocate an endpoint of this host. Answered by Attached (then Settled) or Failed.

    The same key with the same network is answered with the endpoint that exists, if its sandbox is the same.
    """

    session: int
    request: int
    client: str
    scope: str
    container: str
    ifname: str
    sandbox: int
    network: str
    addresses: tuple[str, ...] = ()
    mac: str = ""
    name: str = ""
    aliases: tuple[str, ...] = ()
    labels: dict[str, str] = {}


class DetachRequest(Value, frozen=True, kw_only=True, tag="detach"):
    """Release endpoints by id; absent ones are fine. Answered by Detached or Failed. `reason` becomes an event."""

    session: int
    request: int
    endpoints: tuple[EndpointId, ...]
    reason: str = ""


class PeersRequest(Value, frozen=True, kw_only=True, tag="peers-request"):
    """Have other connected hosts answer this one's probes for some seconds. Answered by Peers or Failed.

    `names`: these hosts only; empty: those that share a network with this one, then others, by name.
    """

    session: int
    request: int
    names: tuple[str, ...] = ()


class Report(Value, frozen=True, kw_only=True, tag="report"):
    """All up to `revision` was attempted on this host; what failed, by unit (`endpoint/ID` -> sentence)."""

    session: int
    revision: int
    failures: dict[str, str] = {}


class Answer(Value, frozen=True, kw_only=True, tag="answer"):
    """The reply to a Query, or to Credentials: they are kept, whatever happens to the host."""

    request: int
    value: Any = None
    problem: Problem | None = None


class Problem(Value, frozen=True, kw_only=True):
    """An error as it travels: see errors.HawseError."""

    kind: str
    message: str
    hint: str = ""
    facts: dict[str, Any] = {}


class Welcome(Value, frozen=True, kw_only=True, tag="welcome"):
    """The reply to Hello. With `resumed` the deltas go on from the hello's topics; else every topic begins anew."""

    host: HostId
    name: str
    session: int
    revision: int
    resumed: bool


class Refused(Value, frozen=True, kw_only=True, tag="refused"):
    """The reply to a hello or message that is not accepted (an older session, a foreign host); the stream ends."""

    problem: Problem


class Delta(Value, frozen=True, kw_only=True, tag="delta"):
    """A change of one topic. `puts`: key -> msgpack of the value; `deletes`: keys."""

    topic: str
    previous: int
    revision: int
    puts: dict[str, msgspec.Raw] = {}
    deletes: tuple[str, ...] = ()


class Drop(Value, frozen=True, kw_only=True, tag="drop"):
    """The host holds this topic no longer."""

    topic: str
    revision: int


class Sync(Value, frozen=True, kw_only=True, tag="sync"):
    """Ends the transaction `revision`: everything sent before it is to be applied as a whole."""

    revision: int


class Attached(Value, frozen=True, kw_only=True, tag="attached"):
    """The endpoint is allocated and committed at `revision`; its deltas were sent before this."""

    request: int
    revision: int
    endpoint: Endpoint
    network: Network
    tenant: Tenant


class Settled(Value, frozen=True, kw_only=True, tag="settled"):
    """All connected hosts concerned have reported `revision` or more, but for those named in `late`."""

    request: int
    revision: int
    late: tuple[str, ...] = ()


class Detached(Value, frozen=True, kw_only=True, tag="detached"):
    """The endpoints are released (or were not there)."""

    request: int
    revision: int


class Failed(Value, frozen=True, kw_only=True, tag="failed"):
    """The request was refused; nothing changed."""

    request: int
    problem: Problem


class Peer(Value, frozen=True, kw_only=True):
    """Another host, as a probe needs it. `problem`: why it does not answer probes; empty: it does."""

    name: str
    vtep4: str | None = None
    vtep6: str | None = None
    mtu_bytes: int = 0
    version: str = ""
    problem: str = ""


class Peers(Value, frozen=True, kw_only=True, tag="peers"):
    """The hosts that were asked, by name; they answer probes that carry the `cookie` (16 bytes).

    `omitted`: how many connected hosts were not asked, for there are too many.
    """

    request: int
    cookie: bytes
    peers: tuple[Peer, ...]
    omitted: int = 0


class ProbeOrder(Value, frozen=True, kw_only=True):
    """Answer probes that carry the cookie and come from one of these addresses (the asker's VTEPs), for a while."""

    cookie: bytes
    sources: tuple[str, ...]
    seconds: float


class Credentials(Value, frozen=True, kw_only=True, tag="credentials"):
    """What the host is to hold: PEM of all authorities to be trusted, and its secret; what is empty stays as it is.

    Answered once it is on the disk. Until then the secret before is good, too.
    """

    request: int
    authority: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return f"Credentials(request={self.request})"  # the secret stays out of logs


class Query(Value, frozen=True, kw_only=True, tag="query"):
    """The controller asks the agent: `what` is `drops` (see reconcile.datapath), `version`, `probe` (an order),
    `explain` (what becomes of packets: an Explanation is the answer) or `flows` (of its tables: a FlowTable).
    """

    request: int
    what: str
    probe: ProbeOrder | None = None
    questions: tuple[Question, ...] = ()
    flows: FlowFilter | None = None


Up = Hello | Facts | AttachRequest | DetachRequest | PeersRequest | Report | Answer
Down = Welcome | Refused | Delta | Drop | Sync | Attached | Settled | Detached | Failed | Peers | Query | Credentials

up_decoder: Decoder[Up] = Decoder(Up, "a message of an agent")
down_decoder: Decoder[Down] = Decoder(Down, "a message of the controller")
_frame_decoder: Decoder[list[msgspec.Raw]] = Decoder(list[msgspec.Raw], "a frame of the controller")


def pack_frame(messages: Sequence[bytes]) -> bytes:
    """Encoded messages as one frame, in their order; at most FRAME_MESSAGES_MAX."""
    count = len(messages)
    assert count <= FRAME_MESSAGES_MAX
    header = bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return b"".join((header, *messages))


def unpack_frame(data: bytes) -> list[bytes]:
    """The encoded messages of a frame. Raises: INVALID."""
    return [bytes(raw) for raw in _frame_decoder.msgpack(data)]
