"""What every daemon shares: where its files are, how it starts and ends, and how a local socket is served.

Vocabulary
    root        a pair of directories, `state` (kept) and `run` (gone with the machine); `--root DIR` moves both, so
                that hosts and labs live side by side on one machine
    frame       one message on a local socket: 4 bytes of length, big-endian, then JSON
    descriptor  a file descriptor that came with a frame's first byte (SCM_RIGHTS): a container's namespace

A daemon's walk: `find_root` → `Daemon.run` makes the directories, takes the pid file's lock (a second daemon of the
same root is refused with the first one's pid), sets up the log and the signals and calls the daemon's coroutine; that
one serves, calls `ready()` once, and returns when `stopping` is set.

A request's walk: `ContractServer` accepts, reads a frame and the descriptor that came with it, calls its handler,
writes the reply and closes the descriptor, whatever happened. One connection carries one request after another;
connections are served side by side. `contract_client` is the other end, with nothing but the standard library.

Limits (each named where it is enforced): a socket's path, a message's bytes, one descriptor per request, the time in
which a begun request must be complete, the time a handler has, the number of connections.
"""
