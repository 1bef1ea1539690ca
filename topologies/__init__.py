"""Topology files, their schema, and the lab that brings them to life with the daemons of production.

Vocabulary
    topology     a file: hosts, tenants, networks, containers, and what is expected of them
    lab          a topology brought to life: hosts as network namespaces running the very daemons of production
    underlay     a namespace with a bridge that the hosts hang on; the controller runs in it
    nursery      a process that imports what daemons need, once for all of a lab's, and forks each of them
    record       what `down` needs: a lab's directory `/run/hawse/<8 hex>`, written before each thing is made
    workload     what runs in a container: image, command, environment, limits, volumes
    station      a container as the check sees it: its namespace, interfaces, and the sockets made in it
    probe        one question: does this packet of this container arrive at that address of that container?
    control      a later packet of the same sender that must arrive: only then does silence count
    forgery      a frame with a lie in it, which must die with a name

One lab's walk: the `nursery` begins to import (`births` is its other end); `document` reads YAML with line numbers,
`schema` makes it a `Topology` or refuses it with file and line; `images` finds what it brings along; `lab` claims a
directory (`record`), makes the `underlay`, and has the nursery bear `daemons`: on each host a runtime, which starts its
supervisor, and an agent, and a controller for all; `building` asks the controller for tenants and networks and each
host's runtime for its `containers`, which it attaches by the agent's contract. `check` reads from the runtimes where
the containers are and from the controller who has which address, `plan` lists every ordered pair, `probe` sends all
packets at once from sockets that were made inside the containers, `matrix` shows it.
`cleanup` needs nothing but the directory: it kills whatever lives in the lab's namespaces and in its hosts' cgroups,
unmounts, removes.

Limits: a lab is one machine with one kernel; nothing touches the machine's own network namespace, so a lab has no way
out, and images come from files.
"""
