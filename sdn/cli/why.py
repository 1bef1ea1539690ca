"""`hawse why`: the way of a packet, stage by stage, and where it ends."""

from __future__ import annotations

import argparse
from typing import Any

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_table, printable

STAGES = """\
stages, on the sender's host and then on the receiver's:
  source    the port may speak for its MAC and address
  resolve   what answers ARP or neighbour discovery for the address
  forward   where frames for that MAC go: to a port here, or into the tunnel to a host
  admit     tunnel packets of the network are taken from that host
  deliver   the port at the end

An entry is shown as the host has it now, not as it should be; where both differ, that is said.
Exit code 10: it does not arrive, or its answer does not; 7: it should, but a host could not be asked.\
"""

NOISE = ("multicast", "dad")
"""What healthy containers have dropped all the time."""

ENTRY_CHARACTERS = 200
"""Longer ones are cut; JSON has all of them."""

FOLD = {"ENTRY": 50, "COUNTED": 24}
"""With them a table has a hundred columns."""


def why_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `why`."""
    parser.add_argument("source", metavar="SOURCE", help="a container: its name, tenant/name, HOST:container, or an id")
    parser.add_argument("destination", metavar="DESTINATION", help="the same, or an address, or a MAC")
    parser.add_argument("protocol", metavar="PROTOCOL", nargs="?", default=None, help="tcp/80, udp/53 or icmp")
    parser.epilog = f"{STAGES}\n\n{parser.epilog or ''}"


def why(args: argparse.Namespace) -> int:
    """Show it."""
    asked = {"source": args.source, "destination": args.destination, "protocol": args.protocol}
    answer = client_of(args).get("/v1/why", **asked).body
    if args.output == "json":
        print_json(answer)
    else:
        _print(answer)
    if not answer["arrives"]:
        return Exit.EXPECTATION
    return Exit.UNAVAILABLE if answer["away"] else Exit.OK


def _print(answer: dict[str, Any]) -> None:
    source, target, path = answer["source"], answer["destination"], answer["path"]
    to = _party(target) if target else printable(answer["to"])
    print(f"{_party(source)}  ->  {to}{'   ' + answer['protocol'] if answer['protocol'] else ''}")
    print(f"network {source['tenant']}/{source['network']}, {_tunnel(path)}MTU {path['mtu_bytes']}")
    legs = sorted(answer["legs"], key=lambda leg: not _is_shown(leg, answer))
    for place, leg in enumerate(legs):
        _print_leg(leg, whole=place == 0 or _is_shown(leg, answer), wrong=not answer["agrees"])
    print()
    for away in answer["away"]:
        print(f"{away['host']} could not be asked: {printable(away['why'])}")
    for host in dict.fromkeys(drop["host"] for drop in answer["drops"]):
        counts = [
            f"{drop['cause']} {drop['packets']}"
            for drop in answer["drops"]
            if drop["host"] == host and drop["cause"] not in NOISE
        ]
        if counts:
            print(f"{host} has dropped in this network so far: {', '.join(counts)}")
    print(f"{'' if answer['agrees'] else '!! '}{printable(answer['conclusion'])}")
    if answer["hint"]:
        print(f"   {printable(answer['hint'])}")


def _party(party: dict[str, Any]) -> str:
    addresses = ", ".join(address.partition("/")[0] for address in party["addresses"])
    return printable(f"{party['name']} ({addresses}) on {party['host']}")


def _tunnel(path: dict[str, Any]) -> str:
    """The way between the hosts, as far as one may see it."""
    if path["vteps"] and path["family"]:
        return f"VNI {path['vni']}, VXLAN over IPv{path['family']} {' -> '.join(path['vteps'])}, "
    return f"VNI {path['vni']}, " if path["vni"] else ""


def _is_shown(leg: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether a way is shown stage by stage: where it ends too early."""
    return leg["arrives"] is False and (bool(answer["verdict"]["arrives"]) or leg["direction"] == "there")


def _print_leg(leg: dict[str, Any], *, whole: bool, wrong: bool) -> None:
    way = f"{leg['source']} -> {leg['destination']}"
    name = "the packet" if leg["direction"] == "there" else "the answer"
    if not whole:
        print(f"{name} {way} {'passes' if leg['arrives'] else 'is not known to pass'}: {len(leg['stages'])} stages")
        return
    print(f"\n{name} {way}")
    if leg["stages"]:
        rows = [(s["host"], s["stage"], _outcome(s), _entry(s, wrong), _counted(s)) for s in leg["stages"]]
        print_table(("HOST", "STAGE", "OUTCOME", "ENTRY", "COUNTED"), rows, fold=FOLD)


def _outcome(stage: dict[str, Any]) -> str:
    """Loud where the packet ends."""
    outcome = str(stage["outcome"])
    return outcome if outcome == "pass" else outcome.upper()


def _entry(stage: dict[str, Any], wrong: bool) -> str:
    """`wrong`: an entry that is not there should be."""
    if not stage["table"]:
        return str(stage["says"])
    absent = "MISSING" if wrong else "no entry"
    text = f"{stage['table']}: {stage['match']} {absent if stage['missing'] else stage['action']}"
    return text if len(text) <= ENTRY_CHARACTERS else f"{text[: ENTRY_CHARACTERS - 1]}…"


def _counted(stage: dict[str, Any]) -> str:
    return counted(stage["packets"], stage["bytes"], stage["counts"])


def counted(packets: int | None, size: int | None, what: str) -> str:
    """`120 packets, 9840 bytes sent by the container`; "" for what nobody counts."""
    if packets is None:
        return ""
    return f"{packets} packets, {size or 0} bytes{' ' + what if what else ''}"
