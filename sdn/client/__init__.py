"""The REST client: the standard library alone, and of it little, because every `hawse` command pays for it.

Vocabulary
    address     where the controller listens: `unix:/run/hawse/controller.sock`, or `https://10.0.0.1:4780`
                (`sdn.service.roots` finds it)
    authority   the certificates, in PEM, that a controller on `https:` is verified by; who knows only the fingerprint
                of one (a token holds it) gets it from the controller first and compares (`trust`)
    reply       status, headers (lower case) and the decoded JSON body
    page        a part of a list; `next` in it is the cursor of the following one

One request's walk: `Client.get("/v1/networks")` opens a connection (`local`, or in TLS `remote`), `http.request_bytes`
writes one HTTP/1.1 request with `Connection: close` and, where there is one, the token, `http.ReplyReader` reads
status, headers and body (Content-Length, chunked, or up to the end), and a problem document (RFC 9457) becomes the
`HawseError` that the controller raised, with its kind, hint and facts.

Limits: one connection per request; no redirects, no compression, no proxies; a body of at most 256 MiB; who follows
events reconnects with the id of the last one.
"""
