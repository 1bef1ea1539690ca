"""Every command: its words, what it does, an example, and where it lives. Nothing is imported before it is called."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """`target` and `arguments` are `module:function`.

    `arguments(parser)` fills an argparse parser and `target(args)` returns the exit code; with `raw`, `target(argv)`
    parses by itself. `daemon`: it is served by nobody, so it has none of the options that find the daemons.
    """

    words: tuple[str, ...]
    summary: str
    target: str
    arguments: str = ""
    raw: bool = False
    daemon: bool = False
    examples: tuple[str, ...] = ()


def _command(words: str, summary: str, module: str, verb: str, *examples: str) -> Command:
    return Command(tuple(words.split()), summary, f"{module}:{verb}", f"{module}:{verb}_arguments", examples=examples)


def _lab(verb: str, summary: str, *examples: str) -> Command:
    return Command(
        ("lab", verb), summary, f"topologies.commands:{verb}", f"topologies.arguments:{verb}", examples=examples
    )


def _daemon(word: str, summary: str, module: str, *examples: str) -> Command:
    return Command((word,), summary, f"{module}:run", f"{module}:arguments", daemon=True, examples=examples)


COMMANDS: tuple[Command, ...] = (
    _command(
        "up", "start this machine: a controller, an agent and a runtime", "sdn.cli.machine", "up",
        "hawse up                                    # in the foreground, with logs",
        "hawse up -d --listen 10.0.0.1:4780          # behind; it is remembered how",
        "hawse up -d --datapath openflow             # through Open vSwitch",
    ),
    _command(
        "join", "make this machine a host of another's controller", "sdn.cli.join", "join",
        "hawse join 10.0.0.1 TOKEN                   # as 'hawse token create' prints it there",
        "hawse join -d 10.0.0.1 -                    # the token comes from standard input",
    ),
    _command(
        "down", "stop this machine's daemons; what they keep stays", "sdn.cli.machine", "down",
        "hawse down --keep-containers                # and 'hawse up -d' after an upgrade",
    ),
    _command("leave", "be no host any more", "sdn.cli.machine", "leave", "hawse leave --force"),
    _command(
        "network create", "make a network", "sdn.cli.network", "create",
        "hawse network create web --subnet 10.1.0.0/24",
        "hawse network create blue/db --subnet 10.2.0.0/24 --range 10.2.0.128-10.2.0.250 --subnet fd00:2::/64",
        "hawse network create any --ipv6 --wait     # subnets are chosen; ends when every host has it",
    ),
    _command(
        "network ls", "list networks", "sdn.cli.network", "ls",
        "hawse network ls --tenant blue --label tier=1",
    ),
    _command(
        "network inspect", "show all of a network: subnets, how full they are, who is in it",
        "sdn.cli.network", "inspect",
        "hawse network inspect blue/web",
    ),
    _command(
        "network update", "change labels, add subnets", "sdn.cli.network", "update",
        "hawse network update web --label tier=1 --subnet 10.1.8.0/24 --wait",
    ),
    _command(
        "network rm", "remove networks", "sdn.cli.network", "rm",
        "hawse network rm web blue/db",
    ),
    _command(
        "network attach", "give a container an interface in a network", "sdn.cli.attach", "attach",
        "hawse network attach web b1                 # a lab's container, on its host",
        "hawse network attach web --pid 4711 --ip 10.1.0.50 --name db",
        "hawse network attach blue/web --netns /run/netns/red --ifname eth1 --label tier=1",
    ),
    _command(
        "network detach", "take it away again", "sdn.cli.attach", "detach",
        "hawse network detach web --pid 4711",
        "hawse network detach web b1 --ifname eth1   # one of several",
    ),
    _command(
        "tenant create", "make a tenant: an address space and an owner", "sdn.cli.tenant", "create",
        "hawse tenant create blue --label owner=ann",
    ),
    _command("tenant ls", "list tenants", "sdn.cli.tenant", "ls", "hawse tenant ls --label owner=ann"),
    _command(
        "tenant inspect", "show all of a tenant: its labels and networks", "sdn.cli.tenant", "inspect",
        "hawse tenant inspect blue",
    ),
    _command("tenant rm", "remove tenants", "sdn.cli.tenant", "rm", "hawse tenant rm blue"),
    _command("host ls", "list hosts and how far they are", "sdn.cli.host", "ls", "hawse host ls"),
    _command(
        "host inspect", "show all of a host: its VTEPs, MTU, routes and failures", "sdn.cli.host", "inspect",
        "hawse host inspect h1",
    ),
    _command(
        "host drain", "have a host take no further attachments, before it is taken away", "sdn.cli.host", "drain",
        "hawse host drain h1",
        "hawse host drain h1 --wait=10m              # until nothing is attached on it any more",
        "hawse host drain h1 --undo",
    ),
    _command(
        "host forget", "drop a host for good, with its endpoints", "sdn.cli.host", "forget",
        "hawse host forget h9",
        "hawse host forget h9 --force                # though it is connected",
    ),
    _command(
        "host rotate", "give connected hosts another secret; the one before is void then", "sdn.cli.rotation", "rotate",
        "hawse host rotate h1 h2",
    ),
    _command(
        "switch add", "take an Open vSwitch without an agent as a host", "sdn.cli.switch", "add",
        "hawse switch add edge1 --datapath-id 0000a2b4c6d8e0f2 --vtep 10.0.0.9",
        "hawse switch add edge2 --datapath-id 0000a2b4c6d8e0f3 --vtep 10.0.0.8 --tunnel-port 1",
    ),
    _command("switch ls", "list switches and how far they are", "sdn.cli.switch", "ls", "hawse switch ls"),
    _command(
        "switch inspect", "show all of a switch: its connection, ports, what is bound and what it has carried",
        "sdn.cli.switch", "inspect",
        "hawse switch inspect edge1",
    ),
    _command(
        "switch bind", "put what hangs on a switch's port into a network", "sdn.cli.switch", "bind",
        "hawse switch bind edge1 eth3 web            # address and MAC are chosen",
        "hawse switch bind edge1 3 blue/web --ip 10.1.0.50 --mac 52:54:00:12:34:56 --name printer --wait",
    ),
    _command(
        "switch unbind", "take it out again", "sdn.cli.switch", "unbind",
        "hawse switch unbind edge1 eth3",
    ),
    _command(
        "switch certificate", "make what a switch needs for TLS; what it had before is void",
        "sdn.cli.switch", "certificate",
        "hawse switch certificate edge1 --out edge1",
    ),
    _command(
        "switch rm", "drop switches for good", "sdn.cli.switch", "rm",
        "hawse switch rm edge1",
        "hawse switch rm edge1 --force               # though ports are bound",
    ),
    _command(
        "certificate ls", "show what the controller is known by, and who does not trust it yet",
        "sdn.cli.certificate", "ls",
        "hawse certificate ls",
    ),
    _command(
        "certificate rotate", "replace the controller's authority; the one before stays trusted",
        "sdn.cli.certificate", "rotate",
        "hawse certificate rotate",
        "hawse certificate rotate --server            # only the certificate that it has signed",
    ),
    _command(
        "certificate retire", "end the authority before: tokens and logins from then end with it",
        "sdn.cli.certificate", "retire",
        "hawse certificate retire",
        "hawse certificate retire --force             # though hosts have not got the new one",
    ),
    _command(
        "token create", "make a token: for a machine that is to join, or for a user", "sdn.cli.token", "create",
        "hawse token create                          # prints what to type on the machine that is to join",
        "hawse token create --role admin --name ann",
        "hawse token create --role tenant --tenant blue --name ci --ttl 90d",
        "hawse token create -q --ttl 10m > token     # the word alone",
    ),
    _command("token ls", "list tokens, and what became of them", "sdn.cli.token", "ls", "hawse token ls"),
    _command(
        "token revoke", "end tokens; what they have open ends at once", "sdn.cli.token", "revoke",
        "hawse token revoke ann",
    ),
    _command(
        "endpoint ls", "list endpoints", "sdn.cli.endpoint", "ls",
        "hawse endpoint ls --network blue/web --host h1",
    ),
    _command(
        "endpoint inspect", "show all of an endpoint", "sdn.cli.endpoint", "inspect",
        "hawse endpoint inspect blue/db              # by tenant/name, name or id",
    ),
    _command(
        "run", "make a container and start it", "sdn.cli.container_run", "run",
        "hawse run --rm -it alpine sh",
        "hawse run -d --name db --network blue/web --ip 10.1.0.50 -v data:/var/lib/db db:16",
        "hawse run -d --network web --network back:eth1 --memory 256m --cpus 0.5 --restart on-failure:3 api",
        "cat list | hawse run --rm -i host sort       # the machine's own programs",
    ),
    _command(
        "ps", "list containers", "sdn.cli.container", "ps",
        "hawse ps -a --label tier=1",
        "hawse ps -aq                                # ids alone",
    ),
    _command("inspect", "show all of containers", "sdn.cli.container", "inspect", "hawse inspect db -o json"),
    _command(
        "exec", "run another process in a container", "sdn.cli.container_exec", "execute",
        "hawse exec -it db sh",
        "hawse exec -u postgres -e LANG=C db psql -l",
    ),
    _command(
        "logs", "show what a container has written", "sdn.cli.container_logs", "logs",
        "hawse logs -f --tail 20 db",
        "hawse logs --since 10m -t db",
    ),
    _command(
        "start", "start containers that are there", "sdn.cli.container", "start",
        "hawse start db api",
        "hawse start -ai shell                       # in the foreground; attaches to one that runs",
    ),
    _command(
        "stop", "stop containers: their stop signal, then SIGKILL", "sdn.cli.container", "stop",
        "hawse stop -t 30 db",
    ),
    _command("restart", "stop containers and start them", "sdn.cli.container", "restart", "hawse restart db"),
    _command("kill", "send a signal to containers", "sdn.cli.container", "kill", "hawse kill -s HUP db"),
    _command(
        "rm", "remove containers with what they wrote", "sdn.cli.container", "rm",
        "hawse rm db",
        "hawse rm -f db api                          # though they run",
    ),
    _command("wait", "wait until containers have ended", "sdn.cli.container", "wait", "hawse wait job"),
    _command("pause", "freeze containers", "sdn.cli.container", "pause", "hawse pause db"),
    _command("unpause", "let them go on", "sdn.cli.container", "unpause", "hawse unpause db"),
    _command("top", "show a container's processes", "sdn.cli.container_usage", "top", "hawse top db"),
    _command(
        "stats", "show what containers use", "sdn.cli.container_usage", "stats",
        "hawse stats --no-stream db api",
    ),
    _command(
        "image load", "bring images from an archive or an OCI layout", "sdn.cli.image", "load",
        "hawse image load web.tar.gz                 # of docker save, podman save, skopeo copy",
        "docker save web:1.2 | hawse image load",
        "hawse image load build/oci --name web:1.2   # a directory",
    ),
    _command(
        "image import", "make an image of a root file system", "sdn.cli.image", "import_tree",
        "hawse image import debian rootfs.tar.zst --command /bin/bash",
        "hawse image import busybox ./root --env LANG=C --workdir /srv",
    ),
    _command("image ls", "list images", "sdn.cli.image", "ls", "hawse image ls", "hawse image ls -q"),
    _command("image inspect", "show all of images", "sdn.cli.image", "inspect", "hawse image inspect web:1.2 -o json"),
    _command(
        "image rm", "take names of images away, and images with their last name", "sdn.cli.image", "rm",
        "hawse image rm web:1.1 web:1.0",
        "hawse image rm -f 3f2a9c                    # all names of it",
    ),
    _command(
        "image save", "write images into an archive that docker and OCI tools take", "sdn.cli.image", "save",
        "hawse image save web:1.2 db:16 --to both.tar",
        "hawse image save web:1.2 | zstd > web.tar.zst",
    ),
    _command(
        "events", "show what happened, and follow it", "sdn.cli.events", "events",
        "hawse events                                # from now on",
        "hawse events --since 0 --no-follow          # all that is kept",
        "hawse events --since 42.0 -o json           # after an event, by its id",
        "hawse events --containers --since 10m       # this host's containers instead",
    ),
    _command(
        "why", "say why a packet arrives or does not, and which entry decides", "sdn.cli.why", "why",
        "hawse why web-1 db-1 tcp/80",
        "hawse why web-1 10.1.0.1                    # an address: here the gateway",
        "hawse why h1:web-1 blue/db-1 -o json",
    ),
    _command(
        "flow ls", "list the entries that decide about packets on a host", "sdn.cli.flow", "ls",
        "hawse flow ls h1 --network blue/web",
        "hawse flow ls h1 --endpoint web-1           # what is there because of it",
        "hawse flow ls h1 --drops",
    ),
    _command("drops", "show what the guard dropped, by cause", "sdn.cli.drops", "drops", "hawse drops h1"),
    _lab(
        "up", "bring a topology file to life on this machine",
        "hawse lab up topologies/two-hosts.yaml",
        "hawse lab up my.yaml --name second          # beside another one",
    ),
    _lab("check", "prove who reaches whom with real packets", "hawse lab check"),
    _lab(
        "exec", "run a command in a host or container of a lab",
        "hawse lab exec h1 -- hawse network ls",
        "hawse lab exec b1 -- ping -c1 10.1.0.12",
        "hawse lab exec --lab second h1              # a shell",
    ),
    _lab("ps", "show a lab's hosts, daemons and containers", "hawse lab ps"),
    _lab("ls", "list labs", "hawse lab ls"),
    _lab("down", "remove a lab", "hawse lab down two-hosts", "hawse lab down --all"),
    _lab("demo", "two hosts, two tenants, one table: up, check, down", "hawse lab demo"),
    _daemon(
        "controller", "run the controller", "sdn.controller.main",
        "hawse controller --listen 10.0.0.1:4780 --pool 10.64.0.0/10",
    ),
    _daemon("runtime", "run this host's containers", "runtime.daemon.main", "hawse runtime"),
    _daemon("agent", "run this host's agent", "plugin.agent.main", "hawse agent --config /etc/hawse/agent.json"),
    _command(
        "login", "use a controller on another machine; asks for a token", "sdn.cli.login", "login",
        "hawse login 10.0.0.1                        # paste the token where it asks",
        "cat token-file | hawse login https://[fd00::1]:4780",
    ),
    _command("logout", "forget that controller and the token", "sdn.cli.login", "logout", "hawse logout"),
    Command(
        ("doctor",), "find what is wrong with this machine and its place in the fabric, and what to type",
        "plugin.doctor.command:doctor", "plugin.doctor.command:doctor_arguments",
        examples=("hawse doctor", "hawse doctor --host h2             # the path to h2 alone", "hawse doctor -o json",
                  "hawse doctor --controller https://10.0.0.1:4780     # before joining: is it there?"),
    ),
    _command(
        "install", "run this machine's daemons as systemd units", "sdn.cli.install", "install",
        "hawse install --now",
        "hawse install --directory build/units       # only write them",
    ),
    _command(
        "support", "collect what to attach to a bug report, without secrets", "sdn.cli.support", "support",
        "hawse support",
    ),
    _command("version", "show the version of each daemon", "sdn.cli.version", "version", "hawse version -o json"),
    Command(
        ("help",), "explain a topic or a command", "sdn.cli.topics:explain", "sdn.cli.topics:help_arguments",
        examples=("hawse help networks", "hawse help network create"),
    ),
    _command(
        "completion", "print a completion script for bash, zsh or fish", "sdn.cli.completion", "completion",
        "source <(hawse completion bash)",
        "hawse completion fish > ~/.config/fish/completions/hawse.fish",
    ),
)  # fmt: skip

HIDDEN: tuple[Command, ...] = (
    Command(("__complete",), "candidates for the shell", "sdn.cli.completion:complete", raw=True),
)

GROUPS: dict[str, str] = {
    "network": "networks, and attaching to them",
    "tenant": "address spaces and their owners",
    "certificate": "what the controller is known by",
    "host": "machines that run an agent",
    "switch": "Open vSwitches without an agent, which the controller programs",
    "token": "who may join, and who may use the API",
    "image": "what containers are made of",
    "endpoint": "interfaces of containers in networks",
    "flow": "the entries of hosts' tables that decide about packets",
    "lab": "whole multi-host networks on this machine",
}


def below(words: tuple[str, ...]) -> list[Command]:
    """The commands that begin with these words."""
    return [command for command in COMMANDS if command.words[: len(words)] == words]


def find(words: tuple[str, ...]) -> Command | None:
    """The command that is spelt by a prefix of the words (the longest)."""
    for length in (2, 1):
        for command in COMMANDS + HIDDEN:
            if len(command.words) == length and command.words == words[:length]:
                return command
    return None
