"""The agent: one per host. It holds the stream to the controller, serves the attach contract, and makes the world real.

Vocabulary
    channel     one connection to the controller: whole messages in, whole messages out
    session     the conversation on the channels, one after another: hello, welcome, deltas, requests, reports
    wiring      the world (what the controller wants of this host) and its reconciler, as one thing that never awaits
    sandbox     a container's network namespace, known by its cookie; a descriptor of it is held during ADD and DEL only
    expected    a sandbox that an ADD in progress has handed over, by (container, ifname): when the endpoint of that key
                comes down the stream it is wired into it at once, by the same loop that does everything else
    release     an endpoint id that this host gave back; in the journal until the controller has confirmed it
    gone        an endpoint of this host that cannot be wired, for its namespace died or was never handed over

An ADD's walk: `attachments` takes the request and the descriptor → the sandbox becomes expected → an AttachRequest goes
up → the deltas and their Sync come down, `wiring` applies and reconciles them at once → Attached comes (after them, by
the stream's order) → a unit that failed is released again and ADD fails; else Settled is waited for, 20 ms at most.

A DEL's walk: the endpoint is withdrawn from the world and its unit reconciled (silence on the wire) → the release is
journalled and sent → the answer leaves when the controller has confirmed, or is away.

Who owns what: all state is changed on the event loop's thread; only journal writes, kernel reads and counters leave it.

Limits: with the controller away nothing is added, everything else answers. A restarted agent removes nothing before the
first snapshot is whole. GC needs a snapshot, for the kernel does not remember whose an attachment is.
"""
