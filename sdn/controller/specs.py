"""What a user writes to make or change a resource: the bodies of the REST requests.

Text is as the user wrote it; the plans parse it into canonical model values and refuse what is wrong.
"""

from __future__ import annotations

import msgspec

from sdn.controller.principal import Role
from sdn.model.resources import MTU_DEFAULT_BYTES, TUNNEL_PORT_DEFAULT
from sdn.model.token import TokenKind


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of every body. Unlike a value between processes, an unknown field is a typo and is refused."""


class TenantSpec(Spec, frozen=True, kw_only=True):
    """A tenant. In a PUT the name may be left out: the path has it."""

    name: str = ""
    labels: dict[str, str] = {}


class SubnetSpec(Spec, frozen=True, kw_only=True):
    """One prefix. `gateway` is the first usable address unless given; `range` is `first-last` or a prefix."""

    prefix: str
    gateway: str | None = None
    range: str | None = None
    reserved: tuple[str, ...] = ()


class NetworkSpec(Spec, frozen=True, kw_only=True):
    """A network. Without `subnets` they are chosen: one per family asked for. `mtu_bytes` None: the default.

    In a PUT name and tenant may be left out: the path has them. `tenant` is a reference, else tenant `default`.
    """

    name: str = ""
    tenant: str = ""
    subnets: tuple[SubnetSpec, ...] = ()
    ipv4: bool = True
    ipv6: bool = False
    mtu_bytes: int | None = None
    labels: dict[str, str] = {}


class HostSpec(Spec, frozen=True, kw_only=True):
    """A host that is about to join."""

    name: str
    labels: dict[str, str] = {}


class SwitchSpec(Spec, frozen=True, kw_only=True):
    """A switch without an agent. `datapath_id`: 16 hex digits; `tunnel_port`: a name, or a number in text.

    At least one VTEP is needed; `mtu_bytes` is the underlay's there.
    """

    name: str
    datapath_id: str
    vtep4: str | None = None
    vtep6: str | None = None
    tunnel_port: str = TUNNEL_PORT_DEFAULT
    mtu_bytes: int = MTU_DEFAULT_BYTES
    labels: dict[str, str] = {}


class BindSpec(Spec, frozen=True, kw_only=True):
    """What hangs on a port of a switch. Addresses and MAC are chosen unless they are given.

    `port`: a name, or a number in text; `name`: the endpoint's.
    """

    port: str
    network: str
    addresses: tuple[str, ...] = ()
    mac: str = ""
    name: str = ""
    labels: dict[str, str] = {}


class JoinSpec(Spec, frozen=True, kw_only=True):
    """A machine that becomes a host. `token`: the word. VTEPs where they are known already; `version`: of its Hawse."""

    token: str
    name: str
    labels: dict[str, str] = {}
    vtep4: str | None = None
    vtep6: str | None = None
    version: str = ""


class TokenSpec(Spec, frozen=True, kw_only=True):
    """A token. A user token has a role, and with role tenant a tenant (a reference); a join token has neither.

    `ttl_s` None: an hour for a join token, no end for a user token (0 says the same).
    """

    kind: TokenKind = TokenKind.JOIN
    name: str = ""
    role: Role | None = None
    tenant: str = ""
    ttl_s: float | None = None
