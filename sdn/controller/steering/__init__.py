"""Steering: the controller programs switches that have no agent, over OpenFlow, as an agent programs its host.

Vocabulary
    listener  where switches connect, in TLS or (on request) plainly; bounds strangers in number and time
    pilot     what an agent is to a host: one for each connected switch, in the controller's process
    port      of the switch: by name or number; what is bound to it is an endpoint whose `ifname` is that

A switch's walk. It connects; within some seconds hands are shaken, and it says its datapath id. The listener looks up
whose that is and whether the certificate shown is the one that was made for it. A pilot then reads its ports and flows,
says hello to the core as an agent would, and is sent the same topics. Its world names dirty units, the loop of
`sdn.reconcile` lowers and compares them, and what differs leaves in a bundle, queued at once: the loop does not wait.
When the switch has done it, the report goes to the core, so that status and `--wait` see it like any host.

What the switch refuses later is remembered: the flows are read again, and the object's next attempt meets the refusal
as its failure. A port that is not there is a failure until a port-status says that it is.

Who dies: the controller leaves everything as it is, and reads it when the switch comes back; a switch that restarts has
forgotten everything and gets it in one bundle. Nothing is ever flushed, and flows that are not ours are not looked at.

Limits: a switch that is a host too slow for its bundles is cut off and reads again. No packet is ever sent up to the
controller: what a flow cannot answer is not answered.
"""
