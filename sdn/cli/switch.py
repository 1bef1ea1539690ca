"""`hawse switch add|ls|inspect|bind|unbind|certificate|rm`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from sdn.cli.connection import client_of, get, revision_of
from sdn.cli.exits import Exit, UsageError
from sdn.cli.network import remove_each
from sdn.cli.output import print_json, print_properties, print_table, reference
from sdn.cli.quantities import parse_count
from sdn.cli.waiting import finish, parse_labels, wait_argument
from sdn.client.client import quote, resource
from sdn.model.errors import conflict, denied, invalid

KIND = "switches"
LOCAL = 0xFFFFFFFE
"""OpenFlow's number of the bridge's own device."""
FILES = {"key": "switch-key.pem", "certificate": "switch.pem", "authority": "authority.pem"}
"""What `certificate --out` writes: the names are those of the reply."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `switch add`."""
    parser.add_argument("name", metavar="NAME", help="how it is called here; hosts and switches share their names")
    parser.add_argument(
        "--datapath-id", required=True, metavar="ID", help="16 hex digits: ovs-vsctl get bridge BRIDGE datapath_id"
    )
    parser.add_argument("--vtep", default=None, metavar="ADDRESS", help="its address for tunnels")
    parser.add_argument("--vtep6", default=None, metavar="ADDRESS", help="the one of IPv6, where it has both")
    parser.add_argument(
        "--tunnel-port",
        default=None,
        metavar="PORT",
        help="its VXLAN port, by name or number (default: the one named hwvxlan)",
    )
    parser.add_argument("--mtu", type=parse_count, default=None, metavar="BYTES", help="of its underlay (default 1500)")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="repeatable")


def add(args: argparse.Namespace) -> int:
    """Take a switch that may connect."""
    body: dict[str, Any] = {"name": args.name, "datapath_id": args.datapath_id, "labels": parse_labels(args.label)}
    if not args.vtep and not args.vtep6:
        raise UsageError("a switch needs an address for its tunnels", "give --vtep ADDRESS")
    only6 = args.vtep is not None and ":" in args.vtep
    if only6 and args.vtep6:
        raise UsageError("--vtep and --vtep6 are both of IPv6", "give the IPv4 address to --vtep")
    vtep4, vtep6 = (None, args.vtep) if only6 else (args.vtep, args.vtep6)
    given = {"vtep4": vtep4, "vtep6": vtep6, "tunnel_port": args.tunnel_port, "mtu_bytes": args.mtu}
    switch = client_of(args).post(f"/v1/{KIND}", body | {key: one for key, one in given.items() if one is not None})
    if args.output == "json":
        print_json(switch.body)
        return Exit.OK
    print(f"{switch.body['name']}  datapath id {switch.body['datapath_id']}  waits for it to connect")
    print("  hawse help switches               # what to type on the switch")
    return Exit.OK


def ls_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `switch ls`."""
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="only those with it")


def ls(args: argparse.Namespace) -> int:
    """List switches and how far they are."""
    switches = sorted(client_of(args).items(f"/v1/{KIND}", label=args.label), key=lambda one: str(one["name"]))
    if args.output == "json":
        print_json(switches)
        return Exit.OK
    rows = [
        (
            s["name"],
            _state(s),
            s["datapath_id"],
            [vtep for vtep in (s["vtep4"], s["vtep6"]) if vtep],
            s["tunnel_port"],
            s["bound"],
            s["applied_revision"],
            len(s["failures"]),
        )
        for s in switches
    ]
    print_table(("SWITCH", "STATE", "DATAPATH ID", "VTEP", "TUNNEL", "BOUND", "APPLIED", "FAILURES"), rows)
    return Exit.OK


def _state(switch: dict[str, Any]) -> str:
    state = "connected" if switch["connected"] else "away"
    return f"draining, {state}" if switch["drained_by"] else state


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `switch inspect`."""
    parser.add_argument("switch", metavar="SWITCH", help="name or id")


