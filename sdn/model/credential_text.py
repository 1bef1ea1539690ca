"""Texts that are shown or kept, without credentials that somebody put where none belongs: into a name, an address."""

from __future__ import annotations

import re

HIDDEN = "…"
_CREDENTIALS = re.compile(r"(hawse-(?:join|user)-)[0-9A-Za-z-]{8,}|\b([0-9a-z]{26}:)[0-9a-f]{64}\b")


def hide_credentials(text: str) -> str:
    """The text, with HIDDEN for what is secret of tokens' words and of hosts' `HOST:SECRET`."""
    return _CREDENTIALS.sub(lambda found: (found[1] or found[2]) + HIDDEN, text)
