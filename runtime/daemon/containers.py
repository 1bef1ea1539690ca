"""All containers of this root: making one, finding it, removing it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

from runtime.daemon.container import Container
from runtime.daemon.names import random_name
from runtime.daemon.plans import check_spec, volumes_of
from runtime.daemon.processes import check_arguments, command_of, environment_of, stop_signal_of, working_directory
from runtime.daemon.records import Record, delete
from runtime.daemon.references import find
from runtime.daemon.states import Act, next_state
from runtime.daemon.surroundings import Surroundings
from runtime.daemon.volumes import make_volume
from sdn.model.container import ContainerSpec, State
from sdn.model.errors import conflict
from sdn.model.ids import parse_name
from sdn.model.runtime import Exit

ID_BYTES = 8
"""64 bits of chance, as 16 hexadecimal digits."""


class Containers:
    """By id and by name."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        self._leaving: dict[str, asyncio.Event] = {}
        """Of those that are found no more, but still have something to give back."""

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def get(self, container: str) -> Container | None:
        """By its whole id."""
        return self._by_id.get(container)

    def find(self, reference: str) -> Container:
        """By name, id or prefix. Raises: NOT_FOUND, CONFLICT, INVALID."""
        return self._by_id[find(reference, self._names, self._by_id)]

    def add(self, record: Record) -> Container:
        """One that there is already."""
        container = Container(record, self._around.records)
        self._by_id[record.id] = container
        self._names.setdefault(record.name, record.id)
        return container

    def users_of_images(self) -> dict[str, list[str]]:
        """Image id to the names of its containers."""
        users: dict[str, list[str]] = {}
        for container in self._by_id.values():
            users.setdefault(container.record.image_id, []).append(container.record.name)
        return users

    def attachments(self) -> Iterator[tuple[str, str]]:
        """(container, ifname) of all that is, or is about to be, attached."""
        for container in self._by_id.values():
            if container.living or container.record.starting:
                for attachment in container.record.attachments:
                    yield container.id, attachment.ifname

    async def create(self, spec: ContainerSpec) -> Container:
        """Take a name, make a directory and volumes; its record is still to be written. Nothing is left on an error.

        Raises: INVALID, NOT_FOUND (image), CONFLICT (the name is taken), UNAVAILABLE (the disk).
        """
        around = self._around
        check_spec(spec, around.cpus_online)
        image = around.images.resolve(spec.image)
        command = command_of(spec, image.config)
        check_arguments(command, environment_of("", spec.tty, image.config.get("Env") or (), spec.env))
        working_directory(spec.workdir, str(image.config.get("WorkingDir") or ""))
        stop_signal_of(spec, image.config)
        around.confine(spec)
        name = self._name(spec)
        identity = self._new_id()
        record = Record(id=identity, name=name, spec=spec, image_id=image.id, command=command, created_s=around.clock())
        container = self.add(record)
        try:
            around.records.create(identity)
            for mount in volumes_of(spec):
                await make_volume(around.root.volumes, mount, image.layers)
        except BaseException:
            await self.drop(container)
            raise
        around.events.note("create", identity, name, image=spec.image)
        return container

    def _name(self, spec: ContainerSpec) -> str:
        if not spec.name:
            return random_name(self._names, secrets.randbelow)
        name = parse_name(spec.name, "container")
        if name in self._names:
            raise conflict(
                f"the name {name} is taken by container {self._names[name]}",
                f"choose another one, or remove that one with 'hawse rm {name}'",
                name=name,
            )
        return name

    def _new_id(self) -> str:
        while True:
            identity = secrets.token_hex(ID_BYTES)
            if identity not in self._by_id:
                return identity

    async def drop(self, container: Container) -> None:
        """It is no container any more: its name and id are free at once, then its files go."""
        container.gone = True
        container.cancel_timer()
        self._by_id.pop(container.id, None)
        if self._names.get(container.record.name) == container.id:
            del self._names[container.record.name]
        gone = self._around.records.discard(container.id, container.record.lasting)
        if gone is not None:
            problem = await asyncio.to_thread(delete, gone)
            if problem:
                self._around.log.warning("not deleted", container=container.id, reason=problem)

    async def discard(self, container: Container, exit_: Exit | None = None) -> None:
        """Remove one that does not run; the caller has its lock. `exit_`: what who waits is told.

        Raises: CONFLICT (it runs).
        """
        record = container.record
        next_state(record.state, Act.REMOVE, record.name)
        left = self._leaving[container.id] = asyncio.Event()
        try:
            await self.drop(container)
            await self._around.releases.release(container.id, record.attachments)
            container.let_namespace_go()
        finally:
            del self._leaving[container.id]
            left.set()
        if exit_ is not None:
            container.tell(exit_)
        container.tell_gone()
        self._around.events.note("remove", record.id, record.name)

    async def left(self, container: str) -> None:
        """Until one that is being removed, if it is, has given back what it had."""
        leaving = self._leaving.get(container)
        if leaving is not None:
            await leaving.wait()

    def counts(self) -> dict[str, int]:
        """How many there are in each state."""
        counts = dict.fromkeys((state.value for state in State), 0)
        for container in self._by_id.values():
            counts[container.record.state.value] += 1
        return counts
