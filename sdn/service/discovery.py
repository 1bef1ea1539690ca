"""Finding a controller on the local segment: DNS-SD (RFC 6763) over multicast DNS (RFC 6762).

Whoever is on the segment may announce whatever they like: what is found is where to ask, never whom to trust. A token
holds the whole fingerprint of the authority that is meant, and joining compares it; the announcement has the beginning
of one, so that of several controllers the right one is asked. The library is an extra: it is imported where it is used.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import logging
import os
import queue
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from sdn.model.errors import HawseError, Kind, invalid, not_found
from sdn.model.version import VERSION

if TYPE_CHECKING:
    from zeroconf import IPVersion, ServiceInfo

SERVICE = "_hawse._tcp.local."
PREFIX_DIGITS = 16
"""Of the fingerprint, in an announcement: enough to tell controllers apart, and a TXT record stays short."""
RESOLVE_MS = 1000
"""How long one announced name may take to tell its address."""
GATHER_S = 0.3
"""After the first that fits, others that fit are listened for: a forged one may have been quicker."""
HEARD_MAX = 32
"""Controllers that are listened to in one search: a segment has a few, a flood is not worth more time."""
ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 compared with, not bound


class Heard(NamedTuple):
    """One announcement. `addresses`: `10.0.0.1:4780`, `[fd00::1]:4780`; `prefix`: how its fingerprint begins."""

    prefix: str
    version: str
    addresses: tuple[str, ...]


def require_library() -> None:
    """Raises: NOT_FOUND, with what to install, where there is no multicast DNS here."""
    if importlib.util.find_spec("zeroconf") is None:
        raise not_found(
            "discovery needs the Python library zeroconf, which is not installed",
            "install hawse with its extra 'discovery', or name the address: hawse join ADDRESS TOKEN",
        )


# --- the controller's side ---


def announced(urls: Iterable[str]) -> dict[int, list[str]]:
    """The addresses to announce by port: those of the URLs that are no names, and that another machine could reach.

    Raises: INVALID where there is none.
    """
    found: dict[int, list[str]] = {}
    urls = tuple(urls)
    for url in urls:
        parts = urlsplit(url)
        with contextlib.suppress(ValueError):  # a name: whoever knows it needs no discovery
            address = ipaddress.ip_address(parts.hostname or "")
            if parts.port and not (address.is_loopback or address.is_link_local or address.is_unspecified):
                found.setdefault(parts.port, []).append(str(address))
    if not found:
        raise invalid(
            f"no other machine could reach {' or '.join(urls)}: there is nothing to announce",
            "let the controller listen where hosts are, with --listen ADDRESS, or do without --discoverable",
        )
    return found


@contextlib.asynccontextmanager
async def announcing(fingerprint: str, urls: Iterable[str], bound: Sequence[str]) -> AsyncIterator[None]:
    """Announce a controller on the segments where it listens (`bound`: addresses), until the block ends.

    Raises: NOT_FOUND (no library), INVALID (nothing to announce), UNAVAILABLE (no multicast here).
    """
    require_library()
    by_port = announced(urls)
    from zeroconf.asyncio import AsyncZeroconf

    _quieten()
    here = [address for address in bound if not ipaddress.ip_address(address).is_loopback]
    everywhere = not here or any(address in ANYWHERE for address in here)  # not here: it is behind a forwarder
    try:
        speaker = AsyncZeroconf(ip_version=_families()) if everywhere else AsyncZeroconf(interfaces=here)
    except (OSError, RuntimeError) as error:  # RuntimeError: no interface is up
        raise _no_multicast(error) from None
    try:
        for port, addresses in by_port.items():
            # Its name holds the fingerprint: nobody else has it, so it need not be asked for first.
            await speaker.async_register_service(_service(fingerprint, port, addresses), cooperating_responders=True)
        yield
    finally:
        await speaker.async_close()


def _service(fingerprint: str, port: int, addresses: Sequence[str]) -> ServiceInfo:
    from zeroconf import ServiceInfo

    prefix = fingerprint[:PREFIX_DIGITS]
    return ServiceInfo(
        SERVICE,
        f"hawse-{prefix}-{port}.{SERVICE}",
        port=port,
        parsed_addresses=list(addresses),
        properties={"fingerprint": prefix, "version": VERSION},
        server=f"hawse-{prefix}.local.",
    )


# --- the side of who looks for one ---


def discover(fingerprint: str, timeout_s: float) -> list[str]:
    """The addresses, with ports, of the controller with this fingerprint; each is to be tried, none is to be trusted.

    Raises: NOT_FOUND (none in time, only others, or no library), UNAVAILABLE (no multicast here).
    """
    require_library()
    heard = list(_listen(fingerprint, timeout_s))
    fitting = [one for one in heard if fingerprint.startswith(one.prefix)]
    if not fitting:
        raise nothing_found(fingerprint, timeout_s, list({one.prefix: one for one in heard}.values()))
    return list(dict.fromkeys(address for one in fitting for address in one.addresses))


def nothing_found(fingerprint: str, timeout_s: float, others: Sequence[Heard]) -> HawseError:
    """The sentence for it: nobody was heard, or somebody else."""
    if not others:
        return not_found(
            f"no controller announced itself on this machine's segments within {timeout_s:g} s",
            "start it with --discoverable (UDP port 5353 has to pass), or name it: hawse join ADDRESS TOKEN",
        )
    listed = ", ".join(f"{one.addresses[0]} (fingerprint {one.prefix}…)" for one in others)
    verb = "controller announces itself" if len(others) == 1 else "controllers announce themselves"
    return not_found(
        f"the token is for the controller with fingerprint {fingerprint[:PREFIX_DIGITS]}…, which was not heard within "
        f"{timeout_s:g} s; {len(others)} other {verb} on this segment: {listed}",
        "use a token of that controller, or name the address: hawse join ADDRESS TOKEN",
        fingerprint=fingerprint,
        heard=[one.prefix for one in others],
    )


def _listen(fingerprint: str, timeout_s: float) -> Iterator[Heard]:
    """What is heard until no time is left; once one fits, there is `GATHER_S`."""
    from zeroconf import ServiceBrowser, ServiceStateChange, Zeroconf

    _quieten()
    names: queue.SimpleQueue[str] = queue.SimpleQueue()

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is not ServiceStateChange.Removed:
            names.put(name)

    try:
        listener = Zeroconf(ip_version=_families())
    except (OSError, RuntimeError) as error:  # RuntimeError: no interface is up
        raise _no_multicast(error) from None
    deadline_s = time.monotonic() + timeout_s
    try:
        ServiceBrowser(listener, SERVICE, handlers=[changed])
        for _ in range(HEARD_MAX):
            try:
                name = names.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return
            info = listener.get_service_info(SERVICE, name, timeout=RESOLVE_MS)
            heard = parse_announcement(info) if info is not None else None
            if heard is None:
                continue
            if fingerprint.startswith(heard.prefix):
                deadline_s = min(deadline_s, time.monotonic() + GATHER_S)
            yield heard
    finally:
        listener.close()


def parse_announcement(info: ServiceInfo) -> Heard | None:
    """None where it is not one of ours: nothing of it may reach a terminal or a connection unread."""
    properties = {key: value or b"" for key, value in info.properties.items()}
    prefix = properties.get(b"fingerprint", b"").decode("ascii", "replace")
    version = properties.get(b"version", b"").decode("ascii", "replace")
    addresses = [ipaddress.ip_address(text) for text in info.parsed_addresses()]
    usable = [address for address in addresses if not (address.is_link_local or address.is_loopback)]
    if not re.fullmatch(rf"[0-9a-f]{{{PREFIX_DIGITS}}}", prefix) or not info.port or not usable:
        return None
    texts = (f"[{address}]:{info.port}" if address.version == 6 else f"{address}:{info.port}" for address in usable)
    return Heard(prefix, version, tuple(texts))


def _no_multicast(error: OSError | RuntimeError) -> HawseError:
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else "no network interface is up"
    return HawseError(
        Kind.UNAVAILABLE,
        f"cannot speak multicast DNS here: {reason}",
        hint="name the controller's address instead: hawse join ADDRESS TOKEN",
    )


def _families() -> IPVersion:
    """Both, unless this machine does without IPv6."""
    from zeroconf import IPVersion

    return IPVersion.All if os.path.exists("/proc/net/if_inet6") else IPVersion.V4Only


def _quieten() -> None:
    """The library tells its troubles to whoever reads the terminal; ours are sentences."""
    logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
