"""The guard's rules as text, and the names in it: what a port may send, and what the tenant's namespace takes in.

A frame of a container port is looked up as (port, MAC, address) in a set; only a frame that is refused pays for
finding out why. It then ends in the chain `drop-CAUSE`, which turns the port into its network's number (map `network`)
and that into the network's counter of the cause (map `count-CAUSE`). A port has so one element that names its network,
not one for every cause. A port that nobody has programmed (yet, or any more) has no element, so all it sends ends in
the counter `unknown-port`.

Fail closed: the kernel skips a rule whose field it cannot read, so what is accepted must have been readable. Fragments
need care: a first one may end behind an extension header, with the ICMPv6 in the next (RFC 7112) and padding in its
place, so a fragment header with another extension behind it is refused (`ip6-extended`); and the kernel (6.18) reads
the transport header of later IPv6 fragments from the network header, so nothing may be concluded from it. Later
fragments pass: without a first one they come to nothing.

What the bridge's device itself says to a group (the gateway's ARP question and neighbour solicitation, MLD reports) the
kernel hands to every port, whatever the port's flags say. No container needs it: the carrier's proxy answers the
gateway as it answers everybody. `own-frames` keeps it from the container ports; what the bridge says to one station
(`announce`) passes. It is no frame of a container, so no cause counts it.

Fields are written raw where one set serves several of them: @ll,48,48 is the Ethernet source, @nh,64,128 the IPv6
source, @nh,64,48 the ARP sender's MAC, @th,64,128 the ND target, @th,192,16 type and length of the first ND option and
@th,208,48 its MAC, @ll,7,1 the bit that makes a destination a broadcast or a multicast. Raw fields have one type each,
named ones would need a set per field (and nft 1.0.6 knows no ND target).

Sources: RFC 826, 4861, 5227, 6980, 7112; nft(8); linux/Documentation/networking/vxlan.rst for `proxy`; br_flood() of
the kernel for the flags that it ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from plugin.datapath.bridge.guard_elements import GuardPort
from plugin.kernel.nftables import versioned
from sdn.model.address import address_bytes, link_local, mac_bytes

TABLE: Final = "hawse"
UNKNOWN_PORT: Final = "unknown-port"

FRAME_CAUSES: Final = (
    "mac-spoof",  # the Ethernet source is not the port's
    "ip4-spoof",  # the IPv4 source is not the port's
    "ip6-spoof",  # the IPv6 source is not the port's
    "arp-spoof",  # ARP that speaks for an address or MAC that is not the port's
    "nd-spoof",  # the same by neighbour discovery, or in a form that cannot be checked
    "router-advert",  # router advertisement or redirect
    "dhcp-server",  # an answer of a DHCP server, IPv4 or IPv6
    "multicast",  # broadcast and multicast that nobody answers: RS, MLD, mDNS, DHCP discover
    "dad",  # duplicate address check and announcement of a healthy container: noise
    "protocol",  # neither IPv4, IPv6 nor ARP (so 802.1Q), or too malformed to be checked
)
ARRIVAL_CAUSES: Final = (
    "not-here",  # for an address of the tenant's namespace that is not on the arriving bridge
    "no-router",  # for an address beyond the network: networks are internal
)

_ARRIVALS: Final = """
  chain arrival {
    type filter hook prerouting priority raw; policy accept;
    iifname "lo" accept
    fib daddr . iif type local accept
    icmpv6 type nd-neighbor-solicit ip6 daddr ff02::1:ff00:0/104 accept
    fib daddr type { local, broadcast, multicast } goto drop-not-here
    goto drop-no-router
  }
  chain transit {
    type filter hook forward priority filter; policy drop;
    goto drop-no-router
  }
