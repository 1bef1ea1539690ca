"""OpenFlow: what a switch is told, as values; how it is told, as bytes; and a session that does no I/O itself.

Vocabulary
    message   one OpenFlow 1.3 message, a frozen value; `messages` makes values of bytes and bytes of values
    session   hello, features, echo, barriers, errors matched to requests, bundles: bytes in, events out; no sockets
    flow      one entry of a switch's tables: table, priority, match, actions, cookie
    object    what a unit lowers to: a speaker, a station, a neighbour, a member, a network; it expands to flows
    cookie    whose a flow is: an endpoint's, or a cause's of a drop; all of ours begin with the same 16 bits

Where: `flow` and `fields` (values), `encode` and `decode` (bytes), `messages`, `session`, `connection` (asyncio);
`tables`, `cookies`, `objects`, `lower`, `expand` and `recognise` (the pipeline). A host's agent and the controller, which programs switches
without an agent, use the same of it.
"""
