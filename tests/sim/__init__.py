"""The simulator: a controller and its hosts in one process, where everything that can go wrong does, from one seed.

Vocabulary
    world       one controller, some machines, clients and administrators, and what is drawn by chance
    life        one process, from start to death: what it began dies with it (`virtual_time.Life`)
    machine     a host: a fake kernel and a journal's file, which last, and an agent, which comes and goes
    centre      where the controller runs: a disk, which lasts, and a core, which comes and goes
    wire        a connection between an agent and the controller; in order, slow, and cut at either end's own time
    slot        a place for an attachment, and what its client was told of it: there, absent, or nothing certain
    happening   one thing that is done to the world; `happenings` has the table of weights

What is real: the controller's core, the agents' cores, reconcilers and journals, every message's bytes. What is not:
time (virtual: it passes when nobody has anything to do), threads, sockets, disks and kernels.

One walk: `happenings` draws an attach, `clients` asks the machine's agent, the agent's request travels the wire to the
core, whose commit takes its time (and may fail, or be in doubt when the controller dies); `invariants.Disks` judges the
disk after every commit, `machine.WatchedDatapath` every write of a kernel, `clients` every answer. In the end all
heals, a minute passes, and the disk, the memory, the kernels, what packets would do and what clients were told are
compared; then everything is removed, and nothing may be left.

A failure prints its seed: `python -m tests.sim SEED` shows that world again.

Limits: one controller at a time (rivals are in `tests/unit/test_controller_laws`), and the fake's kernel (that the
real one behaves alike is the conformance kit's part).
"""
