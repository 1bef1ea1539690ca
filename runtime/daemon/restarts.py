"""Whether and when a container that ended is started again. Pure."""

from __future__ import annotations

import enum

from sdn.model.container import Restart

DELAY_FIRST_S = 0.1
DELAY_MAX_S = 60.0
STABLE_S = 10.0
"""Who ran for so long has not failed at its start: its next delay is the first again."""


class Wish(enum.StrEnum):
    """Whether a container should run, as users have said."""

    RUNNING = "running"
    STOPPED = "stopped"


def streak_after(streak: int, ran_s: float) -> int:
    """How many short runs there were in a row, this one included."""
    return 1 if ran_s >= STABLE_S else streak + 1


def delay_s(streak: int) -> float:
    """How long to wait after that many short runs: 100 ms, doubled each time, at most a minute."""
    return float(min(DELAY_FIRST_S * 2 ** min(max(streak, 1) - 1, 32), DELAY_MAX_S))


def wants_restart(policy: Restart, retries: int, wish: Wish, code: int, restarts: int) -> bool:
    """After an exit. `restarts`: how often it was restarted already since a user started it."""
    if wish is Wish.STOPPED:
        return False
    if policy is Restart.ON_FAILURE:
        return code != 0 and (retries == 0 or restarts < retries)
    return policy is not Restart.NO


def wants_start(policy: Restart, retries: int, wish: Wish, code: int, restarts: int) -> bool:
    """When the daemon starts and it does not run: as after an exit, but that `always` starts what was stopped too."""
    return policy is Restart.ALWAYS or wants_restart(policy, retries, wish, code, restarts)
