"""The supervisor: launches containers, is their parent, copies their output, and records how they end.

Vocabulary
    keeper      the parent of supervisors; it holds, reaps and forks, and does nothing else (`keeper`, `held`)
    spawner     a child of the supervisor that makes containers' first processes (`spawner`), one of a few (`spawners`)
    borrowing   a first process has the spawner's memory until it executes (`runtime.vfork`), or a copy of it
    entry       a container's file in the run directory: what whoever comes next must know (`journal`, `adoption`)
    gate        a socket pair with a container's process until it executes its command (`channel`)
    let go      given a process; a container waits for it while its network namespace is attached
    record      the file `exit` in the container's directory (`exits`)
    bell        a pipe by which a follower of a log learns that there is more (`log_pump`)
    execution   a further process in a container (`executions`, `entry`)

A container's walk: `launch` (`requests`) → `launching`: entry, cgroup, pipes, descriptors to the keeper; a network
namespace of the spawner's to the client → `go`: a process of the spawner's, which builds, gives its rights up and
executes; the gate's end of file says that the command runs; so does then the entry, and after it the answer → output by
splice(2) into the log → the pidfd says that it ended → `ending`: drain, record, reap, tell; then the cgroup goes →
`forget`: the entry goes.

What a kill at any point leaves is decided by what was written first: an entry without `runs` is undone; one with it has
a process, a zombie whose code the keeper learns, or a record. A spawner that dies amid an order costs nothing: what it
had begun is ended, and another one gets the order. Output lies in pipes that the keeper holds. A second kill, of the
keeper, makes the supervisor the keeper; only both at once cost something: a terminal, and the codes of containers that
end before the next pair is there, where nobody can tell them.

Processes: all are `python3 -I -S` with the standard library alone, one thread each, forks of the keeper. The containers
are the supervisor's own children, and a spawner has nothing that is worth keeping. A container costs three descriptors
here and two in the keeper, some memory, and no process. Limits, each named where it is enforced: requests and output of
a connection, open logs, the time a launch has, descriptors of the process (a launch beyond them is refused). Output of
a terminal cannot be spliced: a kill between reading and writing loses up to 64 KiB of it.
"""