"""

_FRAMES: Final = """
  chain ip4-refused {
    iifname . @ll,48,48 != @mac goto drop-mac-spoof
    ip saddr 0.0.0.0 @ll,7,1 1 goto drop-multicast
    goto drop-ip4-spoof
  }
  chain ip4-to-dhcp-client {
    ip frag-off & 0x1fff != 0 goto ip4-opaque
    goto drop-dhcp-server
  }
  chain ip4-opaque {
    @ll,7,1 1 goto drop-multicast
    meta l4proto != 255 accept
    goto drop-protocol
  }
  chain ip4-frame {
    iifname . ether saddr . ip saddr != @e4 goto ip4-refused
    udp dport 68 goto ip4-to-dhcp-client
    goto ip4-opaque
  }
  chain arp-refused {
    iifname . @ll,48,48 != @mac goto drop-mac-spoof
    arp operation request arp saddr ip 0.0.0.0 iifname . @nh,64,48 @mac goto drop-dad
    goto drop-arp-spoof
  }
  chain arp-checked {
    iifname . ether saddr . arp saddr ip != @e4 goto arp-refused
    iifname . arp saddr ether . arp saddr ip != @e4 goto drop-arp-spoof
    iifname . ether saddr . arp daddr ip @e4 goto drop-dad
    arp operation request accept
    @ll,7,1 1 goto drop-multicast
    accept
  }
  chain arp-frame {
    arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation { request, reply } goto arp-checked
    goto other-frame
  }
  chain ip6-opaque {
    @ll,7,1 1 goto drop-multicast
    meta l4proto != 255 accept
    goto drop-protocol
  }
  chain ip6-extended {
    frag nexthdr { 0, 43, 44, 51, 60, 135, 139, 140 } goto drop-protocol
    frag frag-off != 0 goto ip6-opaque
  }
  chain nd-solicit {
    ip6 nexthdr != ipv6-icmp goto drop-nd-spoof
    iifname . @ll,48,48 . @th,64,128 @e6 goto drop-dad
    ip6 length 24 accept
    ip6 length 32 @th,192,16 0x0101 iifname . @th,208,48 @mac accept
    goto drop-nd-spoof
  }
  chain nd-advert {
    ip6 nexthdr != ipv6-icmp goto drop-nd-spoof
    iifname . @ll,48,48 . @th,64,128 != @e6 goto drop-nd-spoof
    @ll,7,1 1 goto drop-multicast
    ip6 length 24 accept
    ip6 length 32 @th,192,16 0x0201 iifname . @th,208,48 @mac accept
    goto drop-nd-spoof
  }
  chain icmp6-frame {
    icmpv6 type vmap {
      nd-neighbor-solicit : goto nd-solicit, nd-neighbor-advert : goto nd-advert,
      nd-router-advert : goto drop-router-advert, nd-redirect : goto drop-router-advert,
    }
    goto ip6-opaque
  }
  chain ip6-unspecified {
    icmpv6 type nd-neighbor-solicit goto drop-dad
    goto drop-multicast
  }
  chain ip6-refused {
    iifname . @ll,48,48 != @mac goto drop-mac-spoof
    ip6 saddr :: @ll,7,1 1 goto ip6-unspecified
    goto drop-ip6-spoof
  }
  chain ip6-frame {
    iifname . @ll,48,48 . @nh,64,128 != @e6 goto ip6-refused
    ip6 nexthdr != { tcp, udp, ipv6-icmp } jump ip6-extended
    meta l4proto ipv6-icmp goto icmp6-frame
    udp dport 546 goto drop-dhcp-server
    goto ip6-opaque
  }
  chain other-frame {
    iifname . @ll,48,48 != @mac goto drop-mac-spoof
    goto drop-protocol
  }
  chain port-frame {
    ether type vmap { ip : goto ip4-frame, ip6 : goto ip6-frame, arp : goto arp-frame }
    goto other-frame
  }
  chain frames {
    type filter hook prerouting priority -200; policy accept;
    iifname "hwv*" goto port-frame
  }
  chain own-frames {
    type filter hook output priority filter; policy accept;
    oifname "hwv*" @ll,7,1 1 drop
  }
"""

_SETS: Final = """
  map network { type ifname : mark; }
  set e4 { type ifname . ether_addr . ipv4_addr; }
  set e6 { typeof iifname . @ll,48,48 . @nh,64,128; }
  set mac { typeof iifname . @ll,48,48; }
