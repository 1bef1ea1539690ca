"""`hawse network create|ls|inspect|update|rm`."""

from __future__ import annotations

import argparse
from typing import Any

from sdn.cli.connection import client_of, get, revision_of
from sdn.cli.exits import Exit, UsageError, exit_of
from sdn.cli.output import complain, print_json, print_properties, print_table, reference
from sdn.cli.waiting import finish, parse_labels, wait_argument
from sdn.client.client import Client, resource, with_query
from sdn.model.errors import HawseError, Kind, invalid

Arguments = argparse.ArgumentParser
ENDPOINTS_SHOWN = 50
"""By `inspect`; a network may have thousands."""
COUNTED_MAX = 10**9


def create_arguments(parser: Arguments) -> None:
    """Arguments of `network create`."""
    parser.add_argument("name", metavar="NETWORK", help="its name, or tenant/name")
    parser.add_argument("--tenant", default=None, metavar="TENANT", help="whose it is (default: the tenant 'default')")
    _subnet_arguments(parser)
    parser.add_argument("--ipv6", action="store_true", help="choose an IPv6 subnet as well")
    parser.add_argument("--no-ipv4", dest="ipv4", action="store_false", help="choose no IPv4 subnet")
    parser.add_argument(
        "--mtu", type=int, default=None, metavar="BYTES", help="what containers get (default: what fits)"
    )
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="repeatable")
    wait_argument(parser)


def _subnet_arguments(parser: Arguments) -> None:
    parser.add_argument("--subnet", action="append", default=[], metavar="PREFIX", help="repeatable; default: chosen")
    parser.add_argument("--gateway", action="append", default=[], metavar="ADDRESS", help="default: the first address")
    parser.add_argument(
        "--range", action="append", default=[], metavar="A-B", help="where automatic addresses come from"
    )
    parser.add_argument("--reserve", action="append", default=[], metavar="ADDRESS", help="never given out")


def create(args: argparse.Namespace) -> int:
    """Make a network."""
    tenant, slash, name = args.name.rpartition("/")
    if slash and args.tenant and args.tenant != tenant:
        raise UsageError(f"{args.name!r} names tenant {tenant!r}, --tenant says {args.tenant!r}", "name it once")
    body: dict[str, Any] = {"name": name, "ipv4": args.ipv4, "ipv6": args.ipv6, "labels": parse_labels(args.label)}
    if tenant or args.tenant:
        body["tenant"] = tenant or args.tenant
    if args.mtu is not None:
        body["mtu_bytes"] = args.mtu
    body["subnets"] = _subnets(args)
    reply = client_of(args).post("/v1/networks", body)
    return finish(args, revision_of(reply), reply.body, _created(reply.body))


def _created(network: dict[str, Any]) -> str:
    prefixes = ", ".join(subnet["prefix"] for subnet in network["subnets"])
    vni = f"VNI {network['vni']}  " if network["vni"] else ""  # tenants' users are not told
    return f"{reference(network)}  {prefixes}  {vni}MTU {network['mtu_bytes']}"


