"""The monitor: keeps a machine's daemons going until it is told to stop, and ends them in their order.

One thread, and one wait: for the end of a daemon, for its word that it serves, for its log, for a signal, for the time
to start one again.
"""

from __future__ import annotations

import dataclasses
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Self

from sdn.machine.log_lines import Follower, cut_large
from sdn.machine.process import Process, wait_serving
from sdn.machine.record import FIRST, MONITOR, RUNTIME, Machine, Place, daemon_words
from sdn.machine.teller import Teller
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.service.libc import keep_memory_private
from sdn.service.pid_file import PidFile, running_pid

READY_S = 60.0
"""A daemon needs half a second; on a machine that has just been switched on a good deal more."""
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
HEALED_S = 60.0
"""Who served for so long is well again."""
CUT_S = 600.0
"""How often the logs' sizes are looked at."""
END_ORDER = (RUNTIME, "agent", "controller")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclasses.dataclass(slots=True)
class Kept:
    """A daemon that is to run. `due_s`: when it is started again; `said`: the complaint that was told already."""

    process: Process | None
    again: Callable[[], Process]
    delay_s: float = 0.0
    due_s: float = 0.0
    began_s: float = 0.0
    said: str = ""


def next_delay_s(delay_s: float, lived_s: float, served: bool) -> float:
    """How long to wait before a daemon that ended is started again."""
    if served and lived_s >= HEALED_S:
        delay_s = 0.0
    return min(max(delay_s * 2, BACKOFF_FIRST_S), BACKOFF_MAX_S)


