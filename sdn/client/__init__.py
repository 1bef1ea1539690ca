"""The REST client: the standard library alone, and of it little, because every `hawse` command pays for it.

Vocabulary
    address     where the controller listens: `unix:/run/hawse/controller.sock` (`sdn.service.roots` finds it)
    reply       status, headers (lower case) and the decoded JSON body
    page        a part of a list; `next` in it is the cursor of the following one

One request's walk: `Client.get("/v1/networks")` opens the socket, `http.request_bytes` writes one HTTP/1.1 request with
`Connection: close`, `http.ReplyReader` reads status, headers and body (Content-Length, chunked, or up to the end), and
a problem document (RFC 9457) becomes the `HawseError` that the controller raised, with its kind, hint and facts.

Limits: one connection per request; no TLS, no redirects, no compression (the controller's REST API lives on a unix
socket and sends none); a body of at most 256 MiB; who follows events reconnects with the id of the last one.
"""
