"""`hawse support` and `hawse version`: what is told of a machine, and that nothing secret is."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdn.model.version import VERSION
from tests.e2e.machines import Machine, machines

pytestmark = pytest.mark.root
PASSWORD = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """One that serves, with a container that was given a secret."""
    with machines(1) as (one,):
        one.up()
        one.hawse("network", "create", "web", "--subnet", "10.1.0.0/24")
        one.hawse(
            "run", "-d", "--name", "db", "--network", "web", "--stop-signal", "KILL", "-e", f"DB_PASSWORD={PASSWORD}",
            "host", "sh", "-c", f"echo {PASSWORD}; sleep 1000",
        )  # fmt: skip
        yield one


def test_a_bundle_tells_much_and_no_secret(machine: Machine, tmp_path: Path):
    join = machine.token()
    user = machine.client.post("/v1/tokens", {"kind": "user", "role": "admin"}).body["word"]
    machine.client.post("/v1/hosts", {"name": "other"})
    credential = machine.client.post("/v1/hosts/other/credential")
    for name in ("agent", "machine"):  # as if a fault of ours had logged them
        with open(machine.root.logs / f"{name}.log", "a") as log:
            log.write(
                f"token={join} Authorization: Bearer {user} {credential.body['host']}:{credential.body['secret']}\n"
            )
    machine.client.delete("/v1/hosts/other")
    file = tmp_path / "bundle.tar.gz"
    assert "credentials, tokens and keys are not in it" in machine.hawse("support", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        parts = {entry.name.partition("/")[2]: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    identity = json.loads(machine.root.agent_file.read_bytes())
    keys = [line for path in machine.root.tls.rglob("*") if path.is_file() for line in private_lines(path.read_text())]
    assert keys
    for secret in (identity["secret"], join, user, credential.body["secret"], PASSWORD, *keys):
        holders = [name for name, content in parts.items() if secret.encode() in content]
        assert not holders, f"{secret[:12]}… is in {holders}"
    assert b"PRIVATE KEY" not in b"".join(parts.values())
    assert json.loads(parts["configuration/agent.json"])["host"] == identity["host"]
    assert json.loads(parts["controller/hosts.json"])[-1]["name"] == "m1"
    assert json.loads(parts["containers.json"])[0]["name"] == "db"
    assert json.loads(parts["doctor.json"])
    assert b"serving" in parts["logs/controller.log"]
    (tenant,) = {name.split("/")[1] for name in parts if name.startswith("network/t-")}
    assert b"vxlan" in parts[f"network/{tenant}/links.txt"]
    assert b"hawse" in parts[f"network/{tenant}/nftables.txt"]
    assert b"not collected" not in b"".join(content for name, content in parts.items() if name != "logs")


def private_lines(pem: str) -> list[str]:
    """Of the private keys in a PEM text, the lines that nobody may see."""
    return [
        line
        for block in pem.split("-----BEGIN ")
        if block.partition("-----")[0].endswith("PRIVATE KEY")
        for line in block.partition("-----END")[0].splitlines()[1:]
    ]


def test_a_bundle_of_a_machine_that_is_down_says_what_it_could_not_get(tmp_path: Path):
    with machines(1) as (one,):
        file = tmp_path / "bundle.tar.gz"
        one.hawse("support", str(file))
        with tarfile.open(file) as archive:
            status = archive.extractfile("bundle/controller/status.json")
            assert status is not None
            assert b"not collected: the controller is not running" in status.read()
        assert "cannot write" in one.refused("support", str(tmp_path / "nowhere" / "x.tar.gz"), code=7)


def test_the_version_of_every_daemon(machine: Machine):
    parts = {(part["part"], part["where"]): part["version"] for part in machine.json("version")}
    assert parts == {
        ("client", "here"): VERSION,
        ("controller", f"unix:{machine.root.controller_socket}"): VERSION,
        ("agent", "m1"): VERSION,
        ("runtime", "here"): VERSION,
        ("supervisor", "here"): VERSION,
    }
