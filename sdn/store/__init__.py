"""The store: keys, compare-and-swap transactions, one revision per transaction, a change log, watch. etcd's meaning.

Vocabulary: a *record* is a key's value with the revisions at which it was created and last modified; a *transaction*
compares modification revisions (0: absent) and writes all or nothing; a *change* is what one transaction did, kept in
the log until it is compacted. Soft state (heartbeats, reports) has no revision and does not survive a restart.

`interface` is the contract, `conformance` the kit that every store has to pass. `sqlite` is the embedded default:
`database` opens the file (lock, settings, the sentence for every error), `migration` its schema, `writer` the
transactions, `sqlite` the threads. `memory` is the fake for tests of the core. Both share `limits` and `feed`.

One commit's walk: `limits` refuse what is too large; with whatever else is begun it goes to the `writer`, on the loop
while the disk is quick and on a thread otherwise, which compares and writes each in turn and syncs once; the loop
publishes the changes to the `feed` and answers.

Limits: 100 operations and 1 MiB per value in a transaction; the log keeps the newest 10 000 changes; one process; a
caller that is cancelled does not know whether its transaction took effect.
"""
