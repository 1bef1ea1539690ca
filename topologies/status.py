"""How a lab is: its daemons, from the kernel; its containers, from their runtimes; addresses, from its controller."""

from __future__ import annotations

import time
from typing import Any

from sdn.client.client import Client
from sdn.model.errors import HawseError, not_found
from sdn.service.contract_client import request
from topologies import processes
from topologies.containers import ASK_TIMEOUT_S, containers_of
from topologies.record import (
    CONTROLLER,
    OVS_VSWITCHD,
    OVSDB_SERVER,
    RUNTIME,
    Directory,
    Process,
    Record,
    runtime_of,
    vswitch_of,
)
from topologies.switches import endpoint_names
from topologies.values import Datapath

REST_TIMEOUT_S = 5.0


def lab_status(directory: Directory) -> dict[str, Any]:
    """`{"name", "id", "daemons": […], "containers": […], "problems"}`. Raises: NOT_FOUND (no record)."""
    record = directory.read()
    if record is None:
        raise not_found(f"the lab {directory.id} has no record: a crash left it", f"hawse lab down {directory.id}")
    interfaces, problem = _interfaces(directory)
    problems = [f"addresses are not known: {problem}"] if problem else []
    containers: list[dict[str, Any]] = []
    for host in record.hosts:
        try:
            found = {info["name"]: info for info in containers_of(directory.root(host))}
        except HawseError as error:
            problems.append(f"the containers of {host} are not known: {error.message}")
            containers += [_container(host, name, None) for name, where in record.containers.items() if where == host]
            continue
        planned = [name for name, where in record.containers.items() if where == host]
        for name in dict.fromkeys([*planned, *found]):  # those that were made by hand, too
            info = found.get(name, {"state": "gone"})
            containers.append(
                {
                    **_container(host, name, info),
                    "interfaces": interfaces.get((host, info.get("id", "")), []) + interfaces.get((host, name), []),
                }
            )
    return {
        "name": record.name,
        "id": directory.id,
        "daemons": _daemons(directory, record),
        "containers": containers,
        "problems": problems,
    }


def _daemons(directory: Directory, record: Record) -> list[dict[str, Any]]:
    rows = [{"name": CONTROLLER, "daemon": "controller", **_process(record.processes.get(CONTROLLER))}]
    for host in record.hosts:
        datapath = Datapath(record.datapaths.get(host, Datapath.BRIDGE))
        if datapath.has_agent:
            rows.append({"name": host, "daemon": "agent", **_process(record.processes.get(host))})
        rows += [
            {"name": host, "daemon": daemon, **_process(record.processes.get(vswitch_of(host, daemon)))}
            for daemon in ((OVSDB_SERVER, OVS_VSWITCHD) if datapath.has_vswitch else ())
        ]
        rows.append({"name": host, "daemon": RUNTIME, **_process(record.processes.get(runtime_of(host)))})
        rows.append({"name": host, "daemon": "supervisor", **_process(_supervisor(directory, host))})
    return rows


def _supervisor(directory: Directory, host: str) -> Process | None:
    """As the runtime knows it."""
    try:
        status = request(directory.root(host).runtime_socket, {"verb": "STATUS"}, timeout_s=ASK_TIMEOUT_S)
    except HawseError:
        return None
    return processes.identify(int(status["supervisor_pid"]))


def _container(host: str, name: str, info: dict[str, Any] | None) -> dict[str, Any]:
    """`info` None: its runtime does not answer."""
    known = info or {"state": "unknown"}
    running = known["state"] == "running"
    return {
        "name": name,
        "host": host,
        "id": known.get("id"),
        "state": known["state"],
        "image": known["spec"]["image"] if "spec" in known else None,
        "pid": known.get("pid") or None,
        "exit_code": known["exit_code"] if known["state"] == "exited" else None,
        "uptime_s": round(time.time() - known["started_s"], 1) if running else 0.0,
        "interfaces": [],
    }


def _process(process: Process | None) -> dict[str, Any]:
    alive = process is not None and processes.is_alive(process)
    return {
        "pid": process.pid if process else None,
        "state": "running" if alive else "gone",
        "resident_bytes": processes.resident_bytes(process) if process and alive else 0,
        "uptime_s": round(processes.uptime_s(process), 1) if process and alive else 0.0,
    }


def _interfaces(directory: Directory) -> tuple[dict[tuple[str, str], list[dict[str, Any]]], str]:
    """By (host, container); and why they are not known, if so."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    try:
        for item in Client(directory.controller_url, timeout_s=REST_TIMEOUT_S).items("/v1/endpoints"):
            container, ifname = endpoint_names(item)
            found.setdefault((item["host_name"], container), []).append(
                {
                    "network": f"{item['tenant_name']}/{item['network_name']}",
                    "ifname": ifname,
                    "mac": item["mac"],
                    "addresses": item["addresses"],
                }
            )
    except HawseError as error:
        return {}, error.message
    for interfaces in found.values():
        interfaces.sort(key=lambda interface: str(interface["ifname"]))
    return found, ""
