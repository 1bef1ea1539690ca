"""The values that every other package speaks in: resources, ids, errors, and the messages of the two protocols.

Vocabulary
    tenant      an address space and an owner; nothing crosses between tenants
    network     an isolated segment of one tenant: VNI, subnets, MTU
    host        a machine, or in a lab a network namespace, that runs an agent
    endpoint    one interface of one container in one network; key (host, container, ifname)
    allocation  (network, address) -> its holder
    topic       a named part of the state that a host is sent: `network/ID`, `tenant/ID`, `host/ID`
    revision    raised by one with each committed transaction

One request's walk: a front end's bytes become a `contract` message, the agent turns it into a `stream` request, the
controller answers with `resources` in `stream` deltas. All of it is frozen, none of it does I/O, and constructors and
`parse_…` functions are the only way in: what exists is valid.
"""
