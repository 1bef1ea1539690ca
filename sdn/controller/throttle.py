"""How fast who fails to prove who they are is told so.

Only failures come here. A credential is always looked at first, and a good one is answered at once whatever its address
did before: behind one NAT there may be somebody who guesses and our own hosts. What is slowed is the *refusal*: the
first few of an address (IPv6: of a /64) at once, then each twice as late as the one before, then none is kept waiting
any more but sent away at once (429). So guessing costs the guesser connections and time, and us at most
`WAITING_MAX` refusals that wait.

Each address has a bucket that fills by one a failure and leaks; nothing else is remembered, of `SOURCES_MAX` addresses.
No clock, no sockets: who calls passes the time (of a monotonic clock) and does the waiting.
"""

from __future__ import annotations

import collections
import dataclasses
import ipaddress
import math

from sdn.controller.problem import RefusedError

LEAK_PER_S = 0.5
"""Failures of an address that are forgotten a second."""
FREE = 4.0
"""Refused at once: somebody who mistyped need not wait."""
ANSWERED = 10.0
"""From here on 429. Between: the refusal waits."""
LEVEL_MAX = 40.0
"""A bucket never holds more, so nobody is held back for longer than a minute and a half after the last failure."""
DELAY_FIRST_S = 0.25
DELAY_MAX_S = 4.0
"""Below what agents and commands wait for an answer: they shall hear the reason and not guess."""
SOURCES_MAX = 4096
WAITING_MAX = 256
"""Of all addresses together: refusals that wait hold connections."""
IPV6_PREFIX = 64


class Throttle:
    """One for all ways to authenticate (stream, REST, join). Use::

        await asyncio.sleep(throttle.failed(peer, monotonic_s))  # may raise the 429 instead
        raise the 401

    Failures whose secret was right (an expired token, a wrong role) are no guesses: do not report them here.
    """

    def __init__(self) -> None:
        self._sources: collections.OrderedDict[str, _Bucket] = collections.OrderedDict()
        self._waiting = _Bucket(0.0, 0.0)

    def __len__(self) -> int:
        """How many addresses are remembered; at most SOURCES_MAX."""
        return len(self._sources)

    def failed(self, peer: str, now_s: float) -> float:
        """Count a failure of an address (as the socket names it); the seconds by which its refusal is to be delayed.

        Between 0 and DELAY_MAX_S. Raises: RefusedError 429 with Retry-After, to be answered at once.
        """
        source = source_of(peer)
        bucket = self._sources.pop(source, None) or _Bucket(0.0, now_s)
        self._sources[source] = bucket
        if len(self._sources) > SOURCES_MAX:
            self._sources.popitem(last=False)
        level = bucket.add(now_s, LEAK_PER_S, LEVEL_MAX)
        if level <= FREE:
            return 0.0
        if level > ANSWERED:
            raise _refusal(source, (level - ANSWERED) / LEAK_PER_S)
        # what this bucket lets through in the longest delay is what may be waiting at one moment
        if self._waiting.add(now_s, WAITING_MAX / 2 / DELAY_MAX_S, WAITING_MAX / 2 + 1) > WAITING_MAX / 2:
            raise _refusal(source, DELAY_MAX_S)
        return min(DELAY_FIRST_S * math.exp2(level - FREE - 1.0), DELAY_MAX_S)


@dataclasses.dataclass(slots=True)
class _Bucket:
    level: float
    at_s: float

    def add(self, now_s: float, leak_per_s: float, most: float) -> float:
        """Leak, then add one; the level. A clock that goes backwards leaks nothing."""
        passed_s = max(0.0, now_s - self.at_s)
        self.level = min(max(0.0, self.level - passed_s * leak_per_s) + 1.0, most)
        self.at_s = max(self.at_s, now_s)
        return self.level


def _refusal(source: str, wait_s: float) -> RefusedError:
    wait_s = max(1, math.ceil(wait_s))
    return RefusedError(
        429,
        f"the credential was refused, as too many before it from {source or 'the same place'}",
        f"wait {wait_s} s, then send a right one; a right one is never made to wait",
        headers={"Retry-After": str(wait_s), "Connection": "close"},
        retry_after_s=wait_s,
    )


def source_of(peer: str) -> str:
    """What counts as one place: an IPv4 address, an IPv6 /64 (a single machine has all of it); else the text."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), IPV6_PREFIX), strict=False))
