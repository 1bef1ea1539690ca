"""Further processes in containers, and how they ended."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import OrderedDict

from runtime.daemon.container import Container
from runtime.daemon.plans import hostname_of
from runtime.daemon.processes import RLIMITS, check_arguments, environment_of, working_directory
from runtime.daemon.states import Act, next_state
from runtime.daemon.surroundings import Surroundings
from runtime.plan import ProcessPlan, TerminalSize
from sdn.model.errors import HawseError, Kind, invalid, not_found
from sdn.model.runtime import ExecRequest, ExecResult, Exit
from sdn.service.contract_server import Answer, result_reply

KEEP = 1000
DRAIN_BYTES = 65536


class Executions:
    """`begin` one, `wait` for its end. A daemon that was restarted asks the supervisor."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._codes: OrderedDict[str, int] = OrderedDict()
        self._waiting: dict[str, set[asyncio.Future[int]]] = {}

    async def begin(self, container: Container, request: ExecRequest) -> Answer:
        """Raises: CONFLICT (it does not run), INVALID, and why it could not be started (`exit_code`)."""
        async with container.lock:
            record = container.record
            next_state(record.state, Act.EXEC, record.name)
            execution = secrets.token_hex(8)
            process = self._plan(container, request)
            executed = await self._around.supervisor.execute(record.id, execution, process)
        self._around.events.note("exec", record.id, record.name, execution=execution, pid=executed.pid)
        descriptors = executed.descriptors
        if request.detach:
            for name, descriptor in descriptors.items():
                self._drain(name, descriptor)
            descriptors = {}
        result = ExecResult(execution=execution, pid=executed.pid, descriptors=tuple(descriptors))
        return Answer(result_reply(result), tuple(descriptors.values()))

    def _drain(self, name: str, descriptor: int) -> None:
        """What nobody is attached to is read and dropped: whoever writes must neither block nor die of it."""
        if name == "input":
            os.close(descriptor)
            return
        loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)

        def drop() -> None:
            try:
                if os.read(descriptor, DRAIN_BYTES):
                    return
            except BlockingIOError:
                return
            except OSError:  # EIO: nobody has the terminal open any more
                pass
            loop.remove_reader(descriptor)
            os.close(descriptor)

        loop.add_reader(descriptor, drop)

    def _plan(self, container: Container, request: ExecRequest) -> ProcessPlan:
        if not request.command:
            raise invalid("there is no command to execute", f"hawse exec {container.record.name} COMMAND")
        spec = container.record.spec
        config = self._around.images.resolve(container.record.image_id).config
        confinement = self._around.confine(spec)
        env = environment_of(
            hostname_of(spec, container.id), request.tty, config.get("Env") or (), (*spec.env, *request.env)
        )
        check_arguments(request.command, env)
        return ProcessPlan(
            argv=list(request.command),
            env=env,
            cwd=working_directory(request.workdir or spec.workdir, str(config.get("WorkingDir") or "")),
            user=request.user or spec.user or str(config.get("User") or "") or "0",
            capabilities=list(confinement.capabilities),
            no_new_privileges=True,
            seccomp=confinement.seccomp,
            rlimits=RLIMITS,
            tty=TerminalSize(rows=request.rows, columns=request.columns) if request.tty else None,
            stdin=request.stdin,
        )

    def note(self, execution: str, code: int) -> None:
        """It has ended."""
        self._codes[execution] = code
        while len(self._codes) > KEEP:
            self._codes.popitem(last=False)
        for future in self._waiting.pop(execution, ()):
            if not future.done():
                future.set_result(code)

    async def wait(self, container: str, execution: str) -> Exit:
        """Until it has ended. Raises: NOT_FOUND."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(execution, set()).add(future)
        try:
            if execution not in self._codes:
                code = await self._around.supervisor.execution(execution)
                if code is not None:
                    self.note(execution, code)
            if execution in self._codes:
                return Exit(code=self._codes[execution])
            return Exit(code=await future)
        except HawseError as error:
            if execution in self._codes:
                return Exit(code=self._codes[execution])
            if error.kind is Kind.NOT_FOUND:
                raise not_found(
                    f"nothing was executed as {execution} in {container}", "", execution=execution
                ) from None
            raise
        finally:
            waiting = self._waiting.get(execution, set())
            waiting.discard(future)
            if not waiting:
                self._waiting.pop(execution, None)
