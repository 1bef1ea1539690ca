"""A container's life against fakes of the supervisor and the agent, with a daemon that dies at every moment."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.daemon.records import FILE
from runtime.daemon.restarts import Wish
from runtime.daemon.states import LIVING
from sdn.model.codec import encode_json
from sdn.model.container import ContainerSpec, MountKind, MountSpec, NetworkWish, Restart, State
from sdn.model.contract import AddRequest, AddResult
from sdn.model.errors import HawseError, Kind
from sdn.model.runtime import (
    EventsRequest,
    ExecRequest,
    InspectRequest,
    KillRequest,
    LogsRequest,
    PauseRequest,
    PsRequest,
    RemoveRequest,
    RestartRequest,
    RunRequest,
    StartRequest,
    StatsRequest,
    StatusRequest,
    StopRequest,
    UnpauseRequest,
    WaitRequest,
    runtime_request_decoder,
)
from sdn.service.contract_server import Answer
from tests.unit.runtime_fakes import FakeAgent, FakeSupervisor, World

BOUND_S = 30.0
NETWORKS = (NetworkWish(network="web", aliases=("www",)), NetworkWish(network="blue/db"), NetworkWish(network="lan"))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path, FakeSupervisor(), FakeAgent()).begin()
    yield made
    await made.close()


def spec(**fields: Any) -> ContainerSpec:
    return ContainerSpec(**{"image": "base", "name": "c", **fields})


async def ask(world: World, request: Any) -> Any:
    """What a client reads: the result, after a trip over the wire."""
    reply = await world.verbs.answer(runtime_request_decoder.json(encode_json(request)), None)
    frames: list[Any] = []
    if isinstance(reply, bytes | Answer):
        frames.append(reply)
    else:
        frames += [frame async for frame in reply]
    values = []
    for frame in frames:
        if isinstance(frame, Answer):
            values.append(json.loads(frame.payload))
            frame.close()
        else:
            values.append(json.loads(frame))
    if len(values) > 1:
        return [value["item"] for value in values[:-1]]
    return values[-1]["result"]


async def run(world: World, **fields: Any) -> dict[str, Any]:
    result = await ask(world, RunRequest(container=spec(**fields)))
    assert isinstance(result, dict)
    return result


async def info(world: World, reference: str = "c") -> Any:
    return await ask(world, InspectRequest(container=reference))


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not look():  # noqa: ASYNC110 fakes tell nobody
            await asyncio.sleep(0.005)  # between two looks at what another task does


def directories(world: World) -> list[str]:
    return sorted(os.listdir(world.around.root.containers))


async def end(world: World, identity: str, code: int = 0) -> Any:
    """It ends, and who waits has been told."""
    waiting = asyncio.ensure_future(ask(world, WaitRequest(container=identity)))
    await asyncio.sleep(0)
    world.supervisor.end(identity, code)
    return await waiting


# The usual life -------------------------------------------------------------------------------------------------------


async def test_run_wait_remove(world: World) -> None:
    made = await run(world, command=("sleep", "1"), labels={"a": "b"})
    assert (made["name"], made["run"]) == ("c", 1)
    shown = await info(world)
    assert (shown["state"], shown["command"], shown["pid"]) == ("running", ["sleep", "1"], made["pid"])
    assert await end(world, made["id"], 3) == {"code": 3}
    shown = await info(world)
    assert (shown["state"], shown["exit_code"], shown.get("pid", 0)) == ("exited", 3, 0)
    assert made["id"] not in world.supervisor.held, "its exit was acknowledged"
    await ask(world, RemoveRequest(container="c"))
    assert directories(world) == []
    for reference in (made["id"], made["id"][:5], "c"):
        assert await ask(world, WaitRequest(container=reference)) == {"code": 3}, "remembered after the removal"
    with pytest.raises(HawseError, match="there is no container 'c'"):
        await info(world)


async def test_what_is_to_be_removed_is_gone_when_its_wait_ends(world: World) -> None:
    made = await run(world, remove=True)
    assert world.supervisor.plans[made["id"]]["root"]["volatile"]
    assert await end(world, made["id"], 137) == {"code": 137}
    assert directories(world) == []
    assert (await run(world, remove=True))["id"] != made["id"], "its name is free"


async def test_names_are_taken_and_made_up(world: World) -> None:
    await run(world)
    with pytest.raises(HawseError, match="the name c is taken") as caught:
        await run(world)
    assert caught.value.kind is Kind.CONFLICT
    assert len(directories(world)) == 1
    assert "-" in (await run(world, name=""))["name"]


async def test_a_second_start_has_its_own_number_and_exit(world: World) -> None:
    made = await run(world)
    await end(world, made["id"], 1)
    again = await ask(world, StartRequest(container="c"))
    assert again["run"] == 2
    assert (await ask(world, StartRequest(container="c")))["run"] == 2, "what runs is left alone"
    await end(world, made["id"], 2)
    assert await ask(world, WaitRequest(container="c", run=1)) == {"code": 1}
    assert await ask(world, WaitRequest(container="c", run=2)) == {"code": 2}


async def test_created_started_and_refused(world: World) -> None:
    made = await ask(world, RunRequest(container=spec(), start=False))
    assert (await info(world))["state"] == "created"
    assert await ask(world, PsRequest()) == {"items": []}
    assert [item["name"] for item in (await ask(world, PsRequest(all=True)))["items"]] == ["c"]
    for request in (
        KillRequest(container="c"),
        PauseRequest(container="c"),
        ExecRequest(container="c", command=("x",)),
    ):
        with pytest.raises(HawseError, match="container c: it is created") as caught:
            await ask(world, request)
        assert caught.value.kind is Kind.CONFLICT
    assert (await ask(world, StopRequest(container="c")))["state"] == "created", "to stop what does not run is success"
    await ask(world, StartRequest(container=made["id"][:6]))
    with pytest.raises(HawseError, match="cannot remove container c: it is running"):
        await ask(world, RemoveRequest(container="c"))


async def test_pause(world: World) -> None:
    made = await run(world)
    await ask(world, PauseRequest(container="c"))
    assert (await info(world))["state"] == "paused"
    for request, sentence in (
        (PauseRequest(container="c"), "cannot pause"),
        (ExecRequest(container="c", command=("x",)), "cannot execute anything in"),
    ):
        with pytest.raises(HawseError, match=sentence):
            await ask(world, request)
    await ask(world, UnpauseRequest(container="c"))
    await ask(world, PauseRequest(container="c"))
    assert (await ask(world, StopRequest(container="c")))["exit_code"] == 143, "it hears the signal"
    assert world.supervisor.signals == [(made["id"], 15)]


async def test_stop_kills_who_is_deaf(world: World) -> None:
    world.supervisor.deaf = {15}
    made = await run(world)
    assert (await ask(world, StopRequest(container="c", timeout_s=0.01)))["exit_code"] == 137
    assert world.supervisor.signals == [(made["id"], 15), (made["id"], 9)]


async def test_kill_and_forced_removal(world: World) -> None:
    world.supervisor.deaf = {1}
    await run(world)
    await ask(world, KillRequest(container="c", signal="HUP"))
    assert (await info(world))["state"] == "running"
    await ask(world, RemoveRequest(container="c", force=True))
    assert directories(world) == []


async def test_who_waits_for_what_never_started_is_told_when_it_is_removed(world: World) -> None:
    await ask(world, RunRequest(container=spec(), start=False))
    waiting = asyncio.ensure_future(ask(world, WaitRequest(container="c")))
    await asyncio.sleep(0)
    await ask(world, RemoveRequest(container="c"))
    with pytest.raises(HawseError, match="container c was removed"):
        await waiting


async def test_restart_keeps_what_is_to_be_removed_at_its_end(world: World) -> None:
    made = await run(world, remove=True)
    shown = await ask(world, RestartRequest(container="c"))
    assert (shown["state"], shown["id"]) == ("running", made["id"])


async def test_descriptors_are_named(world: World) -> None:
    request = RunRequest(container=spec(stdin=True), attach=True)
    reply = await world.verbs.answer(request, None)
    assert isinstance(reply, Answer)
    assert json.loads(reply.payload)["result"]["descriptors"] == ["log", "index", "bell", "input"]
    assert len(reply.descriptors) == 4
    reply.close()
    identity = world.containers.find("c").id
    await end(world, identity)
    assert (await ask(world, LogsRequest(container="c")))["descriptors"] == ["log", "index"]
    assert (await ask(world, LogsRequest(container="c", follow=True)))["descriptors"] == ["log", "index", "bell"]


async def test_executions(world: World) -> None:
    await run(world)
    made = await ask(world, ExecRequest(container="c", command=("x",), detach=True))
    waiting = asyncio.ensure_future(ask(world, WaitRequest(container="c", execution=made["execution"])))
    await asyncio.sleep(0.01)
    world.executions.note(made["execution"], 4)
    assert await waiting == {"code": 4}
    assert await ask(world, WaitRequest(container="c", execution=made["execution"])) == {"code": 4}
    with pytest.raises(HawseError, match="nothing was executed as nope"):
        await ask(world, WaitRequest(container="c", execution="nope"))


async def test_stats_and_status(world: World) -> None:
    await run(world)
    assert [item["name"] for item in (await ask(world, StatsRequest()))["items"]] == ["c"]
    status = await ask(world, StatusRequest())
    assert (status["containers"]["running"], status["supervisor_pid"], status["images"]) == (1, 1, 1)


async def test_events_survive(world: World) -> None:
    made = await run(world)
    await end(world, made["id"], 1)
    after = await world.again()
    events = await ask(after, EventsRequest(since_s=0.0, follow=False, container="c"))
    assert [event["what"] for event in events] == ["create", "start", "die"]
    assert events[-1]["facts"] == {"exit_code": 1}
    await after.close()


# Starts that fail -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "code"), [("command-not-found", 127), ("wrong-architecture", 126), ("user", 125)])
async def test_a_start_that_fails_leaves_the_container_and_says_why(world: World, stage: str, code: int) -> None:
    world.supervisor.refuse = stage
    with pytest.raises(HawseError, match="was refused") as caught:
        await run(world, networks=NETWORKS)
    assert caught.value.facts["exit_code"] == code
    shown = await info(world)
    assert (shown["state"], shown["exit_code"], shown["error"]) == ("created", code, "/bin/sh was refused")
    assert (await ask(world, WaitRequest(container="c")))["code"] == code
    assert world.agent.attached == {}
    world.supervisor.refuse = ""
    assert (await ask(world, StartRequest(container="c")))["run"] == 2
    assert (await info(world)).get("error", "") == ""


async def test_a_start_that_fails_removes_what_is_to_be_removed(world: World) -> None:
    world.supervisor.refuse = "command-not-found"
    with pytest.raises(HawseError):
        await run(world, remove=True)
    assert directories(world) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"image": "nope"},
        {"memory_bytes": 5},
        {"name": "a b"},
        {"command": ("a\0b",)},
        {"env": ("X",)},
        {"workdir": "x"},
        {"mounts": (MountSpec(kind=MountKind.BIND, source="rel", target="/t"),)},
    ],
)
async def test_what_is_refused_leaves_nothing(world: World, fields: dict[str, Any]) -> None:
    with pytest.raises(HawseError) as caught:
        await run(world, **fields)
    assert caught.value.kind in (Kind.INVALID, Kind.NOT_FOUND)
    assert directories(world) == []
    assert await ask(world, PsRequest(all=True)) == {"items": []}


async def test_a_volume_begins_as_the_images_directory_and_outlives_the_container(world: World, tmp_path: Path) -> None:
    top, base = tmp_path / "top", tmp_path / "base"
    for layer, name in ((top, "new"), (base, "old")):
        (layer / "data/sub").mkdir(parents=True)
        (layer / "data/sub" / name).write_text(name)
    os.chown(top / "data", 33, 33)
    (base / "data/link").symlink_to("/etc/passwd")
    view = world.images.resolve("base")
    world.images.resolve = lambda reference: type(view)(view.id, view.config, (str(top), str(base)))  # type: ignore[method-assign] # one with layers
    mounts = (MountSpec(kind=MountKind.VOLUME, source="v", target="/data"),)
    await run(world, mounts=mounts)
    volume = world.around.root.volumes / "v"
    assert sorted(path.name for path in volume.rglob("*")) == ["link", "new", "old", "sub"]
    assert (volume / "link").is_symlink()
    assert volume.stat().st_uid == 33
    (volume / "mine").touch()
    await ask(world, RemoveRequest(container="c", force=True))
    await run(world, mounts=mounts)
    assert (volume / "mine").exists()


# Networks -------------------------------------------------------------------------------------------------------------


async def test_networks_are_attached_named_once_per_tenant_and_given_back(world: World) -> None:
    made = await run(world, networks=NETWORKS)
    assert world.agent.attached == {(made["id"], f"eth{number}"): wish.network for number, wish in enumerate(NETWORKS)}
    assert world.agent.named == {"web": "c", "blue/db": "c", "lan": ""}
    shown = await info(world)
    first = shown["interfaces"][0]
    assert (first["network"], first["addresses"]) == ("web", ["10.1.0.2/24"])
    hosts = world.around.records.path(made["id"]) / "hosts"
    assert "10.1.0.2\t" in hosts.read_text()
    await end(world, made["id"])
    await until(lambda: world.agent.attached == {})


async def test_networks_are_attached_one_after_the_other_in_their_order(world: World) -> None:
    """Where two overlap, the kernel takes the route that came first."""
    told: list[str] = []
    add = world.agent.add

    async def slow(request: AddRequest, namespace_fd: int) -> AddResult:
        told.append(f"begin {request.ifname}")
        for _ in range(10 - 5 * int(request.ifname[-1])):  # the later the quicker
            await asyncio.sleep(0)
        result = await add(request, namespace_fd)
        told.append(f"end {request.ifname}")
        return result

    world.agent.add = slow  # type: ignore[method-assign] # an agent with more to do for some
    await run(world, networks=NETWORKS)
    assert told == [f"{what} eth{number}" for number in range(3) for what in ("begin", "end")]


async def test_a_name_that_is_taken_in_the_tenant_is_gone_without(world: World) -> None:
    world.agent.taken = {"c"}
    await run(world, networks=NETWORKS[:1])
    assert world.agent.named == {"web": ""}


async def test_an_attachment_that_fails_undoes_the_start_and_names_the_network(world: World) -> None:
    world.agent.refused = {"blue/db"}
    with pytest.raises(HawseError, match="cannot attach eth1 to network blue/db: there is no network") as caught:
        await run(world, networks=NETWORKS)
    assert (caught.value.kind, caught.value.facts["network"]) == (Kind.NOT_FOUND, "blue/db")
    assert world.agent.attached == {}
    assert world.supervisor.held == {}
    assert (await info(world))["state"] == "created"


async def test_what_cannot_be_given_back_is_given_back_later(world: World) -> None:
    made = await run(world, networks=NETWORKS, remove=True)
    world.agent.away = True
    assert await end(world, made["id"]) == {"code": 0}
    assert directories(world) == []
    assert len(world.agent.attached) == 3
    world.agent.away = False
    await until(lambda: world.agent.attached == {})


# Restarting -----------------------------------------------------------------------------------------------------------


async def test_a_policy_starts_it_again_until_it_is_stopped(world: World) -> None:
    made = await run(world, restart=Restart.ALWAYS)
    container = world.containers.find("c")
    world.supervisor.end(made["id"], 0)
    await until(lambda: container.record.restarts == 1 and container.living)
    assert container.record.run == 2
    await ask(world, StopRequest(container="c"))
    assert container.timer is None
    assert container.record.wish is Wish.STOPPED


async def test_stop_takes_a_restart_away_that_was_to_come(world: World) -> None:
    made = await run(world, restart=Restart.ALWAYS)
    container = world.containers.find("c")
    world.supervisor.end(made["id"], 0)
    await until(lambda: container.timer is not None)
    await ask(world, StopRequest(container="c"))
    assert container.timer is None
    assert not container.living


async def test_failures_are_tried_again_so_often_and_no_more(world: World) -> None:
    made = await run(world, restart=Restart.ON_FAILURE, restart_retries=1)
    container = world.containers.find("c")
    world.supervisor.end(made["id"], 1)
    await until(lambda: container.record.run == 2 and container.living)
    await end(world, made["id"], 1)
    await until(lambda: not container.lock.locked())
    assert container.timer is None


async def test_a_start_by_policy_that_fails_is_tried_again(world: World) -> None:
    made = await run(world, restart=Restart.ALWAYS, networks=NETWORKS[:1])
    container = world.containers.find("c")
    world.agent.away = True
    world.supervisor.end(made["id"], 0)
    await until(lambda: container.record.restarts >= 1 and "agent is away" in container.record.error)
    world.agent.away = False
    await until(lambda: container.living)
    assert container.record.error == ""


# Deaths of the daemon -------------------------------------------------------------------------------------------------


async def test_what_runs_runs_on_and_what_ended_meanwhile_is_recorded(world: World) -> None:
    for name in ("stays", "ends", "lost", "paused", "gone"):
        await run(world, name=name, remove=name == "gone")
    await ask(world, PauseRequest(container="paused"))
    ids = {container.record.name: container.id for container in world.containers}
    await world.close()
    supervisor = world.supervisor
    supervisor.listener = None
    supervisor.end(ids["ends"], 7)
    supervisor.end(ids["gone"], 1)
    del supervisor.held[ids["lost"]]
    after = await world.again()
    await until(lambda: after.containers.get(ids["gone"]) is None and not after.containers.find("ends").living)
    states = {container.record.name: container.record.state for container in after.containers}
    assert states == {"stays": State.RUNNING, "ends": State.EXITED, "lost": State.DEAD, "paused": State.PAUSED}
    assert (await info(after, "ends"))["exit_code"] == 7
    assert "nobody saw how it ended" in (await info(after, "lost"))["error"]
    assert await ask(after, WaitRequest(container=ids["gone"])) == {"code": 1}
    assert sorted(supervisor.held) == sorted((ids["stays"], ids["paused"]))
    assert (await ask(after, StartRequest(container="lost")))["run"] == 2
    await after.close()


@pytest.mark.parametrize("policy", Restart)
@pytest.mark.parametrize("stopped", [False, True])
async def test_policies_over_a_daemons_death(world: World, policy: Restart, stopped: bool) -> None:
    made = await run(world, restart=policy)
    if stopped:
        await ask(world, StopRequest(container="c"))
    else:
        world.supervisor.listener = None
        world.supervisor.end(made["id"], 1)
    after = await world.again()
    container = after.containers.find("c")
    wanted = policy is Restart.ALWAYS or (policy is not Restart.NO and not stopped)
    if wanted:
        await until(lambda: container.living)
    else:
        await until(lambda: not container.living and not container.lock.locked())
        assert container.timer is None
    await after.close()


async def test_a_damaged_record_is_dead_and_stops_nothing(world: World) -> None:
    made = await run(world, name="good")
    broken = (await run(world, name="bad"))["id"]
    (world.around.root.containers / broken / FILE).write_text('{"id": 3')
    after = await world.again()
    shown = await info(after, broken)
    assert shown["state"] == "dead"
    assert "cannot be read" in shown["error"]
    assert after.containers.find(made["id"]).living
    with pytest.raises(HawseError, match="cannot be started"):
        await ask(after, StartRequest(container=broken))
    await ask(after, RemoveRequest(container=broken))
    assert directories(after) == [made["id"]]
    assert sorted(after.supervisor.held) == [made["id"]], "what ran of it was ended"
    await after.close()


async def test_what_no_record_knows_is_ended(world: World) -> None:
    made = await run(world)
    await world.close()
    (world.around.root.containers / made["id"] / FILE).unlink()
    for name in ("hosts", "hostname", "resolv.conf"):
        (world.around.root.containers / made["id"] / name).unlink()
    after = await World(world.directory, world.supervisor, world.agent).begin()
    await until(lambda: after.supervisor.held == {})
    await after.close()


class Killed(BaseException):
    """The daemon's end in the middle of something: no clean-up of its own may run."""


