"""The kernel's own interfaces: netlink, namespaces, nftables; and Open vSwitch's but OpenFlow. Nothing else in plugin
touches them.

Vocabulary
    request     one netlink message before it has a sequence number; functions named after things encode them
    batch       several requests in one send, with an error for each
    row         one message of a dump, decoded by fixed offsets where the kernel writes it always alike
    pin         a bind mount that keeps a namespace alive under a name

One walk: a caller encodes requests (`link`, `neighbour`, `route`: pure), a `NetlinkSocket` that was made inside a
namespace sends them in one batch, and the caller maps errors back to what it wanted. Sockets are made by the one
thread that may change its namespace (`namespace`) and are used from any thread, one at a time.

Limits: sizes in the machine's byte order; only what Hawse needs is encoded; a dump that was interrupted is repeated by
the caller.
"""
