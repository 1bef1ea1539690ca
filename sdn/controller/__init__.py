"""The controller: requests in, transactions out, and what follows from them for every host.

Vocabulary
    core        resources, revisions, topics and sessions; no socket, no clock (`core.Core`)
    edge        what the sockets need beside the core: identity, addresses, counters (`edge.Edge`)
    route       one method of one path, with the types of its body and reply; the table makes the server and its
                description (`/openapi.json`) alike, so they cannot disagree
    call        one request, checked and decoded, as a handler gets it
    stream      a host's conversation: one WebSocket over TLS, bytes to and from a `HostStream`

One request's walk: a client connects to the unix socket (0600: its mode is the whole of the authorisation), `server`
finds the route, `call` checks the query, the headers and the body (size, type, shape), a handler in `rest/` asks the
core, and its reply goes out as JSON with the revision in `Hawse-Revision`. Whatever is raised becomes one problem
document in `problem`; a fault of ours is logged with its traceback and shown without.

One stream's walk: an agent opens TLS, checks the pinned certificate, sends its credential; `stream` authenticates it,
then one task writes what the core has for it and one reads what it says, until either ends.

Limits, each named where it is enforced: a body's bytes and time, a header's size and time, a page's items, streams of
events, a stream's message, handshakes under way.
"""
