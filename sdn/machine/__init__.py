"""One machine of a fabric: set up, started, watched, stopped, joined, left, described.

Purpose: a person types `hawse up` on the first machine and `hawse join` on the others, and never starts a daemon, mints
a credential or writes a unit by hand. The daemons know nothing of this package; it starts them as anybody would, as
commands, and imports none of them.

Vocabulary
    machine      what `machine.json` remembers: which daemons this machine runs, and with what options
    daemon       controller, agent or runtime: a process with a pid file, a log in STATE/log and a way to say it serves
    monitor      the process of `hawse up`, in the foreground or detached: starts daemons, and starts them again
    held         an agent that was started before there is an agent.json: it tries the kernel, and waits to be told
    first        a machine with a controller of its own; any other has joined one

`hawse join`, as it happens: agent (held) and runtime are started at once. While they import, the controller's authority
is fetched and compared with the token's fingerprint. When the agent says that the kernel has what a host needs, the
token is used: one request makes the host and its credential. agent.json is written whole and durably (from here on the
machine has joined, whoever is killed), then machine.json, by which commands find the controller; the agent begins.

Who may die: a daemon that ends is started again, later each time it does not serve for a while; what it wired and
ran goes on meanwhile. If the monitor is killed, its daemons go on, and the next `hawse up` watches those that it finds.
With units (`hawse install`) systemd is the monitor.

Limits: one monitor a root. The logs are cut at 16 MiB, one older part of each is kept. An address that was chosen by
the route is chosen anew at each start: hosts that joined under the old one keep that.
"""
