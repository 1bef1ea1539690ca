"""The store: keys, compare-and-swap transactions, one revision per transaction, a change log, watch. etcd's meaning.

Vocabulary: a *record* is a key's value with the revisions at which it was created and last modified; a *transaction*
compares modification revisions (0: absent) and writes all or nothing; a *change* is what one transaction did, kept in
the log until it is compacted. Soft state (heartbeats, reports) has no revision and does not survive a restart.

`interface` is the contract, `conformance` the kit that every store has to pass, `sqlite` the embedded default.
"""
