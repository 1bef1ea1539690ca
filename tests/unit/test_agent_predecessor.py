"""Which datapath has wired a host: another one is refused while containers hang on it, and finds nothing of it then."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest

from plugin.agent.predecessor import Choice, Predecessor
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.resources import Datapath as DatapathName
from sdn.reconcile.datapath import Datapath, LocalPort
from sdn.service.roots import Root

BRIDGE = Choice(DatapathName.BRIDGE)
SWITCH = Choice(DatapathName.OPENFLOW, Path("/run/ovs/db.sock"))
OTHER = Choice(DatapathName.OPENFLOW)
PORT = LocalPort("e1", "t1", "c1", "eth0")


@dataclasses.dataclass
class Host:
    """What each datapath has wired; `away`: those that cannot be opened."""

    root: Root
    wired: dict[Choice, list[LocalPort]] = dataclasses.field(default_factory=dict)
    away: set[Choice] = dataclasses.field(default_factory=set)
    deeds: list[tuple[str, Choice]] = dataclasses.field(default_factory=list)

    def open(self, choice: Choice) -> Datapath:
        """See registry.make."""
        if choice in self.away:
            raise unavailable("Open vSwitch does not answer", "start it")
        self.deeds.append(("open", choice))
        return cast(Datapath, Wired(self, choice))

    def predecessor(self) -> Predecessor:
        """As a new process has it."""
        return Predecessor(self.root, self.open)


@dataclasses.dataclass
class Wired:
    """As much of a datapath as is asked."""

    host: Host
    choice: Choice

    def read(self) -> dict[Any, Any]:
        """All."""
        return {("port", port.endpoint): port for port in self.host.wired.get(self.choice, ())}

    def local_ports(self, objects: dict[Any, Any]) -> list[LocalPort]:
        """All."""
        return list(objects.values())

    def purge(self) -> int:
        """Counts tenants."""
        self.host.deeds.append(("purge", self.choice))
        return len({port.tenant for port in self.host.wired.pop(self.choice, ())})

    def close(self) -> None:
        """Noted."""
        self.host.deeds.append(("close", self.choice))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(Root(tmp_path, tmp_path))


def test_the_same_again_looks_at_nothing(host: Host) -> None:
    for _ in range(2):
        host.predecessor().succeed(SWITCH).close()
    assert host.deeds == [("open", SWITCH), ("close", SWITCH)] * 2
    assert host.predecessor().read() == SWITCH


@pytest.mark.parametrize(("former", "choice"), [(BRIDGE, SWITCH), (SWITCH, BRIDGE), (SWITCH, OTHER)])
def test_another_is_refused_while_containers_hang_on_the_former(host: Host, former: Choice, choice: Choice) -> None:
    host.predecessor().succeed(former)
    host.wired[former] = [PORT]
    host.deeds.clear()
    with pytest.raises(HawseError) as caught:
        host.predecessor().succeed(choice)
    assert caught.value.kind is Kind.CONFLICT
    assert former.words() in caught.value.hint
    assert caught.value.facts == {"containers": ["c1"]}
    assert host.deeds == [("open", former), ("close", former)]
    assert host.predecessor().read() == former


@pytest.mark.parametrize(("former", "choice"), [(BRIDGE, SWITCH), (SWITCH, BRIDGE)])
def test_of_the_former_on_which_nobody_hangs_nothing_is_left(host: Host, former: Choice, choice: Choice) -> None:
    host.predecessor().succeed(former)
    host.deeds.clear()
    host.predecessor().succeed(choice)
    assert host.deeds == [("open", former), ("purge", former), ("close", former), ("open", choice)]
    assert host.predecessor().read() == choice


def test_a_former_one_that_is_away_is_named_and_the_way_out(host: Host) -> None:
    host.predecessor().succeed(SWITCH)
    host.away.add(SWITCH)
    with pytest.raises(HawseError, match="wired by '--datapath openflow") as caught:
        host.predecessor().succeed(BRIDGE)
    assert str(host.root.wired_file) in caught.value.hint
    assert host.predecessor().read() == SWITCH


def test_one_that_cannot_begin_is_not_remembered(host: Host) -> None:
    host.predecessor().succeed(BRIDGE)
    host.away.add(SWITCH)
    with pytest.raises(HawseError):
        host.predecessor().succeed(SWITCH)
    host.predecessor().succeed(BRIDGE)


def test_cleaning_takes_both(host: Host) -> None:
    host.predecessor().succeed(SWITCH)
    host.wired = {SWITCH: [PORT], BRIDGE: [PORT]}
    assert host.predecessor().clean(BRIDGE) == 2
    assert host.wired == {}
    assert host.predecessor().read() is None
    assert host.predecessor().clean(BRIDGE) == 0


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"datapath": "token-ring", "ovsdb": ""}', '{"datapath": "bridge"']
)
def test_a_damaged_file_is_as_none(host: Host, content: str) -> None:
    host.root.wired_file.write_text(content)
    assert host.predecessor().read() is None
    host.predecessor().succeed(BRIDGE)
    assert host.predecessor().read() == BRIDGE
