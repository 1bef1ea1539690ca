"""How a lab is: its daemons and containers, from the kernel; their addresses, from its controller."""

from __future__ import annotations

from typing import Any

from sdn.client.client import Client
from sdn.model.errors import HawseError, not_found
from topologies import processes
from topologies.record import CONTROLLER, Directory, Process, Record

REST_TIMEOUT_S = 5.0


def lab_status(directory: Directory) -> dict[str, Any]:
    """`{"name", "id", "daemons": […], "containers": […], "problem"}`. Raises: NOT_FOUND (no record)."""
    record = directory.read()
    if record is None:
        raise not_found(f"the lab {directory.id} has no record: a crash left it", f"hawse lab down {directory.id}")
    interfaces, problem = _interfaces(directory)
    hosts = _hosts_of(directory, record)
    return {
        "name": record.name,
        "id": directory.id,
        "daemons": [
            {"name": name, "daemon": daemon, **_process(record.processes.get(name))}
            for name, daemon in ((CONTROLLER, "controller"), *((host, "agent") for host in record.hosts))
        ],
        "containers": [
            {
                "name": name,
                "host": hosts.get(name, ""),
                **_process(record.processes.get(name)),
                "interfaces": interfaces.get((hosts.get(name, ""), name), []),
            }
            for name in record.containers
        ],
        "problem": problem,
    }


def _process(process: Process | None) -> dict[str, Any]:
    alive = process is not None and processes.is_alive(process)
    return {
        "pid": process.pid if process else None,
        "state": "running" if alive else "gone",
        "resident_bytes": processes.resident_bytes(process) if process and alive else 0,
        "uptime_s": round(processes.uptime_s(process), 1) if process and alive else 0.0,
    }


def _hosts_of(directory: Directory, record: Record) -> dict[str, str]:
    import json

    found: dict[str, str] = {}
    for host in record.hosts:
        try:
            names = json.loads((directory.root(host).run / "containers.json").read_bytes())
        except (OSError, ValueError):
            continue
        found.update(dict.fromkeys(names, host))
    return found


def _interfaces(directory: Directory) -> tuple[dict[tuple[str, str], list[dict[str, Any]]], str]:
    """By (host, container); and why they are not known, if so."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    try:
        for item in Client(directory.controller_url, timeout_s=REST_TIMEOUT_S).items("/v1/endpoints"):
            found.setdefault((item["host_name"], item["container"]), []).append(
                {
                    "network": f"{item['tenant_name']}/{item['network_name']}",
                    "ifname": item["ifname"],
                    "mac": item["mac"],
                    "addresses": item["addresses"],
                }
            )
    except HawseError as error:
        return {}, error.message
    for interfaces in found.values():
        interfaces.sort(key=lambda interface: str(interface["ifname"]))
    return found, ""
