"""Subnets: what a request may ask for, in text, and what follows from a prefix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sdn.model.address import Prefix, address_number, family_of, format_address, parse_address, parse_prefix
from sdn.model.errors import HawseError, conflict, invalid
from sdn.model.resources import Subnet

LENGTH_MIN = {4: 8, 6: 32}
"""A shorter prefix is a mistake: 10.0.0.0/8 and a provider's whole IPv6 allocation are the largest there are."""
LENGTH_MAX = {4: 31, 6: 127}
"""A gateway and one endpoint (RFC 3021, RFC 6164)."""
RESERVED_MAX = 1024
"""Reserved addresses per subnet; a range serves whoever wants more."""

_UNUSABLE: tuple[tuple[Prefix, str], ...] = tuple(
    (parse_prefix(text), why)
    for text, why in (
        ("0.0.0.0/8", "addresses of it mean 'this host' (RFC 1122)"),
        ("127.0.0.0/8", "it is the loopback of every host"),
        ("169.254.0.0/16", "it is link-local (RFC 3927)"),
        ("224.0.0.0/4", "it is multicast"),
        ("240.0.0.0/4", "it is set aside (RFC 1112)"),
        ("::/96", "it holds the unspecified and the loopback address"),
        ("::ffff:0:0/96", "it is for IPv4 addresses written as IPv6 ones (RFC 4291)"),
        ("fe80::/10", "it is link-local"),
        ("ff00::/8", "it is multicast"),
    )
)


def network_address(prefix: Prefix) -> int | None:
    """The address that means the subnet itself (IPv6: subnet-router anycast, RFC 4291 section 2.6.1); None if none."""
    return prefix.first if prefix.size > 2 else None


def broadcast_address(prefix: Prefix) -> int | None:
    """The address that means everybody in the subnet; None if there is none (IPv6; RFC 3021)."""
    return prefix.last if prefix.family == 4 and prefix.size > 2 else None


def gateway_default(prefix: Prefix) -> int:
    """The first usable address."""
    return prefix.first if network_address(prefix) is None else prefix.first + 1


def parse_range(text: str, prefix: Prefix) -> tuple[int, int]:
    """The first and last address of `10.1.0.10-10.1.0.20`, or of a prefix, inside of the subnet. Raises: INVALID."""
    first, dash, last = text.partition("-")
    if dash:
        bounds = _number(first.strip(), prefix, "range"), _number(last.strip(), prefix, "range")
    elif "/" in text:
        part = parse_prefix(text)
        if part.family != prefix.family or part.first not in prefix or part.last not in prefix:
            raise _outside("range", str(part), prefix)
        bounds = part.first, part.last
    else:
        raise invalid(
            f"{text!r} is not a range of addresses", "write it as FIRST-LAST or as a prefix inside of the subnet"
        )
    if bounds[0] > bounds[1]:
        raise invalid(f"the range {text} ends before it begins", f"did you mean {last.strip()}-{first.strip()}?")
    return bounds


def validate_subnet(
    prefix: str, gateway: str | None = None, range_text: str | None = None, reserved: Iterable[str] = ()
) -> Subnet:
    """A subnet from a request's text, canonical and complete. Raises: INVALID, with a sentence for each mistake.

    `gateway` None: the first usable address. `range_text`: see parse_range.
    """
    net = parse_subnet_prefix(prefix)
    gateway_number = gateway_default(net) if gateway is None else _number(gateway, net, "gateway")
    _check_usable("gateway", gateway_number, net)
    bounds = None if range_text is None else parse_range(range_text, net)
    kept = sorted({_number(text, net, "reserved address") for text in reserved})
    if len(kept) > RESERVED_MAX:
        raise invalid(
            f"{len(kept)} reserved addresses in {net} are above the limit of {RESERVED_MAX}",
            "bound automatic choice by a range instead",
            reserved=len(kept),
            limit=RESERVED_MAX,
        )
    if gateway_number in kept:
        text = format_address(net.family, gateway_number)
        raise invalid(f"{text} is the gateway of {net} and cannot be reserved as well", "leave it out", address=text)
    return Subnet(
        prefix=str(net),
        gateway=format_address(net.family, gateway_number),
        range=bounds and (format_address(net.family, bounds[0]), format_address(net.family, bounds[1])),
        reserved=tuple(format_address(net.family, number) for number in kept),
    )


def parse_subnet_prefix(text: str) -> Prefix:
    """A prefix that can be a subnet of containers. Raises: INVALID."""
    prefix = parse_prefix(text)
    shortest, longest = LENGTH_MIN[prefix.family], LENGTH_MAX[prefix.family]
    for unusable, why in _UNUSABLE:
        if prefix.overlaps(unusable) and prefix.length >= shortest:
            raise invalid(
                f"{prefix} cannot be a subnet: it overlaps {unusable}, and {why}",
                "use private addresses, such as 10.1.0.0/24 or fd00:1::/64",
                prefix=str(prefix),
            )
    if prefix.length < shortest:
        raise invalid(
            f"{prefix} is too large for a subnet: its prefix length is below {shortest}",
            f"use /{shortest} to /{longest}",
            prefix=str(prefix),
        )
    if prefix.length > longest:
        raise invalid(
            f"{prefix} is too small for a subnet: it has no room for a gateway and an endpoint",
            f"use /{shortest} to /{longest}",
            prefix=str(prefix),
        )
    return prefix


def find_overlap(prefix: Prefix, others: Iterable[Prefix]) -> Prefix | None:
    """The first of the others that shares an address with it."""
    return next((other for other in others if prefix.overlaps(other)), None)


def check_disjoint(prefixes: Sequence[Prefix]) -> None:
    """Raises: CONFLICT, naming two subnets of one request that overlap."""
    for index, prefix in enumerate(prefixes):
        other = find_overlap(prefix, prefixes[:index])
        if other is not None:
            raise conflict(
                f"the subnets {other} and {prefix} of one network overlap", "choose disjoint ones", prefix=str(prefix)
            )


def _number(text: str, prefix: Prefix, what: str) -> int:
    canonical = parse_address(text)
    number = address_number(canonical)
    if family_of(canonical) != prefix.family or number not in prefix:
        raise _outside(what, canonical, prefix)
    return number


def _check_usable(what: str, number: int, prefix: Prefix) -> None:
    for unusable, name in ((network_address(prefix), "network"), (broadcast_address(prefix), "broadcast")):
        if number == unusable:
            text = format_address(prefix.family, number)
            raise invalid(f"the {what} {text} is the {name} address of {prefix}", "choose one between", address=text)


def _outside(what: str, text: str, prefix: Prefix) -> HawseError:
    first, last = (format_address(prefix.family, number) for number in (prefix.first, prefix.last))
    return invalid(f"the {what} {text} is outside of the subnet {prefix}", f"choose from {first} to {last}")
