"""The REST resources, one module each; what a module holds in `ROUTES` is served and described.

Vocabulary
    reference   how a path names a resource: an id, a name (of tenant `default`, or of the caller's own) or
                `tenant/name`, percent-encoded
    scope       what the caller sees: all that a handler has where tenants' users may ask (`sdn.controller.scope`)
    page        a part of a list: `items`, `revision`, and `next`, the cursor for `after`
    revision    of a resource: at which it was last changed; If-Match takes it, `ETag` gives it
    spec        what a user writes (`sdn.controller.specs`); an unknown field in it is refused

One request's walk: who asks is known and may (`Route.access`), and the request is decoded into a `Call`, or a
`ScopedCall` where tenants' users may ask; a handler here asks the core, or the scope alone, and shows what it gave
(`sdn.controller.view`) in a `Reply`. Handlers raise `HawseError` and know no HTTP.

Semantics: POST creates (201, or 409). PUT makes it so: 201 created, 200 where it is so already, 409 with
`facts.difference` where it is not, unless If-Match has its revision (412 where that is stale). DELETE of what is
absent succeeds (204). Every write's reply carries `Hawse-Revision`: what `/v1/status?revision=R&wait=S` waits for.
"""
