"""The texts of `hawse help`: every command in them is one, every number is the code's, and any terminal shows them."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from plugin.agent.attachments import SETTLE_MS
from runtime.daemon import events, exits, plans
from sdn.cli import main as cli
from sdn.cli import topics
from sdn.cli.commands import COMMANDS, GROUPS, Command, find
from sdn.cli.completion import complete
from sdn.cli.exits import Exit
from sdn.cli.topics import TOPICS, Style, read, render
from sdn.controller import call, labels, plan_endpoints, plan_hosts, plan_subnets, plan_tokens, query, scope, throttle
from sdn.controller.governor import Limits
from sdn.controller.options import DEFAULT_POOLS
from sdn.controller.steering import listener
from sdn.ipam import subnet
from sdn.model import container, ids, resources
from sdn.service import roots
from sdn.store.sqlite import KEEP_CHANGES

README = Path(__file__).parents[2] / "README.md"
PLAIN = Style("", "", 80)
HOUR_S, DAY_S, MIB = 3600, 86400, 1 << 20
FOUR, SIX = (resources.VXLAN_OVERHEAD_BYTES[family] for family in (4, 6))
POOL4, POOL6 = DEFAULT_POOLS
FOREIGN = ("ovs-vsctl", "ovs-ofctl")
"""Commands of other programs that a text may tell to type."""
NAMES = ("IPv4", "IPv6", "TLS 1.3")
"""What has digits and is no number."""
FACTS: dict[str, list[str]] = {
    "networks": [
        f"{FOUR} bytes less over IPv4",
        f"{SIX} where a host has an IPv6",
        f"of {resources.MTU_MIN_BYTES} at least",
    ],
    "addresses": [
        f"a /{POOL4.length} of {POOL4.prefix}",
        f"a /{POOL6.length} of {POOL6.prefix}",
        f"/{subnet.LENGTH_MIN[4]} to /{subnet.LENGTH_MAX[4]} in IPv4",
        f"/{subnet.LENGTH_MIN[6]} to /{subnet.LENGTH_MAX[6]} in IPv6",
    ],
    "machines": [],
    "security": ["mode 0600"],  # what a socket has is tested with the sockets
    "switches": [],
    "packets": [],
    "limits": [
        f"{resources.ENDPOINTS_PER_NETWORK_AND_HOST_MAX} endpoints of a network on one host",
        "has 1023 ports",  # BR_MAX_PORTS of the kernel, less the first
        f"{plan_subnets.SUBNETS_MAX} subnets in a network, {subnet.RESERVED_MAX} reserved",
        f"{resources.VNI_MAX} networks",
        f"{labels.LABELS_MAX} labels of a thing, of {labels.LABEL_CHARACTERS_MAX} characters each",
        f"{plan_endpoints.ALIASES_MAX} aliases",
        f"up to {ids.NAME_LENGTH_MAX} characters",
        f"An MTU of {resources.MTU_MIN_BYTES} at least; VXLAN takes {FOUR} bytes of the uplink's over IPv4, {SIX} over",
        "1024 neighbours",  # the kernel's own gc_thresh3
        "gc_thresh3",
        f"keeps {KEEP_CHANGES} transactions",
        f"at most {SETTLE_MS} ms",
        f"up to {plan_hosts.ROUTES_MAX} routes",
        f"A body of {call.BODY_BYTES_MAX // MIB} MiB, which must be there within {call.BODY_TIMEOUT_S:g} s",
        f"up to {query.LIMIT_MAX} things",
        f"{scope.STREAMS_MAX} streams of events for administrators; {scope.TENANT_STREAMS_MAX} for the users",
        f"{Limits().unproven} connections that have shown no credential yet, half of them of one address",
        f"(IPv6: of one /{throttle.IPV6_PREFIX}): one too many",
        f"{Limits().per_user} connections of one user, {Limits().per_host} of one host",
        f"{listener.LIMITS.unproven} connections of switches that have not said",
        f"{plan_tokens.TOKENS_MAX} tokens",
        f"valid for {plan_tokens.JOIN_TTL_S / HOUR_S:g} hour unless",
        f"for {plan_tokens.JOIN_TTL_MAX_S / DAY_S:g} days at most",
        f"of one /{throttle.IPV6_PREFIX}): {throttle.FREE:g} are refused at once",
        f"by up to {throttle.DELAY_MAX_S:g} s",
        "then sent away with 429",  # HTTP's own
        f"{plans.INTERFACES_MAX} networks for a container. At least {container.MEMORY_BYTES_MIN // MIB} MiB",
        f"{container.LOG_BYTES_MAX // MIB} MiB of output",
        f"{exits.KEEP} exits and {events.KEEP} events",
    ],
    "containers": [
        f"the newest {container.LOG_BYTES_MAX // MIB} MiB",
        f"SIGKILL after {container.STOP_TIMEOUT_S:g} s",
        "128 + N after signal N. 125: the runtime refused. 126: the command cannot be executed. 127: there is none",
    ],
}
"""By topic: all that its text says with numbers, the numbers from where they are decided."""


def shown(topic: str) -> str:
    """A text as it is piped, on one line."""
    return re.sub(r"\s+", " ", render(read(topic), PLAIN))


@pytest.mark.parametrize("topic", TOPICS)
def test_every_number_is_the_codes(topic):
    text = re.sub(r"```.*?```", "", read(topic), flags=re.DOTALL)
    text = re.sub(r"\s+", " ", text)
    for fact in FACTS[topic]:
        assert fact in text, f"{topic}.md does not say (any more): {fact}"
    for known in (*FACTS[topic], *NAMES):
        text = text.replace(known, "")
    text = re.sub(r"`[^`]*`", "", text)
    assert re.findall(r".{20}\d.{,20}", text) == []


@pytest.mark.parametrize("topic", TOPICS)
def test_the_first_line_is_the_summary(topic):
    assert read(topic).startswith(f"# {topic.capitalize()}: {TOPICS[topic]}\n")


def test_every_text_is_a_topic():
    assert {path.name for path in Path(topics.__file__).with_name("help").iterdir()} == {f"{t}.md" for t in TOPICS}


def blocks_of(text: str) -> list[str]:
    """The lines of blocks: what a reader types."""
    return [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def mentions_of(text: str) -> list[str]:
    """Code between backticks, outside of blocks."""
    return re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL).replace("\n", " "))


def options_of(command: Command) -> set[str]:
    return {option for action in cli.build_parser(command)._actions for option in action.option_strings}


def check_typed(line: str) -> None:
    """Fails where it is no command, or its parser refuses it."""
    words = shlex.split(line.partition(" #")[0])
    if words[0] in FOREIGN:
        return
    command = find(tuple(words[1:3]))
    assert (words[0], command is None) == ("hawse", False), line
    assert command is not None
    try:
        cli.build_parser(command).parse_args(words[1 + len(command.words) :])
    except SystemExit:
        pytest.fail(f"its parser refuses: {line}")


def check_mentioned(code: str) -> None:
    """Fails where it names a command, a group, a topic or an option that is none."""
    words = code.split()[1:]
    command = find(tuple(words))
    if command is None:
        assert words[0] in (*GROUPS, "--help", "COMMAND"), code
        return
    rest = words[len(command.words) :]
    if command.words == ("help",):
        assert rest[0] in (*TOPICS, "TOPIC"), code
    assert {word for word in rest if re.match("--?[a-z]", word)} <= options_of(command), code


@pytest.mark.parametrize("topic", TOPICS)
def test_every_command_is_one_that_its_parser_takes(topic):
    typed = blocks_of(read(topic))
    assert typed or topic in ("limits", "security")
    for line in typed:
        check_typed(line)
    for code in mentions_of(read(topic)):
        if code.startswith("hawse "):
            check_mentioned(code)


def test_every_option_that_is_named_is_some_commands():
    known = set[str]().union(*(options_of(one) for one in COMMANDS if not one.raw))
    for topic in TOPICS:
        for code in mentions_of(read(topic)):
            if code.startswith("-"):
                assert code.split()[0] in known, f"{topic}: {code}"


@pytest.mark.parametrize("width", [40, 80, 100])
@pytest.mark.parametrize("topic", TOPICS)
def test_no_line_of_prose_is_wider_than_the_terminal(topic, width):
    bold = Style("\x1b[1m", "\x1b[0m", width)
    text = render(read(topic), bold)
    assert "`" not in text
    assert "**" not in text
    for line in text.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines():
        assert len(line) <= width or line.startswith("    hawse") or " " not in line.strip() or "hawse " in line, line
    words = re.sub(r"[`*#]|\s+", "", read(topic))
    assert re.sub(r"\x1b\[\dm|[*#]|\s+", "", text) == words


def test_blocks_lists_and_words():
    text = "# T: x\n\na `b c` and `d`, **e f** *g*\n\n* one\n  two\n* three\n\n"
    text += "```\nhawse ps   # `x` *y*\n\nhawse ls\n```\n"
    assert render(text, PLAIN) == (
        "T: x\n\na 'b c' and d, e f g\n\n  * one two\n  * three\n\n    hawse ps   # `x` *y*\n\n    hawse ls\n"
    )
    assert render("`b c` *g*\n", Style("<", ">", 80)) == "<b c> <g>\n"
    assert render("aaaa `bb bb` cc\n", Style("<", ">", 9)) == "aaaa\n<bb bb> cc\n"


@pytest.mark.parametrize(("environment", "bold"), [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False)])
def test_on_a_terminal_headings_are_bold_and_lines_fit(environment, bold):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    command = [sys.executable, "-m", "sdn.cli.main", "help", "limits"]
    with subprocess.Popen(command, stdout=theirs, stdin=theirs, env={**os.environ, **environment}) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            said += part
    os.close(ours)
    assert process.returncode == 0
    lines = said.decode().splitlines()
    assert ("\x1b[1mNetworks\x1b[0m" in lines) is bold
    assert max(len(re.sub(r"\x1b\[\dm", "", line)) for line in lines) <= 60


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("netwroks", "did you mean 'hawse help networks'?"),
        ("limit", "did you mean 'hawse help limits'?"),
        ("completoin", "did you mean 'hawse help completion'?"),
        ("qqqq", "'hawse help' lists all"),
    ],
)
def test_an_unknown_topic_names_the_nearest(typed, says, capsys):
    assert cli.main(["help", typed]) == Exit.USAGE
    assert says in capsys.readouterr().err


def test_help_is_there_whatever_is_said_before_the_command(capsys):
    assert cli.main(["--root", "/nowhere", "help", "machines"]) == 0
    assert capsys.readouterr().out.startswith("Machines")


def test_help_of_commands_groups_and_all(capsys):
    assert cli.main(["help", "network", "create"]) == 0
    assert capsys.readouterr().out.startswith("usage: hawse network create")
    assert cli.main(["help", "network"]) == 0
    assert "'hawse help networks' explains" in capsys.readouterr().out
    assert cli.main(["help"]) == 0
    everything = capsys.readouterr().out
    assert all(f"help {topic}" in everything for topic in TOPICS)
    assert cli.main(["help", "security"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_topics_are_completed(capsys):
    complete(["help", "se"])
    assert capsys.readouterr().out == "security\n"
    complete(["help", "network", "cre"])
    assert capsys.readouterr().out == "create\n"


def test_paths_are_the_codes():
    text = shown("machines") + shown("security")
    assert f"Their state is in {roots.DEFAULT_STATE}, their sockets in {roots.DEFAULT_RUN}." in text
    assert f"Below {roots.DEFAULT_STATE}, for root alone" in text
    assert f"{roots.DEFAULT_RUN}/controller.sock" in README.read_text()


def test_every_command_of_the_readme_is_one():
    typed = [line.partition("&&")[0] for line in blocks_of(README.read_text()) if line.startswith("hawse ")]
    assert typed
    for line in typed:
        check_typed(line.strip())
