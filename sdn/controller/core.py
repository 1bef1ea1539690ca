"""The controller's core: requests in, transactions out, and what follows from them for every host.

No socket, no clock and no chance of its own: the store, the clock and the source of random bits are arguments, and
the transport (`HostStream`) is bytes in and bytes out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from sdn.controller.events import Event
from sdn.controller.options import Options
from sdn.controller.session import HostStream
from sdn.controller.specs import NetworkSpec, SubnetSpec, TenantSpec
from sdn.controller.state import State, SubnetUsage
from sdn.controller.status import HostState, Status
from sdn.model.ids import HostId, Revision
from sdn.model.resources import Endpoint, Host, Network, Tenant
from sdn.store.interface import Store


class Core:
    """One per controller process. Every method raises HawseError only; references are names, `tenant/name` or ids."""

    state: State
    """The decoded copy, as of `revision`. Read it; only the core changes it."""

    @property
    def revision(self) -> Revision:
        """The revision of the last transaction."""

    @classmethod
    async def start(
        cls,
        store: Store,
        *,
        clock: Callable[[], float],
        random_bits: Callable[[int], int],
        options: Options,
    ) -> Core:
        """Load the state, make tenant `default` if absent, finish sequences that were cut short.

        `clock`: seconds since the epoch; `random_bits`: n -> n random bits. The store stays the caller's to close,
        after `close`.
        """

    async def close(self) -> None:
        """End every stream and every wait. Calling it twice is fine."""

    # --- tenants ---

    async def create_tenant(self, spec: TenantSpec, actor: str) -> tuple[Tenant, Revision]:
        """Raises: INVALID; CONFLICT when the name is taken."""

    async def put_tenant(
        self, reference: str, spec: TenantSpec, if_match: Revision | None, actor: str
    ) -> tuple[Tenant, Revision, bool]:
        """Make it so: (tenant, its revision, whether it was created). See `put_network`."""

    async def update_tenant(
        self, reference: str, labels: dict[str, str], if_match: Revision | None, actor: str
    ) -> tuple[Tenant, Revision]:
        """Replace the labels. Raises: NOT_FOUND; CONFLICT when `if_match` is not its revision."""

    async def delete_tenant(self, reference: str, actor: str) -> tuple[Tenant | None, Revision]:
        """Absent is fine (None). Raises: CONFLICT while it has networks, and for tenant `default`."""

    # --- networks ---

    async def create_network(self, spec: NetworkSpec, actor: str) -> tuple[Network, Revision]:
        """Raises: INVALID; NOT_FOUND (tenant); CONFLICT (name, overlap); EXHAUSTED (pools, VNIs)."""

    async def put_network(
        self, reference: str, spec: NetworkSpec, if_match: Revision | None, actor: str
    ) -> tuple[Network, Revision, bool]:
        """Make it so: (network, its revision, whether it was created).

        Absent: created. Equal: nothing is written. Different: CONFLICT with `facts.difference`, unless `if_match` is
        its revision: then labels are replaced and subnets added; what else differs is a CONFLICT still.
        """

    async def add_subnet(self, reference: str, spec: SubnetSpec, actor: str) -> tuple[Network, Revision]:
        """Add a subnet to a live network; its endpoints keep their addresses. The same again is fine."""

    async def delete_network(self, reference: str, actor: str) -> tuple[Network | None, Revision]:
        """Absent is fine (None). Raises: CONFLICT while it has endpoints, naming them."""

    def usage(self, network: Network) -> list[SubnetUsage]:
        """How full each subnet is, in the network's order."""

    # --- hosts and endpoints ---

    async def create_host(self, name: str, labels: dict[str, str], actor: str) -> tuple[Host, Revision]:
        """A host that may now be given a credential and connect. Raises: INVALID; CONFLICT when the name is taken."""

    async def forget_host(self, reference: str, force: bool, actor: str) -> tuple[Host | None, Revision]:
        """Release its endpoints and remove it. Absent is fine. Raises: CONFLICT while connected unless `force`."""

    async def mint_credential(self, reference: str, actor: str) -> str:
        """A new secret of the host, which voids the one before; only its hash is kept."""

    def authenticate(self, host: HostId, secret: str) -> Host:
        """The host whose secret this is. Raises: DENIED."""

    async def delete_endpoint(self, reference: str, actor: str) -> tuple[Endpoint | None, Revision]:
        """Forced release. Absent is fine (None)."""

    # --- streams ---

    def connect(self, host: HostId) -> HostStream:
        """A new conversation with an authenticated host. Its hello supersedes the session before."""

    async def query(self, host: HostId, what: str, timeout_s: float) -> object:
        """Ask a connected agent. Raises: UNAVAILABLE (not connected, too slow); what the agent answered with."""

    # --- status and events ---

    def status(self) -> Status:
        """Every host, by name: connected, the revision it has attempted, its failures."""

    async def wait_settled(self, revision: Revision, timeout_s: float) -> list[HostState]:
        """Wait until every host concerned by `revision` has attempted it, or the time is up; the table of them.

        `settled` is: every state is `applied` or `failed`.
        """

    def events(self, since: Revision, number: int = -1, follow: bool = True) -> AsyncIterator[Event]:
        """Events after (since, number), oldest first, then, with `follow`, what happens, for ever.

        Raises (at the first step): NOT_FOUND (CompactedError) where the log no longer reaches back to `since`.
        """
