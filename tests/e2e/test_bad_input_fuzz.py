"""Nonsense by the hundred, at each of the three doors: the command line, REST, and the agent's socket.

Whatever comes in: no traceback, no internal error, one sentence; and what is refused changes nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdn.cli import main as cli
from sdn.cli.commands import COMMANDS, Command
from sdn.cli.exits import Exit
from sdn.cli.runtime_socket import REFUSED
from sdn.client.client import quote
from sdn.model.errors import HawseError, Kind
from sdn.service.contract_client import request
from sdn.service.framing import MESSAGE_BYTES_MAX
from tests.e2e.standing_lab import Lab, standing_lab

pytestmark = pytest.mark.root

FUZZ = settings(
    max_examples=250, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Its log is looked through at the end: see `standing_lab`."""
    with standing_lab() as up:
        yield up


LIKELY = st.sampled_from([
    "web", "blue", "blue/web", "default", "h1", "a1", "a2", "10.1.0.0/24", "10.1.0.5", "10.20.0.0/16", "fd00:1::/64",
    "10.1.0.2-10.1.0.9", "a=b", "0a:00:00:00:00:01", "01m82anbrsfmazdv9tm7sp54d2", "new",
])  # fmt: skip
HOSTILE = st.sampled_from([
    "", " ", "-", "--", "/", "a/b/c", "0", "-1", "99999999999999999999", "1e9", "nan", "\x00", "a\x00b", "\x1b[2J",
    "\udcff", "ä", "\u202e", "x" * 5000, "../..", "%2f", "%", "?x=1", "#", "10.1.0.0/99999999999999", "::/0",
    "0.0.0.0/0", "null", "[]", "{}",
])  # fmt: skip


