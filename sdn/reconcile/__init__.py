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
"""
