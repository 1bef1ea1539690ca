"""The store's keys. Each rule of uniqueness is a key that is created with compare 0, so no race can break it.

tenant/ID · network/ID · host/ID · endpoint/ID           the resources (msgpack of sdn.model.resources)
name/KIND/[TENANT/]NAME                                  -> id (of a token, too)
attachment/HOST/CONTAINER/IFNAME                         -> endpoint id
allocation/NETWORK/ADDRESS · mac/NETWORK/MAC             -> Allocation, endpoint id (gateways and reserved addresses
                                                         need none: who allocates compares the network's revision)
vni/VNI                                                  -> VniRecord
subnets/TENANT                                           touched by every change of a tenant's subnets
switch/HOST · datapath/DATAPATH-ID                       -> Switch, host id
port/HOST/PORT                                           -> endpoint id, of a switch: one endpoint a port
credential/HOST                                          -> hash of the host's secret
token/ID                                                 -> TokenRecord
trust/HOST                                               -> HostTrust
forget/HOST                                              a sequence of transactions that is not finished yet
cursor/vni                                               -> the VNI that was taken last
"""

from __future__ import annotations

from sdn.controller.principal import Role
from sdn.model.ids import EndpointId, HostId, NetworkId, TenantId
from sdn.model.resources import Value
from sdn.model.token import TokenKind

VNI_CURSOR = "cursor/vni"
LOADED = (
    "tenant/",
    "network/",
    "host/",
    "switch/",
    "endpoint/",
    "vni/",
    "subnets/",
    "credential/",
    "trust/",
    "forget/",
    "token/",
    "cursor/",
)
"""What the decoded copy is made of; the other keys are indexes that say nothing new."""


class VniRecord(Value, frozen=True, kw_only=True):
    """Who has, or had, a VNI. `hosts`: every host that ever had the network.

    With `removed` the network is gone, and the VNI is held back until each of the hosts has applied the revision at
    which this record was modified, without a failure, or was forgotten: a host that still has the network must not
    inject into another tenant's.
    """

    network: NetworkId
    hosts: tuple[HostId, ...] = ()
    removed: bool = False


class HostTrust(Value, frozen=True, kw_only=True):
    """What a host has been given beside its secret.

    `authorities`: fingerprints of those that it has said it trusts, the newest first; `offered`: hashes of secrets that
    it may have by now, the oldest first, each as good as that in `credential/HOST` until it acknowledges a later one.
    """

    authorities: tuple[str, ...] = ()
    offered: tuple[bytes, ...] = ()


class TokenRecord(Value, frozen=True, kw_only=True):
    """What is kept of a token: all but its secret. Times are seconds since the epoch, 0: never.

    A join token is used once (`used_by`: the host's name then); a user token has a role, and a `tenant` where the role
    is tenant's. What can be used no more is kept for a while, so that who tries is told why. `secret_sha256` is of the
    whole word.
    """

    id: str
    kind: TokenKind
    name: str = ""
    role: Role = Role.ADMIN
    tenant: TenantId | None = None
    secret_sha256: bytes
    created_s: float
    created_by: str
    expires_s: float = 0.0
    used_s: float = 0.0
    used_by: str = ""
    revoked_s: float = 0.0


def tenant(id_: TenantId) -> str:
    """`tenant/ID`."""
    return f"tenant/{id_}"


def network(id_: NetworkId) -> str:
    """`network/ID`."""
    return f"network/{id_}"


def host(id_: HostId) -> str:
    """`host/ID`."""
    return f"host/{id_}"


def switch(id_: HostId) -> str:
    """`switch/HOST`."""
    return f"switch/{id_}"


def datapath(datapath_id: str) -> str:
    """`datapath/DATAPATH-ID`."""
    return f"datapath/{datapath_id}"


def port(host_id: HostId, name: str) -> str:
    """`port/HOST/PORT`."""
    return f"port/{host_id}/{name}"


def endpoint(id_: EndpointId) -> str:
    """`endpoint/ID`."""
    return f"endpoint/{id_}"


def tenant_name(name: str) -> str:
    """`name/tenant/NAME`."""
    return f"name/tenant/{name}"


def host_name(name: str) -> str:
    """`name/host/NAME`."""
    return f"name/host/{name}"


def network_name(tenant_id: TenantId, name: str) -> str:
    """`name/network/TENANT/NAME`."""
    return f"name/network/{tenant_id}/{name}"


def endpoint_name(tenant_id: TenantId, name: str) -> str:
    """`name/endpoint/TENANT/NAME`."""
    return f"name/endpoint/{tenant_id}/{name}"


def attachment(host_id: HostId, container: str, ifname: str) -> str:
    """`attachment/HOST/CONTAINER/IFNAME`."""
    return f"attachment/{host_id}/{container}/{ifname}"


def allocation(network_id: NetworkId, address: str) -> str:
    """`allocation/NETWORK/ADDRESS`; the address without prefix length."""
    return f"allocation/{network_id}/{address}"


def mac(network_id: NetworkId, mac_address: str) -> str:
    """`mac/NETWORK/MAC`."""
    return f"mac/{network_id}/{mac_address}"


def vni(number: int) -> str:
    """`vni/VNI`."""
    return f"vni/{number}"


def subnets(tenant_id: TenantId) -> str:
    """`subnets/TENANT`."""
    return f"subnets/{tenant_id}"


def credential(host_id: HostId) -> str:
    """`credential/HOST`."""
    return f"credential/{host_id}"


def trust(host_id: HostId) -> str:
    """`trust/HOST`."""
    return f"trust/{host_id}"


def forget(host_id: HostId) -> str:
    """`forget/HOST`."""
    return f"forget/{host_id}"


def token(id_: str) -> str:
    """`token/ID`."""
    return f"token/{id_}"


def token_name(name: str) -> str:
    """`name/token/NAME`."""
    return f"name/token/{name}"
