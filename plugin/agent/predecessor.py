"""The datapath that wired this host before: another one begins only where no container hangs on it any more.

Two datapaths know nothing of each other's ports. If one began beside what another has left, containers of before would
keep their way into networks while the controller hears that they are gone, and gives their addresses to others.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from plugin.datapath import registry
from sdn.model.errors import HawseError, conflict, unavailable
from sdn.model.resources import Datapath as DatapathName
from sdn.reconcile.datapath import Datapath
from sdn.service.durable import write_durably
from sdn.service.roots import Root


class Choice(NamedTuple):
    """A datapath, as the agent is told by its options. `ovsdb`: None where packages of Open vSwitch have it."""

    kind: DatapathName
    ovsdb: Path | None = None

    def words(self) -> str:
        """The options that say it."""
        return f"--datapath {self.kind.value}{f' --ovsdb {self.ovsdb}' if self.ovsdb else ''}"


Make = Callable[[Choice], Datapath]


class Predecessor:
    """What is remembered of one root. Used by whoever holds the agent's pid file."""

    def __init__(self, root: Root, make: Make | None = None) -> None:
        """`make`: of a datapath; by default the real one."""
        self._file = root.wired_file
        self._make = make or (lambda choice: registry.make(choice.kind, root.run, choice.ovsdb))

    def read(self) -> Choice | None:
        """Which one it was. None: none was, or nobody knows."""
        try:
            known = json.loads(self._file.read_bytes())
            return Choice(DatapathName(known["datapath"]), Path(known["ovsdb"]) if known["ovsdb"] else None)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def succeed(self, choice: Choice) -> Datapath:
        """The datapath that wires this host from now on; of another one before it nothing is left.

        Raises: CONFLICT while containers hang on the other one; whatever either raises that cannot be had.
        """
        former = self.read()
        if former == choice:
            return self._make(choice)
        if former is not None:
            self._end(former, choice)
            self._file.unlink()
        datapath = self._make(choice)  # before it is noted: who fails to begin has nothing to be asked for later
        words = {"datapath": choice.kind.value, "ovsdb": str(choice.ovsdb) if choice.ovsdb else ""}
        try:
            write_durably(self._file, json.dumps(words).encode())
        except OSError as error:
            datapath.close()
            raise unavailable(f"cannot write {self._file}: {error.strerror}", "look at the disk") from None
        return datapath

    def _end(self, former: Choice, choice: Choice) -> None:
        with self._opened(former) as datapath:
            held = datapath.local_ports(datapath.read())
            if held:
                raise conflict(
                    f"{len(held)} interfaces of containers on this host are wired by '{former.words()}', which "
                    f"'{choice.words()}' cannot take over",
                    f"go on with {former.words()}, or detach them first; 'hawse agent --clean' cuts them all off",
                    containers=sorted({port.container for port in held}),
                )
            datapath.purge()

    def clean(self, choice: Choice) -> int:
        """Remove what `choice`, and what another one before, has made here; the number of tenants that were here."""
        former = self.read()
        tenants = 0
        if former is not None and former != choice:
            with self._opened(former) as datapath:
                tenants += datapath.purge()
        with contextlib.closing(self._make(choice)) as datapath:
            tenants += datapath.purge()
        self._file.unlink(missing_ok=True)
        return tenants

    @contextlib.contextmanager
    def _opened(self, former: Choice) -> Iterator[Datapath]:
        try:
            datapath = self._make(former)
        except HawseError as error:
            raise HawseError(
                error.kind,
                f"this host was wired by '{former.words()}' before, of which cannot be said what is left: "
                f"{error.message}",
                hint=f"{error.hint}; if it is gone for good: rm {self._file}",
                facts=error.facts,
            ) from None
        with contextlib.closing(datapath):
            yield datapath
