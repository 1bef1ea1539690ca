"""`hawse drops`: why packets died."""

from __future__ import annotations

import argparse

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_table

UNCOUNTED = "Not counted: a frame for an address or MAC that nobody has; 'hawse why' says where it ends."
CAUSES: dict[str, str] = {
    "mac-spoof": "the sender's MAC is not its own",
    "ip4-spoof": "the sender's IPv4 address is not its own",
    "ip6-spoof": "the sender's IPv6 address is not its own",
    "arp-spoof": "ARP that speaks for somebody else",
    "nd-spoof": "the same by IPv6 neighbour discovery",
    "router-advert": "a container that says it is a router",
    "dhcp-server": "a container that answers as a DHCP server",
    "multicast": "broadcast or multicast, which networks do not carry (a healthy container sends some)",
    "dad": "a healthy container's duplicate address check, which nobody needs to hear",
    "protocol": "neither IPv4, IPv6 nor ARP, or malformed",
    "not-here": "for an address of Hawse's own that is not in the sender's network",
    "no-router": "for an address outside of the network: networks are internal",
    "unknown-port": "from a port without an endpoint",
    "foreign-vtep": "a tunnel packet from a host that is not in the network",
    "malformed-tunnel": "a tunnel packet that is none",
}
"""Every cause that a datapath's guard counts; a test compares."""


def drops_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `drops`."""
    parser.add_argument("host", metavar="HOST", nargs="?", default=None, help="only this host's (default: all)")
    parser.add_argument("--all", action="store_true", help="causes that never struck as well")
    causes = "\n".join(f"  {cause:<18}{meaning}" for cause, meaning in CAUSES.items())
    parser.epilog = f"causes:\n{causes}\n\n{UNCOUNTED}\n\n{parser.epilog or ''}"


def drops(args: argparse.Namespace) -> int:
    """Show the guard's counters by name."""
    value = client_of(args).get("/v1/drops", host=args.host).body
    items = [item for item in value["items"] if args.all or item["packets"]]
    if args.output == "json":
        print_json(items)
        return Exit.OK
    if items:
        rows = [(i["host"], i["tenant"], i["network"], i["cause"], i["packets"], i["bytes"]) for i in items]
        print_table(("HOST", "TENANT", "NETWORK", "CAUSE", "PACKETS", "BYTES"), rows)
    else:
        print("The guard has dropped nothing.")
    for name in value.get("away", []):
        print(f"{name} is away: its counters are not in this table")
    print(f"\n{UNCOUNTED}")
    return Exit.OK
