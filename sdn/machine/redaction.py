"""What must not leave a machine is taken out of texts that do: keys, tokens, credentials, whatever is known as one."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from sdn.model.token import PREFIX
from sdn.service.roots import Root

GONE = "(removed)"
SECRET_CHARACTERS_MIN = 8
"""Shorter ones would take half of a text with them, and nobody is protected by such."""
_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), GONE),
    (re.compile(rf"({PREFIX}(?:join|user)-)[0-9A-Za-z]+"), rf"\1{GONE}"),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)[^\s'\",]+"), rf"\1{GONE}"),
    (
        re.compile(r"""(?i)((["']?)\b[\w-]*(?:secret|passw(?:or)?d|token|credential|private_?key)\2\s*[=:]\s*)"""
                   r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,}\]]+)"""),
        rf'\1"{GONE}"',
    ),
    (re.compile(r"\b[0-9a-z]{26}:[0-9A-Za-z_+/=-]{16,}"), GONE),  # HOSTID:SECRET
)  # fmt: skip


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """The text without what looks like a secret, and without those that are known."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SECRET_CHARACTERS_MIN:
            text = text.replace(secret, GONE)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def secrets_of(root: Root) -> set[str]:
    """Every secret that is kept in files of a root."""
    found: set[str] = set()
    try:
        identity = json.loads(root.agent_file.read_bytes())
        found |= {str(value) for key, value in identity.items() if "secret" in key}
    except (OSError, ValueError, AttributeError):
        pass  # there is none, or it is damaged: then it is not in the bundle either
    for path in _files(root.tls):
        found |= _key_lines(path)
    return found


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()] if directory.is_dir() else []


def _key_lines(path: Path) -> set[str]:
    """The lines between the marks of a private key."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return set()
    found, inside = set(), False
    for line in lines:
        if "PRIVATE KEY-----" in line:
            inside = line.startswith("-----BEGIN")
        elif inside:
            found.add(line.strip())
    return found
