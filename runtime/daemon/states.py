"""The states of a container and what may be done in each, as one table."""

from __future__ import annotations

import enum

from sdn.model.container import State
from sdn.model.errors import conflict


class Act(enum.StrEnum):
    """What is done to a container, or happens to it (`exit`, `lose`). The value is the word of the refusal."""

    START = "start"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    SIGNAL = "signal"
    EXEC = "exec"
    REMOVE = "remove"
    EXIT = "exit"
    LOSE = "lose"


TRANSITIONS: dict[tuple[State, Act], State] = {
    (State.CREATED, Act.START): State.RUNNING,
    (State.EXITED, Act.START): State.RUNNING,
    (State.DEAD, Act.START): State.RUNNING,
    (State.RUNNING, Act.PAUSE): State.PAUSED,
    (State.PAUSED, Act.UNPAUSE): State.RUNNING,
    (State.RUNNING, Act.SIGNAL): State.RUNNING,
    (State.PAUSED, Act.SIGNAL): State.PAUSED,
    (State.RUNNING, Act.EXEC): State.RUNNING,
    (State.RUNNING, Act.EXIT): State.EXITED,
    (State.PAUSED, Act.EXIT): State.EXITED,
    (State.RUNNING, Act.LOSE): State.DEAD,
    (State.PAUSED, Act.LOSE): State.DEAD,
    (State.CREATED, Act.REMOVE): State.CREATED,
    (State.EXITED, Act.REMOVE): State.EXITED,
    (State.DEAD, Act.REMOVE): State.DEAD,
}
"""What is not here is refused."""

LIVING = frozenset({State.RUNNING, State.PAUSED})

_HINTS: dict[tuple[Act, bool], str] = {
    (Act.START, True): "it is there already",
    (Act.PAUSE, True): "unpause it first",
    (Act.PAUSE, False): "start it first",
    (Act.UNPAUSE, True): "only what is paused can be",
    (Act.UNPAUSE, False): "start it first",
    (Act.SIGNAL, False): "start it first",
    (Act.EXEC, True): "unpause it first",
    (Act.EXEC, False): "start it first",
    (Act.REMOVE, True): "stop it first, or use --force",
}


def next_state(state: State, act: Act, name: str) -> State:
    """The state after it. Raises: CONFLICT, with the container's name, where the table has none."""
    following = TRANSITIONS.get((state, act))
    if following is None:
        verb = {Act.EXEC: "execute anything in", Act.SIGNAL: "send a signal to"}.get(act, act.value)
        raise conflict(
            f"cannot {verb} container {name}: it is {state.value}",
            _HINTS.get((act, state in LIVING), "look at it with 'hawse inspect'"),
            container=name,
            state=state.value,
        )
    return following