def inspect(args: argparse.Namespace) -> int:
    """Show all of a switch: its connection, its ports, what is bound to them and what they have carried."""
    switch = get(args, KIND, args.switch)
    if args.output == "json":
        print_json(switch)
        return Exit.OK
    ports, failures, problem = switch.pop("ports"), switch.pop("failures"), switch.pop("problem")
    print_properties(switch)
    if ports:
        keys = ("network", "name", "addresses", "mac", "rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
        header = ("PORT", "NUMBER", "STATE", "NETWORK", "NAME", "ADDRESSES", "MAC", "RX", "BYTES", "TX", "BYTES")
        print()
        print_table(header, [(p["port"], _number(p), _port_state(p), *(p[key] for key in keys)) for p in ports])
    if problem:
        print(f"\nwithout counters: {problem}")
    if failures:
        print()
        print_table(("FAILURE", "WHY"), sorted(failures.items()), fold={"WHY": 60})
    return Exit.OK


def _number(port: dict[str, Any]) -> str:
    return "LOCAL" if port["number"] == LOCAL else str(port["number"] or "")


def _port_state(port: dict[str, Any]) -> str:
    return "missing" if not port["number"] else "up" if port["up"] else "down"


def bind_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `switch bind`."""
    parser.add_argument("switch", metavar="SWITCH", help="name or id")
    parser.add_argument("port", metavar="PORT", help="of the switch, by name or number")
    parser.add_argument("network", metavar="NETWORK", help="name, tenant/name or id")
    parser.add_argument("--mac", default="", metavar="MAC", help="of what hangs on the port (default: chosen)")
    parser.add_argument("--ip", default=None, metavar="ADDRESS", help="its IPv4 address (default: chosen)")
    parser.add_argument("--ip6", default=None, metavar="ADDRESS", help="its IPv6 address (default: chosen)")
    parser.add_argument("--name", default="", help="the endpoint's")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="repeatable")
    wait_argument(parser)


def bind(args: argparse.Namespace) -> int:
    """Bind a port to a network; what hangs on it may speak for one MAC and its addresses from then on."""
    for option, address, colon in (("--ip", args.ip, False), ("--ip6", args.ip6, True)):
        if address is not None and (":" in address) is not colon:
            raise invalid(f"{option} {address[:64]!r} is not of that family", "--ip takes IPv4, --ip6 takes IPv6")
    body = {
        "port": args.port,
        "network": args.network,
        "addresses": [address for address in (args.ip, args.ip6) if address is not None],
        "mac": args.mac,
        "name": args.name,
        "labels": parse_labels(args.label),
    }
    reply = client_of(args).post(f"{resource(KIND, args.switch)}/ports", body)
    bound = reply.body
    network = reference({"name": bound["network_name"], "tenant_name": bound["tenant_name"]})
    text = f"{bound['host_name']} {bound['ifname']}  {network}  {', '.join(bound['addresses'])}  {bound['mac']}"
    return finish(args, revision_of(reply), bound, text)


def unbind_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `switch unbind`."""
    parser.add_argument("switch", metavar="SWITCH", help="name or id")
    parser.add_argument("ports", metavar="PORT", nargs="+", help="by name or number")
    wait_argument(parser)


def unbind(args: argparse.Namespace) -> int:
    """Release what is bound to ports; what is not bound is fine."""
    client = client_of(args)
    switch = get(args, KIND, args.switch)
    bound = {port["port"] for port in switch["ports"] if port["endpoint"]}
    numbered = {str(port["number"]): str(port["port"]) for port in switch["ports"] if port["endpoint"]}
    ports = list(dict.fromkeys(port if port in bound else numbered.get(port, port) for port in args.ports))
    revision, absent = 0, [port for port in ports if port not in bound]
    for port in ports:
        reply = client.delete(f"{resource(KIND, switch['id'])}/ports/{quote(port)}")
        revision = max(revision, revision_of(reply))
        if args.output != "json":
            print(f"{switch['name']} {port}" if port in bound else f"nothing is bound to {port}: nothing to do")
    unbound = [port for port in ports if port in bound]
    return finish(args, revision, {"unbound": unbound, "absent": absent}, "")


def certificate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `switch certificate`."""
    parser.add_argument("switch", metavar="SWITCH", help="name or id")
    parser.add_argument("--out", default=".", metavar="DIR", help="where to write the three files (default: here)")
    parser.add_argument("--force", action="store_true", help="write over what is there")


def certificate(args: argparse.Namespace) -> int:
    """Make what a switch needs for TLS. A certificate that it had before is void from then on."""
    directory = os.path.abspath(args.out)
    paths = {part: os.path.join(directory, name) for part, name in FILES.items()}
    get(args, KIND, args.switch)  # nothing is made for one that is not there
    _check_writable(directory, [] if args.force else list(paths.values()))
    made = client_of(args).post(f"{resource(KIND, args.switch)}/certificate").body
    for part, path in paths.items():
        _write(path, made[part])
    if args.output == "json":
        print_json({"name": made["name"], "datapath_id": made["datapath_id"], **paths})
        return Exit.OK
    print(f"{made['name']}: the key is a secret; on the switch, with these files in a directory of its own:")
    print(f"  ovs-vsctl set-ssl {' '.join(paths.values())}")
    print("  ovs-vsctl set-controller BRIDGE ssl:CONTROLLER:PORT")
    return Exit.OK


def _check_writable(directory: str, absent: list[str]) -> None:
    """Before the certificate of before is void."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except (OSError, ValueError) as error:
        raise denied(f"cannot write into {directory}: {_why(error)}", "name another directory with --out") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise denied(f"cannot write into {directory}", "name another directory with --out")
    for path in absent:
        if os.path.lexists(path):
            raise conflict(f"{path} is there already", "name another directory with --out, or --force")


def _write(path: str, text: str) -> None:
    """Whole or not at all, and never readable by others."""
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise denied(f"cannot write {path}: {_why(error)}", "make room, and make another certificate") from None


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def rm_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `switch rm`."""
    parser.add_argument("switches", metavar="SWITCH", nargs="+", help="name or id")
    parser.add_argument("--force", action="store_true", help="release what is bound to its ports")
    wait_argument(parser)


def rm(args: argparse.Namespace) -> int:
    """Drop switches; one that is connected is cleared of what it was programmed with."""
    return remove_each(args, KIND, args.switches, force=True if args.force else None)
