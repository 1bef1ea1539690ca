"""Reconciling: from desired units to objects, to differences, to writes, and back to what is there.

Vocabulary
    unit      what is reconciled at a time: a tenant, a network or an endpoint present on the host
    object    one thing in the kernel or the switch that a unit lowers to: key -> frozen value
    lower     unit -> objects; pure, depends only on the unit and the headers that it names
    mirror    what was last read or written; patched by notifications
    rank      the order of writing: creations upward, deletions downward

A change's walk: a whole transaction enters the `world`, which names the dirty units; the loop lowers each, compares
with the mirror only under the keys that those units have or had, orders the operations by rank, writes, and patches
the mirror by what succeeded. A full read happens at start, after a lost notification or a failed write, and every few
minutes. Six laws hold on the fake and on every real datapath; `laws` states them.

Where: `topics` (one transaction of the stream) and `world`; `desired`, `diff`, `survey`, `failures` and the `loop` over
them; `fake` (with `fake_objects`, `fake_text`, `fake_forwarding`), `faults`, `state` and `laws` for whoever tests a
datapath; `reach`, the oracle of who may reach whom; `journey` (what to ask the hosts on a packet's way) and `explain`
(the walk through one host's tables, of which each datapath only looks the entries up).

Limits: a failed write is tried again three times, then by the periodic read. A thing that was deleted and made again
may take others with it unseen: its tenant is read again. An endpoint of this host whose namespace is gone cannot be
mended, only released. The first reconcile after a start lowers everything on the event loop (10 000 endpoints: about a
second); after that the cost follows the change.
"""