def _subnets(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Each gateway, range and reserved address goes with the subnet that holds it."""
    import ipaddress  # 10 ms: only who makes subnets pays

    subnets: list[dict[str, Any]] = [{"prefix": prefix} for prefix in args.subnet]

    def holder(text: str, option: str) -> dict[str, Any]:
        try:
            address = ipaddress.ip_address(text.partition("-")[0].partition("/")[0])
        except ValueError:
            raise invalid(f"{option} {text!r} is not an address", "write it as 10.1.0.1") from None
        for subnet in subnets:
            try:
                if address in ipaddress.ip_network(subnet["prefix"], strict=False):
                    return subnet
            except ValueError:
                continue  # the controller refuses this prefix, with a better sentence
        raise invalid(f"{option} {text} lies in none of the subnets given", "give its subnet with --subnet")

    for gateway in args.gateway:
        holder(gateway, "--gateway")["gateway"] = gateway
    for text in args.range:
        holder(text, "--range")["range"] = text
    for address in args.reserve:
        holder(address, "--reserve").setdefault("reserved", []).append(address)
    return subnets


def ls_arguments(parser: Arguments) -> None:
    """Arguments of `network ls`."""
    parser.add_argument("--tenant", default=None, metavar="TENANT", help="only this tenant's")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="only those with it")


def ls(args: argparse.Namespace) -> int:
    """List networks."""
    networks = list(client_of(args).items("/v1/networks", tenant=args.tenant, label=args.label))
    if args.output == "json":
        print_json(networks)
        return Exit.OK
    rows = [
        (
            n.get("tenant_name"),
            n["name"],
            [s["prefix"] for s in n["subnets"]],
            n["vni"] or "",
            n["mtu_bytes"],
            n.get("labels"),
        )
        for n in networks
    ]
    print_table(("TENANT", "NETWORK", "SUBNETS", "VNI", "MTU", "LABELS"), rows)
    return Exit.OK


def inspect_arguments(parser: Arguments) -> None:
    """Arguments of `network inspect`."""
    parser.add_argument("network", metavar="NETWORK", help="name, tenant/name or id")


def inspect(args: argparse.Namespace) -> int:
    """Show all of a network."""
    network = get(args, "networks", args.network)
    if args.output == "json":
        print_json(network)
        return Exit.OK
    nested = ("subnets", "usage")
    print_properties({key: value for key, value in network.items() if key not in nested})
    used = {usage["prefix"]: usage for usage in network.get("usage", [])}
    print()
    print_table(
        ("SUBNET", "GATEWAY", "RANGE", "RESERVED BY NAME", "USED", "RESERVED", "FREE"),
        [_subnet_row(subnet, used.get(subnet["prefix"], {})) for subnet in network["subnets"]],
    )
    page = client_of(args).get("/v1/endpoints", network=network["id"], limit=ENDPOINTS_SHOWN).body
    if page["items"]:
        print()
        header = ("HOST", "CONTAINER", "IFNAME", "ADDRESSES", "MAC", "NAME")
        keys = ("host_name", "container", "ifname", "addresses", "mac", "name")
        print_table(header, [[endpoint.get(key) for key in keys] for endpoint in page["items"]])
    if page.get("next"):
        print(f"… and more: hawse endpoint ls --network {reference(network)}")
    return Exit.OK


def _subnet_row(subnet: dict[str, Any], usage: dict[str, Any]) -> tuple[Any, ...]:
    counts = (usage.get(key) for key in ("used", "reserved", "free"))
    range_ = "-".join(subnet.get("range") or ())
    return (subnet["prefix"], subnet.get("gateway"), range_, subnet.get("reserved"), *map(_count, counts))


def _count(number: int | None) -> str | None:
    """Whole as far as people read digits; an IPv6 subnet has more addresses than that."""
    return None if number is None else str(number) if number < COUNTED_MAX else f"{number:.1e}"


def update_arguments(parser: Arguments) -> None:
    """Arguments of `network update`."""
    parser.add_argument("network", metavar="NETWORK", help="name, tenant/name or id")
    _subnet_arguments(parser)
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="set a label")
    parser.add_argument("--rm-label", action="append", default=[], metavar="K", help="remove a label")
    wait_argument(parser)


def update(args: argparse.Namespace) -> int:
    """Change labels, add subnets; one revision for all of it."""
    client = client_of(args)
    current = get(args, "networks", args.network)
    labels = {**current.get("labels", {}), **parse_labels(args.label)}
    for key in args.rm_label:
        labels.pop(key, None)
    if not args.subnet and labels == current.get("labels", {}):
        raise UsageError("nothing to change", "give --label, --rm-label or --subnet with something new")
    body = {
        "name": current["name"],
        "tenant": current["tenant"],
        "mtu_bytes": current["mtu_bytes"],
        "subnets": [_subnet_body(subnet) for subnet in current["subnets"]] + _subnets(args),
        "labels": labels,
    }
    reply = client.put(resource("networks", current["id"]), body, {"If-Match": str(current["revision"])})
    return finish(args, revision_of(reply), reply.body, _created(reply.body))


def _subnet_body(subnet: dict[str, Any]) -> dict[str, Any]:
    body = {key: subnet[key] for key in ("prefix", "gateway", "reserved") if subnet.get(key)}
    if subnet.get("range"):
        body["range"] = "-".join(subnet["range"])
    return body


def rm_arguments(parser: Arguments) -> None:
    """Arguments of `network rm`."""
    parser.add_argument("networks", metavar="NETWORK", nargs="+", help="name, tenant/name or id")
    wait_argument(parser)


def rm(args: argparse.Namespace) -> int:
    """Remove networks."""
    return remove_each(args, "networks", args.networks)


def remove_each(args: argparse.Namespace, kind: str, references: list[str], force: bool | None = None) -> int:
    """Delete resources one after the other; go on after an error, tell each, end with the first one's code."""
    client = client_of(args)
    code: int = Exit.OK
    revision = 0
    removed: list[str] = []
    absent: list[str] = []
    for named in references:
        try:
            missed = _missed(client, kind, named)
            reply = client.delete(with_query(resource(kind, named), {"force": force}))
        except HawseError as error:
            complain(error.message, error.hint)
            code = code or exit_of(error)
            continue
        revision = max(revision, revision_of(reply))
        (removed if missed is None else absent).append(named)
        if args.output != "json":
            print(named if missed is None else f"{missed.message}: nothing to remove; {missed.hint}")
    if code == Exit.OK and args.wait is not None:
        return finish(args, revision, {"removed": removed, "absent": absent}, "")
    if args.output == "json":
        print_json({"removed": removed, "absent": absent, "revision": revision})
    return code


def _missed(client: Client, kind: str, named: str) -> HawseError | None:
    """What is absent is removed already: that is success, but who mistyped a name wants to be told."""
    try:
        client.get(resource(kind, named))
    except HawseError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        return error
    return None
