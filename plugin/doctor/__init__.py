"""`hawse doctor`: what is wrong with this machine, what follows from it, and what to type.

Vocabulary
    facts       what was gathered of one matter (the kernel, the firewall, the underlay, the fabric …): frozen values
    judgement   a pure function from facts to findings; no I/O, so the tests need no broken machine for each of them
    finding     one verdict: what was found, what follows, what to type
    path        this host to another one, by one family of addresses: probed in both directions

One walk: the agent is asked over its socket how this host is, and has the controller make the other hosts answer probes
for some seconds. The doctor enters the agent's network namespace if it was started in another one. Then everything is
gathered side by side, each matter in a thread: kernel features tried in a namespace, /proc read, the nftables ruleset
walked with synthetic tunnel packets, the own address asked for on the segment, probes of all sizes to every other host,
the controller spoken to over a connection of its own. Judgements, a table, an exit code.

Without an agent the machine alone is examined; without root, what root is not needed for. Both are said. Nothing is
changed, but for a namespace that is made and removed.

Limits: the walk through a ruleset is conservative: where a rule is not understood it says `may drop`, and the probe has
the last word. A firewall on the way, on another host, is not read, only probed. Rules of eBPF programs are not read.
"""
