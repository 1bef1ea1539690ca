"""The bridge datapath: a namespace per tenant, in it a bridge and a VXLAN device per network, nothing ever flooded.

Vocabulary
    tenant namespace  pinned at <run>/netns/t-TENANT; bridges, VXLAN devices, host ends of veths, gateway addresses and
                      the guard live in it. The VXLAN devices' UDP sockets stay in the host's namespace ("here")
    carrier           a VXLAN device: hwxVNI over an IPv4 underlay, hwyVNI over an IPv6 one
    proxy             the one carrier of a network that takes broadcast and answers ARP and ND from its neighbours
    station           a MAC of a network, here or elsewhere: its forwarding entry, and its VTEP
    guard             nft sets, before any link is up: a port speaks only for its own addresses
    doomed            out of service, nameless and in a link group of ours: a worker deletes it in its own time

One attachment's walk. `lower` makes of the endpoint a guard port, a port, a station and neighbours. `write` adds the
guard's elements; one batch in the tenant's namespace makes the veth with its other end born in the container's, sets
the port's switches while it is down, brings it up, and sets forwarding entry and neighbours; one batch on a socket
inside the sandbox gives addresses and brings it up. Detaching: one batch takes the neighbours and the entry away,
brings the port down and dooms it; the inside end is brought down and renamed; then the guard's elements go.

One packet's walk. A container's ARP request or neighbour solicitation passes the guard, the bridge gives it to the
proxy alone, which answers from its neighbours or drops it. Its frame to a station here goes by the forwarding entry;
to one elsewhere it goes to the carrier, whose own entry names the VTEP. The other host's underlay guard takes it only
from a member of that VNI. Where an address gets another MAC, the network's containers here are told so (`announce`).

Limits: 1000 endpoints per network and host (a bridge has 1023 ports). The inside is written once, at ADD. Two hosts
that share no family of underlay address do not reach each other. A foreign write that is hidden among our own within
the same millisecond is seen by the next full read only.
"""
