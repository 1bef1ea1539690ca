"""Images: what containers are made of, kept below `<state>/images`, brought by archives, never fetched.

Vocabulary
    image       a configuration (JSON, kept byte for byte) and the layers that it lists; its id is the configuration's
                sha256
    name        `repository:tag`, of one image at a time; an image may have several, or none
    layer       what an archive adds to the layers below, unpacked once as a tree that overlayfs takes as it is
    diff id     the sha256 of a layer's archive, uncompressed
    chain id    the name of a layer with all that is below it: a layer is stored under it
    recipe      what, with the tree, gives a layer's archive again to the byte: its headers, and where contents belong
    worker      a process of its own for one load, import or save; the daemon's loop only listens to it

On disk: `records/<id>` (a configuration: the image is there), `names.json`, `layers/<chain id>/{fs,recipe,spare,
layer.json}`, `host/` (the skeletons of the pseudo-image), `tmp/` (locked by the worker that fills it), `trash/` (out of
reach, to be deleted). All below a directory that only root enters: what an image's set-id files and devices are, they
are to nobody on the host; in a container no_new_privs and a root that is mounted nodev make them harmless.

A load's walk: the daemon has a descriptor from the client and starts a worker with it (`verbs`, `worker`). `contents`
finds out what it is: a directory, a file that can be read anywhere (its headers are read, then what is needed), or a
stream, whose layers are unpacked as they come by, so nothing is spooled. `manifest` plans: which images, for this
machine, of which blobs. For each layer that is not there: a thread reads, inflates and hashes (`stream`), `tar` parses,
`unpack` writes, confined to the tree by chroot (`confine`), `recipe` notes what a save will need. Digest, diff id and
size are compared; `inherit` settles with the layers below what the archive leaves open; the tree gets its chain id by a
rename. The file system is synced, then the configuration and the names are recorded: only now the image exists.
Whatever fails before leaves nothing: the worker removes its own, and who waits for it what a killed worker left.

A save's walk: recipes and trees give each layer's archive again, in an archive that is an OCI layout and `docker
save`'s at once; the diff id is checked while it is written. That was preferred to keeping the archives: they would cost
as much as the trees, compressed ones nearly half, and a recipe costs half a percent.

Two loads may bring the same layer at once: who is second finds the name taken and drops its own. While somebody loads,
no layer is collected (`layers`).

Limits: 250 layers, 2 million entries a layer, 8 MiB of a configuration or manifest, sha256 alone, gzip and zstd. A
layer in which a link to a directory is replaced after files were written through it cannot be saved again; it says so.
"""
