"""What images are called: `repository:tag` as people write it, and digests. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sdn.model.errors import HawseError, invalid, not_found

DEFAULT_TAG = "latest"
REPOSITORY_CHARACTERS_MAX = 255
PREFIX_CHARACTERS_MIN = 2
"""Of an id: one character is more likely to be a slip than a choice."""
SHORT_ID_CHARACTERS = 12

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?P<repository>(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PREFIX = re.compile(rf"(?:sha256:)?([0-9a-f]{{{PREFIX_CHARACTERS_MIN},64}})")


def parse_name(text: str) -> str:
    """A name as it is kept, the tag filled in. Source: OCI distribution specification, "Pulling manifests".

    Raises: INVALID.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        hint = "write it as repository:tag, in lower case, e.g. web:1.2"
        lowered = _NAME.fullmatch(text.lower())
        raise invalid(f"{text[:300]!r} is no name of an image", f"did you mean {text.lower()}?" if lowered else hint)
    if len(match["repository"]) > REPOSITORY_CHARACTERS_MAX:
        raise invalid(
            f"the repository {match['repository'][:40]}… has {len(match['repository'])} characters",
            f"at most {REPOSITORY_CHARACTERS_MAX} are taken",
        )
    return f"{match['repository']}:{match['tag'] or DEFAULT_TAG}"


def is_digest(text: object) -> bool:
    """Whether this is `sha256:` and 64 hexadecimal digits, the one algorithm that is taken."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def short(image: str) -> str:
    """An id as people see it."""
    return image.removeprefix("sha256:")[:SHORT_ID_CHARACTERS]


def find(reference: str, names: dict[str, str], digests: dict[str, str], ids: Iterable[str]) -> str:
    """The id of the one image that is meant: by name, digest, prefix of its id, or the end of one longer name.

    Raises: INVALID (more than one is meant), NOT_FOUND, with the nearest name.
    """
    known = set(ids)
    if reference in known:
        return reference
    digest = reference.rpartition("@")[2]
    if is_digest(digest) and digests.get(digest) in known:
        return digests[digest]
    name = _NAME.fullmatch(reference)
    full = f"{name['repository']}:{name['tag'] or DEFAULT_TAG}" if name else ""
    if names.get(full) in known:
        return names[full]
    prefix = _PREFIX.fullmatch(reference)
    meant = {image for image in known if prefix and image.startswith(f"sha256:{prefix[1]}")}
    if not meant and full:
        meant = {image for name, image in names.items() if image in known and name.endswith(f"/{full}")}
    if len(meant) == 1:
        return meant.pop()
    if meant:
        raise _ambiguous(reference, sorted(meant), names)
    raise _missing(reference, full, names)


def _ambiguous(reference: str, meant: list[str], names: dict[str, str]) -> HawseError:
    called = [next((name for name, image in names.items() if image == one), short(one)) for one in meant[:4]]
    return invalid(f"{len(meant)} images are meant by {reference!r}: {', '.join(called)}", "write more of it")


def _missing(reference: str, full: str, names: dict[str, str]) -> HawseError:
    import difflib  # only after a mistake: 5 ms

    repositories = {name.rpartition(":")[0] for name in names}
    repository = full.rpartition(":")[0] or reference
    near = difflib.get_close_matches(repository, sorted(repositories), n=1, cutoff=0.6)
    if near:
        hint = f"did you mean {min(name for name in names if name.rpartition(':')[0] == near[0])}?"
    else:
        hint = "'hawse image load FILE' brings one from an archive, 'hawse image ls' lists those that are here"
    return not_found(f"there is no image {reference!r}", hint, image=reference)