class Monitor:
    """A context: while it lasts nobody else is this root's monitor. At its end what it keeps is stopped."""

    def __init__(self, place: Place, teller: Teller) -> None:
        self._place = place
        self._teller = teller
        self._pid_file = PidFile(place.root, MONITOR)
        self._kept: dict[str, Kept] = {}
        self._words: Callable[[str], list[str]] = lambda name: [name]
        self._selector = selectors.DefaultSelector()
        self._follower: Follower | None = None
        self._stopping: int | None = None

    def __enter__(self) -> Self:
        """Raises: CONFLICT (there is a monitor), DENIED, UNAVAILABLE."""
        keep_memory_private()
        self._place.root.create()
        self._place.log_directory.mkdir(mode=0o700, exist_ok=True)
        self._pid_file.take()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        if not self._teller.detached:
            self._follower = Follower({name: self._place.log(name) for name in FIRST}, self._teller.line)
            self._selector.register(self._follower, selectors.EVENT_READ, self._follower.read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Whatever happens, the daemons end first."""
        for number in SIGNALS:
            signal.signal(number, self._hurry)
        try:
            self._stop_all()
        finally:
            self._pid_file.release()
            self._selector.close()
            if self._follower is not None:
                self._follower.close()

    def start(self, machine: Machine, name: str, listen: Sequence[str] = (), *, held: bool = False) -> Process:
        """Start a daemon of the machine, or take the one that runs. Raises: UNAVAILABLE."""
        words = daemon_words(machine, name, listen)

        def again() -> Process:
            return self._found(name) or Process.start(self._place, name, words, held=held)

        process = again()
        self._kept[name] = Kept(process, again=again, began_s=time.monotonic())
        return process

    def _found(self, name: str) -> Process | None:
        """The one that runs and serves. What a killed monitor has just started serves soon, or ends by itself."""
        found = Process.find(self._place, name)
        if found is None or found.wait_answering(getattr(self._place.root, f"{name}_socket"), READY_S):
            return found
        found.close()
        return None

    def process(self, name: str) -> Process:
        """One that was started."""
        process = self._kept[name].process
        assert process is not None
        return process

    def wait(self, *names: str) -> None:
        """Until those serve. Raises: HawseError, as the first that did not says it."""
        for _ in names:
            try:
                self._wait(names)
                break
            except HawseError as error:
                kept = self._kept.get(str(error.facts.get("daemon")))
                if error.kind is not Kind.CONFLICT or kept is None or kept.process is None:
                    raise
                if running_pid(self._place.root, kept.process.name) is None:
                    raise
                kept.process.close()  # another of its kind was quicker: that one is kept
                kept.process = kept.again()
        self._wait(names)

    def _wait(self, names: Sequence[str]) -> None:
        found = (self._kept[name].process for name in names)
        wait_serving([process for process in found if process is not None], READY_S, self._follower)

    def keep(self, machine: Machine, listen: Sequence[str] = ()) -> None:
        """Keep them going until a signal says that it is enough."""
        self._words = lambda name: daemon_words(machine, name, listen)
        waking, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        try:
            for number in SIGNALS:
                signal.signal(number, self._note_stop)
            self._selector.register(waking, selectors.EVENT_READ, lambda: os.read(waking, 64))
            for name in self._kept:
                self._watch(name)
            while self._stopping is None:
                for key, _ in self._selector.select(self._patience_s()):
                    key.data()
                self._start_due()
                cut_large(self._place.log(name) for name in (*FIRST, MONITOR))
        finally:
            signal.set_wakeup_fd(before)
            os.close(waking)
            os.close(woken)

    def _watch(self, name: str) -> None:
        process = self._kept[name].process
        assert process is not None
        self._selector.register(process.fd, selectors.EVENT_READ, lambda: self._ended(name))
        if process.ready is not None:
            self._selector.register(process.ready, selectors.EVENT_READ, lambda: self._heard(name))

    def _heard(self, name: str) -> None:
        process = self._kept[name].process
        assert process is not None
        if process.ready is None:
            return
        self._selector.unregister(process.ready)
        process.heard_ready()
        if process.serves:
            self._kept[name].said = ""
            self._teller.note("info", f"the {name} serves again")

    def _ended(self, name: str) -> None:
        kept = self._kept[name]
        process, kept.process = kept.process, None
        if process is None:
            return
        self._selector.unregister(process.fd)
        if process.ready is not None:
            self._selector.unregister(process.ready)
        now_s = time.monotonic()
        kept.delay_s = next_delay_s(kept.delay_s, now_s - kept.began_s, process.serves)
        kept.due_s = now_s + kept.delay_s
        self._tell_end(kept, process)
        process.close()

    def _tell_end(self, kept: Kept, process: Process) -> None:
        again = f"it is started again in {kept.delay_s:g} s"
        if process.serves:
            code = process.exit_code
            how = "ended" if code is None else f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
            self._teller.note("warning", f"the {process.name} {how}; {again}")
            return
        error = process.wait_error()
        if str(error) != kept.said:  # each sentence once
            kept.said = str(error)
            self._teller.note("error", f"the {process.name} cannot start: {error}; {again}, and so on")

    def _patience_s(self) -> float:
        due = [kept.due_s for kept in self._kept.values() if kept.process is None]
        return min(CUT_S, max(0.0, min(due) - time.monotonic())) if due else CUT_S

    def _start_due(self) -> None:
        for name, kept in self._kept.items():
            if kept.process is not None or kept.due_s > time.monotonic():
                continue
            try:
                found = Process.find(self._place, name)  # somebody was quicker
                kept.process = found or Process.start(self._place, name, self._words(name))
                kept.began_s = time.monotonic()
                self._watch(name)
            except (HawseError, OSError) as error:  # no memory, no processes: later, perhaps
                kept.delay_s = next_delay_s(kept.delay_s, 0.0, served=False)
                kept.due_s = time.monotonic() + kept.delay_s
                self._teller.note("error", f"the {name} cannot be started: {error}")

    def _note_stop(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = number

    def _hurry(self, number: int, _frame: FrameType | None) -> None:
        """Somebody asks again while daemons are being stopped: no more waiting."""
        for kept in self._kept.values():
            if kept.process is not None:
                kept.process.signal(signal.SIGKILL)

    def _stop_all(self) -> None:
        problems = []
        for name in END_ORDER:
            kept = self._kept.get(name)
            if kept is None or kept.process is None:
                continue
            process, kept.process = kept.process, None
            try:
                if not process.stop():
                    self._teller.note("warning", f"the {name} did not end when it was told to, and was killed")
            except HawseError as error:
                problems.append(error.message)
            if self._follower is not None:
                self._follower.read()
        if problems:
            raise unavailable("; ".join(problems))


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
