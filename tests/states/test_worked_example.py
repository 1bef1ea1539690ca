"""ARCHITECTURE.md's worked example is what happens: one attach, from the client's bytes to the netlink batch.

A real core on a store in memory, a real agent's core and the real bridge datapath on a kernel; what passes between
them is written down and compared with the page. `python -m tests.states.test_worked_example` prints it anew.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from plugin.agent.core import AgentCore, Identity
from plugin.agent.facts import HostFacts
from plugin.agent.journal import Journal
from plugin.agent.sandboxes import KernelNamespaces
from plugin.kernel.netlink import NetlinkError, NetlinkSocket, Request
from sdn.controller.session import HostStream
from sdn.model.ids import HostId
from sdn.model.resources import Datapath as DatapathName
from sdn.model.resources import Endpoint
from sdn.model.stream import Attached, AttachRequest, Delta, Report, Settled, Sync, down_decoder, up_decoder
from sdn.reconcile.datapath import Operation
from sdn.service.contract import contract_handler
from sdn.service.framing import frame
from tests.conformance.bridge_site import BridgeSite
from tests.unit.controller_harness import Site

PAGE = Path(__file__).parents[2] / "ARCHITECTURE.md"
BEGIN, END = "<!-- worked example: kept true by tests/states/test_worked_example.py -->\n```text\n", "```\n<!-- end -->"
REQUEST = {"verb": "ADD", "client": "cli", "container": "c1", "ifname": "eth0", "network": "web"}
SHOWN = (Attached, AttachRequest, Delta, Report, Settled, Sync)


class Written:
    """What happened, in order; ids, cookies and indexes of one run replaced by what they are of."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.on = False
        self._names: dict[str, str] = {}

    def name(self, value: str, name: str) -> None:
        self._names[value] = name

    def say(self, text: str) -> None:
        if self.on:
            self.lines.append(text)

    def text(self) -> str:
        text = "\n".join(self.lines) + "\n"
        for value, name in sorted(self._names.items(), key=lambda item: -len(item[0])):
            text = text.replace(value, name)
        return text


class Pipe:
    """The agent's channel onto a host stream of the core; every message is written down."""

    def __init__(self, stream: HostStream, written: Written) -> None:
        self._stream = stream
        self._written = written

    async def send(self, message: bytes) -> None:
        self._show("agent -> controller", up_decoder.msgpack(message), len(message))
        await self._stream.receive(message)

    async def receive(self) -> bytes | None:
        message = await self._stream.outgoing()
        if message is not None:
            self._show("controller -> agent", down_decoder.msgpack(message), len(message))
        return message

    async def close(self) -> None:
        self._stream.closed()

    def _show(self, way: str, message: Any, size: int) -> None:
        if isinstance(message, SHOWN):
            self._written.say(f"{way}  {type(message).__name__.lower()} {shown(message)}")


def shown(message: Any) -> str:
    """A message's fields, on one line; resources by id."""
    if isinstance(message, Delta):
        puts = ", ".join(message.puts) or "-"
        return f"topic={message.topic} {message.previous} -> {message.revision} puts: {puts}"
    fields = msgspec.to_builtins(message)
    fields.pop("type", None)
    for key, value in fields.items():
        if isinstance(value, dict) and "id" in value:
            fields[key] = value["id"]
    return " ".join(f"{key}={json.dumps(value)}" for key, value in fields.items() if value not in ([], {}, "", None))


def netlink_line(request: Request) -> str:
    """One request as pyroute2 decodes it: the oracle of what was really sent."""
    header = (len(request.body) + 16).to_bytes(4, "little") + request.kind.to_bytes(2, "little")
    data = header + request.flags.to_bytes(2, "little") + bytes(8) + request.body
    (message,) = MarshalRtnl().parse(data)
    attributes = dict(message["attrs"])
    facts = [f"{name}={attributes[key]}" for key, name in NAMED.items() if key in attributes]
    if "IFLA_LINKINFO" in attributes:
        info = dict(attributes["IFLA_LINKINFO"]["attrs"])
        facts += [f"kind={info[key]}" for key in ("IFLA_INFO_KIND", "IFLA_INFO_SLAVE_KIND") if key in info]
        if info.get("IFLA_INFO_KIND") == "veth":
            peer = dict(dict(info["IFLA_INFO_DATA"]["attrs"])["VETH_INFO_PEER"]["attrs"])
            facts.append(f"peer={peer['IFLA_IFNAME']} {peer['IFLA_ADDRESS']} in the container")
        if info.get("IFLA_INFO_SLAVE_KIND"):
            facts.append("learning, flooding off")
    if message.get("flags", 0) & 1 and message["event"].endswith("LINK"):
        facts.append("up")
    return f"{message['event']} {' '.join(facts)}"


