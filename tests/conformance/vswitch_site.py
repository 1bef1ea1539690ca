"""A host with an Open vSwitch, its uplink on a segment, and the datapath's hold of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from plugin.datapath.openflow.ports import NewPort
from plugin.datapath.openflow.vswitch import Place, Vswitch
from sdn.model.ids import TenantId
from tests.conformance.vswitch_process import VswitchProcess, wait_until
from tests.packet.namespaces import TestNamespace

OWNER = "a test"
MTU_BYTES = 1550


class VswitchSite:
    """`here`: the host. `drifts`: what it was told of, in order; `news` is set with each."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()
        self.drifts: list[Sequence[TenantId] | None] = []
        self.news = threading.Event()
        with self._undo:
            self.process = VswitchProcess()
            self._undo.callback(self.process.close)
            self.here = self.process.here
            self.vswitch = self.held()
            self._undo = self._undo.pop_all()

    def held(self) -> Vswitch:
        """A hold of it, as an agent has one; let go of at the end."""
        vswitch = Vswitch(Place(self.process.socket, OWNER, self.here.fd))
        self._undo.callback(vswitch.close)
        vswitch.notify(self._drifted)
        return vswitch

    def _drifted(self, tenants: Sequence[TenantId] | None) -> None:
        self.drifts.append(tenants)
        self.news.set()

    def wait_drift(self) -> Sequence[TenantId] | None:
        """The next drift; fails when none is told."""
        assert self.news.wait(10), "nothing was told"
        self.news.clear()
        return self.drifts[-1]

    def uplink(self, segment: TestNamespace, name: str, *interfaces: str) -> None:
        """Connect the host to a segment's bridge `lan`, with addresses on `eth0`."""
        self.here.ip(f"link add eth0 mtu {MTU_BYTES} type veth peer name {name} netns {segment.name}\nlink set eth0 up")
        for interface in interfaces:
            self.here.ip(
                f"addr add {interface} dev eth0 nodad" if ":" in interface else f"addr add {interface} dev eth0"
            )
        segment.ip(f"link set {name} mtu {MTU_BYTES} master lan up")

    def veth(self, name: str) -> None:
        """A veth whose host end is called so."""
        self.here.ip(f"link add {name} type veth peer name p-{name}\nlink set {name} up\nlink set p-{name} up")

    def add(self, *names: str, tenant: str = "t1") -> dict[str, int]:
        """Ports of containers, and their numbers."""
        change = self.vswitch.change(
            add={name: NewPort({"hawse-tenant": tenant, "hawse-endpoint": name}) for name in names},
            remove=(), networks={},
        )  # fmt: skip
        assert change.wait() == {}
        return dict(change.numbers)

    def wait_intact(self) -> None:
        """Until nothing is wrong any more."""
        wait_until(self._is_intact, "everything is as it should be")

    def _is_intact(self) -> bool:
        try:
            return not self.vswitch.intact()
        except Exception:  # noqa: BLE001 - while it is away every question fails
            return False

    def close(self) -> None:
        """Remove everything."""
        self._undo.close()


@contextlib.contextmanager
def vswitch_site() -> Iterator[VswitchSite]:
    """One, removed whatever happens."""
    with contextlib.closing(VswitchSite()) as site:
        yield site


@contextlib.contextmanager
def segment() -> Iterator[TestNamespace]:
    """A switch that hosts are plugged into: the bridge `lan`."""
    with contextlib.closing(TestNamespace()) as made:
        made.ip(f"link add lan type bridge\nlink set lan mtu {MTU_BYTES} up")
        yield made