def mostly(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is wrong everywhere is refused at the first check: most of it has to be right."""
    return st.integers(0, 5).flatmap(lambda number: bad if number == 5 else good)


TEXTS = mostly(LIKELY, st.one_of(HOSTILE, st.text(max_size=20)))
WRITTEN = TEXTS.filter(lambda text: "\udcff" not in text)
"""What UTF-8 can carry: the rest is refused by the client itself."""


def refusal(ask: Callable[[], object]) -> HawseError | None:
    """Do it; the error that it met."""
    try:
        ask()
    except HawseError as error:
        return error
    return None


# --- the command line ---

ASIDE = (
    "lab", "run", "exec", "logs", "start", "stop", "restart", "kill", "rm", "wait", "pause", "unpause", "stats",
    "image load", "image import", "image save", "certificate", "host drain", "host rotate", "token revoke",
    "switch certificate",
)  # fmt: skip
"""What may take any time, or ends what other examples need; tests/runtime and tests/unit have them."""
MACHINE = ("up", "down", "join", "leave", "install", "support", "login", "logout", "doctor")
"""What is about this very machine, whatever root is named: test_machine_* have them, on machines of their own."""
SERVED = [c for c in COMMANDS if not c.daemon and not {c.words[0], " ".join(c.words)} & {*ASIDE, *MACHINE}]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command: Command = draw(st.sampled_from(SERVED))
    actions = cli.build_parser(command)._actions
    options = [option for action in actions for option in action.option_strings]
    options = [option for option in options if option not in ("--root", "--controller", "--wait")]
    words = draw(st.lists(st.one_of(st.sampled_from(options), TEXTS), max_size=6))
    stop = ["--no-follow"] if command.words == ("events",) else []
    return [*command.words, *stop, *words]


def run_inside(arguments: list[str]) -> tuple[int, str, str]:
    """A command in this very process; its code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(arguments)
        except SystemExit as end:  # argparse ends a wrong command line and --help this way
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


@FUZZ
@given(arguments=command_lines())
def test_nonsense_on_the_command_line(arguments: list[str], lab: Lab) -> None:
    before = lab.revision()
    code, out, err = run_inside(["--root", lab.root("h1"), *arguments])
    assert code in set(Exit) - {Exit.FAILED, Exit.UNAVAILABLE, Exit.TIMED_OUT}, err
    assert bool(code) == bool(err) or arguments[:2] == ["token", "create"]  # what to do with it goes to stderr
    if code:
        assert err.startswith("hawse: ")
        assert "rm" in arguments or "forget" in arguments or lab.revision() == before  # of several some may go
    assert not [character for character in out + err if not character.isprintable() and character != "\n"]


@FUZZ
@given(words=st.lists(st.one_of(TEXTS, st.sampled_from([word for c in COMMANDS for word in c.words])), max_size=4))
def test_nonsense_instead_of_a_command(words: list[str]) -> None:
    """Completion too: a shell asks it about whatever was typed. What would start something is left out."""
    code, _, err = run_inside(["__complete", *words])
    assert (code, err) == (0, "")
    if not {*words[:1]} & {"lab", "controller", "agent", "runtime", "events", *MACHINE}:
        code, _, err = run_inside(["--root", "/nowhere", *words])
        assert code in set(Exit) - {Exit.FAILED} | {REFUSED}, err


# --- REST ---

JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.floats(), TEXTS,
        st.sampled_from([0, -1, 1450, 65536, 1 << 31, 1 << 63]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)  # fmt: skip


def from_schema(schema: dict[str, Any], whole: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of about the right shape: each part is now and then something else altogether."""
    if "$ref" in schema:
        return from_schema(whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]], whole)
    if "anyOf" in schema:
        return st.one_of(*(from_schema(part, whole) for part in schema["anyOf"]), JUNK)
    match schema.get("type"):
        case "object" if "properties" in schema:
            fields = {key: from_schema(part, whole) for key, part in schema["properties"].items()}
            return mostly(st.fixed_dictionaries({}, optional=fields), JUNK)
        case "object":
            return mostly(st.dictionaries(TEXTS, TEXTS, max_size=3), JUNK)
        case "array":
            return mostly(st.lists(from_schema(schema.get("items", {}), whole), max_size=3), JUNK)
        case "integer":
            return mostly(st.integers(1280, 1450), JUNK)
        case "boolean":
            return mostly(st.booleans(), JUNK)
        case "string":
            return mostly(TEXTS, JUNK)
    return JUNK


def operations(whole: dict[str, Any]) -> list[tuple[str, str, st.SearchStrategy[Any]]]:
    """(method, path, bodies) of every operation but the ones that wait by design."""
    found = []
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            if method not in ("get", "post", "put", "delete") or "events" in path or "stream" in path:
                continue
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            bodies = from_schema(content["schema"], whole) if content else st.none()
            found.append((method.upper(), path, bodies))
    return found


HEADERS = st.sampled_from(
    [{}, {}, {}, {}, {"If-Match": "1"}, {"If-Match": "*"}, {"If-Match": "9" * 40}, {"If-Match": '"x"'}]
)
QUERIES = mostly(
    st.just({}),
    st.dictionaries(
        st.sampled_from(["limit", "after", "label", "tenant", "network", "host", "force", "revision", "x"]),
        WRITTEN,
        max_size=2,
    ),
)


def test_nonsense_over_rest(lab: Lab) -> None:
    offered = operations(lab.client.get("/openapi.json").body)
    assert {path for _, path, _ in offered} >= {"/v1/networks", "/v1/tenants/{reference}", "/v1/hosts"}
    seen: set[Kind | None] = set()

    @FUZZ
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        method, path, bodies = data.draw(st.sampled_from(offered), "operation")
        reference = data.draw(WRITTEN, "reference")
        if method == "DELETE" and "/hosts" in path:
            reference += "x"  # whoever forces a host away gets what he asked for, and this lab ends there
        path = path.replace("{reference}", quote(reference)).replace("{port}", quote(data.draw(WRITTEN, "port")))
        body, headers, query = (data.draw(part) for part in (bodies, HEADERS, QUERIES))
        before = lab.revision()
        error = refusal(lambda: lab.client.request(method, path, body, headers, query=query))
        seen.add(error.kind if error else None)
        if error:
            assert error.kind not in (Kind.INTERNAL, Kind.UNAVAILABLE), error
            assert error.message
            assert lab.revision() == before

    ask()
    assert {None, Kind.INVALID, Kind.NOT_FOUND, Kind.CONFLICT} <= seen, "the fuzz is not deep enough"


# --- the agent's socket ---

FIELDS = {
    "verb": st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "add", "", "VERSION"]),
    "client": TEXTS, "scope": TEXTS, "container": TEXTS, "ifname": TEXTS, "network": TEXTS, "mac": TEXTS, "name": TEXTS,
    "addresses": st.lists(TEXTS, max_size=3), "aliases": st.lists(TEXTS, max_size=3),
    "labels": st.dictionaries(TEXTS, TEXTS, max_size=3), "gateway_priority": st.integers(),
    "handover": st.sampled_from(["namespace", "host", "nobody"]), "settle_ms": st.integers(-1, 5),
    "valid": st.lists(st.tuples(TEXTS, TEXTS), max_size=2),
}  # fmt: skip
MESSAGES = st.one_of(
    st.fixed_dictionaries({key: mostly(value, JUNK) for key, value in FIELDS.items()}),
    st.fixed_dictionaries({}, optional=FIELDS),
    JUNK,
)


@FUZZ
@given(message=MESSAGES, with_namespace=st.booleans())
def test_nonsense_on_the_agents_socket(message: Any, with_namespace: bool, lab: Lab) -> None:
    path = f"{lab.root('h1')}/agent.sock"
    before = lab.revision()
    with open(lab.place("a3")) as opened:
        fd = opened.fileno() if with_namespace else None
        error = refusal(lambda: request(path, message, fd, timeout_s=20))
    if error:
        assert error.kind not in (Kind.INTERNAL, Kind.UNAVAILABLE), error
        assert error.message
        assert lab.revision() == before


def test_bytes_that_are_no_message(lab: Lab) -> None:
    """Each on a connection of its own; the agent answers with an error or hangs up, and goes on serving others."""
    path = f"{lab.root('h1')}/agent.sock"
    parts = [
        b"", b"\x00", b"GET / HTTP/1.1\r\n\r\n", struct.pack(">I", 0), struct.pack(">I", MESSAGE_BYTES_MAX + 1) + b"{}",
        struct.pack(">I", 0xFFFFFFFF), struct.pack(">I", 5) + b"{", struct.pack(">I", 2) + b"\xff\xfe",
        struct.pack(">I", 4) + b"null", struct.pack(">I", 100_000) + b"[" * 100_000,
    ]  # fmt: skip
    for part in parts:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(path)
            with contextlib.suppress(OSError):  # it may have hung up already
                connection.sendall(part)
                connection.shutdown(socket.SHUT_WR)
            reply = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    reply += chunk
        if reply:
            assert json.loads(reply[4:])["error"]["kind"] == "invalid"
        assert request(path, {"verb": "STATUS", "client": "cli"})["failures"] == {}
