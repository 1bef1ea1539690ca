"""The descriptors that a client is given when it attaches; whoever holds them needs the daemon no more."""

from __future__ import annotations

import os

from runtime.daemon.container import Container
from runtime.daemon.surroundings import Surroundings
from sdn.model.errors import HawseError, Kind
from sdn.model.runtime import RunResult
from sdn.service.contract_server import Answer, result_reply

FOLLOWED = ("log", "index", "bell")


async def attached(around: Surroundings, container: Container, *, attach: bool) -> Answer:
    """RUN's and START's answer; the caller has the container's lock, so its end is not forgotten meanwhile."""
    descriptors: dict[str, int] = {}
    try:
        if attach:
            descriptors.update(zip(FOLLOWED, await around.supervisor.follow(container.id), strict=True))
            await _add_input(around, container, descriptors)
        return answer(container, descriptors)
    except BaseException:
        _close(descriptors)
        raise


async def _add_input(around: Surroundings, container: Container, descriptors: dict[str, int]) -> None:
    """A terminal may have many who hold it; a pipe has one, so that the container sees the end when that one closes."""
    spec = container.record.spec
    if spec.stdin or spec.tty:
        try:
            descriptors["input"] = await around.supervisor.input(container.id, keep=spec.tty)
        except HawseError as error:
            if error.kind not in (Kind.CONFLICT, Kind.NOT_FOUND):  # somebody else has it; or it has ended this moment
                raise


def answer(container: Container, descriptors: dict[str, int]) -> Answer:
    """A `RunResult` and what it names."""
    record = container.record
    result = RunResult(id=record.id, name=record.name, run=record.run, pid=record.pid, descriptors=tuple(descriptors))
    return Answer(result_reply(result), tuple(descriptors.values()))


async def logs(around: Surroundings, container: Container, *, follow: bool) -> Answer:
    """LOGS' answer. Of one that does not run the bell has rung for the last time."""
    descriptors: dict[str, int] = {}
    try:
        if container.living:
            try:
                descriptors.update(zip(FOLLOWED, await around.supervisor.follow(container.id), strict=True))
            except HawseError:  # it has ended this moment
                _close(descriptors)
                descriptors = {}
        if not descriptors:
            descriptors = _files(around, container)
        if not follow:
            os.close(descriptors.pop("bell"))
        return answer(container, descriptors)
    except BaseException:
        _close(descriptors)
        raise


def _files(around: Surroundings, container: Container) -> dict[str, int]:
    """Of one that is not with the supervisor; one that never said anything has an empty log."""
    directory = around.records.path(container.id)
    descriptors: dict[str, int] = {}
    try:
        for name, file in (("log", "log"), ("index", "log.index")):
            descriptors[name] = os.open(directory / file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        descriptors["bell"], writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.close(writer)
    except OSError:
        _close(descriptors)
        raise
    return descriptors


def _close(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
