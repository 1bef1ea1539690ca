"""runtime runs: images become root file systems, a small supervisor clones containers, and a daemon decides which.

Vocabulary
    plan        what the daemon tells the supervisor to launch, every path resolved (`plan`)
    layer       a directory of an image, unpacked once (`image`)
    supervisor  launches, holds and reaps containers; with its keeper it outlives the daemon (`supervisor`)
    daemon      `hawse runtime`: states, names, policies, networks by the attach contract (`daemon`)

A container's walk: the daemon resolves its image and makes the plan; the supervisor clones it into namespaces and a
cgroup (`cgroup`, `hierarchies`) while the agent attaches it; `capabilities` and `seccomp` say what it may; what it
writes goes into a log that followers read without anybody's help. Each package's page says more.

Limits: `supervisor` and what it imports is the standard library alone; `syscall` is the only place that calls C there.
"""
