"""What hosts hold of this controller: the authorities that they trust, and their secret; and how both are replaced.

Nothing is taken away before its successor is kept. A new secret is *offered*: its hash is committed, which makes it
good, then it is sent; the host writes it down, then says so; then the one before is void. Whoever is killed, wherever,
the host has a secret that is good, and its next hello says which. Authorities go the same way: a host is told all that
are to be trusted, and is remembered to have them when it says so, there and in each hello.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from sdn.controller import plan_credentials
from sdn.controller.events import EventLog
from sdn.controller.fleet import Fleet
from sdn.controller.keys import HostTrust
from sdn.controller.ledger import Ledger
from sdn.controller.session import HostStream
from sdn.model.codec import encode_msgpack
from sdn.model.errors import HawseError, denied, unavailable
from sdn.model.ids import HostId
from sdn.model.resources import Host
from sdn.model.stream import Credentials, Hello

KEEP_S = 10.0
"""For a host to write down what it is given."""
NO_SECRET = encode_msgpack(bytes(32))
"""Compared with where a host is not known, so that it takes as long; nothing has this hash."""


class Trust(NamedTuple):
    """`bundle`: the certificates of all authorities to be trusted, in PEM; their fingerprints; both newest first."""

    bundle: str = ""
    fingerprints: tuple[str, ...] = ()


class Custody:
    """A part of the core. Until it is told of an authority, hosts are told of none."""

    def __init__(
        self,
        ledger: Ledger,
        fleet: Fleet,
        events: EventLog,
        random_bits: Callable[[int], int],
        cut_others: Callable[[HostStream], None],
    ) -> None:
        """`cut_others` ends what else is open of a stream's host."""
        self._ledger = ledger
        self._fleet = fleet
        self._events = events
        self._random_bits = random_bits
        self._cut_others = cut_others
        self._trust = Trust()
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Wait for nobody any more."""
        for task in self._tasks:
            task.cancel()

    # --- authorities ---

    def entrust(self, trust: Trust, actor: str = "") -> list[asyncio.Task[None]]:
        """These authorities, no others, from now on; connected hosts are told, each by one of the tasks returned."""
        if trust == self._trust:
            return []
        if self._trust.fingerprints:
            self._events.soft("authority.changed", fingerprints=list(trust.fingerprints), by=actor)
        self._trust = trust
        streams = list(self._fleet.streams.values())
        return [self._start(self._tell(stream)) for stream in streams if self._held(stream.host) != trust.fingerprints]

    def greeted(self, stream: HostStream, hello: Hello) -> None:
        """A host is live that trusts what its hello says: tell it what it lacks. Who says nothing is told nothing."""
        if hello.authorities and self._trust.fingerprints and hello.authorities != self._trust.fingerprints:
            self._start(self._tell(stream))

    def lacking(self) -> list[Host]:
        """The hosts that are not known to trust the newest authority, by name."""
        state, newest = self._ledger.state, set(self._trust.fingerprints[:1])
        found = [state.hosts[id_] for id_ in state.credentials if id_ in state.hosts]
        return sorted((host for host in found if not newest <= set(self._held(host.id))), key=lambda host: host.name)

    def _held(self, host: HostId) -> tuple[str, ...]:
        return self._ledger.state.trusts.get(host, HostTrust()).authorities

    async def _tell(self, stream: HostStream) -> None:
        try:
            await self._hand_over(stream)
        except HawseError as error:  # the next hello says what it has, and it is told again
            host = self._ledger.state.hosts.get(stream.host)
            if host is not None:
                self._events.soft("host.authority-not-kept", id=host.id, name=host.name, reason=error.message)

    # --- secrets ---

    def authenticate(self, host: HostId, secret: str) -> Host:
        """The host whose secret this is, also one that it was offered and may have by now. Raises: DENIED."""
        shown = plan_credentials.secret_sha256(secret)
        state = self._ledger.state
        trust = state.trusts.get(host, HostTrust())
        good = hmac.compare_digest(state.credentials.get(host, NO_SECRET), encode_msgpack(shown))
        for one in trust.offered:
            good |= hmac.compare_digest(one, shown)
        if not good or host not in state.hosts:
            raise denied("this is not the secret of a known host", "mint a credential for the host and give it that")
        return state.hosts[host]

    async def rotate(self, reference: str, actor: str) -> Host:
        """A new secret for a connected host; when this returns, the one before is void.

        Raises: NOT_FOUND; INVALID for a switch without an agent; UNAVAILABLE where it is not connected, or does not say
        in time that it keeps it: then both are good; what its agent says where it cannot.
        """
        host = self._ledger.state.resolve_host(reference)
        plan_credentials.require_agent(self._ledger.state, host)
        self._stream_of(host)
        secret = plan_credentials.new_secret(self._random_bits)
        await self._ledger.write(
            lambda state: plan_credentials.offer_secret(state, state.resolve_host(host.id), secret, actor), actor
        )
        await asyncio.shield(self._start(self._hand_over(self._stream_of(host), secret)))
        return host

    def _stream_of(self, host: Host) -> HostStream:
        stream = self._fleet.streams.get(host.id)
        if stream is None:
            raise unavailable(
                f"host {host.name} is not connected, so it cannot be given a new secret",
                "start its agent; or void its secret, and give it one by hand: POST /v1/hosts/NAME/credential",
                host=host.name,
            )
        return stream

    # --- both ---

    async def _hand_over(self, stream: HostStream, secret: str = "") -> None:
        trust = self._trust
        await stream.ask(lambda request: Credentials(request=request, authority=trust.bundle, secret=secret), KEEP_S)
        digest = plan_credentials.secret_sha256(secret) if secret else b""
        actor = f"host:{stream.host}"
        await self._ledger.write(
            lambda state: plan_credentials.keep(state, stream.host, trust.fingerprints, digest, actor), actor
        )
        if secret:
            self._cut_others(stream)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Whoever asked for it may give up; it goes on."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who waits for it is told; nobody need wait
