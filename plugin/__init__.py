"""plugin wires: the agent of a host, its datapaths, and the hands that touch the kernel.

An attach's walk: a front end's ADD arrives on the agent's socket with the container's namespace as a descriptor; the
agent asks the controller for an endpoint; its deltas come down the stream; the reconciler lowers the dirty units and
the datapath writes them; the reply leaves when the unit is applied and the other hosts have acknowledged.
"""
