"""OpenFlow: what a switch is told, as values; how it is told, as bytes; and a session that does no I/O itself.

Vocabulary
    message   one OpenFlow 1.3 message, a frozen value; `messages` makes values of bytes and bytes of values
    session   hello, features, echo, barriers, errors matched to requests, bundles: bytes in, events out; no sockets
    flow      one entry of a switch's tables: table, priority, match, actions, cookie
    object    what a unit lowers to: a speaker, a station, a neighbour, a member, a network; it expands to flows
    cookie    whose a flow is: an endpoint's, or a cause's of a drop; all of ours begin with the same 16 bits

Where: `flow`, `fields` and `match` (values), `encode`, `decode` and `template` (bytes), `text`. `tables`, `pipeline`,
`cookies`, `objects`, `lower`, `expand`, `removal` and `recognise` are the pipeline; `tables` has a frame's walk through
it. `framing`, `messages`, `notices` (what comes unasked), `multipart`, `bundle`, `errors`
are the protocol's values, `requests` and `session` its rules, `connection` is asyncio's side. A host's agent and the
controller, which programs switches without an agent, use the same of it.

One walk: `Connection.bundle` has groups of encoded flow-mods. A `BundleRun` makes OPEN, ADDs, CLOSE and a barrier of
them; `Connection` writes these as they are made, while the switch reads. Errors come back with the xid of an ADD, so
which group they are of is known; the barrier's answer says that there are no more. COMMIT, or DISCARD and once more
without the refused, then a second barrier: each group has its verdict.

Limits: OpenFlow 1.3 only; bundles need ONF's EXT-230, which Open vSwitch has. What a bundle that was not answered in
time has done is not known: read, or connect anew.
"""