"""


def counter_name(cause: str, vni: int) -> str:
    """The name of a network's counter."""
    return f"{cause}.{vni}"


def counter_of(name: str) -> tuple[int, str]:
    """(VNI, cause) of a counter's name; VNI 0 for those of no network."""
    cause, dot, vni = name.rpartition(".")
    return (int(vni), cause) if dot and vni.isdecimal() else (0, name)


def _frame_drop(cause: str) -> str:
    return f"""
  map count-{cause} {{ type mark : counter; }}
  chain drop-{cause} {{
    meta mark set iifname map @network
    counter name meta mark map @count-{cause} drop
    counter name {UNKNOWN_PORT} drop
  }}"""


def _arrival_drop(cause: str) -> str:
    return f"""
  map count-{cause} {{ type ifname : counter; }}
  chain drop-{cause} {{
    counter name iifname map @count-{cause} drop
    counter name {cause} drop
  }}"""


_FRAME_BODY: Final = "".join([_SETS, *map(_frame_drop, FRAME_CAUSES), "\n", _FRAMES])
_ARRIVAL_BODY: Final = "".join([*map(_arrival_drop, ARRIVAL_CAUSES), "\n", _ARRIVALS])
VERSION: Final = versioned(_FRAME_BODY + _ARRIVAL_BODY)
"""The marker's name, in both tables."""


def table_text(family: str, body: str, version: str, counters: Mapping[str, tuple[int, int]]) -> str:
    """Commands that put a table in the place of any older one of the name (the first line makes deleting it safe).

    `counters` are those of the whole table, with the packets and bytes that they start from.
    """
    named = "".join(
        f"  counter {name} {{ packets {packets} bytes {size} }}\n" for name, (packets, size) in counters.items()
    )
    return (
        f"table {family} {TABLE}\ndelete table {family} {TABLE}\n"
        f"table {family} {TABLE} {{\n{named}  chain {version} {{\n  }}{body}}}\n"
    )


def guard_text(counted: Mapping[str, tuple[int, int]]) -> str:
    """The commands that load both tables of a tenant's namespace, in the place of what is there.

    The counters of no network go on from `counted` (packets, bytes by counter name).
    """
    frames = {UNKNOWN_PORT: counted.get(UNKNOWN_PORT, (0, 0))}
    arrivals = {cause: counted.get(cause, (0, 0)) for cause in ARRIVAL_CAUSES}
    return table_text("bridge", _FRAME_BODY, VERSION, frames) + table_text("inet", _ARRIVAL_BODY, VERSION, arrivals)


def network_text(vni: int, bridge: str, counted: Mapping[str, tuple[int, int]]) -> str:
    """The commands that make a network's counters, which go on from `counted` (packets, bytes by counter name)."""
    lines = []
    for family, causes, key in (("bridge", FRAME_CAUSES, str(vni)), ("inet", ARRIVAL_CAUSES, f'"{bridge}"')):
        for cause in causes:
            name = counter_name(cause, vni)
            packets, size = counted.get(name, (0, 0))
            lines.append(f"add counter {family} {TABLE} {name} {{ packets {packets} bytes {size} }}")
            lines.append(f'add element {family} {TABLE} count-{cause} {{ {key} : "{name}" }}')
    return "\n".join(lines) + "\n"


def port_text(name: str, port: GuardPort) -> str:
    """The commands that let a port send: the same as `elements_of`, in words."""
    mac = f"0x{mac_bytes(port.mac).hex()}"
    lines = [
        f'add element bridge {TABLE} network {{ "{name}" : {port.vni} }}',
        f'add element bridge {TABLE} mac {{ "{name}" . {mac} }}',
    ]
    for address in (*port.addresses, link_local(port.mac)):
        if ":" in address:
            lines.append(f'add element bridge {TABLE} e6 {{ "{name}" . {mac} . 0x{address_bytes(address).hex()} }}')
        else:
            lines.append(f'add element bridge {TABLE} e4 {{ "{name}" . {port.mac} . {address} }}')
    return "\n".join(lines) + "\n"
