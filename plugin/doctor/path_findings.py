"""What the probes mean."""

from __future__ import annotations

from collections.abc import Sequence

from plugin.doctor.finding import Finding, ok, problem, unknown, warning
from plugin.doctor.path import Measured, Path
from sdn.model.contract import Probed

CHECK = "path"


def judge_peers(probed: Probed) -> list[Finding]:
    """The hosts that do not answer probes."""
    findings = [
        unknown(
            CHECK, f"to {peer.name}: not probed, {peer.problem}", f"hawse --root ROOT doctor     # on {peer.name}",
            peer=peer.name,
        )
        for peer in probed.peers
        if peer.problem
    ]  # fmt: skip
    if probed.omitted:
        findings.append(unknown(CHECK, f"{probed.omitted} more hosts were not probed", "hawse doctor --host NAME"))
    if not probed.peers:
        findings.append(ok(CHECK, "no other host is connected: there is nothing to probe"))
    return findings


def judge_path(measured: Measured, passing: bool) -> list[Finding]:
    """One path. `passing`: another path of this host passes, so this host is not to blame for all."""
    path = measured.path
    facts: dict[str, object] = {
        "peer": path.peer,
        "source": path.source,
        "target": path.target,
        "family": path.family,
        "forward_bytes": measured.forward_bytes,
        "backward_bytes": measured.backward_bytes,
        "uplink_bytes": path.limit_bytes,
        "needed_bytes": path.needed_bytes,
    }
    if not measured.forward_bytes or not measured.backward_bytes:
        return [_blocked(measured, passing, facts)]
    least = min(measured.forward_bytes, measured.backward_bytes)
    if least < path.needed_bytes:
        return [_narrow(measured, least, facts)]
    if least < path.limit_bytes:
        text = f"to {path.peer} ({path.target}) packets of {least} bytes pass, and the uplink takes {path.limit_bytes}"
        enough = path.needed_bytes or "nothing yet"
        return [ok(CHECK, f"{text}; networks here need {enough}", **facts)]
    return [ok(CHECK, f"to {path.peer} ({path.target}) {least} bytes pass, both ways", **facts)]


def all_pass(measured: Sequence[Measured]) -> bool:
    """Whether every probed path carries tunnel packets in both directions, and there is one."""
    return bool(measured) and all(one.backward_bytes for one in measured)


def _blocked(measured: Measured, passing: bool, facts: dict[str, object]) -> Finding:
    path = measured.path
    follows = f"containers here and on {path.peer} do not reach each other"
    if measured.forward_bytes:
        return problem(
            CHECK,
            f"UDP 4789 from here arrives at {path.peer} ({path.target}), but what {path.peer} sends to UDP 4789 does"
            " not arrive here",
            follows,
            "nft list ruleset     # here: its input; the firewall check above names what drops it",
            f"hawse doctor         # on {path.peer}: its output",
            **facts,
        )
    if measured.pinged is False:
        return problem(
            CHECK,
            f"{path.peer} ({path.target}) answers neither to UDP 4789 nor to ping",
            follows,
            f"ip route get {path.target} from {path.source}; ip neighbour show {path.target}",
            f"hawse doctor         # on {path.peer}",
            **facts,
        )
    where = f"on the way to {path.peer} or there" if passing else f"here, on the way, or at {path.peer}"
    pinged = ", though it answers to ping" if measured.pinged else ""
    return problem(
        CHECK,
        f"UDP 4789 to {path.peer} ({path.target}) is blocked{pinged}: no probe of any size came back",
        f"{follows}; what drops it is {where}",
        f"hawse doctor         # on {path.peer}: its firewall's rules",
        "let UDP 4789 pass between the hosts: security groups, firewalls on the way",
        **facts,
    )


def _narrow(measured: Measured, least: int, facts: dict[str, object]) -> Finding:
    path = measured.path
    usable = least - (50 if path.family == 4 else 70)
    ways = f"{measured.forward_bytes} there and {measured.backward_bytes} back"
    text = (
        f"packets to {path.peer} ({path.target}) pass up to {least} bytes"
        + (f" ({ways})" if measured.forward_bytes != measured.backward_bytes else "")
        + f", and the networks need {path.needed_bytes}"
    )
    remedy = (
        _raise_mtu(path),
        f"or make networks with a smaller MTU: hawse network create NAME --mtu {usable} …",
    )
    follows = f"between containers here and on {path.peer} small packets pass and large ones vanish"
    if path.shared:
        return problem(CHECK, text, follows, *remedy, **facts)
    return warning(CHECK, text, f"once a network has containers on both: {follows}", *remedy, **facts)


def _raise_mtu(path: Path) -> str:
    if path.limit_bytes < path.needed_bytes:
        return f"ip link set UPLINK mtu {path.needed_bytes}     # the uplink here takes {path.limit_bytes}"
    return f"raise the MTU of what is between the hosts to {path.needed_bytes} (switch, bridge, tunnel, cloud network)"
