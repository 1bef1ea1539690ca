"""The controller: requests in, transactions out, and what follows from them for every host.

Vocabulary
    core        resources, revisions, topics and sessions; no socket, no clock (`core.Core`)
    edge        what the sockets need beside the core: identity, addresses, counters (`edge.Edge`)
    route       one method of one path, with the types of its body and reply; the table makes the server and its
                description (`/openapi.json`) alike, so they cannot disagree
    call        one request, checked and decoded, as a handler gets it
    principal   who asks: a user by a token, a host by its secret, or nobody; `access` is what a route asks
    admission   tokens made, shown and ended, and machines that become hosts by them (`admission.Admission`)
    gate        before the TCP listeners: what a connection may take and cost until it has shown a credential
    steering    switches without an agent: where they connect, and who programs each (`steering`)
    stream      a host's conversation: one WebSocket over TLS, bytes to and from a `HostStream`

One stranger's walk: `acceptor` takes the connection, the `gate` waits for a first byte, has the handshake begun when it
is its turn, and bounds headers, body and time; the `governor` (pure) says who goes when there are too many, the
`throttle` (pure) how late a refusal is told. With its first good credential the gate is out of the way.

One request's walk: a client connects to the unix socket (0600: its mode is the whole of the authorisation) or over TLS,
`server` finds the route, `authentication` finds out who asks and whether the route is open to them, `call` checks the
query, the headers and the body (size, type, shape), a handler in `rest/` asks the core, and its reply goes out as JSON
with the revision in `Hawse-Revision`. Whatever is raised becomes one problem document in `problem`; a fault of ours is
logged with its traceback and shown without.

One change's walk, in the core: `plan_…` (pure) turns the request and the `state` into one transaction, the `ledger`
commits it (one writer; a plan that lost a race is made once more) and applies its writes to the state, which says what
changed (`effects`); `topics` makes one delta per topic of that, the `fleet` puts it, encoded once, into the `outbox` of
each host that holds the topic, and `settling` hears from the hosts when they have followed. What a host is sent depends
only on the state and on what it has: a slow or returning host gets the difference, coalesced.

One token's walk: made (its word goes out once, its hash is kept), shown (by the hash of the whole word: whatever part
is altered, it is unknown), and ended: used by a join, revoked, out of time, its tenant removed. What it has open
(`open_requests`) ends with it; so does a host's stream with the host's secret.

One stream's walk: an agent opens TLS, verifies the controller by its authority, sends its credential, which is looked
at as any other; then one task writes what the core has for it and one reads what it says, until either ends.

Limits, each named where it is enforced: a body's bytes and time, a header's size and time, a page's items, streams of
events, a stream's message, handshakes under way.
"""