def deaths(world: World, at: int) -> None:
    """From its `at`-th word to the world on, a daemon says nothing any more and reaches nobody."""
    left = [at]

    def spoil(thing: Any, name: str, *, late: bool) -> None:
        real = getattr(thing, name)

        async def mortal(*words: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0 or (left[0] == 0 and not late):
                raise Killed
            result = await real(*words, **named)
            if left[0] <= 0:
                raise Killed  # it was done, and nobody heard so
            return result

        setattr(thing, name, mortal)

    for late, (thing, names) in enumerate(
        ((world.agent, ("add", "delete", "collect")), (world.supervisor, ("launch", "go", "abandon", "forget")))
    ):
        for name in names:
            spoil(thing, name, late=bool(late))
    write = world.around.records.write

    def mortal_write(record: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        write(record)

    world.around.records.write = mortal_write  # type: ignore[method-assign] # a disk that a dead daemon cannot reach


@pytest.mark.parametrize("remove", [False, True])
@pytest.mark.parametrize("at", range(14))
async def test_killed_at_each_word_of_a_life_nothing_is_lost_or_left(tmp_path: Path, at: int, remove: bool) -> None:
    supervisor, agent = FakeSupervisor(), FakeAgent()
    world = await World(tmp_path, supervisor, agent).begin()
    await asyncio.sleep(0.01)  # the first collection
    deaths(world, at)
    reached = False
    try:
        made = await run(world, networks=NETWORKS[:2], remove=remove)
        reached = True
        await asyncio.wait_for(end(world, made["id"], 5), 0.2)
    except (Killed, TimeoutError):
        pass
    await world.close()
    for thing, names in ((agent, ("add", "delete", "collect")), (supervisor, ("launch", "go", "abandon", "forget"))):
        for name in names:
            delattr(thing, name)
    after = await World(tmp_path, supervisor, agent).begin()
    await until(lambda: not any(container.lock.locked() for container in after.containers))
    await until(lambda: {key[0] for key in agent.attached} <= set(supervisor.held))
    await until(lambda: all(held.ending is None for held in supervisor.held.values()))
    for container in after.containers:
        assert not container.record.starting
        assert (container.record.state in LIVING) == (container.id in supervisor.held)
        assert not remove or container.living
        if reached and not container.living:
            assert container.record.exit_code == 5
    assert set(supervisor.held) <= {container.id for container in after.containers}
    if reached and remove and not list(after.containers):
        assert after.around.exits.find(made["id"]) is not None, "a removed one's exit is known"
    await until(lambda: all(after.containers.get(name) is not None for name in directories(after)))
    await after.close()
