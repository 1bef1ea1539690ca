"""What the doctor makes of facts: each fault is named with what follows and what to type, and is gone without it."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from plugin.doctor import (
    command,
    controllers,
    duplicates,
    fabric,
    features,
    finding,
    machine,
    path,
    path_findings,
    underlay,
)
from plugin.doctor.finding import Finding, Verdict
from plugin.kernel.route import Uplink
from sdn.cli.exits import Exit
from sdn.model.contract import ExamineResult, NetworkHere, Probed
from sdn.model.stream import Peer
from sdn.model.version import VERSION
from sdn.service.roots import Root

HERE, PEER = "192.0.2.1", "192.0.2.2"


def verdicts(findings: list[Finding]) -> list[Verdict]:
    return [found.verdict for found in findings]


def only(findings: list[Finding], verdict: Verdict = Verdict.PROBLEM) -> Finding:
    """The one finding; whoever is told of a fault is told what to type."""
    (found,) = findings
    assert found.verdict is verdict, found
    assert verdict is Verdict.OK or found.remedy, found
    return found


# The kernel ---------------------------------------------------------------------------------------------------------

WHOLE = features.FeatureFacts(
    tried={"VXLAN devices": ("vxlan", "")},
    denied="",
    overlay=True,
    seccomp=True,
    controllers=frozenset({"cpu", "memory", "pids"}),
    ipv6=True,
)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tried": {"VXLAN devices": ("vxlan", "Unknown device type")}}, "VXLAN devices: Unknown device type"),
        ({"overlay": False}, "overlayfs"),
        ({"seccomp": False}, "seccomp"),
        ({"controllers": frozenset({"cpu", "memory"})}, "pids"),
        ({"ipv6": False}, "IPv6"),
    ],
)
def test_a_kernel_without(change: dict[str, Any], named: str) -> None:
    assert named in only(features.judge_features(dataclasses.replace(WHOLE, **change))).found
    only(features.judge_features(WHOLE), Verdict.OK)


def test_a_kernel_that_could_not_be_tried() -> None:
    found = features.judge_features(dataclasses.replace(WHOLE, tried={}, denied="root is needed"))
    assert verdicts(found) == [Verdict.UNKNOWN]
    assert finding.worst(found) is Verdict.OK


def test_controllers_of_either_version(tmp_path: Path) -> None:
    assert features.read_controllers(tmp_path) == frozenset()
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "cgroup.procs").touch()
    assert features.read_controllers(tmp_path) == {"pids"}
    (tmp_path / "cgroup.controllers").write_text("cpu memory io\n")
    assert {"cpu", "memory", "pids"} <= features.read_controllers(tmp_path)


# Limits and disks ---------------------------------------------------------------------------------------------------


def proc_of(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        file = directory / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory


def limits(tmp_path: Path, thresholds: tuple[int, int, int], fulls: str = "00000000") -> machine.LimitFacts:
    names = {f"sys__net__ipv4__neigh__default__gc_thresh{n}": str(value) for n, value in enumerate(thresholds, 1)}
    statistics = f"entries  allocs table_fulls\n00000001 00000002 {fulls}\n00000001 00000002 00000001\n"
    return machine.read_limits(
        None, proc_of(tmp_path, **names, net__stat__arp_cache=statistics, sys__fs__inotify__max_user_instances="128")
    )


def test_neighbour_tables_against_the_endpoints_here(tmp_path: Path) -> None:
    facts = limits(tmp_path, (128, 512, 1024))
    assert facts.thresholds == {"IPv4": (128, 512, 1024)}
    assert facts.overflows == {"IPv4": 1}
    too_many = only([one for one in machine.judge_limits(facts, 2000) if one.check == "neighbours"])
    assert "1024" in too_many.found
    assert "2000" in too_many.found
    assert too_many.remedy[0] == "sysctl -w net.ipv4.neigh.default.gc_thresh3=8192"
    assert machine.judge_limits(facts, 600)[0].verdict is Verdict.WARNING
    assert "full 1 times" in machine.judge_limits(facts, 3)[0].found
    raised = limits(tmp_path, (2048, 4096, 8192), "00000ff0")
    only([one for one in machine.judge_limits(raised, 2000) if one.check == "neighbours"], Verdict.OK)


def test_neighbour_limits_that_are_not_shown(tmp_path: Path) -> None:
    assert machine.judge_limits(machine.read_limits(None, tmp_path), 5)[0].verdict is Verdict.UNKNOWN


def test_what_is_nearly_used_up(tmp_path: Path) -> None:
    proc = proc_of(
        tmp_path,
        **{"7__limits": "Limit  Soft  Hard\nMax open files            10         20         files\n"},
        sys__fs__file_nr="90 0 100",
        loadavg="0.1 0.1 0.1 1/30000 99",
        sys__kernel__pid_max="32768",
        sys__kernel__threads_max="200000",
        sys__fs__inotify__max_user_instances="16",
    )
    (tmp_path / "sys/fs/file_nr").rename(tmp_path / "sys/fs/file-nr")
    (tmp_path / "sys/kernel/threads_max").rename(tmp_path / "sys/kernel/threads-max")
    (tmp_path / "7/fd").mkdir()
    for number in range(9):
        (tmp_path / "7/fd" / str(number)).touch()
    facts = machine.read_limits(7, proc)
    told = [one.found for one in machine.judge_limits(facts, 0) if one.verdict is Verdict.WARNING]
    assert [text.partition(":")[0] for text in told[:3]] == ["9 of 10", "90 of 100", "30000 of 32768"]
    assert "16 inotify instances" in told[3]
    calm = dataclasses.replace(facts, used={"the machine's open files": (1, 100)}, inotify_instances=128)
    assert machine.judge_limits(calm, 0)[-1].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("change", "verdict", "named"),
    [
        ({}, Verdict.OK, "50 GiB"),
        ({"read_only": True}, Verdict.PROBLEM, "read-only"),
        ({"free_bytes": 1 << 20}, Verdict.PROBLEM, "full: 1 MiB"),
        ({"free_bytes": 500 << 20}, Verdict.WARNING, "500 MiB left"),
        ({"free_inodes": 3}, Verdict.PROBLEM, "3 inodes"),
        ({"free_inodes": 5000}, Verdict.WARNING, "5000 inodes"),
        ({"free_inodes": None}, Verdict.OK, "GiB"),
    ],
)
def test_disks(change: dict[str, Any], verdict: Verdict, named: str) -> None:
    disk = machine.DiskFacts("state", "/var/lib/hawse", 50 << 30, 1 << 20, False)
    assert named in only(machine.judge_disks([dataclasses.replace(disk, **change)]), verdict).found


def test_disks_are_read_where_there_are_any(tmp_path: Path) -> None:
    root = Root(tmp_path / "state", tmp_path)
    (disk,) = machine.read_disks(root)
    assert (disk.what, disk.path, disk.read_only) == ("run", str(tmp_path), False)
    assert disk.free_bytes > 0


def test_namespaces_that_were_left_behind(tmp_path: Path) -> None:
    root = Root(tmp_path / "state", tmp_path)
    (tmp_path / "netns").mkdir()
    (tmp_path / "netns" / "t-01abc").touch()
    facts = machine.read_leftovers(root)
    assert "a pin without a namespace" in only(machine.judge_leftovers(facts, frozenset()), Verdict.WARNING).found
    pinned = machine.LeftoverFacts(frozenset({"01abc"}), ())
    assert "01abc" in only(machine.judge_leftovers(pinned, frozenset()), Verdict.WARNING).found
    only(machine.judge_leftovers(pinned, frozenset({"01abc"})), Verdict.OK)
    orphaned = only(machine.judge_leftovers(pinned, None), Verdict.WARNING)
    assert any("--clean" in line for line in orphaned.remedy)


# The underlay -------------------------------------------------------------------------------------------------------

LINK = underlay.UplinkFacts(HERE, "eth0", True, True, False, "", "02:00:00:00:00:01", 1500)
WAY = underlay.Way("h2", HERE, PEER, Uplink(HERE, "eth0", 1500))


def underlaid(link: underlay.UplinkFacts | None = LINK, way: underlay.Way = WAY, **settings: Any) -> Any:
    named = {name.replace("__", "/"): value for name, value in settings.items()}
    return underlay.UnderlayFacts({HERE: link}, (way,), named)


@pytest.mark.parametrize(
    ("change", "verdict", "named"),
    [
        ({}, Verdict.OK, "192.0.2.1 on eth0"),
        ({"loopback": True, "ifname": "lo"}, Verdict.PROBLEM, "loopback link lo"),
        ({"up": False}, Verdict.PROBLEM, "eth0, which is down"),
        ({"running": False}, Verdict.PROBLEM, "no carrier"),
    ],
)
def test_the_link_of_the_vtep(change: dict[str, Any], verdict: Verdict, named: str) -> None:
    facts = underlay.UnderlayFacts({HERE: dataclasses.replace(LINK, **change)}, (), {})
    assert named in only(underlay.judge_uplinks(facts), verdict).found


def test_wrong_uplinks() -> None:
    docker = dataclasses.replace(LINK, ifname="docker0", kind="bridge")
    way = dataclasses.replace(WAY, uplink=Uplink(HERE, "docker0", 1500))
    assert "docker0, a bridge" in only(underlay.judge_uplinks(underlaid(docker, way)), Verdict.WARNING).found
    own = dataclasses.replace(LINK, ifname="br0", kind="bridge")
    only(underlay.judge_uplinks(underlaid(own, dataclasses.replace(WAY, uplink=Uplink(HERE, "br0", 1500)))), Verdict.OK)
    assert "no link of this host has" in only(underlay.judge_uplinks(underlaid(None))).found
    nothing = underlay.UnderlayFacts({}, (), {})
    assert "no VTEP" in only(underlay.judge_uplinks(nothing)).found
    alone = only(underlay.judge_uplinks(nothing, alone=True), Verdict.WARNING)  # works, for itself
    assert "no other machine can join" in alone.follows


def test_routes_to_the_others() -> None:
    nowhere = only(underlay.judge_uplinks(underlaid(way=dataclasses.replace(WAY, uplink=None))))
    assert "no route to host h2 at 192.0.2.2" in nowhere.found
    aside = dataclasses.replace(WAY, uplink=Uplink("198.51.100.1", "eth1", 1500))
    loose = only(underlay.judge_uplinks(underlaid(way=aside, ipv4__conf__all__rp_filter="2")), Verdict.WARNING)
    assert "leads out of eth1" in loose.found
    assert (
        "rp_filter is strict"
        in only(underlay.judge_uplinks(underlaid(way=aside, ipv4__conf__eth0__rp_filter="1"))).found
    )
    # of both values the kernel takes the larger number: 2 is loose, and wins
    mixed = underlaid(way=aside, ipv4__conf__eth0__rp_filter="1", ipv4__conf__all__rp_filter="2")
    only(underlay.judge_uplinks(mixed), Verdict.WARNING)


def test_a_bridged_uplink_whose_frames_iptables_sees() -> None:
    on: dict[str, Any] = {"bridge__bridge-nf-call-iptables": "1"}
    bridged = dataclasses.replace(LINK, master="br0")
    assert "net.bridge.bridge-nf-call-iptables=0" in only(
        underlay.judge_settings(underlaid(bridged, **on)), Verdict.WARNING
    ).remedy[0]  # fmt: skip
    only(underlay.judge_settings(underlaid(LINK, **on)), Verdict.OK)
    only(underlay.judge_settings(underlaid(bridged)), Verdict.OK)


def test_questions_and_answers_about_duplicates() -> None:
    mac, other = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
    four, six = bytes([192, 0, 2, 1]), bytes.fromhex("fd00000000000000000000000000ab01")
    asked = duplicates.arp_probe(mac, four)
    assert duplicates.answer_of(asked, four) is None  # it asks, and says nothing
    reply = asked[:20] + b"\0\2" + other + four + asked[32:]
    assert duplicates.answer_of(reply, four) == other
    assert duplicates.answer_of(reply, bytes([192, 0, 2, 9])) is None
    solicited = duplicates.solicitation(mac, six)
    assert solicited[:6] == bytes.fromhex("3333ff00ab01")
    assert duplicates.answer_of(solicited, six) is None
    advert = b"\x33\x33\0\0\0\1" + other + b"\x86\xdd" + solicited[14:54] + b"\x88\0\0\0\0\0\0\0" + six
    assert duplicates.answer_of(advert, six) == other
    for cut in range(len(advert)):
        duplicates.answer_of(advert[:cut], six)
    words = struct.unpack("!16H", solicited[22:54]) + struct.unpack("!12H", solicited[54:])
    total = sum(words) + 24 + 58
    assert (total & 0xFFFF) + (total >> 16) in (0xFFFF, 0x1FFFE & 0xFFFF)  # RFC 1071: with its checksum, all ones


def test_duplicates_are_named() -> None:
    clean = duplicates.DuplicateFacts(HERE, "eth0", ())
    only(duplicates.judge_duplicates(clean), Verdict.OK)
    found = only(duplicates.judge_duplicates(dataclasses.replace(clean, others=("02:00:00:00:00:02",))))
    assert "02:00:00:00:00:02" in found.found
    assert HERE in found.found
    assert verdicts(duplicates.judge_duplicates(dataclasses.replace(clean, unasked="down"))) == [Verdict.UNKNOWN]


# Paths --------------------------------------------------------------------------------------------------------------

PATH = path.Path("h2", 4, HERE, PEER, 1500, 1500, True)


def result(**change: Any) -> ExamineResult:
    network = NetworkHere(name="default/web", tenant="t", vni=1, mtu_bytes=1450, endpoints=2, peers=("h2",))
    given: dict[str, Any] = {
        "host": "01h", "name": "h1", "version": VERSION, "pid": 1, "namespace": 2, "controllers": (), "authority": "",
        "away": "", "session": 1, "revision": 2, "vtep4": HERE, "vtep6": None, "mtu_bytes": 1500, "endpoints": 2,
        "networks": (network,),
    }  # fmt: skip
    return ExamineResult(**given | change)


def test_what_is_probed() -> None:
    peers = [
        Peer(name="h2", vtep4=PEER, vtep6="fd00::2"),
        Peer(name="h3", vtep4="192.0.2.3"),
        Peer(name="h4", problem="x"),
    ]
    both = path.paths_of(result(vtep6="fd00::1"), peers, {HERE: 1400, "fd00::1": 1400})
    assert [(one.peer, one.family, one.needed_bytes, one.shared) for one in both] == [
        ("h2", 4, 1500, True),
        ("h2", 6, 0, True),  # tunnels take IPv4 where both have it
        ("h3", 4, 1500, False),
    ]
    assert {one.limit_bytes for one in both} == {1400}
    (six,) = path.paths_of(result(vtep4=None, vtep6="fd00::1"), peers[:1], {})
    assert (six.needed_bytes, six.limit_bytes) == (1520, 1500)


def test_steps_close_in_on_any_size() -> None:
    for true in (75, 576, 1399, 1436, 1499):
        low, high, volleys = 74, 1500, 0
        while sizes := path.steps(low, high):
            low = max([low, *(size for size in sizes if size <= true)])
            high = min([high, *(size for size in sizes if size > true)])
            volleys += 1
        assert (low, high) == (true, true + 1)
        assert volleys <= path.VOLLEYS_MAX


@pytest.mark.parametrize(
    ("forward", "backward", "pinged", "verdict", "named"),
    [
        (1500, 1500, None, Verdict.OK, "1500 bytes pass, both ways"),
        (1400, 1400, None, Verdict.PROBLEM, "up to 1400 bytes, and the networks need 1500"),
        (1500, 1400, None, Verdict.PROBLEM, "1500 there and 1400 back"),
        (1500, 0, None, Verdict.PROBLEM, "does not arrive here"),
        (0, 0, True, Verdict.PROBLEM, "is blocked, though it answers to ping"),
        (0, 0, None, Verdict.PROBLEM, "is blocked: no probe"),
        (0, 0, False, Verdict.PROBLEM, "neither to UDP 4789 nor to ping"),
    ],
)
def test_paths(forward: int, backward: int, pinged: bool | None, verdict: Verdict, named: str) -> None:
    measured = path.Measured(PATH, forward, backward, pinged)
    found = only(path_findings.judge_path(measured, False), verdict)
    assert named in found.found
    assert PEER in found.found


def test_a_path_that_no_network_needs_yet() -> None:
    narrow = path.Measured(dataclasses.replace(PATH, shared=False), 1400, 1400)
    only(path_findings.judge_path(narrow, True), Verdict.WARNING)
    enough = path.Measured(dataclasses.replace(PATH, needed_bytes=1400), 1400, 1400)
    assert "the uplink takes 1500" in only(path_findings.judge_path(enough, True), Verdict.OK).found
    small = path.Measured(dataclasses.replace(PATH, limit_bytes=1400), 1400, 1400)
    assert "the uplink here takes 1400" in only(path_findings.judge_path(small, True)).remedy[0]


def test_peers_that_do_not_answer() -> None:
    probed = Probed(cookie="00", peers=(Peer(name="h2", problem="it is not connected"), Peer(name="h3")), omitted=2)
    found = path_findings.judge_peers(probed)
    assert verdicts(found) == [Verdict.UNKNOWN, Verdict.UNKNOWN]
    assert "h2" in found[0].found
    assert "2 more" in found[1].found
    only(path_findings.judge_peers(Probed(cookie="00", peers=())), Verdict.OK)
    assert not path_findings.all_pass([])
    assert path_findings.all_pass([path.Measured(PATH, 9, 9)])
    assert not path_findings.all_pass([path.Measured(PATH, 9, 9), path.Measured(PATH, 9, 0)])


# The fabric ---------------------------------------------------------------------------------------------------------


def agent(said: ExamineResult | None, **more: Any) -> fabric.AgentFacts:
    given: dict[str, Any] = {"away": "", "denied": False, "joined": True, "configuration": None} | more
    return fabric.AgentFacts(result=said, **given)


def test_the_agent() -> None:
    only(fabric.judge_agent(agent(result())), Verdict.OK)
    assert "its stream is down: refused" in only(fabric.judge_agent(agent(result(away="refused")))).found
    forgotten = only(fabric.judge_agent(agent(result(away="refused", away_hint="hawse leave"))))
    assert forgotten.remedy == ("hawse leave; it tries again by itself",)
    assert "not running" in only(fabric.judge_agent(agent(None, away="the agent is not running"))).found
    assert "the machine alone" in only(fabric.judge_agent(agent(None, joined=False)), Verdict.UNKNOWN).found
    assert only(fabric.judge_agent(agent(None, away="no", denied=True)), Verdict.UNKNOWN).remedy == ("run it as root",)


def test_units_that_failed() -> None:
    only(fabric.judge_failures(result()), Verdict.OK)
    assert "endpoint/e1: no room" in only(fabric.judge_failures(result(failures={"endpoint/e1": "no room"}))).found
    many = fabric.judge_failures(result(failures={f"endpoint/{n}": "x" for n in range(9)}))
    assert len(many) == fabric.FAILURES_SHOWN + 1
    assert "4 more" in many[-1].found


def test_versions() -> None:
    probed = Probed(cookie="00", peers=(Peer(name="h2", version="0.0.9"),))
    only(fabric.judge_versions({"hawse": VERSION, "runtime": VERSION}, None), Verdict.OK)
    assert "agent of h2 0.0.9" in only(fabric.judge_versions({"hawse": VERSION}, probed), Verdict.WARNING).found


def test_ports_that_a_controller_listens_on() -> None:
    listed = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:12AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n"
        "   1: 00000000:12AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1\n"
        "   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1\n"
        "   3: 010200C0:12AC 020200C0:9000 01 00000000:00000000 00:00000000 00000000     0        0 14 1\n"
    )
    assert fabric.listening_ports(listed, {"11", "12", "14"}) == [4780]
    assert fabric.listening_ports(listed, {"11"}) == []


CONTROLLER = controllers.ControllerFacts("https://c:4780", version=VERSION, offset_s=0.01, ends_s=1e7, here_s=0.0)


def test_the_controller_and_its_certificate() -> None:
    only(controllers.judge_controller(CONTROLLER), Verdict.OK)
    away = dataclasses.replace(CONTROLLER, away="nobody listens", hint="start it")
    assert only(controllers.judge_controller(away)).remedy == ("start it",)
    ending = dataclasses.replace(CONTROLLER, ends_s=86400.0)
    assert "ends in 1.0 days" in only(controllers.judge_controller(ending), Verdict.WARNING).found


@pytest.mark.parametrize(
    ("offset_s", "verdict", "named"),
    [
        (0.3, Verdict.OK, "within 0.3 s"),
        (-1.5, Verdict.OK, "within 1.5 s"),
        (30.0, Verdict.WARNING, "30 seconds behind"),
        (-3600.0, Verdict.PROBLEM, "60.0 minutes ahead of"),
        (7200.0, Verdict.PROBLEM, "2.0 hours behind"),
    ],
)
def test_the_clock(offset_s: float, verdict: Verdict, named: str) -> None:
    others = [CONTROLLER, dataclasses.replace(CONTROLLER, offset_s=offset_s)]
    assert named in only(controllers.judge_clock(others, None), verdict).found


def test_a_clock_that_nothing_sets() -> None:
    silent = [dataclasses.replace(CONTROLLER, offset_s=None)]
    assert "nothing synchronises" in only(controllers.judge_clock(silent, False), Verdict.WARNING).found
    only(controllers.judge_clock(silent, True), Verdict.OK)
    only(controllers.judge_clock([CONTROLLER], False), Verdict.OK)  # it agrees: that is what counts


# The document -------------------------------------------------------------------------------------------------------


def test_the_verdict_is_the_worst_and_the_exit_code_is_the_tables() -> None:
    fine, odd = finding.ok("a", "x"), finding.warning("b", "y", "z", "type this")
    broken, dark = finding.problem("c", "y\x1b[2J", "z", "type that"), finding.unknown("d", "no right to", "be root")
    assert finding.worst([fine, dark]) is Verdict.OK
    assert finding.worst([fine, odd]) is Verdict.WARNING
    document = json.loads(json.dumps(finding.document("h1", [fine, odd, broken, dark])))
    assert document["verdict"] == "problem"
    assert document["counts"] == {"problem": 1, "warning": 1, "unknown": 1, "ok": 1}
    assert document["findings"][1] == {
        "check": "b", "verdict": "warning", "found": "y", "follows": "z", "remedy": ["type this"], "facts": {},
    }  # fmt: skip
    assert command.PROBLEMS == Exit.EXPECTATION
    text = command.table("h1", [fine, odd, broken, dark])
    assert [line[0] for line in text.splitlines()[:4]] == ["✓", "!", "✗", "?"]
    assert text.index("type that") < text.index("type this") < text.index("be root")
    assert "\x1b" not in text
    many = command.table("h1", [finding.ok("path", f"to x{number}") for number in range(30)])
    assert len(many.splitlines()) == command.ALIKE_MAX + 3
    assert "and 24 more" in many
    assert text.splitlines()[-1] == "h1: 1 ✗ do not work, 1 ! to look at, 1 ? not looked at, 1 ✓ well"
