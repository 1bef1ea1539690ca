"""The pure core of the runtime's daemon: states, restarts, names, references, signals, processes, plans, texts."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.daemon.names import ADJECTIVES, NOUNS, random_name
from runtime.daemon.plans import ImageView, Start, check_spec, interface_names, launch_plan
from runtime.daemon.processes import Confinement, command_of, environment_of, stop_signal_of, working_directory
from runtime.daemon.references import find
from runtime.daemon.restarts import DELAY_MAX_S, STABLE_S, Wish, delay_s, streak_after, wants_restart, wants_start
from runtime.daemon.signals import parse_signal
from runtime.daemon.states import LIVING, TRANSITIONS, Act, next_state
from runtime.daemon.system_files import hosts_text, resolv_text
from runtime.plan import LaunchPlan
from sdn.model.container import ContainerSpec, Interface, MountKind, MountSpec, NetworkWish, Restart, State
from sdn.model.errors import HawseError, Kind

CONFIG = {"Entrypoint": ["/entry"], "Cmd": ["a", "b"], "Env": ["PATH=/opt", "X=1"], "User": "app", "WorkingDir": "/w"}
IMAGE = ImageView("sha256:1", CONFIG, ("/l/top", "/l/base"))
START = Start("0123456789abcdef", 3, "/c/0123456789abcdef", "/v", "hawse/1a2b3c4d")
CONFINED = Confinement((1, 5), "/filter")


def plan(spec: ContainerSpec, image: ImageView = IMAGE, exists: bool = True) -> LaunchPlan:
    return launch_plan(spec, image, START, CONFINED, exists=lambda path: exists)


# States ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("act", Act)
def test_what_the_table_does_not_have_is_refused_with_a_sentence(state: State, act: Act) -> None:
    if (state, act) in TRANSITIONS:
        assert next_state(state, act, "c") is TRANSITIONS[state, act]
        return
    with pytest.raises(HawseError) as caught:
        next_state(state, act, "c")
    assert caught.value.kind is Kind.CONFLICT
    assert f"container c: it is {state.value}" in caught.value.message
    assert caught.value.hint


def test_only_what_is_started_lives_and_only_what_lives_ends() -> None:
    for (before, act), after in TRANSITIONS.items():
        assert (after in LIVING) == (before in LIVING or act is Act.START) or act in (Act.EXIT, Act.LOSE)
        assert act not in (Act.EXIT, Act.LOSE) or before in LIVING
        assert act is not Act.REMOVE or before not in LIVING


# Restarts -------------------------------------------------------------------------------------------------------------


def test_delays_double_up_to_a_minute_and_begin_anew_after_a_long_run() -> None:
    assert [delay_s(streak) for streak in range(1, 5)] == [0.1, 0.2, 0.4, 0.8]
    assert delay_s(40) == delay_s(10**6) == DELAY_MAX_S
    assert streak_after(7, STABLE_S - 0.1) == 8
    assert streak_after(7, STABLE_S) == 1


@pytest.mark.parametrize(
    ("policy", "retries", "wish", "code", "restarts", "after_exit", "at_start"),
    [
        (Restart.NO, 0, Wish.RUNNING, 1, 0, False, False),
        (Restart.ALWAYS, 0, Wish.RUNNING, 0, 9, True, True),
        (Restart.ALWAYS, 0, Wish.STOPPED, 0, 9, False, True),
        (Restart.UNLESS_STOPPED, 0, Wish.RUNNING, 0, 0, True, True),
        (Restart.UNLESS_STOPPED, 0, Wish.STOPPED, 1, 0, False, False),
        (Restart.ON_FAILURE, 0, Wish.RUNNING, 0, 0, False, False),
        (Restart.ON_FAILURE, 0, Wish.RUNNING, 255, 99, True, True),
        (Restart.ON_FAILURE, 3, Wish.RUNNING, 1, 2, True, True),
        (Restart.ON_FAILURE, 3, Wish.RUNNING, 1, 3, False, False),
        (Restart.ON_FAILURE, 3, Wish.STOPPED, 1, 0, False, False),
    ],
)
def test_policies(
    policy: Restart, retries: int, wish: Wish, code: int, restarts: int, after_exit: bool, at_start: bool
) -> None:
    assert wants_restart(policy, retries, wish, code, restarts) is after_exit
    assert wants_start(policy, retries, wish, code, restarts) is at_start


# Names and references -------------------------------------------------------------------------------------------------


def test_names_are_unique_when_chance_is_used_up() -> None:
    assert len(set(ADJECTIVES)) == len(ADJECTIVES) > 60
    assert len(set(NOUNS)) == len(NOUNS) > 60
    taken: set[str] = set()
    for _ in range(200):
        name = random_name(taken, lambda n: 0)
        assert name not in taken
        taken.add(name)
    chance = random.Random(1)
    assert len({random_name((), chance.randrange) for _ in range(50)}) > 45


def test_references() -> None:
    ids: dict[str, Any] = dict.fromkeys(("abab11", "abab22", "cdcd33"))
    names = {"web": "abab11", "cdcd33": "abab22", "c": "abab22"}
    assert find("web", names, ids) == "abab11"
    assert find("cdcd33", names, ids) == "abab22", "a name goes before an id"
    assert find("abab1", names, ids) == "abab11"
    assert find("c", names, ids) == "abab22"
    with pytest.raises(HawseError, match="begins the ids of 2 containers: abab11, abab22") as several:
        find("abab", names, ids)
    assert several.value.kind is Kind.CONFLICT
    with pytest.raises(HawseError, match="there is no container 'cdc'"):
        find("cdc", names, ids)  # too short for an id: more likely a name that is not there
    with pytest.raises(HawseError, match="there is no container 'wab'") as absent:
        find("wab", names, ids)
    assert (absent.value.kind, absent.value.hint) == (Kind.NOT_FOUND, "did you mean web?")
    with pytest.raises(HawseError, match="no container was named"):
        find("", names, ids)


def test_signals() -> None:
    assert parse_signal("SIGTERM") == parse_signal("term") == parse_signal("15") == signal.SIGTERM
    assert parse_signal("RTMIN+3") == signal.SIGRTMIN + 3
    for text in ("", "0", "65", "SIGNOPE", "RTMIN+x", "TERM+1", "RTMIN+99", "-9", "²"):
        with pytest.raises(HawseError, match="is not a signal"):
            parse_signal(text)


# Processes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entrypoint", "command", "wanted"),
    [
        (None, (), ("/entry", "a", "b")),
        (None, ("c",), ("/entry", "c")),
        (("/mine",), (), ("/mine",)),
        (("/mine",), ("c",), ("/mine", "c")),
        ((), ("c",), ("c",)),
    ],
)
def test_commands_are_merged_as_dockers(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    assert command_of(ContainerSpec(image="i", entrypoint=entrypoint, command=command), CONFIG) == wanted


def test_no_command_is_a_sentence() -> None:
    with pytest.raises(HawseError, match="there is no command"):
        command_of(ContainerSpec(image="i", entrypoint=()), CONFIG)
    with pytest.raises(HawseError, match="nor does image i have one"):
        command_of(ContainerSpec(image="i"), {})


def test_the_last_of_a_variable_counts() -> None:
    env = environment_of("h", True, ["PATH=/opt", "X=1"], ["X=2", "Y=a=b"])
    assert env == ["PATH=/opt", "HOSTNAME=h", "TERM=xterm", "X=2", "Y=a=b"]
    assert "TERM=xterm" not in environment_of("h", False, [], [])
    for bad in ("NAME", "=x", ""):
        with pytest.raises(HawseError, match="is no variable"):
            environment_of("h", False, [], [bad])


def test_working_directories() -> None:
    assert [working_directory(*pair) for pair in (("/a", "/b"), ("", "/b"), ("", ""))] == ["/a", "/b", "/"]
    with pytest.raises(HawseError, match="is relative"):
        working_directory("a", "/b")


def test_stop_signals() -> None:
    assert stop_signal_of(ContainerSpec(image="i"), {}) == signal.SIGTERM
    assert stop_signal_of(ContainerSpec(image="i"), {"StopSignal": "SIGQUIT"}) == signal.SIGQUIT
    assert stop_signal_of(ContainerSpec(image="i", stop_signal="INT"), {"StopSignal": "SIGQUIT"}) == signal.SIGINT


# Plans ----------------------------------------------------------------------------------------------------------------


def test_a_plan_in_full() -> None:
    spec = ContainerSpec(
        image="i", tty=True, stdin=True, init=True, read_only=True, remove=True, memory_bytes=1 << 26, cpus=1.5,
        pids=9, env=("X=2",), log_bytes_max=1 << 20,
    )  # fmt: skip
    made = plan(spec)
    assert (made["id"], made["run"], made["hostname"], made["init"]) == (START.id, 3, "0123456789ab", True)
    assert made["root"] == {
        "layers": ["/l/top", "/l/base"], "upper": f"{START.directory}/upper", "work": f"{START.directory}/work",
        "read_only": True, "volatile": True,
    }  # fmt: skip
    assert made["cgroup"] == {
        "path": f"hawse/1a2b3c4d/{START.id}", "memory_bytes": 1 << 26, "cpus": 1.5, "pids": 9
    }  # fmt: skip
    process = made["process"]
    assert (process["argv"], process["cwd"], process["user"]) == (["/entry", "a", "b"], "/w", "app")
    assert (process["capabilities"], process["seccomp"], process["no_new_privileges"]) == ([1, 5], "/filter", True)
    assert process["tty"] == {"rows": 0, "columns": 0}
    assert process["stdin"]
    assert "X=2" in process["env"]
    assert [mount["target"] for mount in made["mounts"]] == ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]
    assert "/proc/kcore" in made["masked"]
    assert "/proc/sys" in made["read_only_paths"]


def test_outer_mounts_come_before_what_is_mounted_in_them() -> None:
    mounts = (
        MountSpec(kind=MountKind.TMPFS, target="/a/b/c", size_bytes=4096),
        MountSpec(kind=MountKind.VOLUME, source="data", target="/a/b/", read_only=True),
        MountSpec(kind=MountKind.BIND, source="/src", target="/a"),
        MountSpec(kind=MountKind.BIND, source="/my", target="/etc/hosts"),
    )
    image = ImageView("i", CONFIG, (), (("/usr", "/usr"),))
    made = plan(ContainerSpec(image="i", mounts=mounts), image)["mounts"]
    assert [(mount["kind"], mount.get("source", ""), mount["target"], mount["read_only"]) for mount in made] == [
        ("bind", "/usr", "/usr", True),
        ("bind", f"{START.directory}/hostname", "/etc/hostname", False),
        ("bind", f"{START.directory}/resolv.conf", "/etc/resolv.conf", False),
        ("bind", "/src", "/a", False),
        ("bind", "/v/data", "/a/b/", True),
        ("bind", "/my", "/etc/hosts", False),
        ("tmpfs", "", "/a/b/c", False),
    ]
    assert made[-1]["data"] == "mode=1777,size=4096"


def test_a_missing_source_of_a_bind_is_a_sentence() -> None:
    mounts = (MountSpec(kind=MountKind.BIND, source="/src", target="/a"),)
    with pytest.raises(HawseError, match="the source /src of a bind is not there") as caught:
        plan(ContainerSpec(image="i", mounts=mounts), exists=False)
    assert caught.value.kind is Kind.NOT_FOUND


def mount(**fields: Any) -> dict[str, Any]:
    return {"mounts": (MountSpec(**{"kind": MountKind.BIND, "source": "/s", "target": "/t", **fields}),)}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"image": ""}, "no image was named"),
        ({"memory_bytes": 1}, "1 bytes of memory are not enough"),
        ({"memory_bytes": -1}, "-1 bytes of memory"),
        ({"cpus": 3.0}, "3 CPUs are not possible: this host has 2"),
        ({"cpus": 0.001}, "0.001 CPUs"),
        ({"cpus": float("nan")}, "nan CPUs"),
        ({"pids": -1}, "-1 processes"),
        ({"stop_timeout_s": -1.0}, "not negative"),
        ({"log_bytes_max": 1}, "a log of 1 bytes"),
        ({"hostname": "a b"}, "'a b' is not a name for a host"),
        ({"hostname": "x" * 65}, "is not a name for a host"),
        ({"stop_signal": "NOPE"}, "'NOPE' is not a signal"),
        ({"remove": True, "restart": Restart.ALWAYS}, "cannot be restarted"),
        ({"restart": Restart.ALWAYS, "restart_retries": 3}, "belongs to the policy on-failure"),
        (mount(source="rel"), "'rel' of a bind is relative"),
        (mount(target="rel"), "'rel' of a mount is relative"),
        (mount(target="//."), "in place of the container's /"),
        (mount(target="/a/../b"), "has '..' in it"),
        (mount(kind=MountKind.VOLUME, source="../x"), "'../x' is not a name for a volume"),
        (mount(kind=MountKind.TMPFS, source="", size_bytes=-1), "a tmpfs of -1 bytes"),
        ({"mounts": (*mount()["mounts"], *mount(source="/o")["mounts"])}, "two mounts have the same target /t"),
        ({"networks": (NetworkWish(network="a", ifname="x"), NetworkWish(network="b", ifname="x"))}, "be named x"),
        ({"networks": tuple(NetworkWish(network="a") for _ in range(65))}, "65 networks are too many"),
    ],
)
def test_impossible_wishes_are_sentences(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HawseError) as caught:
        check_spec(ContainerSpec(**{"image": "i", **fields}), 2)
    assert sentence in caught.value.message
    assert caught.value.kind is Kind.INVALID


def test_interfaces_get_the_first_free_names() -> None:
    wishes = tuple(NetworkWish(network="n", ifname=name) for name in ("", "eth0", "", "lan"))
    assert interface_names(ContainerSpec(image="i", networks=wishes)) == ["eth1", "eth0", "eth2", "lan"]


# Texts ----------------------------------------------------------------------------------------------------------------


def test_hosts() -> None:
    interface = Interface(network="n", ifname="eth0", endpoint="e", mac="m", addresses=("10.1.0.2/24", "fd00::2/64"))
    lines = hosts_text("h", "web", [interface]).splitlines()
    assert lines[-2:] == ["10.1.0.2\th web", "fd00::2\th web"]
    assert hosts_text("web", "web", []).splitlines()[-1] == "127.0.1.1\tweb"


def test_name_servers_on_the_hosts_loopback_are_left_out() -> None:
    text = "search a.b\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\n"
    assert resolv_text(text) == "search a.b\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n"


@given(st.text(max_size=300))
def test_no_hosts_file_of_a_host_is_too_odd(text: str) -> None:
    kept = resolv_text(text).splitlines()
    assert not [line for line in kept if line.split()[:1] == ["nameserver"] and line.split()[1:2] == ["127.0.0.1"]]
