"""Disks: what one has of a container when the power is cut (what was flushed, no more), and what a full one hinders."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runtime.daemon import starting
from runtime.daemon.records import FILE, Record
from sdn.model.container import ContainerSpec, Restart
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.runtime import (
    InspectRequest,
    PauseRequest,
    PsRequest,
    RemoveRequest,
    RunRequest,
    StartRequest,
    StopRequest,
    WaitRequest,
)
from tests.unit.runtime_fakes import FakeAgent, FakeSupervisor, World
from tests.unit.test_runtime_life import ask


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path, FakeSupervisor(), FakeAgent()).begin()
    yield made
    await made.close()


class Disk:
    """A file is there once its directory was flushed, with what was flushed of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: dict[int, bytes] = {}
        self.directories: dict[str, dict[str, bytes]] = {}
        fsync = os.fsync

        def observed(fd: int) -> None:
            fsync(fd)
            path = os.readlink(f"/proc/self/fd/{fd}")
            if os.path.isdir(path):
                with os.scandir(path) as entries:
                    self.directories[path] = {entry.name: self.files.get(entry.inode(), b"") for entry in entries}
            else:
                self.files[os.fstat(fd).st_ino] = Path(path).read_bytes()

        monkeypatch.setattr(os, "fsync", observed)

    def record(self, world: World, identity: str) -> dict[str, Any] | None:
        path = world.around.records.path(identity)
        if identity not in self.directories.get(str(path.parent), {}):
            return None
        found = self.directories.get(str(path), {}).get(FILE, b"")
        return dict(json.loads(found)) if found else None


@pytest.mark.parametrize("policy", [Restart.ALWAYS, Restart.UNLESS_STOPPED, Restart.ON_FAILURE])
async def test_one_that_is_to_start_again_is_on_the_disk_before_the_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, policy: Restart
) -> None:
    disk = Disk(monkeypatch)
    made = await ask(world, RunRequest(container=ContainerSpec(image="base", name="c", restart=policy)))
    found = disk.record(world, made["id"])
    assert found is not None
    assert (found["state"], found["wish"], found["spec"]["restart"]) == ("running", "running", policy)
    await ask(world, StopRequest(container="c", timeout_s=0))
    found = disk.record(world, made["id"])
    assert found is not None
    assert (found["state"], found.get("wish", "stopped")) == ("exited", "stopped"), (
        "it would come back, though it was stopped"
    )
    await ask(world, RemoveRequest(container="c"))
    assert disk.record(world, made["id"]) is None, "it would come back, though it was removed"


async def test_others_cost_the_disk_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    await ask(world, RunRequest(container=ContainerSpec(image="base", name="c")))
    await ask(world, RemoveRequest(container="c", force=True))
    assert (disk.files, disk.directories) == ({}, {})


async def test_a_full_disk_hinders_no_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has happened is told and known; the record has it as soon as there is room."""

    def full(record: Record) -> None:
        raise unavailable("cannot write: No space left on device")

    for name in ("ends", "stopped", "removed", "paused"):
        await ask(world, RunRequest(container=ContainerSpec(image="base", name=name, restart=Restart.ON_FAILURE)))
    identity = (await ask(world, InspectRequest(container="ends")))["id"]
    with monkeypatch.context() as disk:
        disk.setattr(world.around.records, "write", full)
        waiting = asyncio.ensure_future(ask(world, WaitRequest(container="ends")))
        await asyncio.sleep(0)
        world.supervisor.end(identity, 0)
        assert (await asyncio.wait_for(waiting, 30))["code"] == 0
        assert (await ask(world, StopRequest(container="stopped", timeout_s=0)))["state"] == "exited"
        await ask(world, RemoveRequest(container="removed", force=True))
        await ask(world, PauseRequest(container="paused"))
        assert (await ask(world, InspectRequest(container="paused")))["state"] == "paused"
        with pytest.raises(HawseError, match="No space left"):
            await ask(world, StartRequest(container="ends"))
    await ask(world, StartRequest(container="ends"))
    found = json.loads((world.around.records.path(identity) / FILE).read_bytes())
    assert (found["state"], found["run"]) == ("running", 2)


async def test_a_start_that_a_full_disk_refuses_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(starting, "write_in_place", full)
    with pytest.raises(HawseError, match="cannot write hosts of container c: No space left on device") as refused:
        await ask(world, RunRequest(container=ContainerSpec(image="base", name="c", remove=True)))
    assert (refused.value.kind, refused.value.facts["exit_code"]) == (Kind.UNAVAILABLE, 125)
    assert await ask(world, PsRequest(all=True)) == {"items": []}
    assert [path.name for path in world.around.root.containers.iterdir()] == []
