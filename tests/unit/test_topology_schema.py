"""A topology file: what it means, and how each mistake in it is answered."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import topologies
from sdn.model.container import MountKind, MountSpec, Restart
from sdn.model.errors import HawseError, Kind
from topologies.schema import load_topology, parse_topology
from topologies.values import ImageSource, Lie, Protocol, Workload

SHIPPED = sorted(Path(topologies.__path__[0]).glob("*.yaml"))

GOOD = """\
name: lab
hosts: [h1, h2]
tenants: [blue, red]
networks:
  blue/web: {subnets: [10.1.0.0/24, "fd00::/64"]}
  red/web: {subnets: [10.1.0.0/24]}
containers:
  a: {host: h1, networks: {network: blue/web, ip: 10.1.0.11, mac: "0A:00:00:00:00:01"}}
  b: {host: h2, networks: [blue/web]}
  c: {host: h2, networks: [{network: red/web, ifname: eth5}, blue/web]}
expect:
  - {from: a, to: [b, c], protocol: ping}
  - {from: a, to: b, spoof: [mac, ip4], dropped: mac-spoof}
"""


def refusal(text: str) -> HawseError:
    with pytest.raises(HawseError) as caught:
        parse_topology(text, "f.yaml")
    assert caught.value.kind is Kind.INVALID
    return caught.value


def test_all_shipped_files_are_valid_and_named_after_their_file() -> None:
    assert {path.stem for path in SHIPPED} == {
        "one-host", "two-hosts", "dual-stack", "ipv6-underlay", "three-hosts-three-tenants", "mixed", "agentless",
    }  # fmt: skip
    for path in SHIPPED:
        topology = load_topology(str(path))
        assert topology.name == path.stem
        assert topology.expectations
        assert topology.forgeries


def test_the_demo_has_two_tenants_with_equal_subnets_and_addresses_on_both_hosts() -> None:
    topology = load_topology(str(next(path for path in SHIPPED if path.stem == "two-hosts")))
    by_tenant: dict[str, list[tuple[str, str]]] = {}
    for container in topology.containers:
        attachment = container.attachments[0]
        by_tenant.setdefault(attachment.network, []).append((container.host, attachment.addresses[0]))
    blue, red = by_tenant["blue/web"], by_tenant["red/web"]
    assert {address for _, address in blue} == {address for _, address in red}
    assert {host for host, _ in blue} == {host for host, _ in red} == {"h1", "h2"}
    subnets = {network.subnets for network in topology.networks}
    assert len(subnets) == 1


def test_small_files_get_defaults() -> None:
    topology = parse_topology("hosts: h1\nnetworks: [web]\ncontainers:\n  c: {networks: web}\n", "some/tiny.yaml")
    assert topology.name == "tiny"
    assert topology.hosts[0].interface4 == "100.64.0.11/24"
    assert topology.hosts[0].interface6 is None
    assert topology.underlay.controllers == ("100.64.0.1",)
    (network,) = topology.networks
    assert (network.reference, network.subnets, network.ipv4, network.ipv6) == ("default/web", (), True, False)
    (container,) = topology.containers
    assert (container.host, container.attachments[0].ifname) == ("h1", "eth0")


def test_values() -> None:
    topology = parse_topology(GOOD)
    a, _, c = topology.containers
    assert a.attachments[0].addresses == ("10.1.0.11",)
    assert a.attachments[0].mac == "0a:00:00:00:00:01"
    assert [attachment.ifname for attachment in c.attachments] == ["eth5", "eth0"]
    assert [(e.sender, e.receiver, e.protocol) for e in topology.expectations] == [
        ("a", "b", Protocol.PING),
        ("a", "c", Protocol.PING),
    ]
    assert [(f.lie, f.cause) for f in topology.forgeries] == [(Lie.MAC, "mac-spoof"), (Lie.IP4, "mac-spoof")]


def test_without_protocol_all_that_both_can_speak_is_expected() -> None:
    topology = parse_topology(GOOD.replace(", protocol: ping}", "}"))
    assert [e.protocol for e in topology.expectations if e.receiver == "b"] == list(Protocol)
    only4 = GOOD.replace("- {from: a, to: [b, c], protocol: ping}", "- {from: a, to: c, via: red/web, verdict: drop}")
    assert [e.protocol for e in parse_topology(only4).expectations] == [Protocol.PING, Protocol.TCP, Protocol.UDP]


def test_dual_and_ipv6_underlay() -> None:
    dual = parse_topology("underlay: {prefix4: 10.9.0.0/24, prefix6: auto}\nhosts: {h1: {address4: none}, h2: {}}")
    assert [(h.interface4, bool(h.interface6)) for h in dual.hosts] == [(None, True), ("10.9.0.12/24", True)]
    six = parse_topology("underlay: {prefix6: auto, mtu: 9000}\nhosts: {h1: {mtu: 1500}, h2: {}}")
    assert six.underlay.controller4 is None
    assert [(h.interface4, h.mtu_bytes) for h in six.hosts] == [(None, 1500), (None, 9000)]


MISTAKES = [
    ("hosts:", "hots:", 2, "'hots'", "did you mean 'hosts'?"),
    ("subnets: [10.1.0.0/24, ", "subnet: [10.1.0.0/24, ", 5, "'subnet'", "did you mean 'subnets'?"),
    ("10.1.0.0/24, ", "10.1.0.1/24, ", 5, "host bits", "10.1.0.0/24"),
    ("host: h1", "host: h3", 8, "'h3'", "allowed: h1, h2"),
    ("network: blue/web, ip", "network: blu/web, ip", 8, "'blu/web'", "did you mean 'blue/web'?"),
    ("networks: [blue/web]", "networks: [web]", 9, "several tenants", "blue/web, red/web"),
    ("ip: 10.1.0.11", "ip: 10.2.0.11", 8, "in no subnet of blue/web", ""),
    ("0A:00", "01:00", 8, "unicast", ""),
    ("ifname: eth5", "ifname: eth0123456789abcdef", 10, "interface's name", ""),
    ("tenants: [blue, red]", "tenants: [blue]", 6, "'red'", "allowed: blue, default"),
    ("tenants: [blue, red]", "tenants: [blue, blue]", 3, "listed twice", ""),
    ("  red/web:", "  blue/web:", 6, "there twice", "line 5"),
    ("  red/web:", "  blue/two:", 6, "overlaps", "another tenant"),
    ("  b: {host: h2", "  h1: {host: h2", 9, "a host has this name", ""),
    ("  b: {host: h2", "  underlay: {host: h2", 9, "the lab uses this name", ""),
    ("  b: {host: h2, ", "  b: {", 9, "needs a host", "h1, h2"),
    ("from: a, to: [b, c]", "from: a, to: [b, d]", 12, "'d'", "allowed: a, b, c"),
    ("from: a, to: [b, c]", "from: a, to: a", 12, "the same container", ""),
    ("protocol: ping}", "protocol: pin}", 12, "'pin'", "did you mean 'ping'?"),
    ("protocol: ping}", "verdict: reject}", 12, "'reject'", "reach, drop"),
    ("protocol: ping}", "dropped: mac-spoof}", 12, "names what happens to a 'spoof'", "verdict: drop"),
    ("spoof: [mac, ip4]", "spoof: [mac, ip5]", 13, "'ip5'", "did you mean"),
    ("dropped: mac-spoof", "dropped: mac-spof", 13, "'mac-spof'", "did you mean 'mac-spoof'?"),
    ("name: lab", "name: a/b", 1, "not a name", ""),
    ("name: lab", "name: [x]", 1, "a text is expected", ""),
    ("hosts: [h1, h2]", "hosts: {h1: {mtu: 12}, h2: {}}", 2, "whole number from 1280 to 1500", ""),
    ("hosts: [h1, h2]", "hosts: {h1: {datapath: openflo}, h2: {}}", 2, "'openflo'", "did you mean 'openflow'?"),
    ("hosts: [h1, h2]", "hosts: {h1: {address4: 1.2.3.4}, h2: {}}", 2, "not in the underlay's prefix", ""),
    ("hosts: [h1, h2]", "hosts: {h1: {address4: 100.64.0.1}, h2: {}}", 2, "taken by the controller", ""),
    ("hosts: [h1, h2]", "hosts: {h1: {address6: 'fd00::1'}, h2: {}}", 2, "no prefix of this family", ""),
    ("hosts: [h1, h2]", "hosts: [h1, h2", 3, "not YAML", "missing"),
    ("hosts: [h1, h2]", "hosts: []", 2, "from 1 to 64 hosts", ""),
    ("name: lab", "underlay: {prefix4: 10.0.0.0/30}", 1, "fewer than the 128", ""),
    ("name: lab", "underlay: {prefix4: 'fd00::/64'}", 1, "not an IPv4 prefix", ""),
    ("b: {host: h2, ", "b: {host: h2, imge: host, ", 9, "'imge'", "did you mean 'image'?"),
    ("b: {host: h2, ", "b: {host: h2, image: {}, ", 9, "neither load nor import", "{load: web.tar}"),
    ("b: {host: h2, ", "b: {host: h2, image: {load: a, import: b}, ", 9, "both load and import", ""),
    ("b: {host: h2, ", "b: {host: h2, image: {loda: a}, ", 9, "'loda'", "did you mean 'load'?"),
    ("b: {host: h2, ", "b: {host: h2, image: '', ", 9, "is not an image", ""),
    ("b: {host: h2, ", "b: {host: h2, command: [''], ", 9, "cannot begin with an empty word", ""),
    ("b: {host: h2, ", 'b: {host: h2, command: [a, "b\\0"], ', 9, "zero byte", ""),
    ("b: {host: h2, ", "b: {host: h2, env: [A], ", 9, "'A' is not a variable", "write A=VALUE"),
    ("b: {host: h2, ", "b: {host: h2, env: {1A: x}, ", 9, "'1A' is not a variable's name", ""),
    ("b: {host: h2, ", "b: {host: h2, env: {A: [x]}, ", 9, "a text is expected", ""),
    ("b: {host: h2, ", "b: {host: h2, workdir: srv, ", 9, "'srv' is not an absolute path", ""),
    ("b: {host: h2, ", "b: {host: h2, memory: 5M, ", 9, "from 6M to 1024T", "not even a process starts"),
    ("b: {host: h2, ", "b: {host: h2, memory: 9999T, ", 9, "from 6M to 1024T", "no limit"),
    ("b: {host: h2, ", "b: {host: h2, memory: 64 MX, ", 9, "'64 MX' is not a size: write 64k", ""),
    ("b: {host: h2, ", "b: {host: h2, cpus: 0, ", 9, "not a number of processors from 0.01 to 4096", "write 0.5"),
    ("b: {host: h2, ", "b: {host: h2, cpus: .nan, ", 9, "not a number of processors", ""),
    ("b: {host: h2, ", "b: {host: h2, pids: 0, ", 9, "whole number from 1 to 4194304", ""),
    ("b: {host: h2, ", "b: {host: h2, read_only: maybe, ", 9, "neither true nor false", ""),
    ("b: {host: h2, ", "b: {host: h2, restart: allways, ", 9, "'allways'", "did you mean 'always'?"),
    ("b: {host: h2, ", "b: {host: h2, volumes: data, ", 9, "'data' is not a volume", "SOURCE:/TARGET"),
    ("b: {host: h2, ", "b: {host: h2, volumes: 'data:srv', ", 9, "'srv' is not an absolute path", ""),
    ("b: {host: h2, ", "b: {host: h2, volumes: 'data:/srv:rx', ", 9, "no mode 'rx'", "did you mean"),
    ("b: {host: h2, ", "b: {host: h2, volumes: '.d:/srv', ", 9, "neither a path nor a volume's name", "write ./"),
    ("b: {host: h2, ", "b: {host: h2, volumes: ['d:/srv', 'e:/srv'], ", 9, "at /srv already", ""),
    ("b: {host: h2, ", "b: {host: h2, volumes: {source: d}, ", 9, "needs a target", ""),
    ("b: {host: h2, ", "b: {host: h2, volumes: {target: /d}, ", 9, "has a source or is a tmpfs", ""),
    ("b: {host: h2, ", "b: {host: h2, volumes: {target: /d, tmpfs: lots}, ", 9, "'lots' is not a size", ""),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "line", "says", "hints"), MISTAKES)
def test_a_mistake_is_answered_with_file_line_and_what_is_allowed(
    before: str, after: str, line: int, says: str, hints: str
) -> None:
    assert before in GOOD
    error = refusal(GOOD.replace(before, after, 1))
    assert error.facts["line"] == line, str(error)
    assert error.message.startswith(f"f.yaml:{line}: ")
    assert says in error.message
    assert hints in str(error)
    assert "\n" not in str(error)


def workload(text: str) -> Workload:
    """What is made of the keys of one container."""
    return parse_topology(f"hosts: h1\ncontainers:\n  c: {{{text}}}\n", "f.yaml").containers[0].workload


def test_a_container_that_says_nothing_has_the_hosts_programs_and_no_limits() -> None:
    assert workload("") == workload("image: host") == Workload()


def test_images_are_loaded_imported_or_found_out() -> None:
    assert workload("image: ./web.tar").image == ImageSource(path="./web.tar", name="", root=None, line=3)
    assert workload("image: {load: a/web.tar.zst, name: 'web:1'}").image == ImageSource(
        path="a/web.tar.zst", name="web:1", root=False, line=3
    )
    assert workload("image: {import: rootfs}").image == ImageSource(path="rootfs", name="", root=True, line=3)


def test_limits_environment_and_volumes() -> None:
    limited = workload("memory: 1.5G, cpus: 0.5, pids: 20, user: 'nobody:33', workdir: /srv, restart: on-failure")
    assert (limited.memory_bytes, limited.cpus, limited.pids) == (3 << 29, 0.5, 20)
    assert (limited.user, limited.workdir, limited.restart) == ("nobody:33", "/srv", Restart.ON_FAILURE)
    assert workload("env: {A: 1, B: 'x=y', C: }").env == ("A=1", "B=x=y", "C=")
    assert workload("env: [A=1, B=]").env == workload("env: {A: 1, B: ''}").env == ("A=1", "B=")
    assert workload("command: [sh, -c, 'echo $A']").command == ("sh", "-c", "echo $A")
    assert workload("command: ls").command == ("ls",)
    mounts = workload("volumes: ['data:/data', './x:/x:ro', {tmpfs: 8M, target: /t}, {source: /y, target: /y}]").mounts
    assert mounts == (
        MountSpec(kind=MountKind.VOLUME, source="data", target="/data"),
        MountSpec(kind=MountKind.BIND, source="./x", target="/x", read_only=True),
        MountSpec(kind=MountKind.TMPFS, target="/t", size_bytes=8 << 20),
        MountSpec(kind=MountKind.BIND, source="/y", target="/y"),
    )
    bold = workload("read_only: true, init: yes, cap_add: NET_ADMIN, cap_drop: [CHOWN, KILL]")
    assert (bold.read_only, bold.init, bold.cap_add, bold.cap_drop) == (True, True, ("NET_ADMIN",), ("CHOWN", "KILL"))


def test_equal_static_addresses_in_one_network_are_refused_in_two_tenants_not() -> None:
    def with_b(network: str) -> str:
        mine = f"b: {{host: h2, networks: {{network: {network}, ip: 10.1.0.11}}}}"
        return GOOD.replace("b: {host: h2, networks: [blue/web]}", mine).partition("expect:")[0]

    assert "a's already" in refusal(with_b("blue/web")).message
    assert parse_topology(with_b("red/web")).containers[1].attachments[0].addresses == ("10.1.0.11",)


def test_an_expectation_without_a_common_family_is_refused() -> None:
    text = "hosts: h1\nnetworks: {f: {subnets: 10.1.0.0/24}, s: {subnets: 'fd00::/64'}}\n"
    text += "containers: {a: {networks: f}, b: {networks: s}}\nexpect:\n- {from: a, to: b, protocol: ping}\n"
    error = refusal(text)
    assert error.facts["line"] == 5
    assert "no addresses of one family" in error.message


def test_missing_unreadable_large_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(HawseError) as caught:
        load_topology(str(tmp_path / "none.yaml"))
    assert caught.value.kind is Kind.NOT_FOUND
    large, binary, empty = tmp_path / "large.yaml", tmp_path / "binary.yaml", tmp_path / "empty.yaml"
    large.write_bytes(b"#" * ((1 << 20) + 1))
    binary.write_bytes(b"name: x\n\xff\xfe")
    empty.write_text("# nothing\n")
    for path, says in ((large, "larger"), (binary, "binary.yaml:2:"), (empty, "empty"), (tmp_path, "cannot be read")):
        with pytest.raises(HawseError, match=says):
            load_topology(str(path))


def outcome(text: str) -> HawseError | None:
    try:
        parse_topology(text, "f.yaml")
    except HawseError as error:
        return error
    return None


@given(st.text(alphabet=string.printable, max_size=200))
def test_any_text_is_parsed_or_refused_with_a_place(text: str) -> None:
    error = outcome(text)
    assert error is None or (error.kind is Kind.INVALID and error.message.startswith("f.yaml:"))


def _documents() -> st.SearchStrategy[object]:
    keys = st.sampled_from([
        "name", "hosts", "networks", "containers", "expect", "h1", "mtu", "ip", "host", "from", "image", "env",
        "memory", "volumes", "load", "target", "tmpfs",
    ])  # fmt: skip
    leaves = st.sampled_from(["h1", "web", "10.1.0.0/24", "auto", 5, True, None, "a", "ping", "a:/b", "64M", "A=1"])
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=20
    )


@given(st.dictionaries(st.sampled_from(["hosts", "networks", "containers", "expect", "tenants"]), _documents()))
def test_any_document_is_parsed_or_refused_with_a_place(document: dict[str, object]) -> None:
    error = outcome(yaml.safe_dump(document))
    assert error is None or (error.kind is Kind.INVALID and error.message.startswith("f.yaml:"))
