"""Datapaths: what is programmed on a host. Each is one folder with objects, lower, read and write.

Vocabulary
    datapath    an implementation of `sdn.reconcile.datapath.Datapath`
    objects     its frozen values and their keys: (kind, tenant, …)
    lower       pure: a unit to objects
    read        the kernel or the switch to the same objects
    write       operations on objects to requests

A new datapath is one folder of those files, one line in `registry` and one parameter of the conformance tests.
"""
