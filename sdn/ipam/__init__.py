"""IPAM: which subnet, which address, which MAC, which VNI. Pure: integers inside, text at the edge, no I/O.

Vocabulary
    address space   the addresses of one subnet: who may have one, which are taken, which comes next
    fixed           never given out: network and broadcast address, gateway, reserved addresses
    cursor          where the search for the next address goes on: next-fit, so that a freed address comes back late
    held            a VNI whose network is gone, but not yet from every host

One allocation's walk: `subnet.validate_subnet` has turned a request's text into a `resources.Subnet`;
`pool.AddressSpace.of` makes the space of it, at start with the addresses that the store holds; `take()` asks the
`bitmap` for the next clear bit after the cursor; `mac.default_mac` makes the MAC from what came out. `choice` finds a
subnet in the pools for a network that named none, and `vni` its VNI.

Everything takes constant time: a bitmap has a summary level per 1024 words, and only the words that hold something are
in memory, so that a /8 and an IPv6 /64 are alike. What is decided here becomes true when the store has committed it:
the unique keys there, not these sets, are what makes a duplicate impossible.
"""
