"""What every datapath of veths shares: a container's interface is one end, the other is the host's.

Vocabulary
    host end      hwv…, in whatever namespace the datapath has its ports; its alias says whose it is
    inside end    born in the container's namespace, with the number of the host end; finished at ADD, never after
    doomed        out of service, in a link group of ours: the removal's worker deletes it in its own time
    change        an address that has another MAC from now on; whoever knew the old one is told (`announcement`)

One walk. `IndexSource` gives a number, one request makes both ends with it, `inside.finish` gives addresses. At the end
`ports.doom` silences the host end, `inside.free` gives the name back, `Removal` deletes by the hundred.

Limits: the inside is written once, at ADD.
"""
