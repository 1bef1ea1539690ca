"""The runtime's local protocol: what clients ask of `hawse runtime` on its socket, framed as the attach contract is.

One request, then any number of `{"item": …}` frames, then `{"result": …}` or `{"error": …}`. Descriptors (SCM_RIGHTS)
come with the first byte of a frame; which ones, each request says. A container is named by name, id, or a prefix of an
id, of four characters or more, that only one has.

What a client is given when it attaches (`RUN`, `START`, `EXEC`, `LOGS`): descriptors, in this order, named by the
result's `descriptors`: `log` and `index` (the container's log, see `sdn.service.container_log`), `bell` (a pipe: a byte
when the log has grown, end of file when nothing will come any more) and `input` (the terminal's master, or the writing
end of standard input). The daemon may die: who holds them goes on.
"""

from __future__ import annotations

from sdn.model.codec import Decoder
from sdn.model.container import ContainerSpec
from sdn.model.resources import Value


class RunRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="RUN"):
    """Create and start. Result: `RunResult`, with descriptors where `attach`. `start` false: create only.

    `rows`, `columns`: of the terminal where the spec has one.
    """

    container: ContainerSpec
    attach: bool = False
    start: bool = True
    rows: int = 0
    columns: int = 0


class StartRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="START"):
    """Start one that is created or exited; one that runs is left alone. Result: `RunResult`."""

    container: str
    attach: bool = False
    rows: int = 0
    columns: int = 0


class StopRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="STOP"):
    """Its stop signal, then SIGKILL. Result, once it has ended: `ContainerInfo`. None: its own time-out."""

    container: str
    timeout_s: float | None = None


class RestartRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="RESTART"):
    """Stop, then start. Result: `ContainerInfo`."""

    container: str
    timeout_s: float | None = None


class KillRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="KILL"):
    """A signal (name or number) to its first process. Result: {}."""

    container: str
    signal: str = "SIGKILL"


class RemoveRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="RM"):
    """Remove one that does not run, or, with `force`, one that does. Absent: NOT_FOUND. Result: {}."""

    container: str
    force: bool = False


class WaitRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="WAIT"):
    """Until it ends. Result: `Exit`. One that was removed since is remembered for a while. `run`: that start of it.

    `execution`: the end of something that EXEC started there instead.
    """

    container: str
    run: int | None = None
    execution: str = ""


class ExecRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="EXEC"):
    """Another process in a container that runs. Result: `ExecResult` with descriptors `output`, `errors` and `input`.

    With `tty` there is one descriptor, `terminal`, for all three; with `detach` there is none. Without `stdin` there is
    no `input`.
    """

    container: str
    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    tty: bool = False
    stdin: bool = False
    detach: bool = False
    rows: int = 0
    columns: int = 0


class LogsRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="LOGS"):
    """Its log. Result: `RunResult`, descriptors `log`, `index`, and, with `follow`, `bell`."""

    container: str
    follow: bool = False


class InspectRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="INSPECT"):
    """Result: `ContainerInfo`."""

    container: str


class PsRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="PS"):
    """Result: {"items": [ContainerInfo, …]}, oldest first; without `all` those that run or are paused."""

    all: bool = False
    labels: tuple[str, ...] = ()


class TopRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="TOP"):
    """Result: {"items": [{pid, ppid, user, cpu_s, resident_bytes, command}, …]}; pids as the host sees them."""

    container: str


class StatsRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="STATS"):
    """Result: {"items": [Usage, …]} of those named, or of all that run."""

    containers: tuple[str, ...] = ()


class PauseRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="PAUSE"):
    """Freeze. Result: {}."""

    container: str


class UnpauseRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="UNPAUSE"):
    """Go on. Result: {}."""

    container: str


class EventsRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="EVENTS"):
    """Items: `Event`. `since_s`: those kept from that time on (None: from now); without `follow` it ends there."""

    since_s: float | None = None
    follow: bool = True
    container: str = ""


class StatusRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="STATUS"):
    """Result: {version, pid, supervisor_pid, supervisor_version, containers: {state: number}, images: number}."""


class ImageLoadRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="IMAGE_LOAD"):
    """Load an archive (`docker save`, OCI archive; gzip, zstd) from the descriptor, or, where that is one of a
    directory, an OCI layout. Items: `Progress`. Result: {"items": [ImageInfo, …]}. `name`: for one that has none.
    """

    name: str = ""


class ImageImportRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="IMAGE_IMPORT"):
    """Make an image of a root file system: a tar archive or a directory, the descriptor. Items and result as LOAD's.

    `command`, `env`, `workdir`, `user`: its configuration.
    """

    name: str
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""


class ImageListRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="IMAGE_LS"):
    """Result: {"items": [ImageInfo, …]}."""


class ImageInspectRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="IMAGE_INSPECT"):
    """Result: `ImageInfo`."""

    image: str


class ImageRemoveRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="IMAGE_RM"):
    """Take a name away, and the image with its last; CONFLICT while containers use it. Result: {removed: [...]}."""

    image: str
    force: bool = False


class ImageSaveRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="IMAGE_SAVE"):
    """Write an archive that both `docker load` and OCI tools take to the descriptor. Items: `Progress`. Result: {}."""

    images: tuple[str, ...]


Request = (
    RunRequest
    | StartRequest
    | StopRequest
    | RestartRequest
    | KillRequest
    | RemoveRequest
    | WaitRequest
    | ExecRequest
    | LogsRequest
    | InspectRequest
    | PsRequest
    | TopRequest
    | StatsRequest
    | PauseRequest
    | UnpauseRequest
    | EventsRequest
    | StatusRequest
    | ImageLoadRequest
    | ImageImportRequest
    | ImageListRequest
    | ImageInspectRequest
    | ImageRemoveRequest
    | ImageSaveRequest
)
runtime_request_decoder: Decoder[Request] = Decoder(Request, "a request of the runtime's protocol")


class RunResult(Value, frozen=True, kw_only=True):
    """`run`: how many times it was started, for WAIT. `descriptors`: what came with this frame, in order."""

    id: str
    name: str
    run: int = 0
    pid: int = 0
    descriptors: tuple[str, ...] = ()


class ExecResult(Value, frozen=True, kw_only=True):
    """`execution`: for WAIT."""

    execution: str
    pid: int
    descriptors: tuple[str, ...] = ()


class Exit(Value, frozen=True, kw_only=True):
    """How it ended. `code`: 128 + signal where a signal ended it; 125 to 127 where it never ran (`error` says why)."""

    code: int
    oom_killed: bool = False
    error: str = ""


class Event(Value, frozen=True, kw_only=True):
    """`what`: create, start, pause, unpause, oom, die, exec, restart, stop, kill, remove; image-load, image-remove."""

    time_s: float
    what: str
    id: str
    name: str = ""
    facts: dict[str, str | int] = {}


class Progress(Value, frozen=True, kw_only=True):
    """`what`: a layer's short digest or a sentence; `total_bytes` 0: not known."""

    what: str
    done_bytes: int = 0
    total_bytes: int = 0
    finished: bool = False
