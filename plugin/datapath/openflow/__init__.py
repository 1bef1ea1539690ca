"""The OpenFlow datapath: the host's Open vSwitch, told over its management socket what each frame may do.

Vocabulary
    hwint     the bridge of ours that has the containers' ports and, as `hwvxlan`, all tunnels of all networks
    way       out and in: with the userspace datapath a veth and a second bridge, `hwphy`, between the switch's tunnels
              and the kernel, which keeps the uplink, its neighbours and its routes
    row       of Open vSwitch's database: it remembers whose a port is, and whose a VNI
    number    of a port; ours to choose, so that flows can be sent while the switch still opens the device
    away      a switch that has not answered in time: whatever is asked of it fails at once, until it is back
    stray     a flow with our mark that nothing explains

Where: `objects`, `lower`, `read`, `write` (with `veths`, `links`, `memory`) are what the loop sees; `vswitch` is the
switch for them, and behind it one thread with an event loop (`switch`, `session`, `ports`, `infrastructure`, `way`,
`splice`, `guard`). What flows an object has is `sdn.openflow`, which programs switches without an agent, too.

One attachment's walk. `lower` makes of the endpoint a port, a speaker, a station and neighbours. `write` has one batch
make the veth, its other end born in the container; tells the database of the port, and while the switch opens it, sends
all flows in one bundle; waits for the port's number, and gives the inside its addresses. Detaching: the host end goes
down, which is silence, the inside's name is free; flows and row go together; the link is deleted by a worker.

One packet's walk is `sdn.openflow.tables`. Beyond the tables: a container computes its checksums itself, for nobody on
the way would; the host's own stack takes no frame of a host end (`guard`); a tunnel packet of ours is handed to the
switch on arrival, every other overlay's to the kernel as before.

After a restart of the switch everything of ours is gone from it but the database's rows: the connection is made again,
bridges, way and the pipeline's flows are restored, and the loop's full read writes the rest in one bundle. An agent's
restart writes nothing.

Limits: a foreign flow in a table of ours is left alone and may change what happens. What the switch counts is up to
half a second old.
"""