NAMED = {
    "IFLA_IFNAME": "name",
    "IFLA_MTU": "mtu",
    "IFLA_IFALIAS": "alias",
    "IFA_ADDRESS": "address",
    "NDA_DST": "address",
    "NDA_LLADDR": "mac",
}


def record(monkeypatch: pytest.MonkeyPatch, written: Written, datapath: Any) -> None:
    """Write down the operations, and every batch that goes to the kernel."""
    execute, write = NetlinkSocket.execute, datapath.write

    def executed(self: NetlinkSocket, requests: Sequence[Request]) -> list[NetlinkError | None]:
        written.say(f"kernel               one send of {len(requests)} requests, each acknowledged")
        for request in requests:
            written.say("                       " + netlink_line(request))
        return execute(self, requests)

    def wrote(operations: Sequence[Operation]) -> Any:
        written.say(f"datapath.write       {len(operations)} operations, by rank")
        for operation in operations:
            key = " ".join((operation.key[0], *operation.key[2:]))
            written.say(f"                       {operation.verb.value} {key}")
        return write(operations)

    monkeypatch.setattr(NetlinkSocket, "execute", executed)
    monkeypatch.setattr(datapath, "write", wrote)


async def attach(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """The second container of a network is attached on h1; h2 has the first."""
    written, kernel = Written(), BridgeSite()
    datapath = kernel.datapath()
    try:
        site = await Site().start()
        network = await site.network("web", "10.1.0.0/24")
        other = await site.agent("h2", 2)
        await other.attach("c0")
        host, _ = await site.core.create_host("h1", {}, "test")
        identity = Identity(HostId(host.id), "boot:1", "0.1.0", DatapathName.BRIDGE)
        loop = asyncio.get_running_loop()

        async def dial() -> Pipe:
            return Pipe(site.core.connect(host.id), written)

        agent = AgentCore(
            identity,
            HostFacts("192.0.2.1", None, 1500, ()),
            dial=dial,
            datapath=datapath,
            namespaces=KernelNamespaces(),
            journal=Journal.open(folder / "journal"),
            clock=loop,
            random=lambda: 0.5,
            settle_ms=2000,
        )
        await agent.start()
        running = asyncio.create_task(agent.run())
        await agent.first_contact()
        # The network is on h1 already, so that the example shows an attach and not a network's first day.
        serve = contract_handler(agent.attachments)
        await serve(json.dumps({**REQUEST, "container": "c9"}).encode(), kernel.container(endpoint_of(9)).fd)
        await other.take()
        await other.report()
        record(monkeypatch, written, datapath)
        payload = json.dumps(REQUEST).encode()
        container = kernel.container(endpoint_of(1))
        written.on = True
        written.say(f"client -> agent      {len(frame(payload))} bytes: {frame(payload)[:4].hex()} {payload.decode()}")
        written.say("                       and the container's namespace, a descriptor (SCM_RIGHTS)")
        asking = asyncio.ensure_future(serve(payload, container.fd))
        await other.take()
        while not asking.done():
            await other.report()
            await asyncio.sleep(0.01)
            await other.take()
        reply = json.loads(await asking)
        written.say(f"agent -> client      {json.dumps(reply)}")
        name_everything(written, site, reply["result"], str(network), host.id)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return written.text()
    finally:
        datapath.close()
        kernel.close()


def endpoint_of(number: int) -> Endpoint:
    """Only its sandbox matters: the container that `BridgeSite` makes for it."""
    fields: dict[str, Any] = dict.fromkeys(
        ("id", "host", "incarnation", "container", "ifname", "tenant", "network"), ""
    )
    return Endpoint(**fields, mac="", addresses=(), sandbox=number)


def name_everything(written: Written, site: Site, result: dict[str, Any], network: str, host: str) -> None:
    """What the ids of this run are of."""
    endpoint = result["endpoint"]
    written.name(f"hwv{endpoint[-12:]}", "hwvENDPOINT")
    written.name(endpoint, "ENDPOINT")
    written.name(network, "NETWORK")
    written.name(host, "H1")
    written.name(str(site.core.state.endpoints[endpoint].tenant), "TENANT")
    written.name(str(result["sandbox"]), "COOKIE")


@pytest.mark.root
async def test_the_page_tells_what_happens(monkeypatch, tmp_path):
    happened = await attach(monkeypatch, tmp_path)
    page = PAGE.read_text()
    match = re.search(re.escape(BEGIN) + "(.*?)" + re.escape(END), page, re.DOTALL)
    assert match, f"{PAGE.name} has no worked example between its markers"
    assert match[1] == happened


def main() -> None:
    """Put what happens into the page."""
    import tempfile

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        happened = asyncio.run(attach(patch, Path(folder)))
    page = PAGE.read_text()
    new = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: BEGIN + happened + END, page, flags=re.DOTALL)
    PAGE.write_text(new)
    print(happened)


if __name__ == "__main__":
    main()
