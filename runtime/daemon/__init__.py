"""The runtime's daemon (`hawse runtime`): it decides; the supervisor holds the processes; the agent wires them.

Vocabulary
    container   a specification with an id, a name, a directory and at most one living start
    run         a start, counted from 1: exits, waits and log positions say which one they are of
    record      `container.json`: what must outlive the daemon. Written whole, before what it announces is begun
    wish        whether a container should run; a user's stop takes it away, an exit does not
    attachment  an interface that was asked of the agent and not given back yet; it is recorded before it is asked for

States
    created ──start──▶ running ◀──pause/unpause──▶ paused        exited, dead ──start──▶ running
                       running, paused ──exit──▶ exited, or, where nobody saw how, dead
The table is `states`. Whether a container runs is the supervisor's knowledge alone; the record is compared with it.

One container's life
    RUN → `containers` takes a name and a directory → `starting`: the record says `starting`, run 1, its attachments →
    the supervisor gives the network namespace, the agent its interfaces, one after the other → /etc/hosts is written →
    `go`: the supervisor makes the process, and exec has succeeded → the record says `running` → the client has its
    answer and the descriptors of log, bell and input, and needs the daemon no more.
    The process ends → the supervisor writes `exit` and tells → `endings`: the record says `exited`, the supervisor may
    forget it, attachments are given back, whoever waits is told, and `restarts` says whether and when it starts again.

What happens at each death
    the container    as above, whoever killed it; of an out-of-memory kill the exit says so
    the supervisor   its keeper forks the next one; the daemon connects anew and compares lists (`recovery`)
    supervisor and keeper   containers live on; the daemon starts the next pair, which adopts them
    the agent        starts with networks are refused with its name; what was to be given back waits (`releases`)
    the daemon       nothing ends. The next one reads the records and the supervisor's list: a start that had not come
                     to its exec is undone, exits that happened meanwhile are handled as if they had just been told,
                     attachments of no living container are collected
    the machine      what ran is `dead`, as nobody saw its end, and starts again where its policy wants that

A full disk refuses starts. It takes back nothing that has happened and hinders no end: that is known here, and in the
next record that can be written.

Limits: records are flushed to the disk only where a restart policy counts on them, so that a start costs none: after a
power cut others of the last seconds may be missing, and a record that was cut becomes `dead` and says so. 1000 exits
and 1000 events are remembered.
"""
